"""What is written onto a frame: a word in a corner, the note at a face, the panel with every label's bar.

Each of the three measures itself first (`size`: width and height in pixels), is given a place, and then draws
itself there and says what it covers.
"""

from __future__ import annotations

import math

import numpy as np

from nodes.lettering import CAP, DARK, LIGHT, block, draw_text, plate, shorten, text_width
from nodes.overlay.look import Look, colour_of, ink, mix
from nodes.overlay.placement import Rect
from pipeline import Region


class Chip:
    """A word on a dark plate."""

    def __init__(self, text: str, look: Look) -> None:
        self.text, self.look = text, look
        self.size = text_width(text, look.text) + 2 * look.gap, look.cap + 2 * look.gap

    def draw(self, frame: np.ndarray, x: int, y: int) -> Rect:
        look = self.look
        plate(frame, x, y, *self.size, DARK, look.radius)
        draw_text(frame, self.text, x + look.gap, y + self.size[1] - look.gap, look.text, LIGHT)
        return Rect.at(x, y, *self.size)


class Note:
    """Label and probability, as a number and as a bar, on the label's colour; the track id beside it.

    It is at most `room` pixels wide: the id goes first, then the number, then letters of the label. The width is
    0 when there is nothing to say.
    """

    def __init__(self, region: Region, look: Look, room: int, bar: bool) -> None:
        self.look = look
        self.colour = colour_of(region.label)
        probability = label_probability(region)
        self.probability = probability or 0.0
        self.bar = look.bar if bar and probability is not None else 0
        label = region.label or ""
        number = "" if probability is None else f"{probability:.0%}"
        track = "" if region.track is None else f"#{region.track}"
        short = shorten(label, look.text, room - 2 * look.gap)
        for words, beside in ((label, number), track), ((label, number), ""), ((label,), ""), ((short,), ""):
            self._lay_out([word for word in words if word], beside)
            if self.size[0] <= room:
                break

    def _lay_out(self, words: list[str], track: str) -> None:
        look = self.look
        # Label and number are rendered apart: each is known already, their combination would often be new.
        self.words, self.track = words, track
        self.split = sum(text_width(word, look.text) + look.gap for word in words) + look.gap if words else 0
        width = self.split + (text_width(track, look.text) + 2 * look.gap if track else 0)
        self.size = width, look.cap + 2 * look.gap + (self.bar + look.gap // 2 if self.bar else 0)

    def draw(self, frame: np.ndarray, x: int, y: int) -> Rect:
        look, (width, height) = self.look, self.size
        plate(frame, x, y, width, height, DARK, look.radius)
        middle = y + (height + look.cap) // 2
        draw_text(frame, self.track, x + self.split + look.gap, middle, look.text, LIGHT)
        if self.words:
            front = ink(self.colour)
            plate(frame, x, y, self.split, height, self.colour, look.radius)
            left = x + look.gap
            for word in self.words:
                draw_text(frame, word, left, y + look.gap + look.cap, look.text, front)
                left += text_width(word, look.text) + look.gap
            if self.bar:
                top, length = y + height - look.gap - self.bar // 2, self.split - 2 * look.gap
                block(frame, x + look.gap, top, length, self.bar, mix(self.colour, front, 0.25))
                block(frame, x + look.gap, top, round(length * self.probability), self.bar, front)
        return Rect.at(x, y, width, height)


class Panel:
    """The probabilities of all labels: a table with names, or bars alone where the table is larger than `room`
    (in square pixels)."""

    def __init__(self, region: Region, look: Look, room: int) -> None:
        """`region.scores` must not be empty."""
        self.label, self.look = region.label, look
        self.rows = [(label, unit(value)) for label, value in (region.scores or {}).items()]
        self.text = max(9, round(look.text * 0.8))
        self.step, self.bar, self.length = round(self.text * 1.15), self.text // 2, 4 * self.text
        self.names = look.gap + max(text_width(label, self.text) for label, _ in self.rows)
        self.edge = look.gap
        if (table := self._measure())[0] * table[1] > room:
            self.step, self.bar, self.length = self.text // 2 + 1, max(2, self.text // 2 - 1), 2 * look.text
            self.names, self.edge = 0, self.bar
        self.size = self._measure()

    def _measure(self) -> tuple[int, int]:
        return self.names + self.length + 2 * self.edge, len(self.rows) * self.step + 2 * self.edge

    def draw(self, frame: np.ndarray, x: int, y: int) -> Rect:
        plate(frame, x, y, *self.size, DARK, self.look.radius)
        left = x + self.edge + self.names
        for row, (label, value) in enumerate(self.rows):
            middle = y + self.edge + row * self.step + self.step // 2
            if self.names:
                front = LIGHT if label == self.label else mix(LIGHT, DARK, 0.35)
                draw_text(frame, label, x + self.edge, middle + round(CAP * self.text / 2), self.text, front)
            top = middle - self.bar // 2
            block(frame, left, top, self.length, self.bar, mix(DARK, LIGHT, 0.2))
            block(frame, left, top, round(self.length * value), self.bar, colour_of(label))
        return Rect.at(x, y, *self.size)


def label_probability(region: Region) -> float | None:
    """Of the region's label; of the best label when the label itself (`uncertain`) has none. 0-1 or None."""
    if not region.scores or region.label is None:
        return None
    return unit(region.scores.get(region.label, max(region.scores.values())))


def unit(value: float) -> float:
    """`value` as a probability, 0-1; 0 for what is not a number."""
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
