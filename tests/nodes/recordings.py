"""What `videosink` is given in tests, and what is read back from its files."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from nodes.videosink import VideoSink
from pipeline import Harness

MS = 1_000_000


SECOND = 1000 * MS


def clip(count: int = 40, height: int = 120, width: int = 160) -> list[np.ndarray]:
    """Frames that can be told from each other: a disc moves over a ground that changes its colour."""
    frames = []
    for n in range(count):
        frame = np.full((height, width, 3), (40 + 5 * n, 90, 240 - 5 * n), np.uint8)
        cv2.circle(frame, (7 * n % width, height // 2), height // 6, (20, 230, 240), cv2.FILLED)
        frames.append(frame)
    return frames


def uneven(count: int = 40, start: int = 7 * SECOND) -> list[int]:
    """PTS of a camera whose rate changes, from somewhere, in ns."""
    return [start + n * 80 * MS + (n % 3) * 10 * MS + n // 10 * 500 * MS for n in range(count)]


def read(path: Path) -> tuple[list[np.ndarray], list[float], float]:
    """(frames, their times in s, duration in s) by PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        assert stream.time_base is not None
        times = [float(f.pts * stream.time_base) for f in decoded if f.pts is not None]
        return [f.to_ndarray(format="bgr24") for f in decoded], times, (container.duration or 0) / av.time_base


def count_with_opencv(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def similar(one: np.ndarray, other: np.ndarray, psnr: float = 28) -> bool:
    return cv2.PSNR(one, other) >= psnr


def write(sink: VideoSink, frames: list[np.ndarray], pts: list[int], **options) -> Harness:
    """A closed harness, everything pushed as one camera's."""
    with Harness(sink, **options) as h:
        for frame, time in zip(frames, pts, strict=True):
            h.push(frame, pts=time)
        h.mark("eos")
    return h
