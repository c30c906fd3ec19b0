"""When a tracked face is classified anew, and when its last answer stands."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from nodes.emotion.memory import Memory
from nodes.emotion.node import Emotion
from pipeline import Harness, Region
from tests.nodes.test_emotion import face

MS = 1_000_000


def lit(amount: int) -> np.ndarray:
    """A face, lighter by so many grey levels everywhere."""
    return (face("happy") // 2 + amount).astype(np.uint8)


@pytest.mark.parametrize(
    ("interval", "change", "seen", "classified"),
    [
        # seen: (time in ms, grey levels lighter)
        (0.0, 4, [(0, 0), (40, 0), (80, 0)], [0, 40, 80]),
        (0.2, 4, [(0, 0), (40, 0), (160, 0), (200, 0), (360, 0), (440, 0)], [0, 200, 440]),
        (0.2, 4, [(0, 0), (40, 3), (80, 6), (120, 6)], [0, 80]),  # compared with what was classified, not the last
        (0.2, 4, [(0, 0), (40, 4), (80, 5)], [0, 80]),
        (0.2, 10, [(0, 0), (40, 6), (80, 9)], [0]),
        (0.2, 0, [(0, 0), (40, 0), (80, 1)], [0, 80]),
        (0.2, 255, [(0, 0), (40, 100), (240, 100)], [0, 240]),
        (0.2, 4, [(500, 0), (100, 0), (140, 0)], [500, 100]),  # the stream began anew
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_when_a_face_is_classified(interval: float, change: float, seen, classified, together: bool):
    """One buffer a batch, or all in one: a batch that gathered asks no more of the network."""
    node = Emotion(reclassify_interval=interval, reclassify_change=change, smoothing=0, device="cpu")
    with Harness(node) as harness:
        buffers = [harness.buffer(regions=[Region((0, 0, 9, 9), track=1, patch=lit(g))], pts=t * MS) for t, g in seen]
        asked = count_faces(node)
        out = harness.push_all(buffers) if together else [b for one in buffers for b in harness.push_all([one])]
    fresh = [t for (t, _), b in zip(seen, out, strict=True) if "reused" not in b.regions[0].attrs]
    assert fresh == classified
    assert sum(asked) == len(classified)
    for before, after in pairwise(out):
        if after.regions[0].attrs.get("reused"):
            assert after.regions[0].raw == before.regions[0].raw
        assert after.regions[0].label  # every frame carries a label


def count_faces(node: Emotion) -> list[int]:
    """Faces in each call of the network from now on."""
    calls: list[int] = []
    classify = node._classify
    assert classify is not None

    def counted(faces: np.ndarray) -> np.ndarray:
        calls.append(len(faces))
        return classify(faces)

    node._classify = counted  # pyright: ignore[reportAttributeAccessIssue]
    return calls


def test_tracks_cameras_and_faces_without_a_track_are_apart():
    node = Emotion(reclassify_interval=1.0)
    with Harness(node, streams=("door", "desk")) as harness:
        asked = count_faces(node)
        for stream, track in (("door", 1), ("desk", 1), ("door", 2), ("door", None), ("door", None), ("door", 1)):
            harness.push(stream=stream, regions=[Region((0, 0, 9, 9), track=track, patch=lit(0))], pts=0)
    assert asked == [1, 1, 1, 1, 1]


def test_smoothing_goes_on_with_an_answer_that_stands():
    node = Emotion(reclassify_interval=1.0, smoothing=0.5)
    with Harness(node) as harness:
        harness.push(regions=[Region((0, 0, 9, 9), track=1, patch=face("happy"))], pts=0)
        first, second = (
            harness.push(regions=[Region((0, 0, 9, 9), track=1, patch=face("surprise"))], pts=t * MS)[0].regions[0]
            for t in (100, 200)
        )
    assert first.raw == second.raw
    assert "reused" not in first.attrs
    assert second.scores["surprise"] > first.scores["surprise"] > 0.1


def test_after_a_failure_the_face_is_asked_for_again():
    node = Emotion(reclassify_interval=1.0)

    def fail(faces: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    with Harness(node) as harness:
        classify, node._classify = node._classify, fail
        seen = [Region((0, 0, 9, 9), track=1, patch=lit(0))]
        with pytest.raises(RuntimeError):
            harness.push(regions=seen, pts=0)
        node._classify = classify
        [out] = harness.push(regions=seen, pts=40 * MS)
    assert out.regions[0].raw
    assert "reused" not in out.regions[0].attrs


@pytest.mark.parametrize(
    ("lossless", "properties", "dropped", "classified"),
    [
        # A face that stays the same, eight frames a second; a frame is dropped before the one of second 1.
        (False, {}, True, [*range(0, 9), *range(12, 48, 4), *range(48, 80)]),
        (False, {}, False, [*range(80)]),
        (False, {"busy_reclassify_interval": 0}, True, [*range(80)]),
        (False, {"reclassify_interval": "1s"}, True, [*range(0, 80, 8)]),  # longer than the other: it stands
        (False, {"reclassify_interval": "250ms"}, True, [*range(0, 7, 2), *range(10, 48, 4), *range(48, 80, 2)]),
        (True, {}, True, [*range(80)]),  # nothing is dropped there: such numbers only look like it
    ],
)  # fmt: skip
def test_while_frames_are_dropped_answers_stand_for_longer(lossless, properties, dropped, classified):
    node = Emotion(device="cpu", **properties)
    fresh = []
    with Harness(node, lossless=lossless) as harness:
        asked = count_faces(node)
        for eighth in range(80):
            harness.clock = eighth / 8
            buffer = harness.buffer(regions=[Region((0, 0, 9, 9), track=1, patch=lit(0))])
            buffer.sequence += dropped and eighth >= 8
            harness.push_all([buffer])
            if "reused" not in buffer.regions[0].attrs:
                fresh.append(eighth)
    assert fresh == classified
    assert len(asked) == len(classified)


@pytest.mark.parametrize(
    ("properties", "drops", "told"),
    [
        ({}, {1}, 0),  # as when a graph starts
        ({}, range(1, 20, 2), 1),
        ({"busy_reclassify_interval": 0}, range(1, 20, 2), 0),
        ({"reclassify_interval": "1s"}, range(1, 20, 2), 0),
    ],
)
def test_that_answers_stand_for_longer_is_told_once_it_lasts(properties, drops, told):
    node, dropped = Emotion(device="cpu", **properties), 0
    with Harness(node) as harness:
        count_faces(node)
        for second in range(20):
            harness.clock = 1000 + second
            dropped += second in drops
            buffer = harness.buffer(regions=[Region((0, 0, 9, 9), track=1, patch=lit(0))])
            buffer.sequence += dropped
            harness.push_all([buffer])
    assert sum("busy_reclassify_interval" in text and level == "info" for level, text in harness.logs) == told


def test_while_frames_are_dropped_a_face_that_changes_is_classified_at_once():
    with Harness(Emotion(device="cpu")) as harness:
        reused = []
        for number, amount in ((0, 0), (2, 0), (3, 3), (4, 6), (5, 6)):
            harness.clock = number / 10
            buffer = harness.buffer(regions=[Region((0, 0, 9, 9), track=1, patch=lit(amount))])
            buffer.sequence = number
            harness.push_all([buffer])
            reused.append("reused" in buffer.regions[0].attrs)
    assert reused == [False, False, True, False, True]


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_a_track_that_is_long_gone_is_forgotten_and_one_that_stays_is_not(smoothing: float):
    memory = Memory(smoothing, change=4)
    raw = np.full(7, 1 / 7, np.float32)
    for second in range(0, 31):
        for track in (1, *((2,) if second == 0 else ()), *((3,) if second == 30 else ())):
            memory.ask(track, second * 1_000_000_000, lit(0), 1.0).raw = raw
            memory.smooth(track, second * 1_000_000_000, raw)
    assert set(memory._tracks) == {1, 3}


@pytest.mark.parametrize("back", [0, 100, 5000])
def test_time_that_goes_back_does_not_change_what_was_smoothed(back: int):
    memory = Memory(0.4)
    happy, sad = np.eye(7, dtype=np.float32)[[3, 4]]
    memory.smooth(1, 10_000 * MS, happy)
    assert memory.smooth(1, (10_000 - back) * MS, sad).tolist() == happy.tolist()
    assert memory.smooth(1, (10_000 - back + 400) * MS, sad)[4] == pytest.approx(1 - np.exp(-1))
