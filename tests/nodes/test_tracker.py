"""Stable ids: what keeps one, what ends one, what never gets one; and boxes that neither shake nor lag."""

from __future__ import annotations

import numpy as np
import pytest

from nodes.tracker import Track, Tracker, iou

FRAME = 1 / 30
HERE, THERE = (100, 80, 60, 60), (400, 80, 60, 60)


def run(tracker: Tracker, frames: list[list[tuple]], step: float = FRAME, start: float = 0.0) -> list[list[Track]]:
    """Feed found boxes, one list a frame; what was reported, each with the state it had then."""
    reports = []
    for n, boxes in enumerate(frames):
        tracker.advance(start + n * step)
        tracks = tracker.update(np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes), np.float32))
        reports.append([snapshot(t) for t in tracks])
    return reports


def snapshot(track: Track) -> Track:
    copy = Track(track.box, track.score, 0.0)
    copy.id, copy.held = track.id, track.held
    return copy


def ids(reports: list[list[Track]]) -> list[list[int | None]]:
    return [[t.id for t in report] for report in reports]


@pytest.mark.parametrize(
    ("confirm", "found", "reported"),
    [
        (1, "x", "1"),
        (2, "x.....", "......"),  # a false alarm of one frame never shows
        (2, "xx", ".1"),
        (2, "x.x", "..1"),  # one miss is forgiven
        (2, "x..x..x", "......."),  # two are not
        (3, "xx.x", "...1"),
        (3, "xx..xx", "......"),
        (2, "xx...xx", ".111111"),  # held through a gap
    ],
)
def test_a_face_is_believed_when_it_is_found_again(confirm, found, reported):
    reports = run(Tracker(confirm), [[HERE] if c == "x" else [] for c in found])
    assert ids(reports) == [[int(c)] if c != "." else [] for c in reported]


def test_a_face_beyond_doubt_is_believed_at_once():
    tracker = Tracker(confirm=3)
    tracker.advance(0)
    tracks = tracker.update(np.array([HERE, THERE], float), np.array([5.0, 1.0]), np.array([True, False]))
    assert [(t.id, t.score, t.held) for t in tracks] == [(1, 5.0, False)]


def test_a_missed_face_is_held_for_the_gap_and_no_longer():
    tracker = Tracker(confirm=2, gap=0.25)
    reports = run(tracker, [[HERE]] * 3 + [[]] * 4, step=0.1)
    assert [[t.held for t in report] for report in reports] == [[], [False], [False], [True], [True], [], []]
    assert ids(run(tracker, [[HERE]] * 2, start=1.0)) == [[], [2]]


def test_the_gap_is_time_not_frames():
    def survives(pause: float) -> bool:
        tracker = Tracker(gap=0.5)
        run(tracker, [[HERE]] * 2)
        return ids(run(tracker, [[HERE]] * 2, start=FRAME + pause))[-1] == [1]

    assert survives(0.4)
    assert not survives(0.6)


def test_frames_further_apart_than_the_gap_keep_their_faces():
    """One frame a second: a face that is in each is one face, and one that is missed is over."""
    reports = run(Tracker(confirm=2, gap=0.5), [[HERE], [HERE], [HERE], [], [HERE], [HERE]], step=1.0)
    assert ids(reports) == [[], [1], [1], [], [], [2]]
    assert not any(t.held for report in reports for t in report)


def test_one_long_pause_does_not_make_a_stream_slow():
    tracker = Tracker(gap=0.5)
    run(tracker, [[HERE]] * 10)
    assert ids(run(tracker, [[HERE]] * 2, start=20.0)) == [[], [2]]


def test_without_a_gap_no_face_is_known_from_the_frame_before():
    reports = run(Tracker(confirm=1, gap=0), [[HERE]] * 4, step=1.0)
    assert ids(reports) == [[1], [2], [3], [4]]


def test_a_stream_that_begins_anew_gets_new_ids():
    tracker = Tracker()
    run(tracker, [[HERE]] * 5, start=100)
    assert ids(run(tracker, [[HERE]] * 2)) == [[], [2]]


def test_clear_forgets_faces_but_gives_no_id_twice():
    tracker = Tracker()
    run(tracker, [[HERE]] * 2)
    tracker.clear()
    assert ids(run(tracker, [[THERE], [THERE, HERE], [HERE, THERE]])) == [[], [2], [2, 3]]


def test_ids_follow_their_faces_whatever_the_order():
    reports = run(Tracker(), [[HERE, THERE], [THERE, HERE], [HERE, THERE], [THERE], [THERE, HERE]])
    assert ids(reports) == [[], *[[1, 2]] * 4]
    for report in reports[1:]:
        left, right = sorted(report, key=lambda t: t.box[0])
        assert iou(left.box, HERE) > 0.9
        assert iou(right.box, THERE) > 0.9
    assert [t.held for t in reports[3]].count(True) == 1


def test_a_neighbour_does_not_take_over_a_missed_face():
    near = (HERE[0] + 70, HERE[1], 60, 60)
    reports = run(Tracker(), [[HERE, near]] * 3 + [[near]] * 3 + [[near, HERE]])
    assert all(len(report) == 2 for report in reports[1:])
    assert {t.id: iou(t.box, near) > 0.9 for t in reports[-1]} == {t.id: iou(t.box, near) > 0.9 for t in reports[1]}


@pytest.mark.parametrize("sides_per_second", [0, 1, 3, 6, 12])
def test_the_box_follows_motion_and_keeps_its_id(sides_per_second):
    path = [(50 + 60 * sides_per_second * n * FRAME, 80, 60, 60) for n in range(40)]
    reports = run(Tracker(), [[box] for box in path])
    assert ids(reports)[1:] == [[1]] * 39
    assert min(iou(report[0].box, box) for report, box in zip(reports[1:], path[1:], strict=True)) > 0.6
    assert iou(reports[-1][0].box, path[-1]) > 0.75


def test_a_face_that_is_missed_while_it_moves_is_found_again():
    path = [(50 + 8 * n, 80, 60, 60) for n in range(40)]
    reports = run(Tracker(), [[box] if n % 4 != 3 else [] for n, box in enumerate(path)])
    assert ids(reports)[1:] == [[1]] * 39
    held = [(report[0], box) for report, box in zip(reports, path, strict=True) if report and report[0].held]
    assert len(held) == 10
    assert min(iou(track.box, box) for track, box in held[1:]) > 0.7


def test_a_missed_face_goes_on_as_it_moved_and_then_stands_still():
    path = [(50 + 8 * n, 80, 60, 60) for n in range(20)]
    reports = run(Tracker(), [[box] for box in path] + [[]] * 10)
    left = [report[0].box[0] for report in reports[1:]]
    found, missed = np.diff(left[:19]), np.diff(left[18:])
    assert found[-5:] == pytest.approx(8, abs=0.5)
    assert missed[:3] == pytest.approx(8, abs=1)  # a tenth of a second
    assert missed[3:] == pytest.approx(0, abs=1e-6)


def test_the_box_is_steadier_than_what_was_found():
    rng = np.random.default_rng(0)
    noisy = [tuple(np.array(HERE) + rng.normal(0, 1.5, 4)) for _ in range(100)]
    boxes = np.array([report[0].box for report in run(Tracker(), [[b] for b in noisy])[1:]])
    assert np.diff(boxes, axis=0).std() < 0.5 * np.diff(np.array(noisy), axis=0).std()
    assert boxes.mean(axis=0) == pytest.approx(HERE, abs=0.5)


@pytest.mark.parametrize(
    ("other", "overlap"),
    [((0, 0, 10, 10), 1), ((5, 0, 10, 10), 1 / 3), ((10, 0, 10, 10), 0), ((2, 2, 5, 5), 0.25), ((99, 99, 5, 5), 0)],
)
def test_iou(other, overlap):
    assert iou((0, 0, 10, 10), other) == pytest.approx(overlap)
    assert iou(other, (0, 0, 10, 10)) == pytest.approx(overlap)


@pytest.mark.parametrize("apart", [25, 30])
def test_faces_side_by_side_keep_their_ids(apart: int):
    """Each could be the other's: the boxes overlap enough for that."""
    near = (HERE[0] + apart, HERE[1], 60, 60)
    reports = run(Tracker(), [[HERE, near], [near, HERE], [HERE, near], [near, HERE], [HERE, near]])
    lefts = [min(report, key=lambda track: track.box[0]) for report in reports[1:]]
    assert len({track.id for track in lefts}) == 1
    assert all(iou(track.box, HERE) > 0.95 for track in lefts)


def test_the_score_is_that_of_the_last_sight():
    tracker, scores = Tracker(confirm=1), []
    for now, score in enumerate([1.0, 5.0, None, 3.0]):
        tracker.advance(now / 30)
        found = np.array([HERE] if score else [], float).reshape(-1, 4)
        (track,) = tracker.update(found, np.array([score] if score else []))
        scores.append(track.score)
    assert scores == [1, 5, 5, 3]
