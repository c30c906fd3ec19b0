"""The picture in the window: all cameras or one of them, moving or standing still, with notes on top.

Knows nothing of windows or keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nodes.display.keys import KEYS
from nodes.lettering import CAP, DARK, LIGHT, draw_text, plate, text_size, text_width
from nodes.mosaic import Mosaic, cell_size

ALL = "mosaic"
"""What a picture of all cameras is called."""


class View:
    """Of `streams` (the cameras' names). fresh: whether `picture` would give another picture than the last time."""

    def __init__(self, streams: Sequence[str]) -> None:
        self.streams = tuple(streams)
        self.camera: str | None = None
        """The one that is shown full size; None for all."""
        self.paused = False
        self.help = False
        self.fresh = True
        self._mosaic = Mosaic(self.streams, (360, 640))
        self._single: Mosaic | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._missed: dict[str, str] = {}
        """Cameras that went while the picture stood still, and why."""
        self._note = ""

    @property
    def name(self) -> str:
        return self.camera or ALL

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) for the window: all cameras pixel by pixel; one of them as large as it goes in there."""
        height, width = self._mosaic.canvas.shape[:2]
        h, w = self.plain.shape[:2]
        scale = min(height / h, width / w)
        return round(h * scale), round(w * scale)

    # What comes in -------------------------------------------------------------------------------------

    def show(self, stream: str, frame: np.ndarray) -> None:
        """The camera's newest frame, uint8 BGR (H, W, 3)."""
        if self.paused:
            self._missed.pop(stream, None)
            return
        self._shapes[stream] = frame.shape
        self._mosaic.resize(cell_size(self._shapes.values(), len(self.streams)))
        self._mosaic.show(stream, frame)
        if self._single is not None and stream == self.camera:
            self._single.resize(cell_size([frame.shape], 1))
            self._single.show(stream, frame)
        self.fresh = True

    def mute(self, stream: str, reason: str) -> None:
        """The camera is gone."""
        if self.paused:
            self._missed[stream] = reason
            return
        self._mosaic.mute(stream, reason)
        if self._single is not None and stream == self.camera:
            self._single.mute(stream, reason)
        self.fresh = True

    # What the person wants -----------------------------------------------------------------------------

    def pause(self) -> None:
        self.paused = not self.paused
        if not self.paused:
            missed, self._missed = self._missed, {}
            for stream, reason in missed.items():
                self.mute(stream, reason)
        self.fresh = True

    def step(self, by: int) -> None:
        """`by` cameras on, after the last one comes the first."""
        here = self.streams.index(self.camera) if self.camera is not None else (-1 if by > 0 else 0)
        self.camera = stream = self.streams[(here + by) % len(self.streams)]
        picture, reason = self._mosaic.content(stream)
        self._single = Mosaic((stream,), cell_size([self._shapes.get(stream, picture.shape)], 1))
        self._single.show(stream, picture)
        if reason:
            self._single.mute(stream, reason)
        self.fresh = True

    def show_all(self) -> None:
        self.camera = self._single = None
        self.fresh = True

    def toggle_help(self) -> None:
        self.help = not self.help
        self.fresh = True

    def note(self, text: str) -> None:
        """Write `text` onto the picture; `""` takes it away."""
        self.fresh = self.fresh or text != self._note
        self._note = text

    # What is seen --------------------------------------------------------------------------------------

    @property
    def plain(self) -> np.ndarray:
        """The picture without notes, uint8 BGR (H, W, 3); belongs to this object."""
        return (self._single or self._mosaic).canvas

    def picture(self) -> np.ndarray:
        """What to show now."""
        self.fresh = False
        notes = list(filter(None, ["paused" if self.paused else "", self._note]))
        if not notes and not self.help:
            return self.plain
        canvas = self.plain.copy()
        size = text_size(*canvas.shape[:2])
        x = y = size // 2
        for text in notes:
            y += _plate(canvas, [[text]], x, y, size) + size // 3
        if self.help:
            _plate(canvas, [[key.shown, key.does] for key in KEYS], x, y, size)
        return canvas


def _plate(canvas: np.ndarray, rows: list[list[str]], x: int, y: int, size: int) -> int:
    """Columns of text on a dark plate with its upper left corner at (x, y); returns its height in pixels."""
    widths = [max(text_width(cell, size) for cell in column) for column in zip(*rows, strict=True)]
    line, edge = round(1.5 * size), round(0.6 * size)
    width = sum(widths) + size * (len(widths) - 1) + 2 * edge
    height = line * len(rows) + edge
    plate(canvas, x, y, width, height, DARK, edge)
    for number, row in enumerate(rows):
        left = x + edge
        baseline = y + edge // 2 + line * number + round((line + CAP * size) / 2)
        for cell, column in zip(row, widths, strict=True):
            draw_text(canvas, cell, left, baseline, size, LIGHT)
            left += column + size
    return height
