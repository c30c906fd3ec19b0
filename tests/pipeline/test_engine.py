"""Whole graphs of small nodes: real processes, sockets and shared memory."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from pipeline import ring, wire
from pipeline import trace as trace_module
from pipeline.graph import expand
from pipeline.plan import NodePlan, bus_endpoint
from pipeline.source import SourceRunner
from pipeline.spec import load
from pipeline.supervisor import Supervisor
from pipeline.trace import TraceFile
from tests.support.enginenodes import Numbers
from tests.support.graphs import ROOT, run_graph

pytestmark = pytest.mark.usefixtures("engine_nodes")


def records(path: Path) -> dict[str, list[list[str]]]:
    """Camera -> its lines (without the name) as `record` wrote them."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        camera, *rest = line.split()
        found[camera].append(rest)
    return found


def stop_after(frames: int) -> Callable[[Supervisor], None]:
    """Ask once for the end when sink `r` has had so many."""

    def tick(supervisor: Supervisor) -> None:
        if supervisor.figures["r"].done > frames and supervisor.stop_reason is None:
            supervisor.stop("enough")

    return tick


def test_lossless_delivers_every_frame_once_and_in_order(tmp_path: Path):
    out = tmp_path / "out"
    run = run_graph(
        f"numbers name=a num_buffers=200 ! work name=w ! gather name=g ! record path={out} "
        "numbers name=b num_buffers=120 ! w.  numbers name=c num_buffers=1 ! w.",
        ["mode=lossless"],
    )
    assert run.error is None
    assert {n: (k.captured, k.delivered) for n, k in run.ledgers.items()} == {
        "a": (200,) * 2,
        "b": (120,) * 2,
        "c": (1, 1),
    }
    for camera, count in (("a", 200), ("b", 120), ("c", 1)):
        lines = records(out)[camera]
        assert lines[-1] == ["eos"]
        assert [int(n) for n, *_ in lines[:-1]] == list(range(count))
        assert all(int(mean) == int(n) % 251 for n, mean, _ in lines[:-1])


def test_a_tee_draws_on_one_branch_and_leaves_the_other_as_it_was(tmp_path: Path):
    plain, inverted = tmp_path / "plain", tmp_path / "inverted"
    run = run_graph(f"""
mode: lossless
nodes:
  a: {{type: numbers, num_buffers: 60, process: one}}
  w: {{type: work, process: one}}
  b: {{type: numbers, num_buffers: 60}}
  v: {{type: work, replicas: auto}}
  i: {{type: invert}}
  x: {{type: record, path: "{inverted}"}}
  y: {{type: record, path: "{plain}", process: one}}
  o: {{type: odd, process: one}}
  n: {{type: nothing, process: one}}
links:
  - a ! w ! v
  - b ! v ! i ! x
  - v ! y
  - w ! o ! n
""")
    assert run.error is None
    assert (run.ledgers["a"].delivered, run.ledgers["a"].dropped) == (30, {("o", "filtered"): 30})
    assert run.ledgers["b"].delivered == 60
    for file, expected in ((plain, lambda n: n % 251), (inverted, lambda n: 255 - n % 251)):
        for camera in ("a", "b"):
            lines = records(file)[camera][:-1]
            assert len(lines) == 60
            assert all(int(mean) == expected(int(n)) for n, mean, _ in lines)


def test_what_waits_is_classified_in_one_call():
    cameras = " ".join(f"numbers name=c{i} num_buffers=40 ! g." for i in range(3))
    run = run_graph(f"{cameras} gather name=g delay=20ms max_batch=8 ! nothing", ["mode=lossless"])
    batches = run.supervisor.figures["g"].metrics["batch_items"]
    assert batches.total == 120
    assert 4 < batches.mean <= 8
    assert batches.top <= 8


def test_overload_stays_current_fair_and_exact(tmp_path: Path):
    out = tmp_path / "out"

    cameras = " ".join(f"numbers name=c{i} num_buffers=0 fps={fps} ! g." for i, fps in enumerate((200, 300, 400)))
    run = run_graph(
        f"{cameras} numbers name=c3 num_buffers=0 fps=300 live=true ! g. "
        f"gather name=g delay=30ms max_batch=2 ! work ! record name=r path={out}",
        ["latency_budget=300ms"],
        stop_after(120),
    )
    assert run.error is None
    delivered = [ledger.delivered for ledger in run.ledgers.values()]
    assert min(delivered) >= 0.5 * sum(delivered) / len(delivered)
    for name, ledger in run.ledgers.items():
        assert ledger.adds_up
        assert ledger.in_flight == 0
        assert ledger.dropped[name, "window full"] > ledger.delivered
    assert max(p.rss for p in run.supervisor.processes.values()) < 80e6  # thousands of frames came; few are held
    ages = [float(age) for lines in records(out).values() for *_, age in lines[:-1]]
    assert max(run.supervisor.figures["r"].metrics["age_ms"].samples) <= 300
    assert len(ages) == sum(delivered)


def test_many_cameras_that_share_too_little_take_turns():
    """One buffer of each is already more than the budget holds: work on late frames would be for nothing."""
    cameras = " ".join(f"numbers name=c{i} num_buffers=0 fps=20 ! w." for i in range(1, 12))
    run = run_graph(
        f"numbers name=c0 num_buffers=0 fps=20 ! work name=w delay=20ms ! work name=v ! nothing name=r {cameras}",
        ["latency_budget=150ms"],
        stop_after(350),
    )
    assert run.error is None
    delivered = [ledger.delivered for ledger in run.ledgers.values()]
    late = sum(n for ledger in run.ledgers.values() for (_, why), n in ledger.dropped.items() if why == "late")
    assert late < sum(delivered)  # a quarter where they take turns, more than delivered where they do not
    assert min(delivered) >= 0.2 * sum(delivered) / len(delivered)
    assert all(ledger.adds_up and not ledger.in_flight for ledger in run.ledgers.values())


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


def test_stop_brings_everything_home_and_ends_every_stream(tmp_path: Path):
    out = tmp_path / "out"
    run = run_graph(
        f"numbers name=a num_buffers=0 ! work delay=5ms ! record name=r path={out}",
        ["mode=lossless"],
        stop_after(20),
    )
    ledger = run.ledgers["a"]
    assert run.error is None
    assert ledger.captured == ledger.delivered > 20
    assert ledger.in_flight == 0
    assert records(out)["a"][-1] == ["eos"]


def test_slots_too_large_for_the_machine_are_one_line():
    run = run_graph("numbers name=a width=8000 height=8000 window=4000 ! nothing")
    assert run.error is not None
    assert run.error.startswith("a: 4002 frame slots x 1 of 8000x8000x3 need 768,384.3 MB")
    assert run.ledgers["a"].captured == 0


def test_every_buffer_brings_its_trace_home(tmp_path: Path):
    run = run_graph("numbers name=a num_buffers=20 fps=100 ! work name=w ! gather name=g ! nothing name=n", trace=True)
    delivered = run.ledgers["a"].delivered
    assert delivered > 0
    for _, _, trace in run.traces:
        times = [t for _, start, end, _ in trace for t in (start, end)]
        assert times == sorted(times)
    file = TraceFile(tmp_path / "trace.json", run.supervisor.plan)
    file.add(run.traces)
    file.write()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    assert {s["cat"] for s in slices} == {"a", "w", "g", "n"}
    assert sum(s["cat"] == "n" for s in slices) == delivered
    rows = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert rows == {"a", "w", "g", "n"}
    assert any(e["ph"] == "C" and e["args"]["items"] > 0 for e in events)


def test_a_tee_does_not_double_what_was_before_it(tmp_path: Path):
    run = run_graph(
        "numbers name=a num_buffers=10 ! work name=w ! nothing name=n  w. ! odd ! nothing name=o", trace=True
    )
    file = TraceFile(tmp_path / "trace.json", run.supervisor.plan)
    file.add(run.traces)
    assert file.write() == ""
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [event["name"] for event in events if event["ph"] == "X"]
    assert len(slices) == len(set(slices))
    assert {name for name in slices if name.startswith(("n ", "w "))} <= {f"{n} a#{i}" for n in "nw" for i in range(10)}
    assert sum(name.startswith("w ") for name in slices) >= sum(name.startswith("n ") for name in slices) > 0


def test_a_trace_of_a_long_run_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trace_module, "_REMEMBERED", 1000)
    plan = expand(load("numbers name=a ! gather name=g ! nothing name=n"))
    (tmp_path / "trace.json").write_text("an older one")
    file = TraceFile(tmp_path / "trace.json", plan)
    process = psutil.Process()

    def minutes(begin: int, count: int) -> int:
        for number in range(begin, begin + count):
            at = number * 10**7
            trace = [["a", at, at + 10, 1], ["g", at // 2, at // 2 + 5, 2], ["n", at + 20, at + 30, 1]]
            file.add([(number, ("", "delivered"), trace)] * 2)  # a tee tells of everything twice
        return process.memory_info().rss

    before = minutes(0, 5000)
    assert minutes(5000, 50_000) - before < 10e6  # 150,000 slices, 25 MB as text
    assert (tmp_path / "trace.json").read_text() == "an older one"
    assert os.listdir(tmp_path) == ["trace.json"]
    assert file.write() == ""
    slices = [e for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert len(slices) == 3 * 55_000


@pytest.mark.parametrize("before", [None, "an older one"])
def test_a_trace_for_which_there_is_no_room_is_told_and_leaves_nothing(tmp_path: Path, before: str | None):
    """Here of a process that may write files of 30 kB."""
    path = tmp_path / "t.json"
    if before is not None:
        path.write_text(before)
    code = f"""
import resource, signal
from pathlib import Path
from pipeline.graph import expand
from pipeline.spec import load
from pipeline.trace import TraceFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = TraceFile(Path({str(path)!r}), expand(load("testsrc name=a ! fakesink name=n")))
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
for number in range(300):
    at = number * 10**7
    file.add([(number, ("", "delivered"), [["a", at, at + 10, 1], ["n", at + 20, at + 30, 1]])])
print(file.write())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == f"cannot write the trace {path}: File too large\n", done.stderr
    assert (path.read_text() if path.exists() else None) == before


def test_a_recording_that_decodes_too_slowly_is_not_dropped_for_it():
    """Its frames come late, but those that went before them are long back."""
    run = run_graph("numbers name=a num_buffers=60 fps=100 slow_fill=20ms ! nothing")
    assert run.ledgers["a"].captured == 60
    assert run.ledgers["a"].delivered > 40


@pytest.mark.parametrize("live", ["false", "true"])
def test_slow_work_in_a_cameras_own_process_costs_frames_and_not_the_present(live: str):
    """Frames come four times as fast as they are worked on, in the thread that sends them."""
    run = run_graph(
        f"numbers name=a num_buffers=200 fps=100 live={live} ! work name=w delay=40ms process={{camera}} ! nothing"
    )
    ledger = run.ledgers["a"]
    assert (ledger.captured, ledger.in_flight, set(ledger.dropped)) == (200, 0, {("a", "window full")})
    assert ledger.delivered + ledger.dropped["a", "window full"] == 200
    assert 5 < ledger.delivered < 120
    figures = run.supervisor.figures["a"]
    assert figures.taken == 200
    assert figures.dropped == {"window full": 200 - ledger.delivered}
    # A frame waits for the one before it and is worked on itself; a queue would grow by 30 ms with each frame.
    ages = sorted(figures.metrics["latency_ms"].samples)
    assert ages[len(ages) // 2] < 250


def test_a_camera_whose_process_has_too_much_to_do_still_ends_when_told():
    def tick(supervisor: Supervisor) -> None:
        if supervisor.figures["w"].done >= 3 and supervisor.stop_reason is None:
            supervisor.stop("enough")

    run = run_graph(
        "numbers name=a num_buffers=0 fps=200 live=true ! work name=w delay=40ms process={camera} ! nothing",
        on_tick=tick,
    )
    assert run.error is None
    assert run.supervisor.processes["a"].restarts_total == 0
    assert (run.ledgers["a"].adds_up, run.ledgers["a"].in_flight) == (True, 0)


def test_in_lossless_mode_a_camera_waits_for_the_work_in_its_own_process():
    run = run_graph(
        "numbers name=a num_buffers=40 fps=200 live=true ! work name=w delay=10ms process={camera} ! nothing",
        ["mode=lossless"],
    )
    assert (run.ledgers["a"].captured, run.ledgers["a"].delivered) == (40, 40)


def test_a_frame_that_waits_goes_before_a_newer_one():
    node = Numbers(name="a", fps=30)
    plan = NodePlan("a", "a", "numbers", "", "source", "a", {})
    ring_fd = ring.create()
    runner = SourceRunner(
        node, plan, [], ring_fd, planes=1, budget_ns=10**12, phase=0.0, log=lambda level, name, text: None
    )
    sent: list[int] = []
    runner._send = lambda buffer: sent.append(buffer.sequence)
    try:
        runner.open(restarted=False)

        def capture() -> None:
            buffer = runner._blank()
            assert buffer is not None
            assert runner._fill(buffer)
            runner._captured(buffer)

        runner._window.rest_until = time.monotonic_ns() + 10**10
        capture()
        assert sent == []  # it rests, and the frame waits
        runner._window.rest_until = time.monotonic_ns()
        capture()
        assert sent == [0, 1]
    finally:
        os.close(ring_fd)
        os.close(runner.wake)


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


def test_cameras_played_in_real_time_take_turns():
    interval = 1e9 / 20
    run = run_graph(
        "numbers name=a num_buffers=20 fps=20 ! nothing name=n"
        + "".join(f" numbers name={name} num_buffers=20 fps=20 ! n." for name in "bcd"),
        trace=True,
    )
    for place, name in enumerate("abcd"):
        sent = [trace[0][2] for _, _, trace in run.traces if trace[0][0] == name]
        assert len(sent) == 20
        # Some are late on a busy machine, none is early.
        assert min((at - place * interval / 4) % interval for at in sent) < interval / 4


def test_latency_counts_from_when_a_frame_was_due():
    """Not from when it was decoded, ahead of its time; nor only from when its source let it go."""
    run = run_graph("numbers name=a num_buffers=20 fps=20 ! work delay=10ms ! nothing", trace=True)
    latency = run.supervisor.figures["a"].metrics["latency_ms"]
    since_sent = [(trace[-1][2] - trace[0][2]) / 1e6 for _, _, trace in run.traces]
    assert latency.count == 20
    assert 10 < sum(since_sent) / 20 < latency.mean
    assert min(latency.samples) < 50


def test_lossless_waits_even_for_a_source_that_wants_to_be_paced():
    run = run_graph(
        "numbers name=a num_buffers=30 force_paced=true fps=500 ! work delay=10ms ! nothing", ["mode=lossless"]
    )
    assert run.ledgers["a"].delivered == 30


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
    assert run.error == message


def test_a_node_in_the_middle_of_a_long_frame_may_finish_it_after_a_stop():
    """A picture of many megapixels is searched for seconds; that is no trouble, and it is said why it takes so long."""
    run = run_graph(
        "numbers name=a num_buffers=0 fps=50 ! work name=w delay=3s ! nothing  a. ! nothing name=r", [], stop_after(10)
    )
    assert run.error is None
    assert run.said("waiting for w to close; another Ctrl-C ends it at once")
    assert run.ledgers["a"].adds_up


def test_what_a_node_has_started_ends_with_the_graph():
    run = run_graph("numbers name=a num_buffers=5 ! trouble start_child=true", ["mode=lossless"])
    assert run.error is None
    children = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "7777"]]
    assert not [p for p in children if p.status() != psutil.STATUS_ZOMBIE]
