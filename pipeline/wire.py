"""msgpack as every socket of the engine speaks it."""

from __future__ import annotations

from typing import Any

import msgpack


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as the plain numbers in them: nodes compute with them and hand them on."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot travel in a buffer; use plain numbers, strings, lists and maps")


def pack(value: Any) -> bytes:
    """One value of plain types (or NumPy numbers) as bytes. TypeError for anything else."""
    data = msgpack.packb(value, default=_plain)
    assert data is not None  # the stub allows for a packer without autoreset
    return data


def unpack(data: bytes) -> Any:
    """The value in `data`; ValueError (or a subclass of it) when it is not exactly one msgpack value."""
    return msgpack.unpackb(data)
