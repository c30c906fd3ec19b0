"""The FER+ votes: ten labellers' opinions on each row of fer2013.csv, as an auxiliary training target.

Source: Barsoum et al., "Training deep networks for facial expression recognition with crowd-sourced label
distribution", 2016; github.com/microsoft/FERPlus, MIT licence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from nodes.preprocess import LABELS
from pipeline.errors import UserError
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

_AS_LABEL = {"anger": "angry", "happiness": "happy", "sadness": "sad"}


def load_votes(path: str | Path, faces: FaceSet) -> np.ndarray:
    """The share of votes per column for each face, float32 (N, 10); rows without votes are all 0.

    `path` has the columns `row` (data row of fer2013.csv, from 0) and VOTES. Raises UserError if it does not,
    if a face has no row there, or if the majorities disagree with the labels so much that the rows must be
    shifted (FER+ and FER2013 agree on about 63 %; chance is 16 %).
    """
    try:
        table = pd.read_csv(path)
        shares = table.set_index("row").loc[faces.rows, list(VOTES)].to_numpy(np.float32)
    except OSError as error:
        raise UserError(f"cannot read the FER+ votes {path}: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is no table of FER+ votes for these rows: {error}") from error
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    if agreement(shares, faces.labels) < 0.4:
        raise UserError(f"{path} belongs to other rows than {faces.source}: the votes contradict the labels")
    return shares


def agreement(shares: np.ndarray, labels: np.ndarray) -> float:
    """On which share of the faces the most-voted column is the FER2013 label."""
    names = [_AS_LABEL.get(name, name) for name in VOTES]
    as_label = np.array([LABELS.index(name) if name in LABELS else -1 for name in names])
    return float((as_label[shares.argmax(axis=1)] == labels).mean())
