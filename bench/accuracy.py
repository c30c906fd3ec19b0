"""How often the named expression is the right one: the networks that ship, and the `fer` package, on the same faces.

    emograph bench accuracy --data fer2013.csv --python THERE/bin/python

Each face of PublicTest twice: alone, as the data set has it, and in a larger frame, where the contestant finds and cuts
it with its own code. Of several faces found in a frame the one that overlaps the true place most is taken.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from bench.peers import MissingPeer, ask_fer
from bench.record import Result, Settings
from nodes.emotion.weights import available, load_weights
from nodes.preprocess import LABELS
from pipeline.errors import UserError
from trainer.dataset import FaceSet, load
from trainer.folders import PUBLIC
from trainer.metrics import wilson
from trainer.predict import predict_logits, probabilities
from trainer.through_detector import Found, best_box, find_faces, in_a_frame

PEER = "fer (package)"
MIRRORED = " with mirror: true"


class Answers(NamedTuple):
    """What a contestant says of N faces, as indices in LABELS: int (N,); framed: -1 where it finds no face."""

    alone: np.ndarray
    framed: np.ndarray


def contestants(settings: Settings) -> list[str]:
    return [*(name + way for name in available() for way in ("", MIRRORED)), PEER]


def run(settings: Settings) -> Result:
    if settings.data is None:
        raise UserError("accuracy needs --data fer2013.csv")
    result = Result("accuracy", once=True)
    faces = load(settings.data, [PUBLIC]).split(PUBLIC)
    found = None
    for name in contestants(settings):
        if not settings.wants(name):
            continue
        if name == PEER:
            try:
                answers = _fer(faces.images, settings.python)
            except MissingPeer as missing:
                result.skipped.append(str(missing))
                continue
        else:
            found = found or find_faces(faces.images)
            answers = _ours(name, faces, found)
        _add(result, name, answers, faces.labels)
    result.notes += [
        "PublicTest, intervals of 95 % (Wilson). Our networks were chosen on these faces and have not learnt from "
        "them; what the peer's network has learnt from is for its authors to say.",
        "right of all: a face that is not found is not right.",
    ]
    return result


def _add(result: Result, name: str, answers: Answers, labels: np.ndarray) -> None:
    right = int((answers.alone == labels).sum())
    low, high = wilson(right, len(labels))
    result.add(
        "The face alone",
        contestant=name, faces=len(labels), right=f"{right / len(labels):.1%}", interval=f"{low:.1%} - {high:.1%}",
    )  # fmt: skip
    found = answers.framed >= 0
    right = int((answers.framed == labels).sum())
    result.add(
        "The face in a frame",
        contestant=name, found=f"{found.mean():.1%}", **{"right of those found": f"{right / max(found.sum(), 1):.1%}"},
        **{"right of all": f"{right / len(labels):.1%}"},
    )  # fmt: skip


def _ours(name: str, faces: FaceSet, found: Found) -> Answers:
    network, header = load_weights(name.removesuffix(MIRRORED))
    views = "flip" if name.endswith(MIRRORED) else "none"

    def named(images: np.ndarray) -> np.ndarray:
        return probabilities(predict_logits(network, images, views), header.temperature).argmax(axis=1)

    framed = np.full(len(faces), -1)
    framed[found.index] = named(found.patches)
    return Answers(named(faces.images), framed)


def _fer(images: np.ndarray, python: str) -> Answers:
    """What the package says in its own Python. Raises MissingPeer."""
    side, frame_side = images.shape[1], len(in_a_frame(images[0]))
    given = (image.tobytes() + in_a_frame(image).tobytes() for image in images)
    said = json.loads(ask_fer(python, "fer_faces.py", len(images), side, frame_side, given=given))
    alone = [LABELS.index(one["face"]) for one in said]
    framed = []
    for one in said:
        boxes = np.reshape([box for box, _ in one["frame"]], (-1, 4))
        framed.append(LABELS.index(one["frame"][best_box(boxes)][1]) if len(boxes) else -1)
    return Answers(np.array(alone), np.array(framed))
