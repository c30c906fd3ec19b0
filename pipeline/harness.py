"""Test a node without a process or a socket: push buffers in, set the clock, read buffers out.

    h = Harness(Invert(strength=0.5))
    out = h.push(np.zeros((120, 160, 3), np.uint8))
    assert out[0].frame.max() == 127

The node is the real object that a graph would run, opened and closed the same way.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from pipeline.buffer import Buffer, Mark, Region, changed, engines_own, unpack
from pipeline.node import BatchTransform, Node, Sink, Source, Transform, VideoInfo, gave_frame, open_source


class Harness:
    """Runs one node of any kind. Use it as a context manager, or call `close` yourself.

    streams: the cameras that a node is told of. lossless: whether it is told that the graph waits for every frame.
    clock: the time in seconds that the node sees; it stands still until the test moves it.
    dropped: buffers for which the node returned None. logs: (level, text) of what the node said.
    metrics: metric -> list of samples. statuses: (up, reason) that a source reported.
    stop_reason: why the node asked for the graph's end, or None.
    """

    def __init__(
        self,
        node: Node,
        streams: tuple[str, ...] = ("camera",),
        lossless: bool = False,
        clock: float = 1000.0,
    ) -> None:
        self.node = node
        self.clock = clock
        self.logs: list[tuple[str, str]] = []
        self.metrics: dict[str, list[float]] = {}
        self.statuses: list[tuple[bool, str]] = []
        self.dropped: list[Buffer] = []
        self.stop_reason: str | None = None
        self._sequence: dict[str, int] = {}
        self._marks = 0
        node.streams = node.streams or ((node.name,) if isinstance(node, Source) else streams)
        node.lossless = lossless
        node.clock = lambda: int(self.clock * 1e9)
        node._log = lambda level, text: self.logs.append((level, text))
        node._request_stop = lambda reason: setattr(self, "stop_reason", reason)
        node._observe = lambda metric, value: self.metrics.setdefault(metric, []).append(value)
        self.info: VideoInfo | None = None
        if isinstance(node, Source):
            node._status = lambda up, reason: self.statuses.append((up, reason))
            self.info = open_source(node)
            size = (self.info.height, self.info.width, self.info.channels)
            self._unwritten = np.random.default_rng(0).integers(1, 256, size, np.uint8)
        else:
            node.open()

    def push(
        self,
        frame: np.ndarray | None = None,
        *,
        stream: str | None = None,
        regions: list[Region] | None = None,
        pts: int | None = None,
        meta: dict[str, Any] | None = None,
    ) -> list[Buffer]:
        """Push one frame, uint8 (height, width, 3); returns what came out (nothing for a sink)."""
        return self.push_all([self.buffer(frame, stream=stream, regions=regions, pts=pts, meta=meta)])

    def push_all(self, buffers: list[Buffer]) -> list[Buffer]:
        """Push several buffers; a batch node gets them in one call. Their pixels are as the node's sink pad says:
        not to be written, or not there."""
        frames = [buffer._frame for buffer in buffers]
        came = [engines_own(buffer) for buffer in buffers]
        access = self.node.sink.access if self.node.sink else ""
        for buffer, frame in zip(buffers, frames, strict=True):
            if access == "none":
                buffer._frame = None
            elif access == "read" and frame is not None:
                buffer._frame = frame.view()
                buffer._frame.flags.writeable = False
        try:
            out = self._push(buffers)
            for buffer, before in zip(buffers, came, strict=True):
                if engines_own(buffer) != before:
                    raise changed(buffer, before)
            return out
        finally:
            for buffer, frame in zip(buffers, frames, strict=True):
                buffer._frame = frame  # for who looks at it after the node's work

    def _push(self, buffers: list[Buffer]) -> list[Buffer]:
        node = self.node
        if isinstance(node, Sink):
            for buffer in buffers:
                node.consume(buffer)
            return []
        if isinstance(node, BatchTransform):
            results = node.transform_batch(list(buffers))  # a list of its own: it may take some out
        elif isinstance(node, Transform):
            results = [node.transform(buffer) for buffer in buffers]
        else:
            raise TypeError(f"{node.name} is a {node.kind}: nothing can be pushed into it")
        assert len(results) == len(buffers), "a node returns one result (or None) for each buffer"
        for buffer, result in zip(buffers, results, strict=True):
            assert result is None or result is buffer, "a node returns the buffer that it was given, or None"
            if result is not None:
                unpack(result.pack("next"))  # what cannot travel to the next process fails here as it would there
        self.dropped += [b for b, r in zip(buffers, results, strict=True) if r is None]
        return [result for result in results if result is not None]

    def pull(self, count: int) -> list[Buffer]:
        """Up to `count` buffers from a source; fewer when it reaches EOS.

        Each has pixels of its own. What the source does not write is noise, the same each time; in a graph it is what
        was left of an earlier frame.
        """
        node = self.node
        if not isinstance(node, Source):
            raise TypeError(f"{node.name} is a {node.kind}: nothing can be pulled from it")
        pulled = []
        for _ in range(count):
            buffer = self.buffer(self._unwritten.copy(), stream=node.name)
            if not gave_frame(node, node.fill(buffer)):
                break
            unpack(buffer.pack("next"))  # as in `push`
            pulled.append(buffer)
        return pulled

    def mark(self, kind: str, stream: str | None = None, **data: Any) -> None:
        """Let a mark pass the node: `h.mark("eos")`, `h.mark("status", up=False, reason="unplugged")`."""
        self._marks += 1
        self.node.on_mark(Mark(kind, stream or self.node.streams[0], self._marks, data=data))

    def tick(self) -> None:
        """What the engine does every `tick_interval` seconds; here only the test does."""
        self.node.tick()

    def buffer(
        self,
        frame: np.ndarray | None = None,
        *,
        stream: str | None = None,
        regions: list[Region] | None = None,
        pts: int | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Buffer:
        """A buffer as it would reach the node now; without a frame it says 640x480 and has no pixels."""
        name = stream or self.node.streams[0]
        sequence = self._sequence.get(name, 0)
        self._sequence[name] = sequence + 1
        now = int(self.clock * 1e9)
        height, width, channels = (*frame.shape, 1)[:3] if frame is not None else (480, 640, 3)
        return Buffer(
            name, sequence, now if pts is None else pts, captured=now, wall=1_700_000_000_000_000_000 + now,
            shape=(height, width, channels), regions=regions or [], meta=meta or {}, _frame=frame,
        )  # fmt: skip

    def close(self) -> None:
        self.node.close()

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
