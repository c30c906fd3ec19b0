"""Where a picture has changed since it was last looked at: what lets `haardetect` leave the rest of it alone.

A face that comes in changes the picture where it comes in. So between two searches of everything it is enough to
search where something is new; most of what a fixed camera sees never is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

CELL = 8
"""Side in pixels of the cells that are compared; a face has at least nine of them."""
THRESHOLD = 6.0
"""Grey levels by which a cell's mean has to differ: above a camera's noise, which the mean takes down eightfold."""
LEAST_REACH = 3
"""Cells around a change that belong to it, at the least."""
MOST = 0.7
"""Share of the picture from which on one search of all of it is quicker than several of parts."""

Area = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom exclusive."""


class ChangeMap:
    """Remembers one stream's picture, cell by cell, as it was when it was last searched there."""

    def __init__(self) -> None:
        self._seen: np.ndarray | None = None

    def take(
        self,
        grey: np.ndarray,
        known: Iterable[Sequence[float]] = (),
        *,
        smallest: float = 30.0,
        all_of_it: bool = False,
    ) -> list[Area]:
        """The areas of a picture, uint8 (H, W), that have changed and are now taken as seen; they do not overlap.

        known: boxes (x, y, w, h) in which a change says nothing new. smallest: side in pixels of the smallest face
        that can be found; an area holds one around each change, since a face is larger than what of it moves.
        all_of_it: take the whole picture, changed or not. A picture of another size than the one before has changed
        everywhere.
        """
        height, width = grey.shape
        rows, columns = -(-height // CELL), -(-width // CELL)
        cells = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        if all_of_it or self._seen is None or self._seen.shape != cells.shape:
            self._seen = cells
            return [(0, 0, width, height)]
        changed = (np.abs(cells - self._seen) > THRESHOLD).astype(np.uint8)
        for x, y, w, h in known:
            left, top, right, bottom = (max(0, int(v // CELL)) for v in (x, y, x + w + CELL, y + h + CELL))
            changed[top:bottom, left:right] = 0
        if not changed.any():
            return []
        reach = max(LEAST_REACH, math.ceil(smallest / CELL / 2))
        changed = cv2.dilate(changed, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(changed)
        areas = _disjoint([(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist()])
        if sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in areas) > MOST * rows * columns:
            areas = [(0, 0, columns, rows)]
        for x0, y0, x1, y1 in areas:
            self._seen[y0:y1, x0:x1] = cells[y0:y1, x0:x1]
        return [(x0 * CELL, y0 * CELL, min(x1 * CELL, width), min(y1 * CELL, height)) for x0, y0, x1, y1 in areas]


def _disjoint(areas: list[Area]) -> list[Area]:
    """Areas that overlap, as the one area around them."""
    apart: list[Area] = []
    while areas:
        a = areas.pop()
        touching = next((b for b in apart if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]), None)
        if touching is None:
            apart.append(a)
        else:
            apart.remove(touching)
            pair = (a, touching)
            areas.append((min(p[0] for p in pair), min(p[1] for p in pair),
                          max(p[2] for p in pair), max(p[3] for p in pair)))  # fmt: skip
    return apart
