"""`bench accuracy`: who names how many faces rightly, alone and in a frame."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import accuracy
from bench.accuracy import MIRRORED, PEER
from bench.peers import HOW_TO_GET_FER
from bench.record import Settings
from nodes.preprocess import LABELS
from pipeline.errors import UserError
from tests.support.graphs import ROOT

PACKAGE = '''
"""Stands where the package would: it reads a face's class from its grey level, in a frame at its very place only."""
import numpy as np

NAMES = "angry disgust fear happy sad surprise neutral".split()

class FER:
    def _get_labels(self):
        return dict(enumerate(NAMES))

    def _classify_emotions(self, faces):
        assert faces.shape == (1, 64, 64) and abs(faces).max() <= 1, faces.shape
        return np.eye(7)[[round((face.mean() / 2 + 0.5) * 255) // 20 for face in faces]]

    def detect_emotions(self, frame):
        height, width, _ = frame.shape
        level = int(frame[height // 2, width // 2, 0]) // 20
        if level == 0:
            return []
        far = {"box": [0, 0, 20, 20], "emotions": {name: float(name == "angry") for name in NAMES}}
        at = [width // 4, height // 4, width // 2, height // 2]
        return [far, {"box": np.array(at), "emotions": {name: float(i == level) for i, name in enumerate(NAMES)}}]
'''


def data(path: Path, faces: list[np.ndarray]) -> Path:
    """A csv of PublicTest: a face of each class."""
    lines = [f"{label},{' '.join(map(str, face.ravel()))},PublicTest" for label, face in enumerate(faces)]
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    return path


def python_with(folder: Path) -> str:
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_the_peer_is_asked_in_its_own_python(tmp_path: Path):
    (tmp_path / "fer").mkdir()
    (tmp_path / "fer" / "__init__.py").touch()
    (tmp_path / "fer" / "fer.py").write_text(PACKAGE)
    faces = [np.full((48, 48), 20 * label + 10, np.uint8) for label in range(7)]
    faces[6][:] = 30  # of a class that the network does not name here
    settings = Settings(data=data(tmp_path / "fer.csv", faces), only=(PEER,), python=python_with(tmp_path))
    result = accuracy.run(settings)
    alone, framed = result.tables.values()
    assert [(row["contestant"], row["faces"], row["right"]) for row in alone] == [(PEER, 7, "85.7%")]
    assert framed[0] == {"contestant": PEER, "found": "85.7%", "right of those found": "83.3%", "right of all": "71.4%"}
    assert not result.skipped


@pytest.mark.parametrize("python", [sys.executable, "/nonexistent/python"])
def test_a_peer_that_is_not_there_is_named(tmp_path: Path, python: str):
    faces = [np.zeros((48, 48), np.uint8)] * 7
    result = accuracy.run(Settings(data=data(tmp_path / "fer.csv", faces), only=(PEER,), python=python))
    reason = "" if python == sys.executable else f" ({python}: No such file or directory)"
    assert result.skipped == [HOW_TO_GET_FER + reason]
    assert not result.tables


def test_our_networks_name_the_mean_faces(tmp_path: Path):
    strip = cv2.imread(str(ROOT / "nodes" / "testsrc_faces.png"), cv2.IMREAD_GRAYSCALE)
    assert strip is not None
    faces = np.split(strip, len(LABELS), axis=1)
    wanted = ("resnet9-s", "resnet9-s" + MIRRORED)
    result = accuracy.run(Settings(data=data(tmp_path / "fer.csv", faces), only=wanted))
    alone, framed = result.tables.values()
    assert [row["contestant"] for row in alone] == [row["contestant"] for row in framed] == list(wanted)
    for row in [*alone, *framed]:
        right = row.get("right") or row["right of all"]
        assert float(right.rstrip("%")) > 50


def test_it_needs_faces_with_labels():
    with pytest.raises(UserError, match="accuracy needs --data"):
        accuracy.run(Settings())
