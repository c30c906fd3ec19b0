"""From a data set to the arrays of one run: the two splits, minus what the recipe leaves out, plus votes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import UserError
from trainer.checks import find_defects
from trainer.dataset import PUBLIC, TRAINING, FaceSet, load
from trainer.ferplus import load_votes
from trainer.loop import Arrays
from trainer.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """`digest` is over all rows loaded, before any was left out."""

    training: Arrays
    public: Arrays
    public_faces: FaceSet
    digest: str


def load_for_training(path: Path) -> FaceSet:
    """Training and PublicTest; PrivateTest stays closed."""
    return load(path, [TRAINING, PUBLIC])


def prepare(faces: FaceSet, recipe: Recipe, ferplus: Path | None, device: torch.device) -> Prepared:
    """Arrays on the device. UserError if a split is empty or the recipe wants votes and none are given."""
    if recipe.ferplus and ferplus is None:
        raise UserError("this recipe uses the FER+ votes: give --ferplus ferplus.csv, or set ferplus=0")
    defects = find_defects(faces)
    kept = faces.splits == TRAINING
    for name in recipe.leave_out:
        kept &= ~getattr(defects, name)
    training, public = faces.take(kept).split(TRAINING), faces.split(PUBLIC)
    votes = load_votes(ferplus, training) if recipe.ferplus and ferplus else None
    return Prepared(_arrays(training, votes, device), _arrays(public, None, device), public, faces.digest())


def _arrays(faces: FaceSet, votes: np.ndarray | None, device: torch.device) -> Arrays:
    return Arrays(
        torch.from_numpy(faces.images).to(device),
        torch.from_numpy(faces.labels).to(device),
        None if votes is None else torch.from_numpy(votes).to(device),
    )


def pick_device(wish: str) -> torch.device:
    """auto, cpu or cuda -> a device that is there; UserError otherwise."""
    if wish not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device '{wish}': it must be auto, cpu or cuda")
    if wish == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available: use --device cpu")
    return torch.device("cpu" if wish == "cpu" or not torch.cuda.is_available() else "cuda")
