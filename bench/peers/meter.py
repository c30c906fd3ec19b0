"""What all contestants of the transport benchmark share: the look at the pixels, the count at the sink."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np

WIDTH, HEIGHT = 1920, 1080
SLOTS = 32
"""Frames on their way at the same time, at most, in throughput runs."""
WARM_UP = 1.0
"""Seconds of frames before the measurement begins."""


def touch(frame: np.ndarray) -> int:
    """Read four bytes of each page (4096 bytes) of a frame, uint8 (height, width, 3); returns their sum."""
    return int(np.add.reduce(frame.reshape(-1).view(np.uint32)[::1024], dtype=np.uint32))


class Meter:
    """At the sink: counts frames and collects the latency of each link between two marks in a file.

    A frame's stamps are the monotonic ns at which it was sent, received, sent on, ... and finally received.
    """

    def __init__(self, marks: str, seconds: float) -> None:
        self._marks, self._seconds = marks, seconds
        self._first = self._begin = 0.0
        self._frames = 0
        self._latencies: list[int] = []

    def frame(self, stamps: list[int]) -> None:
        """A frame has arrived. After the last one it waits to be killed, so that its CPU time can be read."""
        now = time.monotonic()
        self._first = self._first or now
        if not self._begin:
            if now - self._first >= WARM_UP:
                self._begin = now
                self._mark({"begin": now})
            return
        self._frames += 1
        self._latencies += [b - a for a, b in zip(stamps[::2], stamps[1::2], strict=True)]
        if now - self._begin < self._seconds:
            return
        ordered = sorted(self._latencies)
        self._mark({
            "frames": self._frames, "seconds": now - self._begin,
            "p50_ms": ordered[len(ordered) // 2] / 1e6, "p99_ms": ordered[int(len(ordered) * 0.99)] / 1e6,
        })  # fmt: skip
        while True:
            signal.pause()

    def _mark(self, what: dict[str, float]) -> None:
        with open(self._marks, "a") as file:
            file.write(json.dumps(what) + os.linesep)


def first_moment(fps: float, index: int, cameras: int) -> float:
    """When the camera `index` of several sends its first frame, monotonic s: evenly spread over the time from one frame
    to the next, as emograph's sources are. At once where `fps` is 0."""
    now = time.monotonic()
    return now + (index / fps / cameras - now) % (1 / fps) if fps else now


def pace(fps: float, start: float, sequence: int) -> None:
    """Wait until a frame is due."""
    if fps:
        time.sleep(max(0.0, start + sequence / fps - time.monotonic()))
