"""`publish` with real sockets: what is told, and to whom."""

from __future__ import annotations

import time

import msgpack
import numpy as np
import pytest
import zmq

from pipeline import Harness, Region, subscribe
from tests.nodes.publishing import brief, drain, endpoint, face, join, publishing
from tests.support.host import patiently

# What is told -----------------------------------------------------------------------------------------------


def test_tells_what_is_seen_and_what_changes():
    with publishing(hold="300ms") as h:
        h.mark("status", up=True, reason="", since=123_000)
        with join(h) as events:
            frame = np.zeros((48, 64, 3), np.uint8)
            buffer = h.buffer(frame, regions=[face("happy"), face("sad", track=None)], pts=5)
            h.clock += 0.04  # the way through the graph
            h.push_all([buffer])
            for _ in range(8):
                h.clock += 0.1
                h.push(frame, regions=[face("angry")])
            h.mark("eos")
            told = drain(events)
    assert brief([e for e in told if e.kind != "observation"]) == [
        ("status", "up", None, None, True),
        ("change", "appeared", 1, "happy", False),
        ("change", "changed", 1, "angry", False),
        ("change", "left", 1, "angry", False),
        ("status", "ended", None, None, False),
    ]
    seen = [e for e in told if e.kind == "observation"]
    assert len(seen) == 9
    assert [e.lost for e in told] == [0] * len(told)
    assert [e.sequence for e in seen] == list(range(1, 10))
    first = seen[0]
    assert first.fields["time_ns"] == buffer.wall
    assert (first.pts, first.latency, first.fields["frame"]) == (5, 0.04, 0)
    assert (first.fields["width"], first.fields["height"]) == (64, 48)
    assert first.regions[0].box == (10.0, 20.0, 30.0, 40.0)
    assert first.regions[0].raw == {"happy": 1.0, "neutral": 0.0}
    assert first.regions[0].probabilities == {"happy": 0.75, "neutral": 0.25}
    assert (first.regions[0].score, first.regions[0].detection) == (0.75, 0.5)
    assert first.regions[1].track is None
    assert told[0].since is not None
    assert told[0].since.timestamp() == 123e-6
    changed = next(e for e in told if e.what == "changed")
    assert (changed.previous, changed.probabilities["angry"]) == ("happy", 0.75)
    assert changed.since is not None
    assert 0.29 < (changed.time - changed.since).total_seconds() < 0.41


def test_numbers_of_numpys_types_are_told_too():
    region = Region(tuple(np.float32([1, 2, 3, 4])), np.float32(0.5), np.int64(3), "happy", {"happy": np.float32(1)})  # type: ignore[arg-type]
    with publishing() as h:
        h.push(regions=[region])
        with join(h) as events:
            told = [next(events) for _ in range(3)]
    assert (told[1].track, told[1].score, told[2].regions[0].box) == (3, 1.0, (1.0, 2.0, 3.0, 4.0))


def test_tells_which_faces_were_held_or_reused_and_which_cameras_there_are():
    region = face()
    region.attrs["held"] = region.attrs["reused"] = True
    with publishing(streams=("door", "desk")) as h:
        h.push(stream="door", regions=[])
        with join(h) as events:
            h.push(stream="door", regions=[face(track=2), region])
            h.mark("eos", "door")
            told = drain(events)
    [seen] = [event for event in told if event.regions]
    assert [r.held for r in seen.regions] == [r.reused for r in seen.regions] == [False, True]
    assert [(r["held"], r["reused"]) for r in seen.fields["regions"]] == [(False, False), (True, True)]
    assert [e.cameras for e in told if e.kind == "status"] == [("door", "desk")] * 2  # desk was not heard of


def test_tells_the_name_of_a_picture():
    with publishing() as h:
        h.push(meta={"picture": "me.jpg"}, regions=[face()])
        with join(h) as events:
            h.push(regions=[face(track=2)])
            h.mark("eos")
            told = drain(events)
    named, other = (event for event in told if event.kind == "observation")
    assert (named.snapshot, named.picture, named.fields["picture"]) == (True, "me.jpg", "me.jpg")
    assert other.picture is None
    assert "picture" not in other.fields


def test_observations_can_be_left_out():
    with publishing(observations=False) as h:
        h.push(regions=[face()])
        with join(h) as events:
            h.push(regions=[face(track=2)])
            h.mark("eos")
            assert {e.kind for e in drain(events)} == {"change", "status"}


def test_cameras_are_told_apart():
    with publishing(streams=("door", "desk")) as h:
        h.push(stream="door", regions=[face(track=1)])
        h.push(stream="desk", regions=[])
        with join(h) as events:
            h.push(stream="desk", regions=[face(track=1)])
            h.mark("eos", "door")
            h.mark("eos", "desk")
            told = [e for e in drain(events) + drain(events) if not e.snapshot and e.kind != "observation"]
    assert [(e.camera, e.what, e.sequence) for e in told] == [
        ("desk", "appeared", 1),
        ("door", "left", 2),
        ("door", "ended", 2),
        ("desk", "left", 2),
        ("desk", "ended", 2),
    ]


# Who left, and when -----------------------------------------------------------------------------------------


def empty_frames(h: Harness) -> None:
    for _ in range(10):
        h.clock += 0.1
        h.push(regions=[])


def silence(h: Harness) -> None:
    h.clock += 0.9
    h.tick()
    h.clock += 0.2
    h.tick()


@pytest.mark.parametrize(
    ("ending", "decided_after", "then"),
    [
        (empty_frames, 1.0, []),
        (silence, 1.1, []),
        (lambda h: h.mark("status", up=False, reason="unplugged"), 0.0, ["down"]),
        (lambda h: h.mark("eos"), 0.0, ["ended"]),
    ],
    ids=["frames without the face", "no frames at all", "camera down", "eos"],
)
def test_a_face_leaves(ending, decided_after, then):
    with publishing(observations=False, gone_after=1) as h:
        h.push(regions=[face()])
        with join(h) as events:
            ending(h)
            h.mark("status", up=False, reason="end of test")
            told = drain(events, "down" if then != ["ended"] else "ended")
    left = next(e for e in told if e.what == "left")
    assert [e.what for e in told][: 3 + len(then)] == ["up", "present", "left", *then]
    assert left.duration == 0.0
    assert left.since is not None
    assert (left.time - left.since).total_seconds() == pytest.approx(decided_after, abs=0.01)


def test_a_camera_of_few_frames_is_not_silent_between_them():
    """One in two seconds: nobody leaves and appears anew with each. What misses two of them is silent."""
    with publishing(observations=False, gone_after=1) as h:
        h.push(regions=[face()])
        h.clock += 2
        h.push(regions=[face()])
        with join(h) as events:
            for _ in range(3):
                for _ in range(4):
                    h.clock += 0.5
                    h.tick()
                h.push(regions=[face()])
            for _ in range(8):
                h.clock += 0.5
                h.tick()
            h.mark("status", up=False, reason="end of test")
            told = drain(events, "down")
    assert [e.what for e in told] == ["up", "present", "left", "down"]
    assert told[2].duration == 8.0


def test_a_lossless_graph_takes_its_time():
    """There the machine may need seconds for a frame: only the stream's own time counts."""
    with publishing(observations=False, gone_after=1, hold=0.3, lossless=True) as h:
        h.push(regions=[face()], pts=0)
        with join(h) as events:
            h.clock += 100
            h.tick()
            h.push(regions=[face("sad")], pts=100_000_000)
            h.clock += 100
            h.push(regions=[face("sad")], pts=300_000_000)
            h.push(regions=[face("sad")], pts=400_000_000)  # all at once on the clock
            h.push(regions=[], pts=1_300_000_000)
            h.push(regions=[], pts=1_400_000_000)
            h.mark("eos")
            told = drain(events)
    assert [(e.what, e.pts) for e in told if e.kind == "change"] == [
        ("present", 0),
        ("changed", 400_000_000),
        ("left", 1_400_000_000),
    ]
    assert told[-2].duration == 0.4


# Status -----------------------------------------------------------------------------------------------------


def test_status_is_told_when_it_is_news():
    with publishing(observations=False) as h:
        h.push(regions=[])  # a frame: the camera is up, though nobody said so
        with join(h, kinds="status") as events:
            h.mark("status", up=True)
            h.mark("flush")
            h.push(regions=[])
            h.mark("status", up=False, reason="cannot open rtsp://user:secret@10.0.0.5/stream1: timed out")
            h.mark("status", up=False, reason="cannot open rtsp://user:secret@10.0.0.5/stream1: timed out")
            h.mark("status", up=False, reason="connection refused")
            h.push(regions=[])
            h.mark("eos")
            h.push(regions=[])  # the source was started again
            h.mark("status", up=False, reason="bye")
            told = [next(events) for _ in range(7)]
    assert [(e.what, e.reason) for e in told] == [
        ("up", ""),
        ("down", "cannot open rtsp://***@10.0.0.5/stream1: timed out"),
        ("down", "connection refused"),
        ("up", ""),
        ("ended", ""),
        ("up", ""),
        ("down", "bye"),
    ]


# Late joiners -----------------------------------------------------------------------------------------------

SNAPSHOT = {
    "door/status": [("status", "up", None, None, True)],
    "door/change": [("change", "present", 1, "happy", True), ("change", "present", 2, "sad", True)],
    "door/observation": [("observation", "", 1, "happy", True)],
    "desk/status": [("status", "down", None, None, True)],
}


@pytest.mark.parametrize(
    ("cameras", "kinds", "parts"),
    [
        (None, None, ["door/status", "door/change", "door/observation", "desk/status"]),
        (["door"], None, ["door/status", "door/change", "door/observation"]),
        (["door"], ["change"], ["door/change"]),
        (["door", "desk"], ["status"], ["door/status", "desk/status"]),
        (None, ["change"], ["door/change"]),
    ],
)
def test_who_joins_in_the_middle_knows_at_once_who_is_there(cameras, kinds, parts):
    with publishing(streams=("door", "desk")) as h:
        h.push(stream="door", regions=[face("happy", 1), face("neutral", 2), face("fear", 3)])
        h.clock += 2
        h.push(stream="door", regions=[face("happy", 1), face("sad", 2)])
        h.clock += 2
        h.push(stream="door", regions=[face("happy", 1), face("sad", 2)])
        h.push(stream="desk", regions=[face("angry")])
        h.mark("status", stream="desk", up=False, reason="unplugged")
        expected = [row for part in parts for row in SNAPSHOT[part]]
        with join(h, cameras, kinds) as events:
            assert brief([next(events) for _ in expected]) == expected
            assert events.receive(0.05) is None


def test_a_snapshot_before_the_next_event():
    with publishing(observations=False) as h:
        h.push(regions=[face("happy", 1)])
        for _ in range(20):
            with subscribe(endpoint(h), kinds="change", timeout=5) as events:
                time.sleep(0.02)  # the subscription is on its way; no tick serves it
                h.push(regions=[face("happy", 1), face("sad", 2)])
                h.clock += 2
                h.push(regions=[face("happy", 1)])
                assert brief(drain(events, "left")) == [
                    ("change", "present", 1, "happy", True),
                    ("change", "appeared", 2, "sad", False),
                    ("change", "left", 2, "sad", False),
                ]


def test_who_was_there_before_is_not_disturbed_by_joiners():
    """On the wire the others get a joiner's snapshot too: flagged, and without a number of its own."""
    context = zmq.Context()
    raw = context.socket(zmq.SUB)
    with publishing() as h, context, raw:
        h.push(regions=[face()])
        with join(h) as events:
            raw.subscribe("emotion/door/change")
            raw.connect(endpoint(h))
            patiently(lambda: raw.poll(10), h.tick)
            for track in range(2, 6):
                join(h, kinds="change").close()
                join(h, cameras=["door"], kinds=["change"]).close()  # the same prefix as another's
                h.push(regions=[face(track=n) for n in range(1, track + 1)])
            h.mark("eos")
            told = drain(events)
        wire = [msgpack.unpackb(raw.recv_multipart()[1]) for _ in range(18)]
    assert [e.lost for e in told] == [0] * len(told)
    assert [e.snapshot for e in told] == [True] * 3 + [False] * (len(told) - 3)
    assert [e.sequence for e in told if e.kind == "change"] == list(range(1, 11))
    numbers = [event["sequence"] for event in wire if not event["snapshot"]]
    assert numbers == list(range(2, 11))
    # Every snapshot stands exactly where its number says.
    last = 1
    for event in wire:
        assert event["sequence"] == (last if event["snapshot"] else last + 1)
        last = event["sequence"]
        if event["snapshot"]:
            assert [t["track"] for t in event["tracks"]] == list(range(1, last + 1))
