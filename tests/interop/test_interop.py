"""Programs without a line of our code read the events: Python with pyzmq and msgpack, and Node.js.

docs/PROTOCOL.md shows the same two programs, so that what it tells its readers is what is tested here.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodes.publish import Publish
from pipeline import Harness, Region
from tests.support.host import patiently
from tests.support.telling import Foreign

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
NODE_FOLDER = Path(os.environ.get("EMOGRAPH_INTEROP") or CACHE / "emograph" / "interop") / "node_modules"

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_FOLDER / "zeromq").is_dir(),
    reason="Node.js or its packages are not installed: sh tests/interop/install.sh",
)

PYTHON = [sys.executable, "-I", str(HERE / "subscriber.py")]  # -I: no path leads to this project
NODE = ["node", str(HERE / "subscriber.cjs")]


def face(label: str, score: float) -> Region:
    scores = {"happy": score, "sad": 1 - score}
    raw = {"happy": 1.0, "sad": 0.0}
    return Region((10.5, 20, 30, 40), score=0.75, track=7, label=label, scores=scores, raw=raw)


programs = pytest.mark.parametrize("program", [PYTHON, pytest.param(NODE, marks=needs_node)], ids=["python", "node"])


@contextmanager
def reading(*command: str) -> Iterator[list[dict]]:
    """The events that a program has printed, all of them once it has ended by itself."""
    environment = {**os.environ, "NODE_PATH": str(NODE_FOLDER)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as peer:
        events: list[dict] = []
        reader = threading.Thread(target=lambda: events.extend(map(json.loads, iter(peer.stdout.readline, ""))))
        reader.start()
        try:
            yield events
            assert peer.wait(30) == 0
        finally:
            peer.kill()
            reader.join()


def serve(h: Harness, events: list[dict], count: int) -> None:
    """Until the program has got so many events."""

    def tick() -> None:
        h.tick()
        time.sleep(0.01)

    patiently(lambda: len(events) >= count, tick)


@programs
def test_reads_snapshot_and_events(program):
    node = Publish(name="events", endpoint="tcp://127.0.0.1:*", hold=0)
    with Harness(node, streams=("door",)) as h:
        h.push(regions=[face("happy", 0.9)])  # long before anybody listens
        with reading(*program, node.endpoint) as events:
            serve(h, events, 3)  # the snapshot: a status, the faces, the last frame
            h.clock += 0.5
            h.push(regions=[face("sad", 0.2)])
            h.mark("eos")
    told = [(e["kind"], e.get("what"), e["sequence"], e["snapshot"], e["lost"]) for e in events]
    assert told == [
        ("status", "up", 1, True, 0),
        ("change", "present", 1, True, 0),
        ("observation", None, 1, True, 0),
        ("change", "changed", 2, False, 0),
        ("observation", None, 2, False, 0),
        ("change", "left", 3, False, 0),
        ("status", "ended", 2, False, 0),
    ]
    present, changed, seen = events[1]["tracks"][0], events[3], events[4]
    assert (present["track"], present["label"], present["score"]) == (7, "happy", 0.9)
    assert (changed["label"], changed["previous"], changed["score"]) == ("sad", "happy", 0.8)
    assert seen["regions"][0]["box"] == [10.5, 20, 30, 40]
    assert seen["regions"][0]["raw"] == {"happy": 1.0, "sad": 0.0}
    assert int(seen["time_ns"]) - int(events[2]["time_ns"]) == 500_000_000  # exact to the nanosecond, in JS too


@programs
@pytest.mark.parametrize(("prefix", "last"), [("emotion/", "desk"), ("emotion/door/", "door")])
def test_ends_when_all_of_its_cameras_have_ended(program, prefix: str, last: str):
    node = Publish(name="events", endpoint="tcp://127.0.0.1:*", observations=False)
    with Harness(node, streams=("door", "desk")) as h:
        h.push(stream="door")
        with reading(*program, node.endpoint, prefix) as events:
            serve(h, events, 2)
            h.mark("eos", "door")
            if last == "desk":  # not heard of before
                h.push(stream="desk")
                h.mark("eos", "desk")
    told = [(e["camera"], e["what"]) for e in events if e["kind"] == "status"]
    assert told == [("door", "up"), ("door", "ended"), ("desk", "up"), ("desk", "ended")][: 4 if last == "desk" else 2]


@programs
def test_who_was_there_first_knows_what_it_has_missed(program):
    earlier = Foreign()
    with reading(*program, earlier.endpoint) as events:
        earlier.asked()
        earlier.close()
        with Harness(Publish(name="events", endpoint=earlier.endpoint), streams=("door",)) as h:
            for _ in range(3):  # it is not connected yet
                h.push()
            serve(h, events, 3)
            h.push()
            h.mark("eos")
    seen = [e for e in events if e["kind"] == "observation"]
    assert sum(e["lost"] for e in seen) + sum(not e["snapshot"] for e in seen) == 4


@pytest.mark.parametrize("file", ["subscriber.py", "subscriber.cjs"])
def test_the_protocol_page_shows_this_program(file):
    page = (HERE.parents[1] / "docs" / "PROTOCOL.md").read_text()
    assert (HERE / file).read_text().strip() in page
