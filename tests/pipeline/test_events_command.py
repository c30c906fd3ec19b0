"""`emograph events`: lines for people and for programs, and when it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest

from pipeline import Event
from pipeline.events import decode, encode
from pipeline.events_cli import as_json_line, describe, line_writer
from tests.support.telling import ABOUT, FACE, TIME, Foreign, fields


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
