"""The messages between hosts, as `send` and `receive` speak them.

    emograph launch "testsrc ! haardetect ! send"            # one host
    emograph launch "receive camera=testsrc ! emotion ! ..." # another

Three messages, each a msgpack list with the version first. A receiver sends an `Ask`, again and again; a sender
answers with an `Info`, and with frames: a `Header` and, as a second part, pixels or nothing. docs/remote.md tells
what they mean; here is what they look like, and that nothing else gets through. A port is an open door, so every
field is checked before a graph sees it: what is wrong is a `BadMessage`, to be counted and dropped.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from socket import getaddrinfo
from typing import Annotated, Any

import numpy as np
import zmq
from pydantic import AfterValidator

from pipeline import Region, wire
from pipeline.buffer import BadMessage
from pipeline.endpoints import check_endpoint

VERSION = 1
DEFAULT_ENDPOINT = "tcp://127.0.0.1:5570"
MAX_ASK = 4096
"""Bytes; who sends a longer one is disconnected."""
MAX_PART = 128 << 20
"""Bytes in one part of a message to a receiver: the raw pixels of an 8K frame fit in."""
MAX_WINDOW = 64
MAX_REGIONS = 1024
MAX_LABEL = 64
"""Characters of a label: nodes draw it."""
MAX_LABELS = 64
MAX_TIME = 1 << 62
"""Bound on times and counts: sums of two of them still fit a msgpack integer."""
_MAX_NAME = 200
_MAX_PATCH = 512
"""Side in pixels."""

FORMATS = ("none", "jpeg", "raw")


def _over_tcp(endpoint: str) -> str:
    if not check_endpoint(endpoint).startswith("tcp://"):
        raise ValueError(f"{endpoint!r} is not an endpoint such as {DEFAULT_ENDPOINT}")
    return endpoint


Endpoint = Annotated[str, AfterValidator(_over_tcp)]
"""Property type: `tcp://HOST:PORT`."""


def resolves(endpoint: str) -> bool:
    """Whether the host of a tcp endpoint has an address; libzmq tries on in silence where it has none."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        return bool(getaddrinfo(host.strip("[]"), port))
    except (OSError, UnicodeError):  # "a..b" is no name at all
        return False


def tune(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Let libzmq find out by itself when the other host vanishes without a word."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
    socket.setsockopt(zmq.IPV6, "[" in endpoint)


@dataclass(slots=True)
class Ask:
    """A receiver's wish and its credit, in absolute numbers: said twice, it means the same.

    hello: answer with an Info. pixels: whether anybody looks at them. ack: number of the last frame that came, 0
    for none. window: frames that may be on their way beyond `ack`; 0: only asking.
    """

    camera: str
    hello: bool
    pixels: bool
    ack: int
    window: int

    def pack(self) -> bytes:
        return wire.pack((VERSION, "ask", *astuple(self)))

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Ask:
        """Raises BadMessage."""
        ask = cls(*_fields(_message(data), "ask", 5))
        _check(_is_name(ask.camera) and type(ask.hello) is bool and type(ask.pixels) is bool, "types of an ask")
        _check(_is_count(ask.ack) and _is_count(ask.window) and ask.window <= MAX_WINDOW, "numbers of an ask")
        return ask


@dataclass(slots=True)
class Info:
    """What the sender knows of a camera; sent when asked for, and when it changes, in order with the frames.

    cameras: all that it offers. shape: (height, width, channels) of the frames, None before the first.
    up, reason: whether the camera works, and why not. ended: no frame follows.
    """

    camera: str
    cameras: list[str]
    shape: tuple[int, int, int] | None
    up: bool
    reason: str
    ended: bool

    def pack(self) -> bytes:
        return wire.pack((VERSION, "info", *astuple(self)))


@dataclass(slots=True)
class Header:
    """One frame without its pixels.

    number: 1, 2, 3 ... on the way to this receiver; what `Ask.ack` refers to. sequence, pts (ns), wall (UTC ns),
    shape, regions, meta: as the buffer had them at the sender. format: what the second part holds.
    """

    camera: str
    number: int
    sequence: int
    pts: int
    wall: int
    shape: tuple[int, int, int]
    format: str
    regions: list[Region]
    meta: dict[str, Any]


def pack_header(header: Header, regions: list[Any]) -> bytes:
    """The message; regions: `Region.pack()` of each, made once for all receivers."""
    h = header
    return wire.pack(
        (VERSION, "frame", h.camera, h.number, h.sequence, h.pts, h.wall, h.shape, h.format, regions, h.meta)
    )


def unpack(data: bytes | memoryview) -> Info | Header:
    """What a sender said; raises BadMessage for anything else."""
    message = _message(data)
    if message[1] == "info":
        camera, cameras, shape, up, reason, ended = _fields(message, "info", 6)
        _check(_is_name(camera) and type(cameras) is list and all(map(_is_name, cameras)), "names of an info")
        _check(type(up) is bool and type(reason) is str and type(ended) is bool, "types of an info")
        return Info(camera, cameras, None if shape is None else _shape(shape), up, reason[:_MAX_NAME], ended)
    camera, number, sequence, pts, wall, shape, format, regions, meta = _fields(message, "frame", 9)
    _check(_is_name(camera) and format in FORMATS and type(meta) is dict, "types of a frame")
    _check(all(map(_is_count, (number, sequence, pts, wall))), "numbers of a frame")
    _check(type(regions) is list and len(regions) <= MAX_REGIONS, "number of regions")
    return Header(
        camera, number, sequence, pts, wall, _shape(shape), format, [_region(raw) for raw in regions], meta
    )  # fmt: skip


def _message(data: bytes | memoryview) -> list[Any]:
    try:
        raw = wire.unpack(data)  # type: ignore[arg-type]
    except Exception as error:  # msgpack has a dozen
        raise BadMessage(str(error)) from None
    _check(type(raw) is list and len(raw) >= 2, "no message of ours")
    _check(raw[0] == VERSION, f"version {raw[0]!r}, here is {VERSION}"[:80])
    return raw


def _fields(message: list[Any], kind: str, count: int) -> list[Any]:
    _check(message[1] == kind and len(message) == count + 2, "unknown message")
    return message[2:]


def _region(raw: Any) -> Region:
    """A region whose every field is what the nodes rely on."""
    try:
        region = Region.unpack(raw)
    except Exception as error:
        raise BadMessage(f"region: {error}") from None
    numbers = (*region.box, region.score)
    _check(all(type(n) in (int, float) and math.isfinite(n) for n in numbers), "numbers of a region")
    _check(region.track is None or _is_count(region.track), "track of a region")
    _check(region.label is None or _is_label(region.label), "label of a region")
    _check(_are_scores(region.scores) and _are_scores(region.raw) and type(region.attrs) is dict, "scores of a region")
    patch = region.patch
    _check(patch is None or 0 < min(patch.shape) <= max(patch.shape) <= _MAX_PATCH, "patch of a region")
    # Out of the message's memory, so that a patch does not keep all of it alive.
    region.patch = None if patch is None else np.array(patch)
    return region


def _are_scores(value: Any) -> bool:
    if value is None:
        return True
    return (
        type(value) is dict
        and len(value) <= MAX_LABELS
        and all(_is_label(k) and type(v) in (int, float) and math.isfinite(v) for k, v in value.items())
    )


def _is_label(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_LABEL


def _shape(raw: Any) -> tuple[int, int, int]:
    _check(type(raw) is list and len(raw) == 3 and all(map(_is_count, raw)), "shape")
    height, width, channels = map(int, raw)
    _check(0 < height <= 16384 and 0 < width <= 16384 and channels == 3, "shape")
    return height, width, channels


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= _MAX_NAME


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_TIME


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise BadMessage(f"wrong {what}" if not what.startswith(("version", "no ", "unknown")) else what)
