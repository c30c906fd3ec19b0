"""The nodes of the transport benchmark: they do as little as a node can, so that what is measured is the way."""

from __future__ import annotations

from pydantic import Field

from bench.peers.meter import touch
from pipeline import Buffer, Sink, Source, SourceProperties, Transform, VideoInfo, pad
from pipeline.registry import NodeType, node_types


class Frames(Source):
    """Frames whose pixels are written once per slot."""

    class Properties(SourceProperties):
        width: int = Field(1920, ge=2, description="pixels")
        height: int = Field(1080, ge=2, description="pixels")
        fps: float = Field(0, ge=0, description="frames/s on the clock; 0 for as fast as they go")
        num_buffers: int = Field(0, ge=0, description="0 for endless")

    src = pad("video/raw", format="BGR")

    def open(self) -> VideoInfo:
        self.paced = self.props.fps > 0
        self._next = 0
        self._filled: set[int] = set()
        return VideoInfo(self.props.height, self.props.width, 3, self.props.fps)

    def fill(self, buffer: Buffer) -> bool:
        if 0 < self.props.num_buffers <= self._next:
            return False
        if buffer.slot not in self._filled:
            buffer.frame[...] = 1 + len(self._filled)
            self._filled.add(buffer.slot)
        buffer.pts = int(self._next * 1e9 / (self.props.fps or 30))
        self._next += 1
        return True


class Hop(Transform):
    """Hands a buffer on without a look at its pixels."""

    sink = pad("video/raw", access="none")
    src = pad("video/raw")

    def transform(self, buffer: Buffer) -> Buffer:
        return buffer


class Pages(Sink):
    """Reads four bytes of every page of a frame: the pixels have to be there."""

    sink = pad("video/raw", format="BGR", access="read")

    def open(self) -> None:
        self.total = 0

    def consume(self, buffer: Buffer) -> None:
        self.total += touch(buffer.frame)


def register() -> None:
    """Make these nodes known to graphs built in this process; workers import them by their path."""
    types = node_types()  # the cache's own dict
    for cls in (Frames, Hop, Pages):
        types[cls.__name__.lower()] = NodeType(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "emograph bench")
