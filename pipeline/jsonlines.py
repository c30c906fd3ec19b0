"""Strict JSON of what comes off a socket: events (`emograph events --json`, a WebSocket) and snapshots (`top`)."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def json_line(fields: dict[str, Any], **before: Any) -> str:
    """`fields` of an event (docs/PROTOCOL.md) after `time` (ISO 8601, UTC) and whatever else comes `before` them."""
    time = _EPOCH + timedelta(microseconds=fields["time_ns"] // 1000)
    iso = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return dumps({"time": iso, **before, **fields})


def dumps(value: Any) -> str:
    """A value as one line of strict JSON, whatever it holds."""
    return json.dumps(finite(value), separators=(",", ":"), allow_nan=False, default=repr)


def finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity (None takes their place), and only strings as keys."""
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
