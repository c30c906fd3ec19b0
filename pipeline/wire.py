"""msgpack as every socket of the engine speaks it."""

from __future__ import annotations

from typing import Any

import msgpack


def pack(value: Any) -> bytes:
    """One value of plain types as bytes."""
    data = msgpack.packb(value)
    assert data is not None  # the stub allows for a packer without autoreset
    return data


def unpack(data: bytes) -> Any:
    """The value in `data`; ValueError (or a subclass of it) when it is not exactly one msgpack value."""
    return msgpack.unpackb(data)
