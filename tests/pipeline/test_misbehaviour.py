"""Nodes that do what they should not, and garbage on the bus: what it costs, and what it does not."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from pipeline import wire
from pipeline.graph import expand
from pipeline.load import load
from pipeline.plan import bus_endpoint
from pipeline.process import Process
from pipeline.supervisor import Supervisor
from tests.support.graphs import register_plugin, run_graph, stop_after

pytestmark = pytest.mark.usefixtures("engine_nodes")


def test_a_node_that_fails_on_one_frame_drops_that_frame(tmp_path: Path):
    run = run_graph(
        f"numbers name=a num_buffers=30 ! work name=w fail_at=7 ! record path={tmp_path / 'out'}", ["mode=lossless"]
    )
    assert run.ledgers["a"].dropped == {("w", "error"): 1}
    assert run.ledgers["a"].delivered == 29
    assert run.said("RuntimeError: this frame is bad")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("fail_in_tick=true", r"KeyError: 'no such thing' \(.*enginenodes.py:\d+\); it goes on"),
        ("fail_in_mark=true", r"ValueError: a mark is nothing .*enginenodes.py:\d+\); 'eos' of [ab] goes on"),
    ],
)
def test_a_node_that_fails_between_frames_goes_on(options: str, told: str):
    """One bad tick or mark costs neither the process nor a frame of the other camera that shares it."""
    run = run_graph(
        f"numbers name=a num_buffers=60 fps=50 ! trouble name=t {options}  numbers name=b num_buffers=20 fps=50 ! t.",
        ["mode=lossless"],
    )
    assert run.error is None
    assert {name: ledger.delivered for name, ledger in run.ledgers.items()} == {"a": 60, "b": 20}
    assert run.supervisor.processes["t"].restarts_total == 0
    messages = [text for _, node, text in run.logs if node == "t"]
    assert re.fullmatch(told, messages[0])
    assert len(messages) <= 3


def test_odd_metrics_and_messages_are_shown_as_far_as_they_go():
    run = run_graph("numbers name=a num_buffers=10 fps=50 ! trouble name=t odd_words=true", ["mode=lossless"])
    assert run.error is None
    assert run.supervisor.garbage == 0
    metric = run.supervisor.figures["t"].metrics["3"]
    assert (metric.count, metric.mean, metric.top) == (10, -2.5, -2.5)
    assert ("warning", "t", "5") in run.logs
    assert any(text.startswith("x" * 100) and text.endswith("... (100,000 characters)") for _, _, text in run.logs)


WRONG = {"taken": 1, "done": 1, "busy_ns": 1, "dropped": {}, "metrics": {}}
"""A report that is right but for what a test puts in."""


def stats(**fields: Any) -> dict[str, Any]:
    return {"say": "stats", "cpu": 1.0, "rss": 1, "garbage": 0, "nodes": {}, **fields}


@pytest.mark.parametrize(
    "message",
    [
        stats(rss=math.inf), stats(cpu="x"), stats(nodes={"w": {}}), stats(nodes={"w": {**WRONG, "busy_ns": math.nan}}),
        stats(nodes={"w": {**WRONG, "metrics": {"m": [1, 1.0, "high", []]}}}), stats(nodes={"w": {**WRONG, "dropped": 3}}),
        stats(nodes={"nobody": WRONG}), {"say": "camera", "node": "a", "up": True, "since": math.inf, "reason": ""},
        {"say": "camera", "node": ["a"], "up": True, "since": 1, "reason": ""}, {"say": "log"}, {"say": "clean_up"}, 7,
    ],
    ids=str,
)  # fmt: skip
def test_garbage_on_the_bus_is_counted_and_leaves_the_figures_whole(message: Any):
    """Even in the name of a worker."""
    supervisor = Supervisor(expand(load("numbers name=a ! work name=w ! nothing name=r")))
    try:
        with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            peer.setsockopt(zmq.IDENTITY, b"w")
            peer.linger = 0
            peer.connect(bus_endpoint(str(supervisor.directory.path)))
            peer.send(wire.pack(message))
            peer.send(wire.pack(stats(nodes={"w": WRONG})))
            end = time.monotonic() + 30
            while not supervisor.figures["w"].done and time.monotonic() < end:
                supervisor._listen(0.1)
        assert supervisor.garbage == 1
        assert (supervisor.figures["w"].done, len(supervisor.figures["w"].reports)) == (1, 1)
        assert supervisor.monitor.snapshot()["nodes"]["w"]["fps"] == 0
    finally:
        supervisor._clean_up()
        supervisor.close()


def test_a_user_error_in_a_node_stops_the_graph():
    run = run_graph("numbers name=a num_buffers=0 fps=50 ! work name=w fatal_at=7 ! nothing")
    assert run.error == "w: the disk is full"
    assert run.ledgers["a"].adds_up


def test_numpy_numbers_travel_and_other_objects_cost_one_frame(tmp_path: Path):
    out = tmp_path / "out"
    run = run_graph(
        f"numbers name=a num_buffers=20 ! work name=w numpy_meta=true bad_meta_at=7 ! record path={out} w. ! nothing",
        ["mode=lossless"],
    )
    ledger = run.ledgers["a"]
    assert (ledger.delivered, ledger.dropped, ledger.in_flight) == (19, {("w", "error"): 1}, 0)
    assert run.said("a object cannot travel in a buffer")
    assert run.supervisor.processes["w"].restarts_total == 0


def test_a_region_that_no_node_could_read_costs_one_frame_of_the_node_that_made_it():
    """Read at the next node it would be garbage, and its buffer would never come home."""
    run = run_graph("numbers name=a num_buffers=20 ! work name=w bad_region_at=7 ! nothing", ["mode=lossless"])
    ledger = run.ledgers["a"]
    assert (ledger.delivered, ledger.dropped, ledger.in_flight) == (19, {("w", "error"): 1}, 0)
    assert run.said("TypeError: the key 3 in attrs is no text")
    assert run.error is None


@pytest.mark.parametrize("end", ["num_buffers=20", "num_buffers=0 fps=50 window=1"])
def test_a_buffer_that_the_next_node_cannot_read_is_lost_and_holds_nobody_up(end: str):
    """However it came about: its weight would never come home by itself."""
    run = run_graph(
        f"numbers name=a {end} ! work name=w spoil_at=7 ! nothing name=r",
        ["mode=lossless" if end == "num_buffers=20" else "mode=live"],
        stop_after(25),
    )
    ledger = run.ledgers["a"]
    assert (ledger.dropped.get(("r", "lost")), ledger.in_flight, run.error) == (1, 0, None)
    assert ledger.adds_up
    assert ledger.delivered == 19 or ledger.delivered > 25
    assert run.said("dropped a garbage message on socket 'in' (BadMessage: wrong trace in a buffer header)")


@pytest.mark.parametrize("wrong", ["wall", "meta"])
def test_a_source_whose_frame_no_node_could_read_loses_that_frame(wrong: str):
    run = run_graph(f"numbers name=a num_buffers=20 bad_{wrong}_at=7 ! nothing name=r", ["mode=lossless"])
    ledger = run.ledgers["a"]
    assert (ledger.delivered, ledger.dropped, ledger.in_flight) == (19, {("a", "error"): 1}, 0)
    assert run.supervisor.processes["a"].restarts_total == 0
    assert run.said(
        {"wall": "ValueError: a buffer with a number out of range", "meta": "TypeError: a buffer's meta"}[wrong]
    )


def test_another_buffer_than_the_one_given_is_an_error_of_the_node(tmp_path: Path):
    run = run_graph("numbers name=a num_buffers=9 ! work name=w replace_at=4 ! nothing", ["mode=lossless"])
    assert run.ledgers["a"].dropped == {("w", "error"): 1}
    assert run.said("a node returns the buffer that it was given")


@pytest.mark.parametrize("how", ["sequence = 0", "weight *= 2", "stream = 'nowhere'"])
def test_a_node_that_changes_what_is_the_engines_loses_that_frame_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    """Its way home does not depend on what the node has done to it; else the graph would never end."""
    code = (
        "from tests.support.enginenodes import Work\n"
        "class Plugin(Work):\n"
        "    def transform(self, buffer):\n"
        "        if buffer.meta['number'] == 7:\n"
        f"            buffer.{how}\n"
        "        return buffer\n"
    )
    register_plugin(monkeypatch, tmp_path, "meddles", code)
    run = run_graph("numbers name=a num_buffers=20 ! meddles name=w ! nothing", ["mode=lossless"])
    ledger = run.ledgers["a"]
    assert (ledger.delivered, ledger.dropped, ledger.in_flight) == (19, {("w", "error"): 1}, 0)
    assert run.supervisor.processes["w"].restarts_total == 0
    errors = [text for level, node, text in run.logs if (level, node) == ("error", "w")]
    assert errors == [f"TypeError: a node may not change {how.partition(' ')[0]} of a buffer; the frame is dropped"]


def test_what_a_source_writes_into_the_engines_fields_is_set_right():
    run = run_graph("numbers name=a num_buffers=20 meddles=true ! work ! nothing", ["mode=lossless"])
    ledger = run.ledgers["a"]
    assert (run.error, ledger.delivered, ledger.in_flight) == (None, 20, 0)


def test_a_batch_node_may_do_with_its_list_what_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What it takes out of it is not forgotten by the engine."""
    code = (
        "from tests.support.enginenodes import Gather\n"
        "class Plugin(Gather):\n"
        "    def transform_batch(self, buffers):\n"
        "        buffers.pop()\n"
        "        return buffers\n"
    )
    register_plugin(monkeypatch, tmp_path, "forgets", code)
    run = run_graph("numbers name=a num_buffers=20 ! forgets name=w ! nothing", ["mode=lossless"])
    ledger = run.ledgers["a"]
    assert (ledger.dropped, ledger.in_flight) == ({("w", "error"): 20}, 0)
    assert run.said("results came out")


def test_a_flood_of_messages_is_cut_and_nothing_else_is_lost():
    run = run_graph("numbers name=a num_buffers=10 chatter=20000 ! nothing", ["mode=lossless"])
    assert run.error is None
    assert run.ledgers["a"].delivered == 10
    assert run.said("message 0")
    assert sum(text.startswith("message ") for _, _, text in run.logs) <= 200
    assert run.said("more messages are left out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("fail_in_close=true", "t: while closing: OSError: No space left on device"),
        ("slow_close=30s", "t: did not close in time and was killed"),
    ],
)
def test_a_node_that_does_not_close_well_is_an_error(options: str, message: str):
    run = run_graph(
        f"numbers name=a num_buffers=0 fps=50 ! trouble name=t {options}  a. ! nothing name=r", [], stop_after(10)
    )
    assert run.error is not None
    assert run.error.partition(" (")[0] == message


def test_a_node_in_the_middle_of_a_long_frame_may_finish_it_after_a_stop():
    """A picture of many megapixels is searched for seconds; that is no trouble, and it is said why it takes so long."""
    run = run_graph(
        "numbers name=a num_buffers=0 fps=50 window=20 ! work name=w delay=5s ! nothing  a. ! nothing name=r",
        [],
        stop_after(10),
    )
    assert run.error is None
    assert run.said("waiting for w to close; another Ctrl-C ends it at once")
    assert run.ledgers["a"].adds_up


def test_what_a_node_has_started_ends_with_the_graph():
    run = run_graph("numbers name=a num_buffers=5 ! trouble start_child=true", ["mode=lossless"])
    assert run.error is None
    children = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "7777"]]
    assert not [p for p in children if p.status() != psutil.STATUS_ZOMBIE]


def test_what_a_node_says_shows_no_credentials():
    run = run_graph("numbers name=a num_buffers=1 saying='rtsp://me:word@10.0.0.5/x' ! nothing")
    assert run.said("rtsp://***@10.0.0.5/x")
    assert not any("word" in text for _, _, text in run.logs)


def test_a_process_that_ends_badly_while_it_closes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        "import os\n"
        "from tests.support.enginenodes import Nothing\n"
        "class Plugin(Nothing):\n"
        "    def close(self):\n"
        "        os._exit(3)\n"
    )
    register_plugin(monkeypatch, tmp_path, "rude", code)
    run = run_graph("numbers name=a num_buffers=5 ! rude name=t", ["mode=lossless"])
    assert run.error == "t: the process ended badly: exit code 3"
    assert run.ledgers["a"].delivered == 5


OPENS = """
from pydantic import BaseModel
from tests.support.enginenodes import Nothing

class Settings(BaseModel):
    count: int

class Plugin(Nothing):
    def open(self):
        {does}
"""


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("raise ValueError('cannot\\nopen')", r"ValueError: cannot open \(.*/opens.py:10\)"),
        ("raise OSError", r"OSError: \(.*/opens.py:10\)"),
        ("self.props.cuont", r"AttributeError: 'Properties' object has no attribute 'cuont' \(.*/opens.py:10\)"),
        ("self.observe()", r"TypeError: Node.observe\(\) missing .* \(.*/opens.py:10\)"),
        (
            "Settings(count='x')",
            r"ValidationError: 1 validation error for Settings count Input should be .*/opens.py:10\)",
        ),
        ("raise SystemExit('no device')", "no device"),
    ],
)
def test_an_exception_while_opening_is_told_with_its_type_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, told: str
):
    register_plugin(monkeypatch, tmp_path, "opens", OPENS.format(does=does))
    run = run_graph("numbers name=a num_buffers=5 ! opens name=t")
    assert run.error is not None
    assert re.fullmatch(f"t: the process ended with code 1: {told}", run.error), run.error


def test_a_source_that_does_not_say_what_its_frames_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        "from tests.support.enginenodes import Numbers\n"
        "class Plugin(Numbers):\n"
        "    def open(self):\n"
        "        super().open()\n"
    )
    register_plugin(monkeypatch, tmp_path, "silent", code)
    run = run_graph("silent name=a ! nothing")
    assert "open() of Plugin must return a VideoInfo, and returned None" in str(run.error)


def test_a_fill_without_a_return_does_not_just_end_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        "from tests.support.enginenodes import Numbers\n"
        "class Plugin(Numbers):\n"
        "    def fill(self, buffer):\n"
        "        super().fill(buffer)\n"
    )
    register_plugin(monkeypatch, tmp_path, "mute", code)
    monkeypatch.setattr(Process, "RESTART_LIMIT", 1)
    run = run_graph("mute name=a ! nothing")
    assert "TypeError: fill() of Plugin must return True, or False at the end, and returned None" in str(run.error)


@pytest.mark.parametrize("live", ["false", "true"])
def test_an_exception_in_fill_is_told_with_its_type_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: str
):
    code = (
        "from tests.support.enginenodes import Numbers\n"
        "class Plugin(Numbers):\n"
        "    def fill(self, buffer):\n"
        "        if self.next == 5 and not self.restarted:\n"
        "            raise ValueError('fill\\nboom')\n"
        "        return super().fill(buffer)\n"
    )
    register_plugin(monkeypatch, tmp_path, "booms", code)
    run = run_graph(f"booms name=a num_buffers=20 fps=100 live={live} ! nothing", ["mode=lossless"])
    warnings = [text for level, node, text in run.logs if (level, node) == ("warning", "a")]
    assert re.fullmatch(
        r"the process ended with code 1: ValueError: fill boom \(.*/booms.py:5\); restart 1 of 5", warnings[0]
    )


def test_a_sink_is_not_stopped_while_frames_are_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`send` would not wait for its receivers any more."""
    out = tmp_path / "out"
    code = (
        "from tests.support.enginenodes import Nothing\n"
        "class Plugin(Nothing):\n"
        "    def consume(self, buffer):\n"
        f"        with open({str(out)!r}, 'a') as file:\n"
        "            print(self.stopping.is_set(), file=file)\n"
    )
    register_plugin(monkeypatch, tmp_path, "watches", code)
    graph = "numbers name=a num_buffers=0 ! work delay=50ms ! watches name=r"
    run = run_graph(graph, ["mode=lossless"], stop_after(5))
    assert run.error is None
    seen = out.read_text().split()
    assert len(seen) == run.ledgers["a"].delivered > 6
    assert set(seen) == {"False"}
