"""Videos whose frames carry their number, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from nodes.capture.reader import quieten

# OpenCV's FFmpeg reads its settings once, when a process first opens a video: a test of another node that does so would
# keep it talkative for the tests of `capture`. Modules are imported before the first test runs.
quieten()


def grey(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """The number (up to 47) can be read back from the level: the steps are wider than any codec here errs."""
    return np.full((height, width, 3), 5 * (number % 48) + 8, np.uint8)


def number(frame: np.ndarray) -> int:
    return round((float(frame.mean()) - 6) / 5)


def film(
    path: Path, count: int, fps: int = 30, codec: str = "libx264", height: int = 48, width: int = 64, **options: str
) -> Path:
    """`count` frames with their numbers as grey levels; key frames and B-frames as x264 likes."""
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey(index, height, width), format="bgr24")))
        out.mux(stream.encode())
    return path


def assert_rising(pts: list[int]) -> None:
    assert pts == sorted(set(pts))
