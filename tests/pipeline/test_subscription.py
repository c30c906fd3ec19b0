"""Subscribers: what they make of good, bad, lost and foreign messages, as events and as tables."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC
from typing import Any

import msgpack
import pandas
import pytest

from pipeline import UserError, subscribe, to_dataframe
from pipeline.events import decode, encode
from pipeline.jsonlines import json_line
from pipeline.subscription import Subscription
from tests.support.host import free_endpoint, patiently
from tests.support.telling import FACE, TRACK, Foreign, fields, without

# Subscribing ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("began", "lost"), [("before", [0, 0, 0, 0]), ("after", [4, 2, 0, 1])])
def test_who_was_there_when_the_run_began_has_missed_what_came_before(foreign, began: str, lost: list[int]):
    run_ns = time.time_ns() + (3600 * 10**9 if began == "after" else 0)
    with subscribe(foreign.endpoint, timeout=5) as events:
        foreign.asked()
        foreign.say(
            fields("status", sequence=4, snapshot=True, run_ns=run_ns),
            fields("observation", sequence=3, run_ns=run_ns),
            fields("status", "desk", sequence=1, run_ns=run_ns),
            fields("status", "hall", sequence=2, run_ns=run_ns),
        )
        assert [next(events).lost for _ in range(4)] == lost
        assert events.lost == sum(lost)


def test_what_was_missed_before_a_snapshot_of_no_faces_is_told_with_the_next_event(foreign):
    with subscribe(foreign.endpoint, timeout=5) as events:
        foreign.asked()
        foreign.say(fields(), present(4), fields(sequence=6), fields(sequence=7))
        assert [next(events).lost for _ in range(3)] == [0, 4, 0]


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


def test_a_publisher_that_came_and_went_before_anybody_looked_is_absent(foreign):
    with Subscription(foreign.endpoint, watched=True) as events:
        foreign.asked()
        foreign.close()
        assert events.receive(0.05) is None
        patiently(lambda: events.absent() > 0)


def test_a_publisher_that_was_never_there_is_not_absent():
    with Subscription(free_endpoint(), watched=True) as events:
        assert events.receive(0.1) is None
        assert events.absent() == 0


@pytest.mark.parametrize("timeout", [float("inf"), 3e6])
def test_a_timeout_may_be_as_long_as_one_likes(foreign, timeout: float):
    with subscribe(foreign.endpoint, timeout=timeout) as events:
        threading.Timer(0.2, foreign.say, [fields("status")]).start()
        assert next(events).kind == "status"


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


# Tables -----------------------------------------------------------------------------------------------------


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
    seen = {**FACE, "held": True, "reused": False}
    told = [
        fields("observation", regions=[seen, {**FACE, "reused": True}], picture="me.jpg"),
        fields("change", run="r2", frame=9),
        fields("status"),
    ]
    table = to_dataframe(event for f in told for event in decode(encode(f)))
    assert list(table.run) == ["r1", "r1", "r2", "r1"]
    assert list(table.frame.fillna(-1)) == [3, 3, -1, -1]  # a change has no `frame`: somebody's own field is none
    assert list(table.picture.astype(object).where(table.picture.notna(), None)) == ["me.jpg", "me.jpg", None, None]
    assert list(table.held.astype(object).where(table.held.notna(), None)) == [True, False, None, None]
    assert list(table.reused.astype(object).where(table.reused.notna(), None)) == [False, True, None, None]
    assert list(table.columns)[-4:] == ["happy", "sad", "raw_happy", "raw_sad"]
    assert list(table.raw_happy.fillna(-1)) == [1.0, 1.0, -1, -1]
    assert (table.happy[0], table.raw_sad[0]) == (0.75, 0.0)


@pytest.mark.parametrize("kinds", [[], ["status"], ["change"], ["observation"], ["observation", "change", "status"]])
def test_dataframe_has_the_same_dtypes_whatever_comes(kinds: list[str]):
    table = to_dataframe(event for kind in kinds for event in decode(encode(fields(kind))))
    text = pandas.Series(["text"]).dtype
    expected = dict.fromkeys(["run", "camera", "picture", "kind", "what", "label", "previous"], text) | {
        "time": "datetime64[us, UTC]", "frame": "Int64", "track": "Int64", "held": "boolean", "reused": "boolean", "pts": "Int64",
        "sequence": "int64", "lost": "int64", "snapshot": "bool",
        **dict.fromkeys(["score", "x", "y", "width", "height", "duration"], "float64"),
    }  # fmt: skip
    labels = [name for name in table.columns if name.removeprefix("raw_") in ("happy", "sad")]
    assert {name: table[name].dtype for name in table.columns} == expected | dict.fromkeys(labels, "float64")
    assert not any((table[name] == "None").any() for name in ("picture", "label", "previous"))  # missing, not a word


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


def test_dataframe_has_the_columns_that_are_asked_for():
    table = to_dataframe([], labels=["angry", "happy"])
    assert list(table.columns)[-4:] == ["angry", "happy", "raw_angry", "raw_happy"]
    assert {str(table[name].dtype) for name in list(table.columns)[-4:]} == {"float64"}
    table = to_dataframe(decode(encode(fields("observation"))), labels=["angry", "happy"])
    assert list(table.columns)[-6:] == ["angry", "happy", "sad", "raw_angry", "raw_happy", "raw_sad"]
    assert table.angry.isna().all()
    assert table.happy[0] == 0.75


def test_a_table_of_an_address_where_nobody_publishes_is_a_warning():
    endpoint = free_endpoint()
    with pytest.warns(UserWarning, match=rf"^no event came from {endpoint}: did the graph run\?$") as told:
        assert len(to_dataframe(subscribe(endpoint, timeout=0.01))) == 0
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match=r"did the graph run, and are cameras and kinds right\?$"):
        to_dataframe(subscribe(endpoint, cameras="door", timeout=0.01))


def test_a_table_of_a_publisher_that_shows_nobody_is_none(foreign):
    with subscribe(foreign.endpoint, timeout=1) as events, warnings.catch_warnings(action="error"):
        foreign.asked()
        foreign.say(fields("observation", regions=[]))
        assert len(to_dataframe(events)) == 0


def test_the_first_change_of_a_publisher_tells_all(foreign):
    """A snapshot that answers another subscriber then brings nothing new."""
    with subscribe(foreign.endpoint, timeout=5) as events:
        foreign.asked()
        foreign.say(fields(sequence=1), present(1, 7), fields(sequence=2))
        assert [next(events).what, next(events).what] == ["changed", "changed"]
