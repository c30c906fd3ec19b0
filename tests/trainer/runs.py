"""Small runs for tests of the training loop."""

from __future__ import annotations

import torch

from trainer.dataset import FaceSet
from trainer.folders import PUBLIC, TRAINING
from trainer.loop import Arrays
from trainer.recipe import Recipe

BASE = {
    "width": 4,
    "epochs": 3,
    "batch": 32,
    "lr": 0.01,
    "ema": 0.8,
    "mixup": 0.2,
    "precision": "fp32",
    "augment": {"rotate": 10, "erase": 0.3},
    "sizes": [[0.5, 32], [1.0, 48]],
}
PLAIN = {"epochs": 1, "mixup": 0, "ema": 0, "augment": {"flip": 0}, "sizes": [[1.0, 16]], "batch": 210}
"""One step an epoch, in which nothing is left to chance."""


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(BASE | changes)


def arrays(faces: FaceSet) -> tuple[Arrays, Arrays]:
    training, public = faces.split(TRAINING), faces.split(PUBLIC)
    return tuple(Arrays(torch.from_numpy(f.images), torch.from_numpy(f.labels)) for f in (training, public))  # type: ignore[return-value]
