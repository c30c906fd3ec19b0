"""Several cameras in one picture: a near-square grid that each camera's frames are drawn into.

Shared by the sinks that show all cameras at once (`videosink` with `mosaic: true`, `display`). It keeps the picture
and nothing else: when a picture is taken from it is up to the sink.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from nodes.lettering import CAP, LIGHT, draw_text, shorten, text_size, text_width

DIMMED = 0.35
"""Brightness of a camera's last frame after the camera has gone."""


def grid(count: int) -> tuple[int, int]:
    """(rows, columns) of the nearest to a square that holds `count` cells, no row empty."""
    columns = max(1, math.ceil(math.sqrt(count)))
    return max(1, math.ceil(count / columns)), columns


def cell_size(shapes: Iterable[Sequence[int]], count: int, limit: tuple[int, int] = (1080, 1920)) -> tuple[int, int]:
    """(height, width) of one of `count` cells: as large as the largest of `shapes` (height, width, ...), less
    where the whole picture would be larger than `limit` (height, width). Both are even, as video codecs need."""
    rows, columns = grid(count)
    heights, widths = zip(*((shape[0], shape[1]) for shape in shapes), strict=True)
    height, width = max(heights), max(widths)
    scale = min(1.0, limit[0] / (rows * height), limit[1] / (columns * width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def fit(frame: np.ndarray, cell: np.ndarray) -> None:
    """Draw `frame` into `cell` (both uint8 (H, W, 3)) as large as it goes, centred, black at the sides."""
    height, width = cell.shape[:2]
    scale = min(height / frame.shape[0], width / frame.shape[1])
    h, w = max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale))
    y, x = (height - h) // 2, (width - w) // 2
    if (h, w) != (height, width):
        cell[:] = 0
    inside = cell[y : y + h, x : x + w]
    if frame.shape[:2] == (h, w):
        inside[:] = frame
    else:
        cv2.resize(frame, (w, h), dst=inside, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


class Mosaic:
    """The picture of all cameras. canvas: uint8 (rows * height, columns * width, 3), always complete.

    A camera has a black cell with its name until its first frame is there.
    """

    canvas: np.ndarray

    def __init__(self, streams: Sequence[str], cell: tuple[int, int]) -> None:
        """cell: (height, width) in pixels, see `cell_size`."""
        self._streams = tuple(streams)
        self._last: dict[str, tuple[np.ndarray, str]] = {}
        """Of a camera that is gone: what its cell showed, and why it is gone."""
        self._lay_out(cell)
        for stream in self._streams:
            self.mute(stream, "waiting")

    def _lay_out(self, cell: tuple[int, int]) -> None:
        self.cell = height, width = cell
        rows, columns = grid(len(self._streams))
        self.canvas = np.zeros((rows * height, columns * width, 3), np.uint8)
        self._cells: dict[str, np.ndarray] = {}
        for index, stream in enumerate(self._streams):
            row, column = divmod(index, columns)
            in_row = min(columns, len(self._streams) - row * columns)
            y, x = row * height, column * width + (columns - in_row) * width // 2  # a short last row is centred
            self._cells[stream] = self.canvas[y : y + height, x : x + width]

    def resize(self, cell: tuple[int, int]) -> None:
        """Another size (height, width) for the cells, and with it another canvas; it shows what it showed."""
        if cell == self.cell:
            return
        before, gone = self._cells, self._last
        self._lay_out(cell)
        self._last = {}
        for stream in self._streams:
            picture, reason = gone.get(stream, (before[stream], ""))
            fit(picture, self._cells[stream])
            if reason:
                self.mute(stream, reason)

    def show(self, stream: str, frame: np.ndarray) -> None:
        """The camera's newest frame, uint8 (H, W, 3) of any size."""
        self._last.pop(stream, None)
        fit(frame, self._cells[stream])

    def content(self, stream: str) -> tuple[np.ndarray, str]:
        """What the camera's cell shows (a view) and, if it is muted, why; the picture is then the one before."""
        return self._last.get(stream, (self._cells[stream], ""))

    def mute(self, stream: str, reason: str) -> None:
        """Dim the camera's last frame and write its name and `reason` onto it, until the next `show`."""
        cell = self._cells[stream]
        last, before = self._last.get(stream, (None, ""))
        if before == reason:
            return
        if last is None:
            last = cell.copy()
        self._last[stream] = last, reason
        cv2.convertScaleAbs(last, dst=cell, alpha=DIMMED)
        height, width = cell.shape[:2]
        small = text_size(height, width)
        for text, size, baseline in (
            (stream, 2 * small, height // 2),
            (reason, small, height // 2 + round(2 * small * CAP)),
        ):
            line = shorten(text, size, width)
            draw_text(cell, line, (width - text_width(line, size)) // 2, baseline, size, LIGHT)
