"""The FER+ votes: ten labellers' opinions on each row of fer2013.csv, as an auxiliary training target.

Source: Barsoum et al., "Training deep networks for facial expression recognition with crowd-sourced label
distribution", 2016; github.com/microsoft/FERPlus, MIT licence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nodes.preprocess import LABELS
from pipeline.errors import UserError
from trainer import table
from trainer.dataset import FaceSet

VOTES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
"""Columns of the votes, in FER+'s own order (not LABELS'); NF: not a face."""

_BLOCK, _TAIL = 500, 100
_AGREEMENT = 0.4
"""What of a block's labels the votes must agree with: they do with 62 %, and with 20 % where rows are shifted."""
_AS_LABEL = {"anger": "angry", "happiness": "happy", "sadness": "sad"}


def load_votes(path: str | Path, faces: FaceSet) -> np.ndarray:
    """The share of votes per column for each face, float32 (N, 10); rows without votes are all 0.

    `path` has the columns `row` (data row of fer2013.csv, from 0) and VOTES. Raises UserError, naming the line, for
    a cell that is no number and for a row that stands there twice; and if faces have no row there, or if somewhere the
    majorities disagree with the labels so much that the rows must be shifted (FER+ and FER2013 agree on about
    63 %; chance is 16 %).
    """
    path = Path(path)
    wanted = set(faces.rows.tolist())
    votes: dict[int, list[float]] = {}
    lines: dict[int, int] = {}
    for line, cells in table.rows(path, ("row", *VOTES)):
        try:
            row, *counts = map(_number, cells, ("row", *VOTES))
        except ValueError as error:
            raise UserError(f"{path}:{line}: {error}") from error
        if row in lines:
            raise UserError(f"{path}:{line}: row {row:.0f} stands there twice, first in line {lines[int(row)]}")
        lines[int(row)] = line
        if row in wanted:
            votes[int(row)] = counts
    if missing := wanted - votes.keys():
        raise UserError(
            f"{path} has no votes for {len(missing):,} of the {len(faces):,} faces; the first of them is row "
            f"{min(missing)}, counted from 0, of {faces.source}"
        )
    shares = np.array([votes[row] for row in faces.rows.tolist()], np.float32)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    # Block by block: rows may be shifted from one on that somebody has deleted.
    blocks = np.array_split(np.arange(len(faces)), max(1, len(faces) // _BLOCK))
    for block in (*blocks, blocks[-1][-_TAIL:]):
        if agreement(shares[block], faces.labels[block]) < _AGREEMENT:
            begin = faces.rows[block[0]]
            raise UserError(
                f"{path} belongs to other rows than {faces.source}: the votes contradict the labels from about row "
                f"{begin} on, counted from 0"
            )
    return shares


def _number(text: str, column: str) -> float:
    """A whole number, 0 or more; `4.0` is one too, as pandas writes it."""
    if not text:
        raise ValueError(f"{column} is empty")
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number < 0 or not number.is_integer():
        raise ValueError(f"{column} is '{text}' instead of a whole number")
    return number


def agreement(shares: np.ndarray, labels: np.ndarray) -> float:
    """On which share of the faces the most-voted column is the FER2013 label."""
    names = [_AS_LABEL.get(name, name) for name in VOTES]
    as_label = np.array([LABELS.index(name) if name in LABELS else -1 for name in names])
    return float((as_label[shares.argmax(axis=1)] == labels).mean())
