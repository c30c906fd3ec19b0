"""Where a label goes: next to its box, inside the frame, off the other labels and faces if there is any room.

Used by `overlay`. Pure geometry in whole pixels; the answer depends on the rectangles alone, so a label moves
only when its box or a neighbour does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Rect(NamedTuple):
    """Whole pixels: left, top, right, bottom; right and bottom lie just outside."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def at(cls, x: int, y: int, width: int, height: int) -> Rect:
        return cls(x, y, x + width, y + height)

    def grown(self, by: int) -> Rect:
        return Rect(self.left - by, self.top - by, self.right + by, self.bottom + by)


_LABEL, _FACE = 10.0, 2.0
"""What it costs to cover another label, and to cover a face: a label lies on a face before it lies on a label."""
_AWAY = 0.05
"""What each step costs that a label goes further up or down; a step is the label's height."""
_STEPS = np.arange(-8, 9)


def place(
    size: tuple[int, int],
    box: Rect,
    faces: list[Rect],
    labels: list[Rect],
    frame: tuple[int, int],
    beside: bool = False,
) -> tuple[int, int, bool]:
    """(x, y, clear) for a label of `size` (width, height) that belongs to `box`: its upper left corner, and
    whether it is clear of all other labels.

    faces: all boxes. labels: what is drawn already. frame: (height, width). The label is inside the frame whenever
    it is no larger than the frame; then, the cheapest of: above, below, right, left, inside (`beside`: right
    and left come first), and, where all these cover something, further up or down.
    """
    width, height = size
    left, top, right, bottom = box
    over = [(left, top - height), (left, bottom), (right - width, top - height), (right - width, bottom)]
    aside = [(right, top), (left - width, top), (right, bottom - height), (left - width, bottom - height)]
    inside = [(left, top), (left, bottom - height)]
    near = np.array([*aside, *over, *inside] if beside else [*over, *aside, *inside])
    spots, cost, covered = _judge(near, size, faces, labels, frame)
    if cost.min() > _AWAY:
        columns = (left, right - width, right, left - width)
        away = np.array([(x, top + step * height) for step in _STEPS for x in columns])
        spots, cost, covered = _judge(np.concatenate([near, away]), size, faces, labels, frame)
        cost[len(near) :] += _AWAY * np.abs(np.repeat(_STEPS, len(columns)))
    best = cost.argmin()
    x, y = spots[best]
    return int(x), int(y), not covered[best]


def _judge(
    spots: np.ndarray, size: tuple[int, int], faces: list[Rect], labels: list[Rect], frame: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(spots moved into the frame, cost of each, pixels of other labels that each covers)."""
    spots = np.maximum(np.minimum(spots, np.array([frame[1], frame[0]]) - size), 0)
    others = np.array([*labels, *faces])
    sides = np.minimum(spots[:, None] + size, others[:, 2:]) - np.maximum(spots[:, None], others[:, :2])
    covered = np.prod(np.maximum(sides, 0), axis=2)
    # All of the smaller of the two is as bad as it gets.
    whole = np.minimum(np.prod(others[:, 2:] - others[:, :2], axis=1), size[0] * size[1])
    weights = np.repeat([_LABEL, _FACE], [len(labels), len(faces)])
    cost = covered @ (weights / whole) + 1e-4 * np.arange(len(spots))
    return spots, cost, covered[:, : len(labels)].sum(axis=1)
