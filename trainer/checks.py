"""What is wrong with a set of faces: blank pictures, exact copies, copies that contradict each other.

FER2013 has all three. They are counted and may be left out; the data set itself is never changed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from trainer.dataset import FaceSet
from trainer.folders import TRAINING


@dataclass(frozen=True)
class Defects:
    """Masks, bool (N,), over a FaceSet, and the number of groups of copies with more than one label.

    `blank`: every pixel has the same value. `copies`: an equal picture stands earlier in the same split.
    `leaked`: a Training picture that also stands in another split.
    """

    blank: np.ndarray
    copies: np.ndarray
    leaked: np.ndarray
    contradictions: int


def find_defects(faces: FaceSet) -> Defects:
    """Compare all pictures byte by byte (blank ones count as blank, not as copies of each other)."""
    flat = faces.images.reshape(len(faces), -1)
    blank = flat.max(axis=1) == flat.min(axis=1)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i in np.flatnonzero(~blank):
        groups[flat[i].tobytes()].append(int(i))

    copies, leaked = np.zeros(len(faces), bool), np.zeros(len(faces), bool)
    contradictions = 0
    for group in groups.values():
        if len(group) == 1:
            continue
        contradictions += len({int(faces.labels[i]) for i in group}) > 1
        seen = {str(faces.splits[i]) for i in group}
        first: set[str] = set()
        for i in group:
            split = str(faces.splits[i])
            copies[i] = split in first
            first.add(split)
            leaked[i] = split == TRAINING and len(seen) > 1
    return Defects(blank, copies, leaked, contradictions)
