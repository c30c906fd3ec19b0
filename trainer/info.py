"""What `emograph data info` counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from nodes.preprocess import LABELS
from trainer.checks import find_defects
from trainer.dataset import FaceSet
from trainer.folders import SPLITS, TRAINING


def describe(faces: FaceSet) -> dict[str, Any]:
    """`counts` {split: {label: faces}} of the splits present, and the defects of checks.py as numbers.

    `blank` lists data rows, from 0, and `blank_files` the pictures, where they come from a folder; `leaked` counts
    Training pictures that stand in another split as well, `leaked_into` for each other split its own pictures that
    stand in Training.
    """
    defects = find_defects(faces)
    present = [split for split in SPLITS if (faces.splits == split).any()]
    counts = {
        split: {name: int(((faces.splits == split) & (faces.labels == i)).sum()) for i, name in enumerate(LABELS)}
        for split in present
    }
    return {
        "source": str(faces.source),
        "faces": len(faces),
        "counts": counts,
        "blank": faces.rows[defects.blank].tolist(),
        "blank_files": [str(faces.files[i]) for i in np.flatnonzero(defects.blank)] if faces.files else [],
        "copies": {split: int(defects.copies[faces.splits == split].sum()) for split in present},
        "leaked": int(defects.leaked.sum()),
        "leaked_into": {split: _in_training(faces, split, defects.blank) for split in present if split != TRAINING},
        "contradictions": defects.contradictions,
        "sha256": faces.digest(),
    }


def _in_training(faces: FaceSet, split: str, blank: np.ndarray) -> int:
    training = {faces.images[i].tobytes() for i in np.flatnonzero((faces.splits == TRAINING) & ~blank)}
    others = np.flatnonzero((faces.splits == split) & ~blank)
    return sum(faces.images[i].tobytes() in training for i in others)
