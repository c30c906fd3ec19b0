"""The synthetic camera: what it says is what it shows, and it shows the same every time."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import cv2
import numpy as np
import pytest

from nodes.facedetector import FaceDetector
from nodes.preprocess import LABELS, preprocess
from nodes.testsrc import TestSrc, _read_means
from nodes.tracker import iou
from pipeline import Buffer, GraphError, Harness


def pull(count: int, *, at: int = 0, name: str = "cam", **properties: Any) -> list[Buffer]:
    with Harness(TestSrc(name=name, **properties)) as h:
        h.node.seek(at)
        return h.pull(count)


def truths(count: int, **properties: Any) -> list[list[dict[str, Any]]]:
    return [b.meta["truth"] for b in pull(count, **properties)]


def same(a: list[Buffer], b: list[Buffer]) -> bool:
    return all(
        np.array_equal(x.frame, y.frame) and x.meta == y.meta and x.pts == y.pts for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize(
    ("properties", "shape", "step_ns"),
    [
        ({}, (480, 640, 3), 1e9 / 15),
        ({"width": 321, "height": 243, "fps": 30}, (243, 321, 3), 1e9 / 30),
        ({"width": 120, "height": 400, "fps": 0, "faces": 3}, (400, 120, 3), 1e9 / 30),
        ({"width": 1280, "height": 720, "fps": 29.97, "faces": 2}, (720, 1280, 3), 1e9 / 29.97),
    ],
)
def test_any_size_and_rate(properties, shape, step_ns):
    buffers = pull(3, **properties)
    assert [b.frame.shape for b in buffers] == [shape] * 3
    assert [b.pts for b in buffers] == [round(n * step_ns) for n in range(3)]
    assert all(len(b.meta["truth"]) == properties.get("faces", 1) for b in buffers)


@pytest.mark.parametrize(
    ("fps", "lossless", "paced"), [(15, False, True), (15, True, False), (0, False, False), (0, True, False)]
)
def test_paced_only_where_there_is_a_clock_to_keep(fps, lossless, paced):
    with Harness(TestSrc(fps=fps), lossless=lossless) as h:
        assert h.node.paced is paced


@pytest.mark.parametrize(
    ("limits", "frames"),
    [
        ({"num_buffers": 7}, 7),
        ({"duration": "0.5s", "fps": 10}, 5),
        ({"duration": 0.3, "fps": 10}, 3),  # 0.3 * 10 is a little more than 3 to a computer
        ({"duration": "250ms", "fps": 10}, 3),
        ({"duration": "1s", "fps": 10, "num_buffers": 4}, 4),
        ({}, 20),
    ],
)
def test_ends_where_it_is_told(limits, frames):
    assert len(pull(20, width=64, height=48, faces=0, **limits)) == frames


def test_two_runs_are_equal_and_seek_is_exact():
    run = pull(6, faces=2, at=30)
    assert same(run, pull(6, faces=2, at=30))
    assert same(run[4:], pull(2, faces=2, at=34))
    assert not np.array_equal(run[0].frame, run[5].frame)


def test_seek_keeps_to_the_end():
    assert len(pull(5, at=8, num_buffers=10)) == 2


def test_sources_differ_by_name_and_by_seed():
    assert not same(pull(1, name="door"), pull(1, name="desk"))
    assert not same(pull(1, seed=1), pull(1, seed=2))
    assert same(pull(1, name="door", seed=3), pull(1, name="desk", seed=3))


@pytest.mark.parametrize("faces", [2, 3, 5, 9, 16])
@pytest.mark.parametrize("size", [(640, 480), (400, 900)])
def test_faces_stay_apart_and_inside_and_move_smoothly(faces, size):
    width, height = size
    run = truths(60, faces=faces, width=width, height=height, at=100)
    for truth in run:
        for x, y, w, h in (t["box"] for t in truth):
            assert min(x, y, width - x - w, height - y - h) >= 0
        assert all(iou(a["box"], b["box"]) == 0 for a, b in combinations(truth, 2))
    for before, after in pairwise(run):
        for a, b in zip(before, after, strict=True):
            assert np.abs(np.subtract(a["box"], b["box"])).max() < 0.2 * a["box"][2]
    # Each has its own way and its own expression.
    steps = [np.subtract(run[-1][i]["box"], run[0][i]["box"]) for i in range(faces)]
    assert all(np.abs(a - b).max() > 1 for a, b in combinations(steps, 2))
    assert len({(t["label"], t["mix"]) for t in run[0]}) > 1


def test_size_changes_within_its_limits():
    sides = [t[0]["box"][2] for t in truths(400, min_face=0.2, max_face=0.4, fps=10, width=320, height=240)]
    assert 48 <= min(sides) < 55
    assert 90 < max(sides) <= 96


def test_expressions_are_held_and_then_morph_into_the_next():
    run = [t[0] for t in truths(300, hold=1, morph=0.5, fps=10, width=160, height=120)]
    for a, b in pairwise(run):
        if a["label"] == b["label"]:
            assert b["mix"] >= a["mix"]
        else:
            assert b["label"] == a["next"]
    assert {t["label"] for t in run} == set(LABELS)
    assert all(t["label"] != t["next"] for t in run)
    assert sum(t["mix"] == 0 for t in run) == pytest.approx(200, abs=15)


def test_without_morph_expressions_jump():
    assert {t[0]["mix"] for t in truths(30, hold=0.3, morph=0)} == {0.0}


def test_the_face_in_the_box_is_the_class_mean_it_claims():
    means = _read_means()
    inside = np.zeros((48, 48), bool)
    inside[10:38, 12:36] = True  # eyes to mouth: the edge is blended into hair and neck
    checked = 0
    for buffer in pull(120, faces=3, fps=2):
        grey = cv2.cvtColor(buffer.frame, cv2.COLOR_BGR2GRAY)
        for t in buffer.meta["truth"]:
            if t["mix"] == 0:
                patch = preprocess(grey, t["box"])[inside]
                errors = [np.abs(patch.astype(int) - mean[inside]).mean() for mean in means]
                assert LABELS[int(np.argmin(errors))] == t["label"]
                assert min(errors) < 10
                checked += 1
    assert checked > 150


def test_the_detector_finds_every_face_and_nothing_else():
    detector = FaceDetector()
    for seed, properties in enumerate(
        [
            {"min_face": 0.25, "max_face": 0.3, "width": 320, "height": 240},  # 60 to 72 pixels
            {"faces": 2},
            {"faces": 4},
            {"min_face": 0.4, "max_face": 0.45},
            {"faces": 0},
        ]
    ):
        for n in range(0, 400, 100):
            (buffer,) = pull(1, at=n, seed=seed, **properties)
            boxes, _ = detector.detect(cv2.cvtColor(buffer.frame, cv2.COLOR_BGR2GRAY))
            truth = [t["box"] for t in buffer.meta["truth"]]
            assert len(boxes) == len(truth), (seed, n)
            assert all(max(iou(t, box) for box in boxes) > 0.6 for t in truth), (seed, n)


@pytest.mark.parametrize(
    ("properties", "error", "words"),
    [
        ({"faces": 64, "width": 64, "height": 48}, GraphError, "fewer faces, a larger frame"),
        ({"width": 16, "height": 16}, GraphError, "1 face in 16x16"),
        ({"min_face": 0.5, "max_face": 0.2}, GraphError, "min_face 0.5 is above max_face 0.2"),
        ({"hold": 0, "morph": 0}, GraphError, "hold and morph"),
        ({"hold": 1e-320, "morph": 0}, GraphError, "hold and morph"),
        ({"fps": -1}, GraphError, "fps"),
        ({"fps": 1e-300}, GraphError, "fps.*the slowest rate is 0.001 frames/s"),
        ({"facse": 2}, GraphError, "did you mean 'faces'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(properties, error, words):
    with pytest.raises(error, match=words):
        pull(1, **properties)
