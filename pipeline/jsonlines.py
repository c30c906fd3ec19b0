"""Strict JSON of what comes off a socket: events (`emograph events --json`, a WebSocket) and snapshots (`top`)."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

_DEEPEST = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def json_line(fields: dict[str, Any], **before: Any) -> str:
    """`fields` of an event (docs/PROTOCOL.md) after `time` (ISO 8601, UTC) and whatever else comes `before` them."""
    time = _EPOCH + timedelta(microseconds=fields["time_ns"] // 1000)
    iso = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return dumps({"time": iso, **before, **fields})


def dumps(value: Any) -> str:
    """A value as one line of strict JSON, whatever it holds."""
    return json.dumps(finite(value), separators=(",", ":"), allow_nan=False, default=repr)


def finite(value: Any, depth: int = 0) -> Any:
    """JSON knows neither NaN nor infinity (None takes their place), and only strings as keys. What is nested more than
    `_DEEPEST` times is left out: nothing of ours is, but other programs send events too."""
    if isinstance(value, dict | list | tuple) and depth == _DEEPEST:
        return None
    if isinstance(value, dict):
        return {str(key): finite(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner, depth + 1) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
