"""Parts of a frame: how they are given, what they are in pixels, and what comes of them in a graph."""

from __future__ import annotations

from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from nodes.facedetector import FaceDetector
from nodes.haardetect import HaarDetect
from nodes.zones import Rectangle, common, inside
from pipeline import Buffer, GraphError, Harness
from pipeline.graph import expand
from pipeline.graphfile import parse_yaml
from pipeline.launchstring import parse_launch
from pipeline.schema import graph_schema
from tests.nodes.synthetic import camera

GRAPH = """
nodes:
  door: {type: testsrc}
  desk: {type: testsrc}
  yard: {type: testsrc}
  faces: {type: haardetect, replicas: auto, roi: ROI, ignore: [0, 0, 0.1, 0.1]}
  other: {type: haardetect}
  end: {type: fakesink}
links:
  - "[door, desk] ! faces ! end"
  - yard ! other ! end
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], {}),
        ([0, 0.2, 1, 0.6], {"": [(0, 0.2, 1, 0.6)]}),
        ([[0, 0, 0.4, 1], [0.7, 0, 0.3, 1]], {"": [(0, 0, 0.4, 1), (0.7, 0, 0.3, 1)]}),
        ("0,0.2,1,0.6", {"": [(0, 0.2, 1, 0.6)]}),
        ({"door": [0, 0, 1, 0.5], "desk": []}, {"door": [(0, 0, 1, 0.5)], "desk": []}),
    ],
)
def test_a_rectangle_or_several_or_a_map_of_them(given: Any, found: dict[str, list[Rectangle]]) -> None:
    assert HaarDetect(roi=given).props.roi == found
    schema = graph_schema()["definitions"]["node haardetect"]["properties"]["roi"]
    jsonschema.validate(given, schema)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            [0, 0, 1],
            r"is \[0, 0, 1\]: a rectangle is \[x, y, width, height\] in fractions of the frame, such as \[0, 0.2, 1, 0.6\]",
        ),
        ([0, 0, True, 1], "a rectangle is"),
        ([[0, 0, 1, 1], 1], "a rectangle is"),
        ("0,0,,1", "a rectangle is"),
        ({"door": "wide"}, "a rectangle is"),
        (0.5, "a rectangle is"),
        (0, "a rectangle is"),
        (False, "a rectangle is"),
        ({True: [0, 0, 1, 1]}, "a camera's name that is more to YAML than a word, such as on or no, needs quotes"),
        (["0%", 0, "33%", "100%"], "is .x, y, width, height. in fractions of the frame, such as .0, 0.2, 1, 0.6."),
        ([120, 80, 320, 240], "are fractions of the frame, from 0 to 1"),
        ([0, 0, float("nan"), 1], "are fractions of the frame, from 0 to 1"),
        ([0.5, 0, 0.6, 1], "x and width of a rectangle are more than 1 together"),
        ([0, 0, 1, 0], "a rectangle's height is more than 0"),
    ],
)
def test_what_is_no_rectangle_is_one_clear_line(given: Any, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        HaarDetect(roi=given)


def test_a_camera_that_is_not_there_is_named() -> None:
    expand(parse_yaml(GRAPH.replace("ROI", "{door: [0, 0, 1, 0.5], desk: [0, 0, 0.5, 1]}"), "g.yaml"))
    with pytest.raises(GraphError, match="^g.yaml:6: faces: no camera 'dor' reaches it; did you mean 'door'?"):
        expand(parse_yaml(GRAPH.replace("ROI", "{dor: [0, 0, 1, 0.5]}"), "g.yaml"))
    with pytest.raises(GraphError, match="no camera 'yard' reaches it; known: desk, door"):
        expand(parse_yaml(GRAPH.replace("ROI", "{yard: [0, 0, 1, 0.5]}"), "g.yaml"))


def test_a_launch_string_has_them_too() -> None:
    for text, found in (
        ("0,0,.5,1", {"": [(0, 0, 0.5, 1)]}),
        ("[0,0,.5,1]", {"": [(0, 0, 0.5, 1)]}),
        ("[[0,0,.5,1],[.5,0,.5,.5]]", {"": [(0, 0, 0.5, 1), (0.5, 0, 0.5, 0.5)]}),
        ("'{a: [0, 0, .5, 1]}'", {"a": [(0, 0, 0.5, 1)]}),
    ):
        plan = expand(parse_launch(f"testsrc name=a ! haardetect name=f roi={text} ! fakesink"))
        assert HaarDetect(**plan.nodes["f"].properties).props.roi == found


@pytest.mark.parametrize(
    ("rectangle", "area"),
    [
        (Rectangle(0, 0, 1, 1), (0, 0, 640, 480)),
        (Rectangle(0.7, 0.1, 0.3, 0.2), (448, 48, 640, 144)),
        (Rectangle(0.0001, 0.9999, 0.0001, 0.0001), (0, 479, 1, 480)),
        (Rectangle(1, 1, 1e-9, 1e-9), (639, 479, 640, 480)),
    ],
)
def test_in_pixels_it_is_inside_and_never_empty(rectangle: Rectangle, area: tuple[int, ...]) -> None:
    assert rectangle.area(480, 640) == area


def test_middles_and_common_parts() -> None:
    boxes = np.array([[0, 0, 10, 10], [96, 0, 10, 10], [94, 0, 10, 10], [0, 60, 10, 10]], np.float32)
    assert inside(boxes, [(0, 0, 100, 50)]).tolist() == [True, False, True, False]
    assert inside(boxes, [(0, 0, 50, 50), (0, 50, 50, 100)]).tolist() == [True, False, False, True]
    assert inside(boxes, []).tolist() == [False] * 4
    assert common([(0, 0, 100, 100)], [(50, 50, 200, 200), (100, 0, 120, 10)]) == [(50, 50, 100, 100)]


# In the detector -------------------------------------------------------------------------------------------------


def two_cameras_in_one(count: int) -> list[Buffer]:
    """320x480: one face in the upper half, another in the lower."""
    frames = camera(count, seed=5)
    for buffer, other in zip(frames, camera(count, seed=6), strict=True):
        buffer._frame = np.vstack([buffer.frame, other.frame])
        buffer.shape = buffer.frame.shape
    return frames


@pytest.mark.parametrize("interval", [0, 0.25])
@pytest.mark.parametrize(
    ("properties", "upper", "lower"),
    [
        ({}, 1, 1),
        ({"roi": [0, 0, 1, 0.5]}, 1, 0),
        ({"roi": {"synthetic": [0, 0.5, 1, 0.5]}}, 0, 1),
        ({"roi": {"other": [0, 0.5, 1, 0.5]}}, 1, 1),
        ({"roi": [[0, 0, 1, 0.5], [0, 0.5, 1, 0.5]]}, 1, 1),
        ({"roi": [[0, 0, 1, 0.5], [0, 0, 1, 0.6]]}, 1, 0),
        ({"ignore": [0, 0, 1, 0.5]}, 0, 1),
        ({"roi": [0, 0, 1, 0.5], "ignore": [0, 0, 1, 1]}, 0, 0),
    ],
)
def test_only_faces_that_count_are_found(interval: float, properties: dict[str, Any], upper: int, lower: int) -> None:
    with Harness(HaarDetect(full_scan_interval=interval, **properties)) as h:
        for buffer in h.push_all(two_cameras_in_one(12))[2:]:
            middles = [r.box[1] + r.box[3] / 2 for r in buffer.regions]
            assert sum(y < 240 for y in middles) == upper
            assert sum(y >= 240 for y in middles) == lower


def test_only_the_roi_is_searched_and_no_poster_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[tuple[int, int, int, int]] = []
    looks: list[float] = []
    sweep, look = FaceDetector.sweep, FaceDetector.look
    monkeypatch.setattr(
        FaceDetector, "sweep", lambda s, g, areas, known: swept.extend(areas) or sweep(s, g, areas, known)
    )
    monkeypatch.setattr(FaceDetector, "look", lambda s, g, box, **o: looks.append(box[1]) or look(s, g, box, **o))
    with Harness(HaarDetect(roi=[0, 0.5, 1, 0.5], ignore=[0, 0.5, 1, 0.5], still_scan_interval=0)) as h:
        h.push_all(two_cameras_in_one(12))
    assert len(swept) >= 2
    assert {area for area in swept if area[1] < 240} == set()
    assert looks == []


def test_a_face_is_kept_until_its_middle_leaves() -> None:
    (frame,) = camera(1)
    plain = np.full_like(frame.frame, 128)
    with Harness(HaarDetect(roi=[0, 0, 1, 0.5], track_gap="10ms")) as h:
        h.push(np.vstack([frame.frame, plain]), pts=0)
        (box,) = (r.box for r in h.push(np.vstack([frame.frame, plain]), pts=40_000_000)[0].regions)
        found = []
        for step in range(2, 60):
            lower = np.roll(np.vstack([frame.frame, plain]), 4 * (step - 1), axis=0)
            regions = h.push(lower, pts=step * 40_000_000)[0].regions
            found += [region.box[1] + region.box[3] / 2 for region in regions]
    assert found[-1] == max(found)
    assert 225 < found[-1] < 240  # its lower half is outside by then
    assert box[3] / 2 > 25


def test_what_is_left_out_is_told_and_follows_the_size() -> None:
    with Harness(HaarDetect(roi=[0.5, 0, 0.5, 1], ignore=[0, 0, 0.25, 0.25])) as h:
        meta = [h.push(np.zeros((height, 320, 3), np.uint8))[0].meta for height in (240, 240, 120)]
    wanted = [{"roi": [(160, 0, 320, y)], "ignore": [(0, 0, 80, y // 4)]} for y in (240, 240, 120)]
    assert meta == wanted


@pytest.mark.parametrize(("roi", "warned"), [([0, 0, 1, 0.1], True), ([[0, 0, 1, 0.1], [0, 0, 0.5, 0.5]], False)])
def test_a_roi_that_is_too_small_for_a_face_is_told(roi: list, warned: bool) -> None:
    with Harness(HaarDetect(roi=roi)) as h:
        h.push(np.zeros((240, 320, 3), np.uint8))
        told = [text for _, text in h.logs]
    line = "synthetic: 320x240 is searched for faces from 30 pixels up in its roi: none can be found"
    assert told == ([line.replace("synthetic", h.node.streams[0])] if warned else [])


def test_the_picture_of_the_whole_is_the_one_that_counts_for_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A roi is no smaller picture: `detect_width` shrinks it as it does the frame."""
    shrunk: list[tuple[int, int]] = []
    search = FaceDetector._search
    monkeypatch.setattr(
        FaceDetector, "_search", lambda s, grey, *rest, **k: shrunk.append(grey.shape) or search(s, grey, *rest, **k)
    )
    with Harness(HaarDetect(roi=[0, 0, 0.5, 1], detect_width=160, full_scan_interval=0)) as h:
        h.push(cv2.randu(np.zeros((240, 320, 3), np.uint8), 0, 255))
    assert shrunk == [(120, 80)]
