"""The event format and its readers: what a subscriber makes of good, bad, lost and foreign messages."""

import io
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import pandas
import pytest
import zmq

from pipeline import Event, UserError, subscribe, to_dataframe
from pipeline.events import SCHEMA, BadEvent, NewerProtocol, decode, encode
from pipeline.events_cli import as_json_line, describe, line_writer
from pipeline.jsonlines import json_line

TIME = 1_700_000_000_123_456_789
FACE = {
    "box": [10.0, 20.0, 30.0, 40.0], "track": 7, "label": "happy", "score": 0.75,
    "probabilities": {"happy": 0.75, "sad": 0.25}, "raw": {"happy": 1.0, "sad": 0.0}, "detection": 3.5,
}  # fmt: skip
SMALL = {**FACE, "box": [0.0, 0.0, 5.0, 5.0], "track": None, "label": "sad", "score": 0.9}
TRACK = {
    "track": 7, "label": "happy", "previous": "sad", "score": 0.75, "probabilities": {"happy": 0.75, "sad": 0.25},
    "box": [10.0, 20.0, 30.0, 40.0], "since_ns": TIME - 10**9, "since_pts_ns": 0, "duration_ns": 2_500_000_000,
}  # fmt: skip
ABOUT = {
    "observation": {"frame": 3, "width": 640, "height": 480, "regions": [SMALL, FACE]},
    "change": {"what": "changed", **TRACK},
    "status": {"what": "down", "reason": "unplugged", "since_ns": TIME},
}


def fields(kind: str = "change", camera: str = "door", sequence: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "version": 1, "kind": kind, "camera": camera, "run": "r1", "sequence": sequence, "snapshot": False,
        "time_ns": TIME, "pts_ns": 40_000_000, "latency_ns": 30_000_000, **ABOUT[kind], **more,
    }  # fmt: skip


def without(name: str, kind: str = "change") -> dict[str, Any]:
    return {key: value for key, value in fields(kind).items() if key != name}


def frames(payload: Any, topic: bytes = b"emotion/door/change") -> list[bytes]:
    return [topic, msgpack.packb(payload)]  # type: ignore[list-item]


# The format ------------------------------------------------------------------------------------------------


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


def test_what_an_earlier_publisher_does_not_say():
    """`held` and `cameras` came later than the rest."""
    regions = [FACE, {**FACE, "held": True}, {**FACE, "held": None}]
    (event,) = decode(encode(fields("observation", regions=regions)))
    assert [region.held for region in event.regions] == [False, True, False]
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


# Subscribing -----------------------------------------------------------------------------------------------


class Foreign:
    """A publisher of somebody else's: says what it is told to say, on a port of its own."""

    def __init__(self, endpoint: str = "tcp://127.0.0.1:*") -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.socket.linger = 0
        self.socket.bind(endpoint)
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def asked(self, timeout: float = 20.0) -> bytes | None:
        """The next (un)subscription that reaches it."""
        return self.socket.recv() if self.socket.poll(timeout * 1000) else None

    def say(self, *payloads: dict[str, Any]) -> None:
        for payload in payloads:
            self.socket.send_multipart(encode(payload))

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def foreign():
    publisher = Foreign()
    yield publisher
    publisher.close()


def present(sequence: int, *tracks: int, **more: Any) -> dict[str, Any]:
    about = {"what": "present", "tracks": [{**TRACK, "track": t} for t in tracks], "snapshot": True}
    return {**without("track"), "sequence": sequence, **about, **more}


@pytest.mark.parametrize(
    ("cameras", "kinds", "prefixes", "expected"),
    [
        (None, None, {b"emotion/"}, ["door/status", "door/change", "desk/change", "doorbell/status"]),
        (["door"], None, {b"emotion/door/"}, ["door/status", "door/change"]),
        (
            ["door", "desk"],
            ["change"],
            {b"emotion/door/change", b"emotion/desk/change"},
            ["door/change", "desk/change"],
        ),
        (None, "status", {b"emotion/"}, ["door/status", "doorbell/status"]),
        ("desk", "change", {b"emotion/desk/change"}, ["desk/change"]),
    ],
)  # fmt: skip
def test_only_what_was_asked_for(foreign, cameras, kinds, prefixes, expected):
    with subscribe(foreign.endpoint, cameras, kinds, timeout=5) as events:
        assert {foreign.asked() for _ in prefixes} == {b"\x01" + prefix for prefix in prefixes}
        foreign.say(fields("status"), fields("change"), fields("change", "desk"), fields("status", "doorbell"))
        got = [next(events) for _ in expected]
        assert [f"{e.camera}/{e.kind}" for e in got] == expected
        assert events.receive(0.05) is None


def test_losses_show(foreign):
    with subscribe(foreign.endpoint, timeout=5) as events:
        foreign.asked()
        foreign.say(
            fields("status", sequence=5),  # joined in the middle: nothing is lost yet
            fields("status", sequence=6),
            fields("status", sequence=9),
            fields("status", "desk", sequence=2),  # each topic counts for itself
            fields("status", sequence=12, snapshot=True),  # takes no number: 10, 11, 12 are missing
            fields("status", sequence=13),
            fields("status", sequence=1, run="r2"),  # restarted: no loss
        )
        assert [next(events).lost for _ in range(7)] == [0, 0, 2, 0, 3, 0, 0]
        assert events.lost == 5


def test_snapshots_for_others_are_passed_over(foreign):
    with subscribe(foreign.endpoint, timeout=5) as events:
        foreign.asked()
        foreign.say(
            present(4, 7, 8),  # ours
            present(4, 7, 8),  # somebody else joined
            fields(sequence=5, track=9),
            present(5, 7, 8, 9),
            present(6, 7),  # we missed one: now it is news
            present(6, 7),
            present(0, run="r2"),  # restarted, nobody there
            fields(sequence=1, track=1, run="r2"),
            present(1, 1, run="r2"),
            fields("status", sequence=1),
            fields("status", sequence=1, snapshot=True),
            fields("status", sequence=2),
        )
        got = [(e.kind, e.what, e.track, e.sequence, e.lost, e.run) for e in (next(events) for _ in range(7))]
        assert got == [
            ("change", "present", 7, 4, 0, "r1"),
            ("change", "present", 8, 4, 0, "r1"),
            ("change", "changed", 9, 5, 0, "r1"),
            ("change", "present", 7, 6, 1, "r1"),
            ("change", "changed", 1, 1, 0, "r2"),
            ("status", "down", None, 1, 0, "r1"),
            ("status", "down", None, 2, 0, "r1"),
        ]


def test_a_snapshot_is_asked_for_after_a_loss(foreign, monkeypatch):
    monkeypatch.setattr("pipeline.subscription._RESYNC_SECONDS", 0.5)
    with subscribe(foreign.endpoint, ["door"], ["change"], timeout=5) as events:
        assert foreign.asked() == b"\x01emotion/door/change"
        foreign.say(present(1, 7), fields(sequence=2))
        next(events), next(events)
        assert foreign.asked(0.1) is None  # nothing was lost
        foreign.say(fields(sequence=4))
        assert next(events).lost == 1
        for _ in range(2):  # once more when no answer comes, and not only when there is another event
            assert events.receive(0.6) is None
            assert (foreign.asked(), foreign.asked()) == (b"\x01emotion/door/chang", b"\x00emotion/door/chang")
        foreign.say(present(4, 7), fields(sequence=5))
        assert [next(events).what, next(events).what] == ["present", "changed"]
        assert foreign.asked(0.1) is None  # all is known again


def test_garbage_from_a_foreign_publisher_is_counted_and_skipped(foreign):
    with subscribe(foreign.endpoint, timeout=5) as events:
        foreign.asked()
        foreign.socket.send(b"emotion/")
        foreign.socket.send_multipart([b"emotion/door/change", b"\xff\x00garbage", b"more"])
        foreign.socket.send_multipart([b"emotion/\xff\xfe/change", msgpack.packb(fields())])
        foreign.say(fields(sequence=3))
        assert next(events).sequence == 3
        assert events.garbage == 3


def test_a_later_protocol_version_ends_in_one_clear_line(foreign):
    with subscribe(foreign.endpoint, timeout=5) as events:
        foreign.asked()
        foreign.say(fields(version=2))
        with pytest.raises(UserError, match=r"tcp://.*protocol version 2, this program reads 1; update"):
            next(events)


def test_connects_again_when_the_publisher_restarts(foreign):
    with subscribe(foreign.endpoint, timeout=20) as events:
        foreign.asked()
        foreign.say(fields("status"))
        assert next(events).run == "r1"
        foreign.close()
        again = Foreign(foreign.endpoint)
        try:
            asked = None
            while asked is None:  # libzmq subscribes again when the subscriber next looks for messages
                assert events.receive(0.05) is None
                asked = again.asked(0)
            assert asked == b"\x01emotion/"
            again.say(fields("status", run="r2"))
            assert next(events).run == "r2"
        finally:
            again.close()


def test_ends_when_nothing_comes_and_when_closed(foreign):
    events = subscribe(foreign.endpoint, timeout=0.05)
    assert list(events) == []
    foreign.say(fields("status"))
    assert next(events).kind == "status"  # the end was no end: more can come
    events.close()
    assert list(events) == []


@pytest.mark.parametrize(
    ("endpoint", "kinds", "message"),
    [
        ("127.0.0.1:5556", None, "'127.0.0.1:5556' is not an endpoint such as tcp://"),
        ("http://127.0.0.1:80", None, "is not an endpoint"),
        ("tcp://127.0.0.1", None, "is not an endpoint"),
        ("tcp://127.0.0.1:99999", None, "a port is at most 65535"),
        ("tcp://127.0.0.1:*", None, "cannot subscribe to"),
        ("ipc://", None, "is not an endpoint"),
        ("tcp://127.0.0.1:5556", ["chance"], "unknown kind of event 'chance'; did you mean 'change'"),
    ],
)
def test_wrong_arguments_get_one_clear_line(endpoint, kinds, message):
    with pytest.raises(UserError) as error:
        subscribe(endpoint, kinds=kinds)
    assert message in str(error.value)


def test_a_subscriber_loads_nothing_heavy():
    heavy = ["numpy", "pydantic", "pandas", "rich", "cv2", "torch", "nodes"]
    program = f"import sys; from pipeline import subscribe; print(sorted(set({heavy}) & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert out == "[]\n"


# Tables ----------------------------------------------------------------------------------------------------


def test_dataframe_has_a_row_for_each_face_change_and_status():
    told = [fields("observation"), fields("observation", regions=[]), fields("change"), fields("status")]
    table = to_dataframe(event for f in told for event in decode(encode(f)))
    assert list(table.kind) == ["observation", "observation", "change", "status"]
    assert list(table.track.fillna(-1)) == [-1, 7, 7, -1]
    assert list(table.happy.fillna(-1)) == [0.75, 0.75, 0.75, -1]
    assert list(table.width.fillna(-1)) == [5, 30, 30, -1]
    assert table.time.dt.tz is UTC or str(table.time.dt.tz) == "UTC"
    assert table.duration[2] == 2.5
    assert (table.previous[2], table.what[3]) == ("sad", "down")


def test_dataframe_tells_runs_frames_and_raw_probabilities():
    seen = {**FACE, "held": True}
    told = [fields("observation", regions=[seen, FACE]), fields("change", run="r2", frame=9), fields("status")]
    table = to_dataframe(event for f in told for event in decode(encode(f)))
    assert list(table.run) == ["r1", "r1", "r2", "r1"]
    assert list(table.frame.fillna(-1)) == [3, 3, -1, -1]  # a change has no `frame`: somebody's own field is none
    assert list(table.held.astype(object).where(table.held.notna(), None)) == [True, False, None, None]
    assert list(table.columns)[-4:] == ["happy", "sad", "raw_happy", "raw_sad"]
    assert list(table.raw_happy.fillna(-1)) == [1.0, 1.0, -1, -1]
    assert (table.happy[0], table.raw_sad[0]) == (0.75, 0.0)


@pytest.mark.parametrize("kinds", [[], ["status"], ["change"], ["observation"], ["observation", "change", "status"]])
def test_dataframe_has_the_same_dtypes_whatever_comes(kinds: list[str]):
    table = to_dataframe(event for kind in kinds for event in decode(encode(fields(kind))))
    text = pandas.Series(["text"]).dtype
    expected = dict.fromkeys(["run", "camera", "kind", "what", "label", "previous"], text) | {
        "time": "datetime64[us, UTC]", "frame": "Int64", "track": "Int64", "held": "boolean", "pts": "Int64",
        "sequence": "int64", "lost": "int64", "snapshot": "bool",
        **dict.fromkeys(["score", "x", "y", "width", "height", "duration"], "float64"),
    }  # fmt: skip
    labels = [name for name in table.columns if name.removeprefix("raw_") in ("happy", "sad")]
    assert {name: table[name].dtype for name in table.columns} == expected | dict.fromkeys(labels, "float64")
    assert not any((table[name] == "None").any() for name in ("label", "previous"))  # missing, not a word


def test_dataframe_keeps_every_digit_and_every_label():
    large = (1 << 53) + 1
    named = {"track": 0.25, "score": 0.75}
    odd = {**FACE, "probabilities": {"happy": 0.5, "raw_happy": 0.5}, "raw": {"happy": 1.0}}
    names = to_dataframe(decode(encode(fields("observation", regions=[odd])))).columns
    assert list(names)[-3:] == ["happy", "raw_happy", "raw_happy?"]
    told = [fields("status"), fields(track=large, pts_ns=large, probabilities=named), fields(track=1 << 63)]
    table = to_dataframe(event for f in told for event in decode(encode(f)))
    assert table.track.tolist()[1] == table.pts.tolist()[1] == large
    assert table.track.isna().tolist() == [True, False, True]  # what 64 bits do not hold
    assert (table["track?"][1], table["score?"][1], table.score[1]) == (0.25, 0.75, fields()["score"])


def test_json_of_what_is_nested_without_end_is_a_line():
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    line = json.loads(json_line({**fields(), "news": deep}))
    assert line["news"][0][0]
    assert line["track"] == 7


def test_dataframe_of_nothing_has_the_columns():
    table = to_dataframe([])
    assert len(table) == 0
    assert {"time", "camera", "track", "label", "score", "lost"} <= set(table.columns)


# emograph events -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (fields("observation"), "2 faces: face sad 0.90, #7 happy 0.75"),
        (fields("observation", regions=[FACE]), "1 face: #7 happy 0.75"),
        (fields("observation", regions=[]), "0 faces"),
        (fields("change"), "#7 happy 0.75, after 2.5 s sad"),
        (fields("change", what="left", previous=None), "#7 happy 0.75, after 2.5 s"),
        (fields("change", what="appeared", label=None, score=None), "#7 unread"),
        (fields("status"), "unplugged"),
    ],
)
def test_an_event_in_a_few_words(payload, words):
    assert describe(decode(encode(payload))[0]) == words


def test_json_line_is_the_wire_and_the_time_and_the_loss():
    (event,) = decode(encode(fields(score=float("nan"), extra=b"bytes")))
    line = json.loads(as_json_line(event))
    assert line["time"] == "2023-11-14T22:13:20.123456Z"
    assert line["time_ns"] == TIME
    assert line["score"] is None
    assert line["lost"] == 0
    assert fields().keys() <= line.keys()


def printer(
    endpoint: str,
    *,
    as_json: bool = False,
    count: int | None = None,
    ended: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """`print_events` in a process of its own. ended: until the cameras have ended, with these further arguments."""
    more = {"as_json": as_json, "count": count, **(ended or {}), "until_ended": ended is not None}
    program = (
        "import sys\nfrom pipeline import UserError, events_cli\nevents_cli._GONE_SECONDS = 3.0\n"
        f"try: events_cli.print_events({endpoint!r}, **{more!r})\nexcept UserError as error: sys.exit(str(error))"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", program], text=True, **options)


def test_prints_plain_lines_into_a_pipe(foreign):
    process = printer(foreign.endpoint, count=3)
    foreign.asked()
    foreign.say(fields(), fields(sequence=4), fields("status", camera="d\x1b[31m", reason="away\x07"))
    out, err = process.communicate(timeout=30)
    rows = [line.split(maxsplit=1)[1] for line in out.splitlines()]
    assert rows == [
        "door        changed   #7 happy 0.75, after 2.5 s sad",
        "door        changed   #7 happy 0.75, after 2.5 s sad  (2 lost before this)",
        "d?[31m      down      away?",  # a publisher's bytes are no commands to the terminal
    ]
    assert (process.returncode, err) == (0, "")


def test_a_recordings_events_have_their_place_in_it():
    out = io.StringIO()
    write = line_writer(out, media_time=True)
    for pts in (0, 67_480_000_000, 3_600_000_000_000 + 999_999):
        write(decode([b"emotion/door/change", msgpack.packb(fields(pts_ns=pts))])[0])
    write(decode([b"emotion/door/status", msgpack.packb(fields("status", pts_ns=None))])[0])
    places = [line[:11] for line in out.getvalue().splitlines()]
    assert places == ["0:00:00.000", "0:01:07.480", "1:00:00.000", " " * 11]


def test_prints_json_lines_as_they_come(foreign):
    process = printer(foreign.endpoint, as_json=True)
    foreign.asked()
    foreign.say(fields("observation"))
    line = json.loads(process.stdout.readline())  # while it runs: flushed
    assert line["regions"] == ABOUT["observation"]["regions"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")  # Ctrl-C is how one leaves


def test_a_reader_that_goes_away_is_no_error(foreign):
    process = printer(foreign.endpoint, as_json=True)
    foreign.asked()
    foreign.say(fields())
    process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    foreign.say(fields(sequence=2))
    assert process.stderr.read() == ""
    assert process.wait(30) == 0


def ended(camera: str, *cameras: str, **more: Any) -> dict[str, Any]:
    return fields("status", camera, what="ended", reason="", cameras=list(cameras) or None, **more)


def test_ends_by_itself_when_all_cameras_have_ended(foreign):
    """Also those that it had not heard of yet: the publisher names them."""
    process = printer(foreign.endpoint, as_json=True, ended={})
    foreign.asked()
    foreign.say(
        ended("door", "door", "desk"), fields("status", "desk", what="up"), ended("desk", "door", "desk", sequence=2)
    )
    out, err = process.communicate(timeout=60)
    assert [(json.loads(line)["camera"], json.loads(line)["what"]) for line in out.splitlines()] == [
        ("door", "ended"), ("desk", "up"), ("desk", "ended"),
    ]  # fmt: skip
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "told", "lines"),
    [
        # A publisher of before `cameras`: those that were heard of.
        ({}, [fields("status", "desk"), ended("door"), ended("desk", sequence=2)], 3),
        ({"cameras": ["door"]}, [ended("desk", "door", "desk"), ended("door", "door", "desk")], 1),
        # The status is heard, and told only to those who want it.
        ({"kinds": ["change"]}, [fields("status"), fields(), ended("door", sequence=2)], 1),
        ({"kinds": ["change", "status"]}, [fields(), ended("door", sequence=2)], 2),
        # It was started again after its end.
        (
            {},
            [
                ended("door", "door", "a"),
                fields("status", sequence=2),
                ended("a", "door", "a"),
                ended("door", sequence=3),
            ],
            4,
        ),
        # The publisher was restarted, and knows no more that the door had ended.
        ({}, [ended("door", "door", "desk"), ended("desk", "door", "desk", run="r2")], 2),
        # Who joins at the end hears it from the snapshot.
        ({}, [ended("door", "door", snapshot=True)], 1),
    ],
)
def test_what_counts_as_the_end(foreign, arguments: dict[str, Any], told: list[dict[str, Any]], lines: int):
    process = printer(foreign.endpoint, as_json=True, ended=arguments)
    foreign.asked()
    foreign.say(*told)
    out, err = process.communicate(timeout=60)
    assert (len(out.splitlines()), process.returncode, err) == (lines, 0, "")


def test_a_publisher_that_dies_is_an_end_too_but_no_good_one(foreign):
    process = printer(foreign.endpoint, as_json=True, ended={})
    foreign.asked()
    foreign.say(fields("status"), fields("status", sequence=4))
    assert process.stdout.readline()
    assert process.stdout.readline()
    foreign.close()
    again = Foreign(foreign.endpoint)  # back at once, as after a restart: no end
    try:
        assert again.asked() == b"\x01emotion/"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
    finally:
        again.close()
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert err == (
        f"{foreign.endpoint}: the publisher is gone, and did not say that its cameras ended; "
        "2 events were lost on the way\n"
    )
    assert process.returncode == 1


def test_prints_colours_on_a_terminal(foreign):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60"}
    environment.pop("NO_COLOR", None)
    process = printer(foreign.endpoint, count=1, stdout=theirs, env=environment)
    os.close(theirs)
    foreign.asked()
    foreign.say(fields("status", reason="x" * 200))
    assert process.wait(30) == 0
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[1;31mdown" in text
    assert text.count("\n") == 1  # one line, however long


@pytest.mark.parametrize(
    ("narrowed", "question"),
    [("", "is the graph running?"), (", ['door']", "is the graph running, and are --camera and --kind right?")],
)
def test_hints_when_nothing_comes(narrowed: str, question: str):
    program = (
        "from pipeline import events_cli\nevents_cli._QUIET_SECONDS = 0.1\n"
        f"events_cli.print_events('tcp://127.0.0.1:9'{narrowed})"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "no such event yet from tcp://127.0.0.1:9: " + question + "\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 0


def test_an_abandoned_loop_keeps_nothing_alive():
    """`break` out of a loop, an exception in it, or the end of the program: no hang."""
    program = (
        "from pipeline import subscribe\n"
        "events = subscribe('tcp://127.0.0.1:9', timeout=0.01)\n"
        "for event in events: pass\n"
        "raise SystemExit(7)"
    )
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 7
    assert time.monotonic() - started < 20


def test_event_is_a_plain_value():
    event = Event(datetime.now(UTC), "door", "status")
    with pytest.raises(AttributeError):
        event.camera = "desk"  # type: ignore[misc]
