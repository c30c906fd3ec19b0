"""When a mosaic is taken: two clocks for a picture of several cameras, one for each mode of a graph.

Both are given frames as they come and yield (canvas, time in ns) for each picture of the video, the first at 0.

`LiveWall` (mode live) is a video wall in front of a recorder: a picture every 1/fps of the clock, each camera's newest
frame in it. When the recorder is late, pictures are left out rather than queued.

`SyncedWall` (mode lossless) goes by the cameras' PTS: all start together, whenever their frames come, and a picture
is taken as soon as no running camera can have a frame for it any more. What a faster camera sends ahead
waits, in memory up to a limit and then in a temporary file.
"""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from nodes.mosaic import Mosaic, cell_size
from pipeline import UserError

Picture = tuple[np.ndarray, int]

SLACK = 1e-3
"""Of a tick: a PTS is a whole number of ns, a tick's time is not; a frame meant for a tick is not late for it."""


class LiveWall:
    """A picture every 1/fps of the clock, with each camera's newest frame.

    It begins when every camera has sent a frame or is known to be down, or `patience` after the first frame; by then
    the size is known.
    """

    patience = 1_000_000_000

    def __init__(self, streams: Sequence[str], fps: float) -> None:
        self._streams, self._fps = streams, fps
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._first: int | None = None
        self._start: int | None = None
        self._mosaic: Mosaic | None = None
        self._tick = -1
        self._new: set[str] = set()
        """Cameras with a frame that is in no picture yet."""
        self._gone: dict[str, str] = {}

    def push(self, stream: str, frame: np.ndarray, pts: int, now: int) -> None:
        self._shapes.setdefault(stream, frame.shape)
        if self._start is None:
            cell = cell_size(self._shapes.values(), len(self._streams))
            if self._mosaic is None:
                self._mosaic, self._first = Mosaic(self._streams, cell), now
            self._mosaic.resize(cell)
        assert self._mosaic is not None
        self._mosaic.show(stream, frame)
        self._new.add(stream)
        self._gone.pop(stream, None)

    def mute(self, stream: str, reason: str) -> None:
        """The camera is down or has ended; its last frame is in a picture before it is dimmed."""
        self._gone[stream] = reason

    def due(self, now: int) -> Iterator[Picture]:
        if self._first is None:
            return
        if self._start is None:
            all_told = len(self._shapes.keys() | self._gone.keys()) == len(self._streams)
            if all_told or now - self._first >= self.patience:
                self._start = now
        if self._start is not None:
            tick = math.floor((now - self._start) * self._fps / 1e9 + SLACK)
            if tick > self._tick:
                yield self._picture(tick)

    def finish(self) -> Iterator[Picture]:
        """What no picture has shown yet."""
        if self._new:
            yield self._picture(self._tick + 1)

    def _picture(self, tick: int) -> Picture:
        assert self._mosaic is not None
        for stream in self._gone.keys() - self._new:
            self._mosaic.mute(stream, self._gone[stream])
        self._tick, self._new = tick, set()
        return self._mosaic.canvas, round(tick * 1e9 / self._fps)


class SyncedWall:
    """A picture every 1/fps of the cameras' own time, each camera's counted from its first frame; of a time in which
    nothing comes, a gap of hours maybe, only the first second's."""

    def __init__(self, streams: Sequence[str], fps: float, folder: Path) -> None:
        """folder: where frames that have to wait may be put aside."""
        self._streams, self._fps = streams, fps
        self._queues: dict[str, deque[tuple[int, Shelved]]] = {stream: deque() for stream in streams}
        self._starts: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._reached = dict.fromkeys(streams, -1)
        """The tick of each camera's newest frame; what is before it can be taken."""
        self._quiet: dict[str, str] = {}
        """Cameras that nobody waits for, and why."""
        self._mosaic: Mosaic | None = None
        self._shelf = Shelf(folder)
        self._tick = 0
        self._still = 0
        """Pictures since one that showed something new."""

    def push(self, stream: str, frame: np.ndarray, pts: int, now: int) -> None:
        self._quiet.pop(stream, None)
        # Who joins late, after the others had no need to wait, joins now.
        start = self._starts.get(stream, pts - round(self._tick * 1e9 / self._fps))
        if (back := self._newest.get(stream, pts) - pts) > 0:  # the source began again; time goes on
            start -= back
        self._starts[stream], self._newest[stream] = start, pts
        tick = math.ceil((pts - start) / 1e9 * self._fps - SLACK)
        queue = self._queues[stream]
        if queue and queue[-1][0] == tick:  # two frames for one picture: the newer one is in it
            self._shelf.take(queue.pop()[1])
        queue.append((tick, self._shelf.put(frame)))
        self._reached[stream] = tick

    def mute(self, stream: str, reason: str) -> None:
        """The camera is down or has ended, once the frames it has sent have been shown."""
        self._quiet[stream] = reason

    def due(self, now: int) -> Iterator[Picture]:
        running = [tick for stream, tick in self._reached.items() if stream not in self._quiet]
        while running and self._tick < min(running):
            yield self._picture()
            self._skip(min(running))

    def finish(self) -> Iterator[Picture]:
        """All that is still waiting."""
        while any(self._queues.values()):
            yield self._picture()
            self._skip(max((queue[-1][0] for queue in self._queues.values() if queue), default=0))
        self._shelf.close()

    def _skip(self, limit: int) -> None:
        """Over pictures that would be the same as the last, up to the next frame, but not beyond tick `limit`."""
        if self._still >= self._fps:
            self._tick = max(self._tick, min([limit, *(queue[0][0] for queue in self._queues.values() if queue)]))

    def _picture(self) -> Picture:
        if self._mosaic is None:
            shapes = [queue[0][1].shape for queue in self._queues.values() if queue]
            self._mosaic = Mosaic(self._streams, cell_size(shapes, len(self._streams)))
        self._still += 1
        for stream, queue in self._queues.items():
            frame = None
            while queue and queue[0][0] <= self._tick:
                frame = self._shelf.take(queue.popleft()[1])
            if frame is not None:
                self._mosaic.show(stream, frame)
                self._still = 0
            elif not queue and stream in self._quiet and self._mosaic.content(stream)[1] != self._quiet[stream]:
                self._mosaic.mute(stream, self._quiet[stream])
                self._still = 0
        time = round(self._tick * 1e9 / self._fps)
        self._tick += 1
        return self._mosaic.canvas, time


class Shelved(NamedTuple):
    """A frame put aside: its pixels, or where in the file they are."""

    shape: tuple[int, ...]
    pixels: np.ndarray | None
    offset: int


class Shelf:
    """Keeps copies of frames: in memory up to a limit, the others in an unnamed file that goes with the process."""

    limit = 48 << 20
    """Bytes in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = 0
        self._file: BinaryIO | None = None
        self._end = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        """Places in the file that can be used again, by size."""

    def put(self, frame: np.ndarray) -> Shelved:
        """UserError when the disk is full."""
        if self._held + frame.nbytes <= self.limit:
            self._held += frame.nbytes
            return Shelved(frame.shape, frame.copy(), 0)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - open until `close`
            free = self._free[frame.nbytes]
            offset = free.pop() if free else self._end
            self._end = max(self._end, offset + frame.nbytes)
            self._file.seek(offset)
            self._file.write(np.ascontiguousarray(frame).data)
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot put frames aside in {self._folder}: {error.strerror}; one camera is far ahead of another"
            ) from None
        return Shelved(frame.shape, None, offset)

    def take(self, item: Shelved) -> np.ndarray:
        """The frame, uint8 as it was put; once."""
        if item.pixels is not None:
            self._held -= item.pixels.nbytes
            return item.pixels
        assert self._file is not None
        frame = np.empty(item.shape, np.uint8)
        self._file.seek(item.offset)
        self._file.readinto(frame.data)  # type: ignore[attr-defined]
        self._free[frame.nbytes].append(item.offset)
        return frame

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
