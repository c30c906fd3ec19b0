"""What travels through a graph: buffers (a frame's header and its regions) and marks (EOS, flush, status).

Pixels are not in here: a buffer names a slot of its source's shared-memory ring. On a link between processes
a buffer is one msgpack array of a hundred bytes and more. Whatever arrives is checked field by field: a socket is
an open door, and garbage on it is a counted drop (`BadMessage`), never a crash.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline import wire

WIRE_VERSION = 1
WHOLE = 1 << 40
"""The weight of a buffer that has just left its source; links and marks split it, the way home adds it up."""


_WHOLE = (int, np.integer)


class BadMessage(ValueError):
    """Bytes on a socket that are not one of our messages."""


UNREADABLE = (AttributeError, TypeError, ValueError, OverflowError, RecursionError)
"""What `pack` raises where a node has put something into a buffer that no other node could read."""


def _check_keys(value: Any, name: str) -> None:
    """TypeError where a map in `value` has a key that is no text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} in {name} is no text")
            if isinstance(inner, dict | list | tuple):
                _check_keys(inner, name)
    else:
        for inner in value:
            if isinstance(inner, dict | list | tuple):
                _check_keys(inner, name)


@dataclass(slots=True)
class Region:
    """A detected thing in a frame.

    box: (x, y, width, height) in pixels of the frame, floats, origin top left.
    score: the detector's confidence, detector-specific scale unless it says otherwise.
    track: stable id of the thing within its stream, or None before tracking.
    label: the classifier's verdict, or None. scores: label -> probability (what the label was chosen from).
    raw: label -> probability of this frame alone, before smoothing over time.
    patch: uint8 (h, w) cut-out for a classifier, or None.
    attrs: whatever else a node wants to say; plain msgpack types only.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    track: int | None = None
    label: str | None = None
    scores: dict[str, float] | None = None
    raw: dict[str, float] | None = None
    patch: np.ndarray | None = None
    attrs: dict[str, Any] = field(default_factory=dict)

    def pack(self) -> list[Any]:
        """As it travels. TypeError, ValueError for what the next node could not read."""
        patch = None
        if self.patch is not None:
            rows, columns = self.patch.shape
            patch = [rows, columns, np.ascontiguousarray(self.patch, np.uint8).tobytes()]
        x, y, width, height = self.box
        for name, value, kinds in (
            ("track", self.track, _WHOLE), ("label", self.label, str), ("scores", self.scores, dict),
            ("raw", self.raw, dict), ("attrs", self.attrs, dict),
        ):  # fmt: skip
            if not isinstance(value, kinds) and (value is not None or name == "attrs"):
                raise TypeError(f"a region's {name} is {value!r}")
        for name, value in (("scores", self.scores), ("raw", self.raw), ("attrs", self.attrs)):
            if value:
                _check_keys(value, name)
        return [
            [float(x), float(y), float(width), float(height)],
            float(self.score),
            self.track,
            self.label,
            self.scores,
            self.raw,
            patch,
            self.attrs,
        ]

    @classmethod
    def unpack(cls, raw: list[Any]) -> Region:
        box, score, track, label, scores, raw_scores, patch, attrs = raw
        x, y, w, h = (float(v) for v in box)
        if type(attrs) is not dict or not isinstance(label, str | None) or not isinstance(track, int | None):
            raise BadMessage("wrong types in a region")
        if not isinstance(scores, dict | None) or not isinstance(raw_scores, dict | None):
            raise BadMessage("wrong types in a region")
        if patch is not None:
            rows, columns, data = patch
            patch = np.frombuffer(data, np.uint8).reshape(rows, columns)
        return cls((x, y, w, h), float(score), track, label, scores, raw_scores, patch, attrs)


@dataclass(slots=True)
class Buffer:
    """One frame on its way through the graph.

    stream: the camera, i.e. the name of the source node. sequence: 0, 1, 2 ... as captured by the source.
    pts: presentation time of the stream in ns. captured: CLOCK_MONOTONIC ns, the same clock in every process
    of the host. wall: UTC ns since the epoch. deadline: monotonic ns after which it is dropped, 0 for never.
    shape: (height, width, channels) of this frame, of a folder of photographs each another; frame: the uint8 pixels, a
    view into shared memory which belongs to this node only until it returns. A node that lets go of a buffer lets go
    of `frame` too.
    """

    stream: str
    sequence: int
    pts: int = 0
    captured: int = 0
    wall: int = 0
    deadline: int = 0
    shape: tuple[int, int, int] = (0, 0, 0)
    regions: list[Region] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    # Where the pixels are and whom the buffer belongs to; the engine's own.
    slot: int = 0
    generation: int = 0
    plane: int = 0
    weight: int = WHOLE
    home: str = ""
    trace: list[list[Any]] = field(default_factory=list)
    _frame: np.ndarray | None = None

    @property
    def frame(self) -> np.ndarray:
        """uint8 (height, width, channels) pixels; read-only unless the node's sink pad says `access="write"`."""
        if self._frame is None:
            raise RuntimeError("a buffer without pixels: its node declared access='none', or a test pushed it so")
        return self._frame

    def resize(self, height: int, width: int) -> None:
        """For a source in `fill`: this frame is a smaller one than the stream's largest, which the slot has room for.

        `shape` and `frame` are of that size from then on. ValueError where the slot has no room for it.
        """
        shape = height, width, self.shape[2]
        size = height * width * shape[2]
        pixels = self.frame.reshape(-1)
        if min(height, width) < 1 or size > pixels.size:
            raise ValueError(f"a frame of {width}x{height} in a slot for {self.shape[1]}x{self.shape[0]}")
        self.shape, self._frame = shape, pixels[:size].reshape(shape)

    def branch(self, weight: int) -> Buffer:
        """A copy for another link of a tee: same pixels, own regions, `weight` of the whole."""
        return Buffer(
            self.stream, self.sequence, self.pts, self.captured, self.wall, self.deadline, self.shape,
            [Region(r.box, r.score, r.track, r.label, r.scores, r.raw, r.patch, dict(r.attrs))
             for r in self.regions],
            dict(self.meta), self.slot, self.generation, self.plane, weight, self.home,
            [list(t) for t in self.trace],
        )  # fmt: skip

    def pack(self, to: str) -> bytes:
        """The message for node `to`. One of UNREADABLE for what it could not read."""
        fields = (
            WIRE_VERSION, to, self.stream, self.sequence, self.pts, self.captured, self.wall, self.deadline,
            self.shape, self.slot, self.generation, self.plane, self.weight, self.home, self.trace,
            [r.pack() for r in self.regions], self.meta,
        )  # fmt: skip
        if not (
            _are_sound(self.shape, self.sequence, self.captured, self.wall, self.deadline, self.slot, self.generation,
                       self.plane, self.weight)
            and type(self.pts) is int and type(self.stream) is type(self.home) is str
            and type(self.shape) is tuple and type(self.trace) is list and type(self.meta) is dict
        ):  # fmt: skip
            fields = _mended(fields)
        if self.meta:
            _check_keys(self.meta, "meta")
        return wire.pack(fields)


_ENGINES = ("stream", "sequence", "shape", "slot", "generation", "plane", "weight", "home")
"""Fields of a buffer that no node may change: the way home and the place of the pixels depend on them."""


def engines_own(buffer: Buffer) -> tuple[object, ...]:
    """Their values, to compare with those after a node's work."""
    # Written out: twice a frame, and a loop over the names would take four times as long.
    return (buffer.stream, buffer.sequence, buffer.shape, buffer.slot, buffer.generation, buffer.plane, buffer.weight,
            buffer.home)  # fmt: skip


def changed(buffer: Buffer, came: tuple[object, ...]) -> TypeError:
    """The error of a node that has changed some of them; `came` is what they were."""
    names = [name for name, value in zip(_ENGINES, came, strict=True) if getattr(buffer, name) is not value]
    return TypeError(f"a node may not change {', '.join(names)} of a buffer")


def restore(buffer: Buffer, came: tuple[object, ...]) -> None:
    for name, value in zip(_ENGINES, came, strict=True):
        setattr(buffer, name, value)


@dataclass(slots=True)
class Mark:
    """Something that travels in order with a stream's buffers but is no frame.

    kind `eos`: nothing follows. `flush`: everything sent before it has passed. `status`: the camera went up or
    down; data has `up`, `reason`, `since` (UTC ns). Every node keeps one unit of a mark's weight and sends it
    home, so the source knows when the mark, and all that was before it, has passed every node.
    """

    kind: str
    stream: str
    number: int
    weight: int = WHOLE
    home: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def pack(self, to: str) -> bytes:
        return wire.pack((-WIRE_VERSION, to, self.kind, self.stream, self.number, self.weight, self.home, self.data))


_FIELDS = (
    "version", "to", "stream", "sequence", "pts", "captured", "wall", "deadline", "shape", "slot", "generation",
    "plane", "weight", "home", "trace", "regions", "meta",
)  # fmt: skip
_RANGED = ("shape", "sequence", "captured", "wall", "deadline", "slot", "generation", "plane", "weight")
"""Those that cannot be negative; of the shape and the weight none can be 0."""
_TRACE = (str, int, int, int)
_SHAPE = (int, int, int)
_BUFFER = (int, str, str, int, int, int, int, int, list, int, int, int, int, str, list, list, dict)
_MARK = (int, str, str, str, int, int, str, dict)
"""The exact types of the fields: one comparison of tuples is the quickest check there is in Python."""
_SENT: tuple[type, ...] = tuple(tuple if name == "shape" else kind for name, kind in zip(_FIELDS, _BUFFER, strict=True))
"""As a buffer has them before msgpack makes a list of the shape."""


def _are_sound(
    shape: Sequence[int],
    sequence: int,
    captured: int,
    wall: int,
    deadline: int,
    slot: int,
    generation: int,
    plane: int,
    weight: int,
) -> bool:
    """Whether the numbers of a buffer are whole ones, and such as can be. Truth values and NumPy's are none."""
    try:
        rows, columns, channels = shape
    except (TypeError, ValueError):
        return False
    if not (
        type(sequence) is type(captured) is type(wall) is type(deadline) is type(slot) is type(generation)
        is type(plane) is type(weight) is type(rows) is type(columns) is type(channels) is int
    ):  # fmt: skip
        return False
    # One that is negative makes all of it negative: the quickest check there is.
    numbers = sequence | captured | wall | deadline | slot | generation | plane
    return numbers | (weight - 1) | (rows - 1) | (columns - 1) | (channels - 1) >= 0


def _mended(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same with plain numbers in place of NumPy's. TypeError, ValueError say which field cannot travel."""
    mended: list[Any] = []
    for name, kind, value in zip(_FIELDS, _SENT, fields, strict=True):
        if kind is int and isinstance(value, _WHOLE):
            mended.append(int(value))
        elif name == "shape" and isinstance(value, tuple | list) and len(value) == len(_SHAPE):
            mended.append(tuple(map(operator.index, value)))
        elif name != "shape" and isinstance(value, kind):
            mended.append(value)
        else:
            raise TypeError(f"a buffer's {name} is {reprlib.repr(value)}")
    if not _are_sound(*(mended[_FIELDS.index(name)] for name in _RANGED)):
        told = ", ".join(f"{name} {value}" for name, value in zip(_FIELDS, mended, strict=True) if name in _RANGED)
        raise ValueError(f"a buffer with a number out of range: {told}")
    return tuple(mended)


def is_trace(entry: Any) -> bool:
    """Whether an entry of a trace is [node, taken ns, released ns, batch]."""
    return type(entry) is list and tuple(map(type, entry)) == _TRACE


def unpack(data: bytes) -> tuple[str, Buffer | Mark]:
    """(destination node, buffer or mark) of one message; raises BadMessage for anything else."""
    try:
        raw = wire.unpack(data)
    except Exception as error:
        raise BadMessage(str(error)) from None
    return decode(raw)


def decode(raw: Any) -> tuple[str, Buffer | Mark]:
    """The same of a message whose msgpack has been read already."""
    try:
        types = tuple(map(type, raw))
        if types == _BUFFER and raw[0] == WIRE_VERSION:
            (_, to, stream, sequence, pts, captured, wall, deadline, shape, slot, generation, plane, weight,
             home, trace, regions, meta) = raw  # fmt: skip
            if not _are_sound(shape, sequence, captured, wall, deadline, slot, generation, plane, weight):
                raise BadMessage("wrong numbers in a buffer header")
            if not all(map(is_trace, trace)):
                raise BadMessage("wrong trace in a buffer header")
            return to, Buffer(
                stream, sequence, pts, captured, wall, deadline, tuple(shape), [Region.unpack(r) for r in regions],
                meta, slot, generation, plane, weight, home, trace,
            )  # fmt: skip
        if types == _MARK and raw[0] == -WIRE_VERSION:
            _, to, kind, stream, number, weight, home, payload = raw
            if number < 0 or weight <= 0:
                raise BadMessage("wrong numbers in a mark")
            return to, Mark(kind, stream, number, weight, home, payload)
    except BadMessage:
        raise
    except Exception as error:
        raise BadMessage(str(error)) from None
    raise BadMessage("neither a buffer nor a mark of this version")
