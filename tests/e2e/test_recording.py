"""`emograph events` that is started before its graph, and writes down what the graph tells."""

from __future__ import annotations

import json
from typing import Any

from tests.support.command import emograph, started, wait_until
from tests.support.host import free_endpoint

FRAMES = 15


def record(mode: str) -> tuple[list[dict[str, Any]], int]:
    """The lines, and how many frames the graph has told of."""
    endpoint = free_endpoint()
    graph = f"testsrc num_buffers={FRAMES} width=160 height=120 ! haardetect min_size=40 ! publish endpoint={endpoint}"
    with started("events", endpoint, "--json", "--until-ended") as recorder:
        wait_until(lambda: "is the graph running" in recorder.stderr.readline(), "the recorder")
        done = emograph("launch", graph, "--set", f"mode={mode}", "--json")
        lines, said = recorder.communicate(timeout=60)  # it ends by itself
    assert done.returncode == 0, done.stderr
    assert (recorder.returncode, said) == (0, "")
    return [json.loads(line) for line in lines.splitlines()], json.loads(done.stdout)["cameras"]["testsrc0"][
        "delivered"
    ]


def test_a_recorder_that_was_there_first_gets_all_of_a_short_recording():
    told, frames = record("lossless")
    seen = [event for event in told if event["kind"] == "observation"]
    assert frames == FRAMES
    assert [event["sequence"] for event in seen] == list(range(1, FRAMES + 1))
    assert not any(event["snapshot"] or event["lost"] for event in told)
    assert [event["what"] for event in told if event["kind"] == "status"] == ["up", "ended"]


def test_a_recorder_that_was_there_first_knows_what_it_missed_of_a_live_graph():
    told, frames = record("live")
    seen = [event for event in told if event["kind"] == "observation"]
    assert sum(event["lost"] for event in seen) + sum(not event["snapshot"] for event in seen) == frames
