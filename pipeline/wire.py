"""What the engine's sockets have in common: msgpack, and taking in what is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import zmq

_EVENTS, _READABLE, _NOW = zmq.EVENTS, int(zmq.POLLIN), int(zmq.NOBLOCK)
"""Plain numbers where PyZMQ's enums would be converted at each call."""


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as the plain numbers in them: nodes compute with them and hand them on."""
    # What is in an array of objects is not known to be plain.
    if hasattr(value, "tolist") and not getattr(getattr(value, "dtype", None), "hasobject", False):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot travel in a buffer; use plain numbers, strings, lists and maps")


class _Packer(threading.local):
    """A packer per thread: making a new one for each message would take as long as the message."""

    def __init__(self) -> None:
        # A file's name need not be UTF-8; what of it is not is told as "?".
        self.packer = msgpack.Packer(default=_plain, unicode_errors="replace")


_local = _Packer()


def pack(value: Any) -> bytes:
    """One value of plain types (or NumPy numbers) as bytes. TypeError for anything else."""
    return _local.packer.pack(value)


def bundle(parts: list[bytes]) -> bytes:
    """Packed values as one message: the msgpack array of them."""
    return _local.packer.pack_array_header(len(parts)) + b"".join(parts)


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a whole message is in a socket.

    Ask before each `recv` that shall not wait. It would say so itself, by an exception; but in a process that a frame
    has just woken up, raising that takes as long as receiving, reading and checking the frame's header.
    """
    return bool(int(socket.get(_EVENTS)) & _READABLE)


def arrived(socket: zmq.Socket[bytes]) -> Iterator[bytes]:
    """The messages in a socket that a poll has called readable, one after the other; it waits for none."""
    try:
        data = socket.recv(_NOW)
    except zmq.Again:  # the poll knew better; but to ask again takes a call of the system
        return
    yield data
    while readable(socket):
        yield socket.recv(_NOW)


def unpack(data: bytes, any_keys: bool = False) -> Any:
    """The value in `data`; ValueError (or a subclass of it) when it is not exactly one msgpack value.

    any_keys: keys of maps may be other than text, too; not for what a stranger may have sent.
    """
    return msgpack.unpackb(data, strict_map_key=not any_keys)
