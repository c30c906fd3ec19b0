"""Durations as people write them: `250ms`, `1.5s`, `2min`, or a number of seconds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler

LONGEST = 10 * 365 * 86400.0
"""Seconds that a duration may have: ten years, so that its nanoseconds are a number like any other."""
_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(rf"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*({'|'.join(_UNITS)})\s*")


def seconds(value: Any) -> Any:
    """`250ms`, `1.5s`, `2min`, `90` -> seconds as a float. Raises ValueError for anything else."""
    found = value
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if not match:
            raise ValueError(f"{value!r} is not a duration such as 250ms, 1.5s or 2min")
        found = float(match[1]) * _UNITS[match[2]]
    if isinstance(found, (int, float)) and not found <= LONGEST:
        raise ValueError(f"{value!r} is longer than ten years" if found > LONGEST else f"{value!r} is no duration")
    return found


class _AsWritten:
    """In JSON Schema a duration is a number of seconds, within the limits of its property, or a text with a unit."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        number = handler(core)
        number.setdefault("minimum", number.pop("ge", 0))  # pydantic's own word before a validator of ours
        return {"anyOf": [number, {"type": "string", "pattern": f"^{_DURATION.pattern}$"}]}


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0), _AsWritten()]
"""Property type for durations: seconds, or a string with a unit."""
