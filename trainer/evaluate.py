"""What weights are worth on a split: figures per test-time augmentation, calibration, and through the detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nodes.emotion.model import ResNet9
from nodes.emotion.weights import Header
from trainer.dataset import FaceSet
from trainer.metrics import Figures, expected_calibration_error, figures, nll
from trainer.predict import VIEWS, predict_logits, probabilities
from trainer.through_detector import Found, find_faces


@dataclass(frozen=True)
class Calibration:
    """NLL and ECE, without test-time augmentation, before and after division by the header's temperature."""

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class ThroughDetector:
    """Faces found in larger frames by the haardetect node's code, cut by preprocess(), then classified.

    `direct` is the accuracy of the data set's own pictures of those same faces. Both are None where none was found.
    """

    count: int
    found: int
    found_rate: float
    accuracy: float | None
    interval: tuple[float, float]
    direct: float | None


@dataclass(frozen=True)
class Evaluation:
    """Everything `emograph evaluate` reports; `figures` by level of test-time augmentation."""

    split: str
    figures: dict[str, Figures]
    calibration: Calibration
    through_detector: ThroughDetector | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    net: ResNet9,
    header: Header,
    faces: FaceSet,
    split: str,
    through_detector: bool = False,
    found: Found | None = None,
    say: Callable[[str], None] = lambda what: None,
) -> Evaluation:
    """Measure a network on one split's faces, on its device; probabilities are taken after the header's temperature.

    found: what `find_faces` gave for these faces, where that is known already: it takes minutes.
    say: is told what is done now.
    """
    if through_detector and found is None:
        say(f"looking for {len(faces):,} faces")
        found = find_faces(faces.images, header.preprocess)
    temperature = header.temperature
    logits = {}
    for tta, views in VIEWS.items():
        say(f"classifying {len(faces):,} faces, {views} view{'s' * (views > 1)} of each")
        logits[tta] = predict_logits(net, faces.images, tta)
    plain = {T: probabilities(logits["none"], T) for T in (1.0, temperature)}
    calibration = Calibration(
        temperature,
        nll(plain[1.0], faces.labels),
        nll(plain[temperature], faces.labels),
        expected_calibration_error(plain[1.0], faces.labels),
        expected_calibration_error(plain[temperature], faces.labels),
    )
    return Evaluation(
        split,
        {tta: figures(probabilities(views, temperature), faces.labels) for tta, views in logits.items()},
        calibration,
        _through_detector(net, faces, found) if found is not None else None,
    )


def _through_detector(net: ResNet9, faces: FaceSet, found: Found) -> ThroughDetector:
    labels = faces.labels[found.index]
    if not len(labels):
        return ThroughDetector(len(faces), 0, 0.0, None, (0.0, 1.0), None)
    seen = figures(probabilities(predict_logits(net, found.patches)), labels)
    direct = probabilities(predict_logits(net, faces.images[found.index])).argmax(axis=1)
    return ThroughDetector(
        count=len(faces),
        found=len(labels),
        found_rate=len(labels) / len(faces),
        accuracy=seen.accuracy,
        interval=seen.interval,
        direct=float(np.mean(direct == labels)),
    )
