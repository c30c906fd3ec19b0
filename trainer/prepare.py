"""From a data set to the arrays of one run: the two splits, minus what the recipe leaves out, plus votes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nodes.emotion.weights import find_weights
from pipeline.errors import UserError
from trainer.checks import find_defects
from trainer.dataset import FaceSet, load
from trainer.ferplus import load_votes
from trainer.folders import PUBLIC, SPLITS, TRAINING
from trainer.loop import Arrays
from trainer.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """The arrays of a run; PublicTest's faces also as they were loaded."""

    training: Arrays
    public: Arrays
    public_faces: FaceSet


def load_for_training(path: Path) -> FaceSet:
    """Training and PublicTest; PrivateTest stays closed."""
    return load(path, [TRAINING, PUBLIC])


def check_votes(recipe: Recipe, ferplus: Path | None) -> None:
    """UserError, before any data are read, if the recipe wants votes and there are none."""
    if not recipe.ferplus:
        return
    if ferplus is None:
        raise UserError("this recipe uses the FER+ votes: give --ferplus ferplus.csv, or set ferplus=0")
    if not ferplus.exists():
        raise UserError(f"no FER+ votes at {ferplus}")


def prepare(faces: FaceSet, recipe: Recipe, ferplus: Path | None, device: torch.device) -> Prepared:
    """Arrays on the device. UserError if a split is empty or the recipe wants votes and none are given."""
    check_votes(recipe, ferplus)
    public = faces.split(PUBLIC)
    faces.split(TRAINING)  # an error if it is empty
    defects = find_defects(faces)
    kept = faces.splits == TRAINING
    for name in recipe.leave_out:
        kept &= ~getattr(defects, name)
    if not kept.any():
        raise UserError(f"{faces.source} has no Training rows but those left out ({', '.join(recipe.leave_out)})")
    training = faces.take(kept)
    votes = load_votes(ferplus, training) if recipe.ferplus and ferplus else None
    return Prepared(_arrays(training, votes, device), _arrays(public, None, device), public)


def run_inputs(recipe: Recipe, faces: FaceSet, ferplus: Path | None) -> dict[str, str]:
    """sha256 of all that decides a run besides its recipe, by what it is: `data`; `votes`, `init`, `teachers` if used.

    A run goes on, or counts as done, only with the same. UserError if a file of it cannot be read.
    """
    splits = np.array([SPLITS.index(name) for name in faces.splits], np.uint8)
    inputs = {"data": _sha256(faces.digest().encode(), splits.tobytes())}
    if recipe.ferplus and ferplus:
        # Which votes a face gets depends on its row.
        inputs["votes"] = _sha256(_content(ferplus), faces.rows.tobytes())
    if recipe.init is not None:
        inputs["init"] = file_sha256(find_weights(recipe.init))
    if recipe.distill:
        inputs["teachers"] = _sha256(*(file_sha256(find_weights(name)).encode() for name in recipe.distill.teachers))
    return inputs


def file_sha256(path: Path) -> str:
    """Of a file's bytes; UserError if it cannot be read."""
    return _sha256(_content(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _arrays(faces: FaceSet, votes: np.ndarray | None, device: torch.device) -> Arrays:
    return Arrays(
        torch.from_numpy(faces.images).to(device),
        torch.from_numpy(faces.labels).to(device),
        None if votes is None else torch.from_numpy(votes).to(device),
    )


def pick_device(wish: str) -> torch.device:
    """auto, cpu, cuda or cuda:N -> a device that is there; UserError otherwise."""
    kind, _, number = wish.partition(":")
    if wish not in ("auto", "cpu") and (kind != "cuda" or not (number.isdecimal() or wish == "cuda")):
        raise UserError(f"unknown device '{wish}': it must be auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise UserError("no CUDA device is available: use --device cpu")
        if number and int(number) >= (count := torch.cuda.device_count()):
            raise UserError(f"there is no device {wish}: this machine has {count} (cuda:0 is the first)")
        return torch.device("cuda", int(number)) if number else torch.device("cuda")
    return torch.device("cpu" if wish == "cpu" or not torch.cuda.is_available() else "cuda")
