"""Small synthetic data: seven kinds of stripes that a network tells apart within seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nodes.preprocess import LABELS
from trainer.dataset import FaceSet
from trainer.folders import PUBLIC, TRAINING

torch.set_num_threads(1)  # two threads that wait for each other crawl on a busy machine

SHARED = Path(__file__).resolve().parents[3] / "shared"


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 48, 48) and labels: class c has stripes of period 4 + 3c over noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(LABELS)
    phase = random.uniform(0, 2 * np.pi, (count, 1, 1))
    wave = np.sin(np.arange(48)[None, :, None] * 2 * np.pi / (4 + 3 * labels[:, None, None]) + phase)
    images = 128 + 70 * wave + random.normal(0, 20, (count, 48, 48))
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="session")
def faces() -> FaceSet:
    """210 Training and 70 PublicTest pictures of stripes."""
    images, labels = stripes(280, seed=0)
    splits = np.array([TRAINING] * 210 + [PUBLIC] * 70)
    return FaceSet(Path("stripes"), images, labels, splits, np.arange(280))


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[FaceSet], Path]:
    """Write faces as Kaggle's fer2013.csv."""

    def write(faces: FaceSet) -> Path:
        path = tmp_path / "fer2013.csv"
        lines = ["emotion,pixels,Usage"]
        for image, label, split in zip(faces.images, faces.labels, faces.splits, strict=True):
            lines.append(f"{label},{' '.join(map(str, image.ravel()))},{split}")
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def fer2013() -> Path:
    """The folder with the real rows; tests that need it are skipped where it is not."""
    folder = SHARED / "fer2013"
    if not folder.is_dir():
        pytest.skip("the FER2013 rows of ../shared/fer2013 are not here")
    return folder
