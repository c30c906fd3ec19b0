"""Faces found, followed and cut: on the synthetic camera, and on real people where the clips are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nodes.facedetector import NOTHING, FaceDetector
from nodes.haardetect import HaarDetect, cut_patches
from nodes.preprocess import Preprocess, preprocess
from nodes.tracker import iou
from pipeline import Buffer, GraphError, Harness, UserError
from tests.nodes.synthetic import camera, grey

VIDEOS = Path(__file__).parents[2].parent / "shared" / "videos"
EMPTY = np.full((240, 320, 3), 128, np.uint8)
on_clips = pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"the test videos are not here ({VIDEOS})")


def detect(frames: list[Buffer], **properties: Any) -> list[Buffer]:
    with Harness(HaarDetect(**properties)) as h:
        return h.push_all(frames)


@pytest.mark.parametrize("interval", [0, 1e-320, 0.25])
def test_each_face_gets_a_region_with_one_id_and_its_patch(interval):
    buffers = detect(camera(30, faces=2, width=480), full_scan_interval=interval)
    tracks: dict[int, set[int]] = {}
    for buffer in buffers[2:]:
        assert len(buffer.regions) == 2
        for i, truth in enumerate(buffer.meta["truth"]):
            region = max(buffer.regions, key=lambda r, box=truth["box"]: iou(r.box, box))
            assert iou(region.box, truth["box"]) > 0.6
            assert np.array_equal(region.patch, preprocess(grey(buffer.frame), region.box))
            assert region.patch.shape == (48, 48)
            tracks.setdefault(i, set()).add(region.track)
    assert sorted(tracks.values(), key=min) == [{1}, {2}]


def test_a_new_face_is_found_within_the_interval():
    (empty,), faces = camera(1, faces=0), camera(12, fps=30)
    with Harness(HaarDetect(full_scan_interval=0.2)) as h:
        h.push_all([empty])
        counts = [len(b.regions) for b in h.push_all(faces)]
    # Frames are 33 ms apart: the first sweep was for the empty frame, the second is at most six frames later.
    assert 0 in counts
    assert counts.index(1) <= 6
    assert counts == sorted(counts)


def test_cameras_that_start_together_do_not_search_everything_together(monkeypatch):
    sweeps: dict[str, set[int]] = {}
    plain = FaceDetector.sweep
    now: list[Buffer] = []

    def sweep(self, *rest):
        sweeps.setdefault(now[-1].stream, set()).add(now[-1].pts)
        return plain(self, *rest)

    monkeypatch.setattr(FaceDetector, "sweep", sweep)
    frames = camera(60, fps=30)
    with Harness(HaarDetect(full_scan_interval=0.5, still_scan_interval=0), streams=("door", "desk")) as h:
        for frame in frames:
            for stream in ("door", "desk"):
                now.append(h.buffer(frame.frame, stream=stream, pts=frame.pts))
                h.push_all([now[-1]])
    door, desk = sweeps["door"], sweeps["desk"]
    assert min(len(door), len(desk)) >= 4
    assert door & desk == {frames[0].pts}


def test_the_name_of_a_recording_does_not_decide_what_is_found(monkeypatch):
    sweeps: dict[str, list[int]] = {}
    for name in ("video", "capture0", "a"):
        times = sweeps.setdefault(name, [])
        with Harness(HaarDetect(), streams=(name,), lossless=True) as h, monkeypatch.context() as patch:
            patch.setattr(FaceDetector, "sweep", lambda *_, times=times, h=h: times.append(h.clock) or NOTHING)
            for n, frame in enumerate(camera(40, fps=30)):
                h.clock = n
                h.push(frame.frame, pts=frame.pts)
    assert sweeps["video"] == sweeps["capture0"] == sweeps["a"]
    assert len(sweeps["a"]) > 4


@pytest.mark.parametrize(("fps", "interval"), [(5, "200ms"), (10, "100ms"), (30, "33.3ms"), (1, "250ms")])
def test_a_frame_on_the_beat_is_searched(monkeypatch, fps: float, interval: str):
    """Whatever the rounding of its time, in a file or in a sum."""
    calls: list[int] = []
    monkeypatch.setattr(FaceDetector, "sweep", lambda *_: calls.append(1) or NOTHING)
    with Harness(HaarDetect(full_scan_interval=interval), lossless=True) as h:
        for n in range(40):
            h.push(EMPTY + np.uint8(40 * (n % 2)), pts=round(n * 1000 / fps) * 1_000_000)
    assert len(calls) == 40


def test_pictures_a_second_apart_have_nothing_to_do_with_each_other():
    frames = camera(4)
    for n, buffer in enumerate(frames):
        buffer.pts = n * 1_000_000_000
        buffer.meta["picture"] = f"{n}.jpg"
    assert [[r.track for r in b.regions] for b in detect(frames, track_confirm=1)] == [[1], [2], [3], [4]]


def test_one_frame_a_second_keeps_the_face_and_finds_it_in_each():
    frames = camera(12)
    for n, buffer in enumerate(frames):
        buffer.pts = n * 1_000_000_000
    buffers = detect(frames)
    assert [[r.track for r in b.regions] for b in buffers[1:]] == [[1]] * 11


@pytest.mark.parametrize(("properties", "full"), [({"still_scan_interval": 0}, {3, 4}), ({}, {1, 2})])
def test_between_full_scans_most_of_the_work_is_saved(monkeypatch, properties, full):
    searched = []
    plain = FaceDetector.sweep

    def sweep(self, grey, areas=None, known=()):
        searched.append(sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in areas) / grey.size)
        return plain(self, grey, areas, known)

    monkeypatch.setattr(FaceDetector, "sweep", sweep)
    detect(camera(45, fps=30), full_scan_interval=0.5, **properties)
    assert len(searched) <= 4  # of 45 frames
    assert searched.count(1.0) in full


@pytest.mark.parametrize(
    ("lossless", "properties", "every", "searches"),
    [
        (False, {}, 1, 40),  # at each of 41 frames, 200 ms apart, but one: the rhythm of the stream begins in between
        (False, {}, 2, 9),  # every second frame is dropped: at once, and then after a second each
        (False, {"busy_scan_interval": "2s"}, 2, 5),
        (False, {"busy_scan_interval": 0}, 2, 40),
        (True, {}, 2, 40),  # there nothing is dropped: such numbers only look like it
    ],
)
def test_a_camera_that_is_short_of_time_searches_less(monkeypatch, lossless, properties, every, searches):
    calls: list[int] = []
    monkeypatch.setattr(FaceDetector, "sweep", lambda *_: calls.append(1) or NOTHING)
    properties = {"full_scan_interval": "200ms", **properties}
    with Harness(HaarDetect(**properties), lossless=lossless) as h:
        for n in range(41):
            h.clock = 0.2 * n
            buffer = h.buffer(EMPTY + np.uint8(40 * (n % 2)))
            buffer.sequence = n * every
            h.push_all([buffer])
    assert abs(len(calls) - searches) <= 1


def test_a_camera_that_has_time_again_searches_as_before(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(FaceDetector, "sweep", lambda *_: calls.append(1) or NOTHING)
    with Harness(HaarDetect(full_scan_interval="200ms")) as h:
        for n in range(61):
            h.clock = 0.2 * n
            buffer = h.buffer(EMPTY + np.uint8(40 * (n % 2)))
            buffer.sequence = n + (n >= 5)  # one frame is dropped, at second 1
            h.push_all([buffer])
            if n == 30:
                busy = len(calls)
    assert 9 <= busy <= 11  # five in the first second, five in those after the drop
    assert len(calls) - busy >= 29  # from second 6 on


def test_a_covered_face_is_held_and_keeps_its_id():
    frames = camera(16)
    for buffer in frames[6:10]:
        buffer.frame[:] = EMPTY
    buffers = detect(frames, track_gap="500ms")
    assert [[r.track for r in b.regions] for b in buffers[1:]] == [[1]] * 15
    assert [bool(b.regions[0].attrs.get("held")) for b in buffers[1:]] == [False] * 5 + [True] * 4 + [False] * 6


def test_a_face_that_left_is_dropped_after_the_gap():
    frames = camera(16)
    for buffer in frames[6:]:
        buffer.frame[:] = EMPTY
    assert [len(b.regions) for b in detect(frames, track_gap=0.2)[1:]] == [1] * 8 + [0] * 7


def test_a_frame_of_another_size_has_nothing_to_do_with_the_one_before():
    frames = camera(4)
    small = np.full((120, 100, 3), EMPTY[0, 0], np.uint8)
    with Harness(HaarDetect(track_gap=10)) as h:
        for buffer in frames:
            out = h.push(buffer.frame, pts=buffer.pts)[0]
        assert [r.track for r in out.regions] == [1]
        for n in range(3):
            assert not h.push(small, pts=frames[-1].pts + (n + 1) * 66_000_000)[0].regions


def test_a_source_without_pts_goes_by_the_clock():
    (face,) = camera(1)
    with Harness(HaarDetect(track_gap=0.5, full_scan_interval=0)) as h:
        counts = []
        for n in range(10):
            h.clock += 0.1
            counts.append(len(h.push(face.frame.copy() if n < 3 else EMPTY, pts=0)[0].regions))
    assert counts[:6] + counts[-2:] == [1] * 6 + [0] * 2


def test_cameras_have_tracks_of_their_own():
    a, b = camera(4, seed=1), camera(4, seed=2)
    with Harness(HaarDetect(), streams=("a", "b")) as h:
        for left, right in zip(a, b, strict=True):
            left.stream, right.stream = "a", "b"
            out = h.push_all([left, right])
    for buffer in out:
        assert [r.track for r in buffer.regions] == [1]
        assert iou(buffer.regions[0].box, buffer.meta["truth"][0]["box"]) > 0.6


def test_after_eos_a_stream_starts_anew_with_new_ids():
    with Harness(HaarDetect()) as h:
        first = h.push_all(camera(3))[-1]
        h.mark("eos", stream="synthetic")
        again = h.push_all(camera(3))[-1]
    assert [r.track for r in first.regions] == [1]
    assert [r.track for r in again.regions] == [2]


def test_after_a_restart_of_the_process_no_id_is_given_twice():
    first, again = HaarDetect(), HaarDetect()
    again.restarted = True
    with Harness(first) as h:
        before = h.push_all(camera(4))
    frames = camera(8)[4:]
    with Harness(again) as h:
        after = h.push_all(frames)
        other = [buffer for buffer in camera(3) if setattr(buffer, "stream", "other") is None]
        unseen = h.push_all(other)  # a camera that begins only now
    assert [r.track for r in before[-1].regions] == [1]
    assert [r.track for r in after[-1].regions] == [1000 * frames[0].sequence + 1] == [4001]
    assert [r.track for r in unseen[-1].regions] == [1]


def test_the_margin_widens_the_patch():
    buffer = detect(camera(3), margin=0.2)[-1]
    region = buffer.regions[0]
    assert np.array_equal(region.patch, preprocess(grey(buffer.frame), region.box, Preprocess(margin=0.2)))
    assert not np.array_equal(region.patch, preprocess(grey(buffer.frame), region.box))
    assert buffer.meta["margin"] == 0.2


def test_patches_of_a_picture():
    picture = grey(camera(1)[0].frame)
    boxes = np.array([[10, 10, 60, 60], [-20, 200, 90, 90]], np.float32)
    patches = cut_patches(picture, boxes)
    assert patches.shape == (2, 48, 48)
    assert np.array_equal(patches[1], preprocess(picture, (-20, 200, 90, 90)))
    assert cut_patches(picture, []).shape == (0, 48, 48)


@pytest.mark.parametrize(
    "convert", [lambda f: f[:, :, 1], lambda f: f[:, :, 1:2], lambda f: np.dstack([f, f[:, :, 0]])]
)
def test_grey_and_four_channel_frames_are_read_too(convert):
    frames = camera(2)
    with Harness(HaarDetect()) as h:
        regions = [h.push(np.ascontiguousarray(convert(b.frame)), pts=b.pts)[0].regions for b in frames][-1]
    assert len(regions) == 1


def test_a_frame_that_is_no_picture_is_a_clear_error():
    with Harness(HaarDetect(name="faces")) as h, pytest.raises(UserError, match=r"faces: a frame must be uint8"):
        h.push(np.zeros((48, 64, 2), np.uint8))


@pytest.mark.parametrize(
    ("size", "properties", "level"),
    [
        ((20, 20), {}, "warning"),
        ((240, 320), {"min_size": 300}, "warning"),
        ((240, 320), {"detect_width": 160}, "info"),
        ((240, 320), {"detect_width": 160, "min_size": 60}, None),
        ((241, 323), {}, None),
    ],
)
def test_what_cannot_be_found_is_said_once(size, properties, level):
    with Harness(HaarDetect(**properties)) as h:
        for _ in range(2):
            assert h.push(np.zeros((*size, 3), np.uint8))[0].regions == []
        assert [logged for logged, _ in h.logs] == ([level] if level else [])


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"min_sise": 48}, "unknown property 'min_sise' of haardetect; did you mean 'min_size'"),
        ({"cascade": "cats"}, "property 'cascade' of haardetect"),
        ({"scale_factor": 1.001}, "property 'scale_factor'"),  # a thousand sizes a frame
        ({"min_size": 16385}, "property 'min_size'"),
        ({"max_size": 16385}, "property 'max_size'"),
        ({"detect_width": 16385}, "property 'detect_width'"),
        ({"detect_width": 23}, "in less than 24 pixels no face is found; 0: search at full size"),
        ({"min_size": 50, "max_size": 40}, "max_size 40 is below min_size 50"),
        ({"track_gap": "soon"}, "not a duration"),
    ],
)
def test_wrong_properties_are_one_clear_line(properties, words):
    with pytest.raises(GraphError, match=words):
        HaarDetect(**properties)


@pytest.mark.parametrize(("still", "found"), [("0.5s", True), ("1h", False)])
def test_a_face_nobody_saw_come_is_found_by_the_search_of_what_stands_still(still: str, found: bool):
    """The detector is made blind while the face comes in, as by a cascade that does not see it at first."""
    frame = camera(1)[0].frame
    with Harness(HaarDetect(still_scan_interval=still)) as h:
        detector = h.node._detector
        search, detector._search = detector._search, lambda *a, **k: NOTHING
        for step in range(3):
            h.push(frame, pts=step * 40_000_000)
        detector._search = search
        frames = [h.push(frame, pts=120_000_000 + step * 40_000_000)[0] for step in range(40)]
    assert any(b.regions for b in frames) == found


def test_after_eos_ids_are_new_also_where_the_times_go_on():
    frames = camera(8, fps=30)
    with Harness(HaarDetect(), streams=("synthetic",)) as h:
        first = h.push_all(frames[:4])[-1].regions[0].track
        h.mark("eos")
        after = h.push_all(frames[4:])[-1].regions[0].track
    assert (first, after) == (1, 2)


def test_a_face_that_is_believed_needs_half_the_evidence(monkeypatch: pytest.MonkeyPatch):
    asked, look = [], FaceDetector.look

    def recorded(self, grey, box, **options):
        asked.append(options.get("min_neighbors"))
        return look(self, grey, box, **options)

    monkeypatch.setattr(FaceDetector, "look", recorded)
    with Harness(HaarDetect(min_neighbors=9, full_scan_interval=10, track_confirm=3), streams=("synthetic",)) as h:
        ids = [[r.track for r in out.regions] for out in h.push_all(camera(6))]
    believed = next(n for n, found in enumerate(ids) if found)
    assert set(asked[believed + 1 :]) == {5}


# Real people -------------------------------------------------------------------------------------------------


def clip(name: str) -> list[Buffer]:
    """The frames of a clip as `capture` would send them, all at once in memory."""
    capture = cv2.VideoCapture(str(VIDEOS / name))
    rate, buffers = capture.get(cv2.CAP_PROP_FPS), []
    while (frame := capture.read()[1]) is not None:
        n = len(buffers)
        buffers.append(Buffer(name, n, pts=round(n * 1e9 / rate), shape=frame.shape, _frame=frame))
    return buffers


@on_clips
@pytest.mark.parametrize("name", ["book.mkv", "help.mkv", "no.mkv", "thanks.mkv"])
def test_a_signing_person_keeps_one_track_through_the_clip(name):
    buffers = detect(clip(name))
    tracks = Counter(region.track for b in buffers for region in b.regions)
    assert len(buffers) > 50
    assert set(tracks) == {1}  # no false alarm has become a track either
    assert tracks[1] >= 0.95 * len(buffers)


@on_clips
@pytest.mark.parametrize(
    ("names", "every", "share"),
    [
        (["book.mkv", "help.mkv", "no.mkv", "thanks.mkv"], 12, 1.0),
        # Two faces come in that the cascade sees in some frames only; they show a few frames later than it sees them.
        (["walking.mp4"], 1, 0.95),
    ],
)
def test_what_the_plain_cascade_finds_is_found(names, every, share):
    plain = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    faces = found = 0
    for name in names:
        for buffer in detect(clip(name))[::every]:
            boxes, counts = plain.detectMultiScale2(grey(buffer.frame), 1.1, 5, minSize=(30, 30))
            # The signing clips hold one person: what no more than 8 windows agree on is a false alarm there.
            sure = 5 if name == "walking.mp4" else 8
            for box in np.reshape(boxes, (-1, 4))[np.ravel(counts) > sure]:
                faces += 1
                found += any(iou(box, region.box) >= 0.5 for region in buffer.regions)
    assert faces > 20
    assert found >= share * faces
