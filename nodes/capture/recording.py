"""Things with an end, read frame by frame, each frame exactly once: videos here, folders of pictures in pictures.py.

`emograph launch "capture uri=clip.mp4 start=10s end=20s loop=true ! fakesink"` reads through this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from nodes.capture.container import COUNTED, is_whole
from nodes.capture.mp4 import shown_share
from nodes.capture.reader import Interrupted, Reader
from nodes.capture.timeline import SECOND, RateLimit, RecordedTimeline, period
from nodes.capture.uri import Place
from pipeline.errors import UserError

RETRIES = 8
"""Failed grabs in a row before a video is taken to be over: a damaged packet fails one, the end fails all."""
RUN_UP = 2000.0
"""Milliseconds before `start` to jump to, so that the decoder has its reference frames in time."""
FALLBACK_PERIOD = SECOND // 25
"""From frame to frame in a video that says neither times nor rate, ns."""


class Pass(Protocol):
    """One time through a recording. fps: nominal frames/s, 0 when unknown."""

    fps: float

    @property
    def name(self) -> str | None:
        """Of the file that the current frame is, where each has one of its own; else None."""

    def next(self) -> int | None:
        """Step to the next frame; ns from the recording's beginning, or None at the end. Raises Interrupted,
        UserError."""

    def picture(self, into: np.ndarray) -> np.ndarray | None:
        """The current frame: `into` itself where the size allows, else another array."""

    def close(self) -> None: ...


class Recording:
    """One or many passes as one stream with strictly rising PTS, thinned out to the wanted rate. In the first pass they
    are the places in the recording.

    begin: starts a pass from the beginning. rate: nominal frames/s before thinning out; 0 when unknown.
    """

    def __init__(self, begin: Callable[[], Pass], loop: bool, fps: float | None, stopping: threading.Event) -> None:
        self._begin = begin
        self._loop = loop
        self._fps = fps
        self._stopping = stopping
        self._pass: Pass | None = None
        self._rewind()

    def _rewind(self) -> None:
        self.close()
        self._pass = self._begin()
        self.rate = self._pass.fps
        self._limit = RateLimit(self._fps, period(self.rate))
        self._empty = True
        self._offset = 0
        self._zero: int | None = None
        """Time of the first frame."""
        self._last = -1

    def advance(self) -> int | None:
        """Step to the next frame to deliver; its PTS in ns, or None when there is none (or the graph stops).
        Raises Interrupted, UserError."""
        while self._pass is not None and not self._stopping.is_set():
            at = self._pass.next()
            if at is None:
                if not self._loop or self._empty:  # a pass without one frame would go round for ever
                    return None
                self._pass.close()
                self._pass = self._begin()
                self._empty = True
                continue
            if self._zero is None:
                self._zero = at
            if self._empty and self._last >= 0:  # the first frame of another pass follows the last one of this
                self._offset = self._last + (period(self.rate) or FALLBACK_PERIOD) - at
            self._empty = False
            self._last = max(at + self._offset, self._last + 1)
            if self._limit.wants(self._last - self._zero):  # from the first frame on, wherever that is
                return self._last
        return None

    def picture(self, into: np.ndarray) -> np.ndarray | None:
        return self._pass.picture(into) if self._pass else None

    @property
    def name(self) -> str | None:
        """Of the current frame's file, where each frame has one of its own."""
        return self._pass.name if self._pass else None

    def seek(self, count: int) -> None:
        """Start over and step past the first `count` frames: they are decoded again, for no container tells
        reliably where its n-th frame is."""
        self._rewind()
        for _ in range(count):
            if self.advance() is None:
                return

    def close(self) -> None:
        if self._pass is not None:
            self._pass.close()
            self._pass = None


class Video:
    """A pass through a video file, or one that a web server sends.

    place, connect: where it is, and what opens it. start, end: seconds of the video, frames from `start` up to but
    without `end`. limit: seconds a frame may take, None for ever. log: where to say that it is cut short.
    """

    name = None
    """All frames are of one file."""

    def __init__(
        self,
        place: Place,
        connect: Callable[[], Reader],
        start: float,
        end: float | None,
        limit: float | None,
        stopping: threading.Event,
        log: Callable[[str, str], None],
    ) -> None:
        self._connect, self._limit, self._stopping = connect, limit, stopping
        self._place, self._shown, self._log = place, f"'{place.shown}'", log
        self._start = round(start * SECOND)
        self._end = None if end is None else round(end * SECOND)
        self._reader = connect()
        self.fps = self._reader.fps
        self._period = period(self.fps)
        self._decoded = 0
        self._begin()
        self._zero: int | None = 0 if start else None
        """Of the times: the first frame's, where that is the recording's own."""
        self._over = False
        if start * 1000 > 2 * RUN_UP:
            self._jump(start * 1000 - RUN_UP)

    def next(self) -> int | None:
        while not self._over:
            if not self._grab():
                self._over = True
                self._report_shortfall()
            elif self._end is not None and self._at >= self._end:
                self._over = True
            elif self._at >= self._start:
                if self._zero is None:
                    self._zero = self._at
                return self._at - self._zero
            elif self._stopping.is_set():
                raise Interrupted
        return None

    def picture(self, into: np.ndarray) -> np.ndarray | None:
        return self._reader.retrieve(into)

    def close(self) -> None:
        self._reader.close()

    def _grab(self) -> bool:
        for _ in range(RETRIES):
            try:
                if not self._reader.grab(self._limit):
                    continue
            except TimeoutError:
                raise self._silent() from None
            self._decoded += 1
            # After a grab this is the frame's own time, from the stream's start; 0 where it has none (raw streams).
            self._at = self._timeline.at(round(self._reader.get(cv2.CAP_PROP_POS_MSEC) * 1e6))
            return True
        return False

    def _jump(self, milliseconds: float) -> None:
        """Skip most of what is before `start`; from the beginning after all when the jump went too far."""
        try:
            self._reader.jump(milliseconds, self._limit)
        except TimeoutError:
            raise self._silent() from None
        if self._grab() and self._at < self._start:
            self._decoded = round(self._at / self._period) + 1 if self._period else 0
            return
        self._reader.close()
        self._reader = self._connect()
        self._decoded = 0
        self._begin()

    def _begin(self) -> None:
        self._at = -1
        self._timeline = RecordedTimeline(self._period or FALLBACK_PERIOD)

    def _silent(self) -> UserError:
        return UserError(f"{self._shown} sent nothing for {self._limit:g} s, after {self._decoded} frames")

    def _report_shortfall(self) -> None:
        """Report when the file has fewer frames than its header says. That number may be an estimate from a rounded
        duration, so both number and time must be short, by more than one frame and 1 %. Where it is an estimate and
        nothing else shows that the file was cut, a warning will do."""
        promised = round(self._reader.get(cv2.CAP_PROP_FRAME_COUNT))
        path = Path(self._place.address) if self._place.kind == "path" else None
        if self._decoded < promised and path:
            promised = round(promised * shown_share(path))
        missing = promised - self._decoded
        late = promised * self._period - (self._at + self._period) if self._period else missing * SECOND
        if (
            self._decoded
            and missing > max(1, promised // 100)
            and late > max(self._period, promised * self._period // 100)
        ):
            whole = is_whole(path) if path else None
            if whole:
                return  # the sound outlasts the picture
            sure = whole is False or Path(self._place.shown.partition("?")[0]).suffix.lower() in COUNTED
            self._log(
                "error" if sure else "warning",
                f"{self._shown} ended after {self._decoded} frames, but its header promises {promised}: cut short?",
            )
