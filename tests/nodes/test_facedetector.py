"""The detector alone: what it finds in a picture, and what it says of one that is none."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from nodes import facedetector
from nodes.facedetector import Detections, FaceDetector, _with_contrast, without_nested
from nodes.haardetect import HaarDetect
from nodes.tracker import iou
from pipeline import UserError
from tests.nodes.synthetic import camera, grey

EMPTY = np.full((240, 320, 3), 128, np.uint8)


def test_detect_is_the_plain_cascade_with_scores():
    plain = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    for buffer in camera(3, faces=2, width=480, fps=1):
        picture = cv2.convertScaleAbs(grey(buffer.frame), alpha=2, beta=-100)  # with contrast enough
        boxes, scores = FaceDetector().detect(picture)
        assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)
        assert (boxes.shape, scores.shape) == ((2, 4), (2,))
        expected, _, weights = plain.detectMultiScale3(picture, 1.1, 5, minSize=(30, 30), outputRejectLevels=True)
        order, reference = np.argsort(boxes[:, 0]), np.argsort(expected[:, 0])
        assert np.array_equal(boxes[order], expected[reference])
        assert scores[order] == pytest.approx(np.ravel(weights)[reference], abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, 1),
        ({"cascade": "alt2"}, 1),
        ({"cascade": "frontal+profile"}, 1),
        ({"min_size": 120}, 0),
        ({"max_size": 40}, 0),
        ({"detect_width": 160}, 1),
        ({"detect_width": 60}, 0),  # the face is too small there
        ({"min_score": 1.0}, 1),
        ({"min_score": 1000.0}, 0),
        ({"min_neighbors": 1000}, 0),
    ],
)
def test_settings_of_a_search(settings, found):
    (buffer,) = camera(1)
    boxes, _ = FaceDetector(**settings).detect(grey(buffer.frame))
    assert len(boxes) == found
    assert all(iou(box, buffer.meta["truth"][0]["box"]) > 0.6 for box in boxes)


def test_profiles_are_found_both_ways():
    (buffer,) = camera(1)
    picture = grey(buffer.frame)
    detector = FaceDetector("profile", min_neighbors=1)
    boxes = np.sort(detector.detect(picture)[0], axis=0)
    mirrored = detector.detect(cv2.flip(picture, 1))[0]
    mirrored[:, 0] = picture.shape[1] - mirrored[:, 0] - mirrored[:, 2]
    assert len(boxes)
    assert np.array_equal(boxes, np.sort(mirrored, axis=0))


@pytest.mark.parametrize("gain", [0.3, 0.15, 0.08])
def test_faces_are_found_in_the_dark(gain):
    (buffer,) = camera(1)
    dark = (grey(buffer.frame) * gain).astype(np.uint8)
    boxes, _ = FaceDetector().detect(dark)
    assert len(boxes) == 1
    assert iou(boxes[0], buffer.meta["truth"][0]["box"]) > 0.6


def test_look_finds_only_what_is_near_and_about_as_large():
    (buffer,) = camera(1, faces=2, width=480)
    picture, detector = grey(buffer.frame), FaceDetector()
    x, y, w, h = buffer.meta["truth"][0]["box"]
    found = detector.look(picture, (x + 0.2 * w, y - 0.2 * h, w, h))
    assert len(found.boxes) == 1
    assert iou(found.boxes[0], (x, y, w, h)) > 0.6
    assert not len(detector.look(picture, (x - w / 2, y - h / 2, 2 * w, 2 * h)).boxes)
    assert not len(detector.look(picture, (x, y + 3 * h, w, h)).boxes)
    assert not len(detector.look(picture, (-500, -500, w, h)).boxes)


@pytest.mark.parametrize("side", [64, 200, 700])
def test_look_shrinks_a_large_face(side):
    (buffer,) = camera(1, width=2 * side, height=2 * side, min_face=0.5, max_face=0.5)
    found = FaceDetector().look(grey(buffer.frame), box := buffer.meta["truth"][0]["box"])
    assert len(found.boxes) == 1
    assert iou(found.boxes[0], box) > 0.6


def test_a_face_in_a_face_goes():
    boxes = np.array([[0, 0, 100, 100], [30, 30, 40, 40], [200, 0, 50, 50]], np.float32)
    found = without_nested(Detections(boxes, np.ones(3, np.float32), np.array([6, 20, 7], np.int32)))
    assert sorted(found.neighbors) == [7, 20]


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (24, 500), (29, 29), (1, 5000), (5000, 1)])
def test_a_picture_smaller_than_a_face_has_none(size):
    for cascade in ("frontal", "frontal+profile"):
        for detect_width in (0, 100):
            boxes, scores = FaceDetector(cascade, detect_width=detect_width).detect(np.zeros(size, np.uint8))
            assert (boxes.shape, scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize("picture", [EMPTY, np.zeros((50, 50), np.float32)])
def test_what_is_no_grey_picture_is_refused(picture):
    with pytest.raises(ValueError, match="a grey picture is uint8"):
        FaceDetector().detect(picture)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, r"OpenCV 5\.0\.0 as installed has no haarcascade_frontalface_default.xml; .*pip install"),
        ({"data": SimpleNamespace(haarcascades="")}, "pip install"),
        ({"data": SimpleNamespace(haarcascades=cv2.data.haarcascades)}, "pip install"),  # the files, no classifier
    ],
)
def test_an_opencv_without_cascades_says_the_cure(monkeypatch, attributes, words):
    monkeypatch.setattr(facedetector, "cv2", SimpleNamespace(__version__="5.0.0", error=cv2.error, **attributes))
    with pytest.raises(UserError, match=words):
        HaarDetect().open()


def test_a_damaged_cascade_file_says_the_cure(monkeypatch, tmp_path):
    (tmp_path / "haarcascade_frontalface_default.xml").write_text("<opencv_storage>")
    monkeypatch.setattr(cv2.data, "haarcascades", f"{tmp_path}/")
    with pytest.raises(UserError, match="is damaged; install it again"):
        FaceDetector()


@pytest.mark.parametrize(
    ("settings", "found"),
    [({}, 1), ({"min_size": 60}, 1), ({"min_size": 100}, 0), ({"max_size": 100}, 1), ({"max_size": 50}, 0)],
)
def test_a_look_keeps_to_the_sizes_of_the_detector(settings: dict, found: int):
    (buffer,) = camera(1)  # a face of 60 to 84 pixels
    boxes = FaceDetector(**settings).look(grey(buffer.frame), buffer.meta["truth"][0]["box"]).boxes
    assert len(boxes) == found


def test_a_picture_of_nothing_but_noise_is_not_stretched():
    rng = np.random.default_rng(0)
    noise, dark = (np.clip(np.round(rng.normal(20, d, (240, 320))), 0, 255).astype(np.uint8) for d in (0.7, 5))
    assert _with_contrast(noise) is noise
    assert _with_contrast(dark).std() > 40
