"""Figures of a classifier from its probabilities and the labels; numpy only, no network and no files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nodes.preprocess import LABELS

_Z95 = 1.959964
_BINS = 15
_PRIOR = 0.25
"""Of networks trained by these recipes the temperatures lie between 0.7 and 1.3."""


@dataclass(frozen=True)
class Figures:
    """Results on one split. Shares are 0..1; `interval` and `recall_interval` are 95 % Wilson intervals.

    `confusion[i][j]` counts faces of class i read as class j. `nll` is in nats; `ece` has 15 equal bins.
    """

    count: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    recall: dict[str, float | None]
    recall_interval: dict[str, tuple[float, float]]
    confusion: list[list[int]]
    nll: float
    ece: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def figures(probabilities: np.ndarray, labels: np.ndarray) -> Figures:
    """All figures of probabilities float (N, 7) against labels int (N,)."""
    guesses = probabilities.argmax(axis=1)
    classes = len(LABELS)
    confusion = np.bincount(labels * classes + guesses, minlength=classes**2).reshape(classes, classes)
    hits, actual, guessed = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = 2 * hits / np.maximum(actual + guessed, 1)
    correct = int(hits.sum())
    return Figures(
        count=len(labels),
        accuracy=correct / len(labels),
        interval=wilson(correct, len(labels)),
        macro_f1=float(f1[actual > 0].mean()),
        recall={name: float(hits[i] / actual[i]) if actual[i] else None for i, name in enumerate(LABELS)},
        recall_interval={name: wilson(int(hits[i]), int(actual[i])) for i, name in enumerate(LABELS)},
        confusion=confusion.tolist(),
        nll=nll(probabilities, labels),
        ece=expected_calibration_error(probabilities, labels),
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson, "Probable inference", 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return float(max(centre - half, 0)), float(min(centre + half, 1))


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log probability of the right class, in nats."""
    right = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per confidence bin, each (15,): mean confidence, accuracy, and share of the faces (empty bins: 0)."""
    confidence = probabilities.max(axis=1)
    hit = (probabilities.argmax(axis=1) == labels).astype(float)
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    divisor = np.maximum(count, 1)
    return (
        np.bincount(place, confidence, _BINS) / divisor,
        np.bincount(place, hit, _BINS) / divisor,
        count / len(labels),
    )


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over the bins (Guo et al., "On calibration", 2017)."""
    confidence, accuracy, share = reliability(probabilities, labels)
    return float((share * np.abs(confidence - accuracy)).sum())


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logits (..., 7) -> probabilities, after division by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The one number, .1 to 10, that logits (N, 7) are divided by for the least NLL (Guo et al. 2017).

    With a prior on its logarithm, normal around 0 with a deviation of _PRIOR. To thousands of faces that is nothing; it
    keeps a few dozen, all of which happen to be read rightly, from saying that the network is always sure.
    """

    def loss(log: float) -> float:
        return nll(softmax(logits, np.exp(log)), labels) + (log / _PRIOR) ** 2 / (2 * len(labels))

    golden = (np.sqrt(5) - 1) / 2
    low, high = np.log(0.1), np.log(10.0)
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
