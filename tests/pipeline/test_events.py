"""The event format: what comes back as it was told, and what is garbage."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import pytest

from pipeline.events import SCHEMA, BadEvent, NewerProtocol, decode, encode
from tests.support.telling import FACE, TRACK, fields, frames, without


def test_observation_comes_back_as_it_was_told():
    (event,) = decode(encode(fields("observation")))
    assert (event.camera, event.kind, event.what, event.pts, event.latency) == (
        "door", "observation", "", 40_000_000, 0.03,
    )  # fmt: skip
    assert event.time == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert str(event.time) == "2023-11-14 22:13:20.123456+00:00"
    small, face = event.regions
    assert (face.box, face.detection, face.raw) == ((10.0, 20.0, 30.0, 40.0), 3.5, {"happy": 1.0, "sad": 0.0})
    assert small.track is None
    # The event itself speaks for the largest face, not for the first or the surest.
    assert (event.track, event.label, event.score, event.box) == (7, "happy", 0.75, face.box)


def test_change_and_status_come_back_as_they_were_told():
    (change,) = decode(encode(fields("change")))
    assert (change.what, change.track, change.label, change.previous, change.duration) == (
        "changed", 7, "happy", "sad", 2.5,
    )  # fmt: skip
    assert change.since is not None
    assert (change.time - change.since).total_seconds() == 1.0
    (status,) = decode(encode(fields("status")))
    assert (status.what, status.reason, status.track, status.regions) == ("down", "unplugged", None, ())


def test_a_frame_without_faces_has_no_face():
    (event,) = decode(encode(fields("observation", regions=[])))
    assert (event.track, event.label, event.score, event.probabilities) == (None, None, None, {})


def test_snapshot_of_faces_gives_an_event_each():
    tracks = [TRACK, {**TRACK, "track": 8}]
    events = decode(frames({**without("track"), "what": "present", "tracks": tracks, "snapshot": True}))
    assert [(e.what, e.track, e.snapshot, e.sequence) for e in events] == [
        ("present", 7, True, 1), ("present", 8, True, 1),
    ]  # fmt: skip


def test_a_face_of_a_snapshot_is_of_the_camera_that_the_snapshot_is_of():
    face = {
        **TRACK,
        "camera": ["desk"],
        "kind": "observation",
        "sequence": "x",
        "pts_ns": "y",
        "run": 3,
        "what": "left",
    }
    (event,) = decode(frames({**without("track"), "what": "present", "tracks": [face], "snapshot": True}))
    assert (event.camera, event.kind, event.what, event.track) == ("door", "change", "present", 7)
    assert (event.sequence, event.pts, event.run) == (fields()["sequence"], fields()["pts_ns"], fields()["run"])


def test_what_is_no_field_of_its_kind_is_somebodys_own():
    own = {"what": {}, "reason": [1], "previous": 3, "since_ns": "x", "duration_ns": []}
    (seen,) = decode(encode(fields("observation", **own)))
    assert (seen.what, seen.reason, seen.previous, seen.since, seen.duration) == ("", "", None, None, None)
    (changed,) = decode(encode(fields("change", reason=[1])))
    assert changed.reason == ""


def test_what_an_earlier_publisher_does_not_say():
    """`held`, `reused`, `cameras` and `picture` came later than the rest."""
    regions = [FACE, {**FACE, "held": True, "reused": True}, {**FACE, "held": None, "reused": None}]
    (event,) = decode(encode(fields("observation", regions=regions)))
    assert [region.held for region in event.regions] == [False, True, False]
    assert [region.reused for region in event.regions] == [False, True, False]
    told = [decode(encode(fields("observation", **more)))[0] for more in ({}, {"picture": None}, {"picture": "me.jpg"})]
    assert [event.picture for event in told] == [None, None, "me.jpg"]
    assert decode(encode(fields("change", picture=1)))[0].picture is None  # there it is somebody's own field
    told = [
        decode(encode(fields("status", **more)))[0] for more in ({}, {"cameras": None}, {"cameras": ["door", "desk"]})
    ]
    assert [event.cameras for event in told] == [(), (), ("door", "desk")]
    assert decode(encode(fields("change", cameras=[1])))[0].cameras == ()  # there it is somebody's own field


def test_what_a_later_minor_version_adds_is_passed_over():
    assert decode(encode(fields("change", shoe_size=43)))[0].track == 7
    assert decode(frames({**fields(), "kind": "gaze"}, b"emotion/door/gaze")) == []


@pytest.mark.parametrize(
    "message",
    [
        [],
        [b"emotion/door/change"],
        [b"emotion/door/change", b"", b""],
        [b"weather/door/change", msgpack.packb(fields())],
        [b"emotion/door/change", b"\xc1"],
        [b"emotion/door/change", b"\x81\xa1"],
        frames([1, 2]),
        frames(None),
        frames({}),
        frames(fields(version=0)),
        frames(fields(version="1")),
        frames(fields(), b"emotion/desk/change"),
        frames(fields(), b"emotion/door/status"),
        frames(without("sequence")),
        frames(without("since_ns")),
        frames(fields(sequence="1")),
        frames(fields(sequence=True)),
        frames(fields(sequence=-1)),
        frames(fields(sequence=1 << 63)),
        frames(fields(snapshot=1)),
        frames(fields(time_ns=1.5)),
        frames(fields(box=[1, 2, 3])),
        frames(fields(box=[1, 2, 3, "4"])),
        frames(fields(box=[1, 2, 3, None])),
        frames(fields(probabilities={"happy": "0.5"})),
        frames(fields(probabilities=[0.1])),
        frames(fields(track=None)),
        frames(fields(what="present", tracks=[1])),
        frames({**fields("status"), "kind": "change", "what": "present", "tracks": [{"track": 1}]}),
        frames(fields("observation", regions=[{}]), b"emotion/door/observation"),
        frames(fields("observation", regions={}), b"emotion/door/observation"),
        frames(fields("observation", regions=[{**FACE, "held": 1}]), b"emotion/door/observation"),
        frames(fields("status", cameras="door"), b"emotion/door/status"),
        frames(fields("status", cameras=["door", 1]), b"emotion/door/status"),
    ],
)
def test_garbage_is_told_apart(message):
    with pytest.raises(BadEvent):
        decode(message)


def test_no_bytes_bring_the_reader_down():
    dice = random.Random(1)
    for _ in range(3000):
        topic, payload = encode(fields(dice.choice(["observation", "change", "status"])))
        broken = bytearray(payload)
        for _ in range(dice.randrange(1, 4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            decode([topic, bytes(broken[: dice.randrange(len(broken) + 1)] if dice.random() < 0.3 else broken)])
        except BadEvent:
            pass


def test_a_later_protocol_version_is_an_error_of_its_own():
    with pytest.raises(NewerProtocol, match="protocol version 2, this program reads 1"):
        decode(frames({"version": 2}))


def test_the_protocol_page_explains_every_field():
    page = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text()
    missing = [f"{part}: {name}" for part, names in SCHEMA.items() for name in names if f"`{name}`" not in page]
    assert missing == []
