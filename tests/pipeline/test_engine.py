"""Whole graphs of small nodes: real processes, sockets and shared memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline import ring
from pipeline.plan import NodePlan
from pipeline.source import SourceRunner
from pipeline.supervisor import Supervisor
from tests.support.enginenodes import Numbers
from tests.support.graphs import records, run_graph, stop_after

pytestmark = pytest.mark.usefixtures("engine_nodes")


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
