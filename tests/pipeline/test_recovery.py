"""Processes are killed, crash and hang: the graph recovers, and the ledger says what was lost and where."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import zmq

from pipeline import supervisor as supervisor_module
from pipeline.plan import bus_endpoint
from pipeline.process import Process
from pipeline.supervisor import Supervisor
from pipeline.wire import pack
from tests.pipeline.test_engine import records
from tests.support.graphs import register_plugin, run_graph

pytestmark = pytest.mark.usefixtures("engine_nodes")

LOSSLESS = (
    "numbers name=a num_buffers=150 ! work name=w delay=10ms ! gather name=g ! record name=r path={out} "
    "numbers name=b num_buffers=150 ! work name=v delay=10ms ! g."
)
LIVE = LOSSLESS.replace("num_buffers=150", "num_buffers=60 fps=25")


def kill_when_flowing(name: str) -> Callable[[Supervisor], None]:
    """Kill a process once, when buffers have reached the sink."""
    done = []

    def tick(supervisor: Supervisor) -> None:
        process = supervisor.processes[name]
        if not done and supervisor.figures["r"].done >= 5 and process.child is not None:
            done.append(True)
            os.kill(process.child.pid, signal.SIGKILL)

    return tick


@pytest.mark.parametrize("victim", ["a", "w", "g", "r"])
@pytest.mark.parametrize("mode", ["lossless", "live"])
def test_kill_9_of_any_process(tmp_path: Path, victim: str, mode: str):
    out = tmp_path / "out"
    graph = (LOSSLESS if mode == "lossless" else LIVE).format(out=out)
    run = run_graph(graph, [f"mode={mode}"], kill_when_flowing(victim))
    assert run.error is None
    assert run.said("was killed by signal 9; restart 1 of 5")
    assert run.said("recovered: buffers pass again")
    assert run.supervisor.processes[victim].restarts_total == 1
    frames = 150 if mode == "lossless" else 60
    written = records(out)
    for name, ledger in run.ledgers.items():
        assert ledger.adds_up
        assert ledger.captured == frames  # a restarted source goes on where it was
        assert ledger.in_flight == 0
        allowed = {(victim, "lost")} if mode == "lossless" else {
            (n, reason) for n in ("a", "b", "w", "v", "g", "r") for reason in ("window full", "late", "lost")
        }  # fmt: skip
        assert set(ledger.dropped) <= allowed
        lost = ledger.dropped.get((victim, "lost"), 0)
        if lost:
            assert run.said("lost in " + victim)
        numbers = [n for n, *_ in written[name] if n != "eos"]
        assert numbers == sorted(set(numbers), key=int), "a frame came twice or out of order"
        in_victim = sum(count for (node, _), count in ledger.dropped.items() if node == victim)
        assert len(numbers) <= ledger.delivered + in_victim
    if victim in ("a", "w") and mode == "lossless":
        assert run.ledgers["b"].delivered == frames, "the other camera was disturbed"


def test_a_crash_in_a_native_library_is_a_restart(tmp_path: Path):
    run = run_graph(
        f"numbers name=a num_buffers=40 ! work name=w abort_at=7 ! record path={tmp_path / 'out'}", ["mode=lossless"]
    )
    assert run.error is None
    assert run.said("killed by signal 11")
    ledger = run.ledgers["a"]
    assert ledger.delivered + ledger.dropped["w", "lost"] == 40


def test_a_node_that_hangs_is_killed_and_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor_module, "HANG_TIMEOUT", 3)
    run = run_graph(
        f"numbers name=a num_buffers=40 ! work name=w hang_at=7 ! record path={tmp_path / 'out'}", ["mode=lossless"]
    )
    assert run.error is None
    assert run.said("no sign of life for 3 s; killed")
    ledger = run.ledgers["a"]
    assert ledger.delivered + ledger.dropped["w", "lost"] == 40


def test_a_process_that_keeps_dying_ends_the_graph(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Process, "RESTART_LIMIT", 2)
    seen = set()

    def kill_at_once(supervisor: Supervisor) -> None:
        child = supervisor.processes["w"].child
        if supervisor.processes["w"].state == "PLAYING" and child is not None and child.pid not in seen:
            seen.add(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    # The source sends so seldom that no buffer passes between two kills.
    run = run_graph("numbers name=a num_buffers=0 fps=0.2 ! work name=w ! nothing name=r", [], kill_at_once)
    assert run.error is not None
    assert run.error.startswith("w: the process was killed by signal 9; gave up after 2 restarts")
    assert run.ledgers["a"].adds_up


def test_a_node_that_never_opens_ends_the_graph(monkeypatch: pytest.MonkeyPatch):
    """A start that takes too long is no time of good health."""
    monkeypatch.setattr(Process, "HEALTHY_AFTER", 0.5)
    monkeypatch.setattr(Process, "RESTART_LIMIT", 2)

    def lose_patience(supervisor: Supervisor) -> None:
        if supervisor.processes["a"].was_ready:  # the others may take as long as this machine needs
            monkeypatch.setattr(supervisor_module, "SLOW_START", 0.5)
            monkeypatch.setattr(supervisor_module, "START_TIMEOUT", 2.0)

    run = run_graph("numbers name=a ! trouble name=t hang_in_open=true", [], lose_patience)
    assert run.error == "t: not ready after 2 s; killed; gave up after 2 restarts"
    told = [text for _, node, text in run.logs if node == "t"]
    waiting = "not ready after 0.5 s; waiting up to 2 s"
    assert waiting in told
    assert [text for text in told if text != waiting] == [
        "not ready after 2 s; killed; restart 1 of 2",
        "not ready after 2 s; killed; restart 2 of 2",
    ]


def test_a_restarted_node_that_cannot_open_is_tried_again(tmp_path: Path):
    away = tmp_path / "away"
    away.touch()
    kill = kill_when_flowing("w")

    def tick(supervisor: Supervisor) -> None:
        kill(supervisor)
        if supervisor.processes["w"].restarts_total == 2:
            away.unlink(missing_ok=True)

    run = run_graph(
        f"numbers name=a num_buffers=100 ! work name=w delay=10ms refuse_while={away} ! record name=r path={tmp_path / 'out'}",
        ["mode=lossless"],
        tick,
    )
    assert run.error is None
    assert run.said("the camera does not answer; restart 2 of 5")
    assert run.supervisor.processes["w"].restarts_total == 2
    assert run.ledgers["a"].delivered + run.ledgers["a"].dropped.get(("w", "lost"), 0) == 100


def test_two_kills_in_a_row(tmp_path: Path):
    out = tmp_path / "out"
    state = {"at": 0.0, "kills": 0}

    def tick(supervisor: Supervisor) -> None:
        victim = supervisor.processes[("w", "g")[state["kills"] % 2]]
        ready = supervisor.figures["r"].done >= 5 and time.monotonic() - state["at"] > 0.15
        if state["kills"] < 4 and ready and victim.child is not None:
            state.update(at=time.monotonic(), kills=state["kills"] + 1)
            os.kill(victim.child.pid, signal.SIGKILL)

    run = run_graph(LOSSLESS.format(out=out), ["mode=lossless"], tick)
    assert run.error is None
    for ledger in run.ledgers.values():
        assert ledger.adds_up
        assert (ledger.captured, ledger.in_flight) == (150, 0)
        assert set(ledger.dropped) <= {("w", "lost"), ("g", "lost")}


def test_a_process_that_takes_over_is_told_which_streams_have_ended(tmp_path: Path):
    out = tmp_path / "out"
    state = {"killed": False}

    def tick(supervisor: Supervisor) -> None:
        child = supervisor.processes["r"].child
        if "a" in supervisor.drained and not state["killed"] and child is not None:
            state["killed"] = True
            os.kill(child.pid, signal.SIGKILL)

    run = run_graph(
        f"numbers name=a num_buffers=3 ! record name=r path={out}  numbers name=b num_buffers=150 ! work delay=20ms ! r.",
        ["mode=lossless"],
        tick,
    )
    assert run.error is None
    ends = [lines.count(["eos"]) for lines in records(out).values()]
    assert sorted(ends) == [1, 2]  # `a` ended once for the process that was killed, once for its successor


def test_what_a_dead_process_had_sent_counts_and_keeps_its_place(tmp_path: Path):
    """Its successor's frames and marks come through another pipe than the dead one's backlog."""
    out = tmp_path / "out"
    run = run_graph(
        f"numbers name=a num_buffers=40 window=12 ! work name=w ! record name=r delay=150ms path={out}",
        ["mode=lossless"],
        kill_when_flowing("w"),
    )
    assert run.error is None
    ledger = run.ledgers["a"]
    numbers = [int(n) for n, *_ in records(out)["a"][:-1]]
    assert numbers == sorted(numbers)
    assert len(numbers) == ledger.delivered
    assert ledger.delivered + ledger.dropped.get(("w", "lost"), 0) == 40
    assert ledger.dropped.get(("w", "lost"), 0) <= 2  # it was fast: hardly anything was in it


def test_a_flush_that_takes_long_settles_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_graph(
        "numbers name=a num_buffers=14 window=6 ! work name=w abort_at=8 ! gather name=g delay=900ms max_batch=1 ! nothing",
        ["mode=lossless"],
    )
    assert run.error is None
    ledger = run.ledgers["a"]
    assert ledger.in_flight == 0
    assert ledger.delivered + ledger.dropped["w", "lost"] == 14


def test_a_hang_outside_of_frames_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor_module, "HANG_TIMEOUT", 3)
    run = run_graph("numbers name=a num_buffers=20 fps=10 ! trouble name=t hang_in_tick=true")
    assert run.error is None
    assert run.said("no sign of life for 3 s; killed")
    assert run.ledgers["a"].captured == 20


def test_what_is_wrong_outside_of_a_node_stops_the_graph_after_a_restart_too():
    run = run_graph("numbers name=a num_buffers=40 ! work name=w abort_at=7 fatal_at=20 ! nothing", ["mode=lossless"])
    assert run.error is not None
    assert run.error.startswith("w: ")
    assert run.supervisor.processes["w"].restarts_total == 1


def test_a_source_that_fails_again_and_again_ends_the_graph_though_frames_pass(monkeypatch: pytest.MonkeyPatch):
    """Each process gives some frames, which would count as recovery, and then comes to the same exception."""
    monkeypatch.setattr(Process, "RESTART_LIMIT", 2)

    def tick(supervisor: Supervisor) -> None:
        if supervisor.processes["a"].restarts_total > 4:
            supervisor.stop("it would go on for ever")

    run = run_graph("numbers name=a num_buffers=0 fps=50 fail_at=7 forgets=true ! nothing name=r", [], tick)
    assert run.error is not None
    assert re.fullmatch(
        r"a: the process ended with code 1: ValueError: this frame cannot be read \(.*enginenodes.py:\d+\); "
        r"gave up after 2 restarts",
        run.error,
    )
    assert [text.rpartition("; ")[2] for level, _, text in run.logs if level == "warning" and "; restart" in text] == [
        "restart 1 of 2",
        "restart 2 of 2",
    ]
    assert run.said("recovered: buffers pass again")
    assert run.ledgers["a"].adds_up


def test_exceptions_of_a_node_and_other_ends_are_counted_apart():
    """A buffer that passes makes up for a crash, only time makes up for an exception."""
    process = Process("p", ["n"])

    def end(failed: bool, lived: float = 1.0) -> int:
        process.started_at = time.monotonic() - lived - 1
        process.ready_at = time.monotonic() - lived
        process.failed = failed
        assert process.plan_restart(patient=False) is not None
        process.failed = False
        restarts = process.restarts
        process.recover()
        return restarts

    assert [end(failed=False), end(failed=False)] == [1, 1]
    assert [end(failed=True), end(failed=False), end(failed=True), end(failed=False)] == [1, 2, 2, 3]
    assert [end(failed=True, lived=100), end(failed=False, lived=100), end(failed=False)] == [1, 1, 1]


def test_a_node_may_ask_for_a_fresh_process():
    run = run_graph("numbers name=a num_buffers=20 ! trouble name=t leave=true", ["mode=lossless"])
    assert run.error is None
    assert run.said("the process ended with code 1: the device is gone")
    assert run.ledgers["a"].delivered + run.ledgers["a"].dropped["t", "lost"] == 20


def test_the_other_nodes_of_a_process_that_fails_are_closed(tmp_path: Path):
    """So what they hold is kept; here it is a file's last line, once for each process that had it."""
    out = tmp_path / "out"
    run = run_graph(
        f"numbers name=a num_buffers=20 ! record path={out} last_line=closed process=one  a. ! trouble leave=true process=one",
        ["mode=lossless"],
    )
    assert run.error is None
    assert out.read_text().splitlines().count("closed") == 2


def test_a_process_that_was_ready_stays_so_until_the_next_start():
    process = Process("p", ["n"])
    assert not process.was_ready
    process.started_at, process.ready_at, process.state = 10.0, 11.0, "READY"
    assert process.was_ready
    process.state = "NULL"  # it closes, in order
    assert process.was_ready
    process.started_at = 12.0
    assert not process.was_ready


def test_a_source_that_dies_with_nodes_of_its_process(tmp_path: Path):
    out = tmp_path / "out"
    run = run_graph(
        "numbers name=a num_buffers=150 process=one ! work name=w delay=5ms process=one ! gather name=g ! "
        f"record name=r path={out}  numbers name=b num_buffers=150 ! g.",
        ["mode=lossless"],
        kill_when_flowing("one"),
    )
    assert run.error is None
    assert run.ledgers["b"].delivered == 150
    ledger = run.ledgers["a"]
    assert (ledger.captured, ledger.in_flight) == (150, 0)
    assert ledger.delivered + sum(ledger.dropped.values()) == 150
    assert {reason for _, reason in ledger.dropped} <= {"lost"}
    numbers = [int(n) for n, *_ in records(out)["a"] if n != "eos"]
    assert numbers == sorted(set(numbers))
    # What was on its way home when the source died is lost to the ledger, though it had arrived.
    assert ledger.delivered <= len(numbers) <= ledger.delivered + sum(ledger.dropped.values())


def test_the_spawner_is_killed_and_its_workers_with_it(tmp_path: Path):
    out = tmp_path / "out"
    killed: list[float] = []

    def tick(supervisor: Supervisor) -> None:
        if not killed and supervisor.figures["r"].done >= 5 and supervisor._spawner is not None:
            killed.append(time.monotonic())
            os.kill(supervisor._spawner.pid, signal.SIGKILL)

    run = run_graph(LOSSLESS.format(out=out), ["mode=lossless"], tick)
    assert run.error is None
    assert all(process.restarts_total == 1 for process in run.supervisor.processes.values())
    assert run.said("the process that starts the workers was killed by signal 9; starting another one")
    for ledger in run.ledgers.values():
        assert ledger.adds_up
        assert ledger.captured == 150
        assert ledger.in_flight == 0
        assert {reason for _, reason in ledger.dropped} <= {"lost"}
    assert all(len(lines) > 100 for lines in records(out).values())


def test_the_spawner_is_killed_between_its_answer_and_what_is_done_with_it(monkeypatch: pytest.MonkeyPatch):
    """Its workers have gone with it, so the number that it answered is nobody's."""
    killed: list[Supervisor] = []
    plain = os.pidfd_open

    def tick(supervisor: Supervisor) -> None:
        def pidfd_open(pid: int) -> int:
            if not killed and supervisor._spawner is not None:
                killed.append(supervisor)
                os.kill(supervisor._spawner.pid, signal.SIGKILL)
                raise ProcessLookupError(errno.ESRCH, "No such process")
            return plain(pid)

        monkeypatch.setattr(os, "pidfd_open", pidfd_open)

    run = run_graph("numbers name=a num_buffers=20 ! work name=w ! nothing name=n", ["mode=lossless"], tick)
    assert killed
    assert run.error is None
    assert run.ledgers["a"].delivered == 20


def test_a_spawner_that_dies_while_it_imports_ends_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As with a broken native library in a plugin."""
    code = (
        "import os, sys\n"
        "from tests.support.enginenodes import Work\n"
        "class Plugin(Work): pass\n"
        "if 'pipeline.forkserver' in sys.orig_argv:\n"
        "    print('libbroken: no such symbol', file=sys.stderr, flush=True)\n"
        "    os.abort()\n"
    )
    register_plugin(monkeypatch, tmp_path, "broken", code)
    run = run_graph("numbers name=a ! broken ! nothing")
    what = "the process that starts the workers was killed by signal 6 while it imported the nodes"
    assert run.error == f"{what}: libbroken: no such symbol"
    assert [text for _, _, text in run.logs] == [f"{run.error}; starting another one"] * 2


@pytest.mark.parametrize("talk", [10, 300_000])
def test_what_a_closing_node_says_does_not_hold_it_up(talk: int):
    run = run_graph(
        f"numbers name=a num_buffers=5 ! trouble name=t talk_in_close={talk} slow_close=1s", ["mode=lossless"]
    )
    assert run.error is None
    assert run.ledgers["a"].delivered == 5


@pytest.mark.parametrize(
    ("death", "error"),
    [
        (signal.SIGKILL, "w: the process was killed by signal 9 while the graph was stopping"),
        (signal.SIGTERM, None),  # as a service manager sends it to all processes of a service
    ],
)
def test_a_process_that_dies_while_the_graph_stops(death: signal.Signals, error: str | None):
    def tick(supervisor: Supervisor) -> None:
        child = supervisor.processes["w"].child
        if supervisor.stop_reason is None and supervisor.figures["r"].done >= 5:
            supervisor.stop("enough")
        elif supervisor.stop_reason is not None and child is not None and child.poll() is None:
            os.kill(child.pid, death)

    # A long way from `a` to `r`, so that the stop takes a while.
    run = run_graph("numbers name=a num_buffers=0 ! work name=w delay=100ms ! nothing name=r", ["mode=lossless"], tick)
    assert run.error == error
    assert run.said("the process ")
    assert all(ledger.adds_up for ledger in run.ledgers.values())


# When to start again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ready_for", "delays"),
    [(1.0, [0.0, 0.2, 0.4, 0.8, 1.6, None]), (Process.HEALTHY_AFTER + 100, [0.0] * 6)],
)
def test_a_process_that_keeps_dying_starts_ever_later_unless_it_has_worked_for_long(ready_for: float, delays: list):
    process = Process("p", ["n"])
    for delay in delays:
        now = time.monotonic()
        process.started_at = process.ready_at = now - ready_for
        assert process.plan_restart(patient=False) == delay
        assert delay is None or process.not_before >= now + delay


def test_a_source_that_is_away_is_tried_for_ever():
    process = Process("p", ["n"])
    for _ in range(3000):
        delay = process.plan_restart(patient=True)
    assert delay == Process.MAX_BACKOFF
    assert process.restarts == 0


def test_restarts_with_buffers_between_them_are_not_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Process, "RESTART_LIMIT", 1)
    seen: set[int] = set()

    def tick(supervisor: Supervisor) -> None:
        process = supervisor.processes["w"]
        if process.child is None or process.recovering or supervisor.figures["r"].done < 5:
            return
        if len(seen) < 3 and process.child.pid not in seen:
            seen.add(process.child.pid)
            os.kill(process.child.pid, signal.SIGKILL)

    run = run_graph(LOSSLESS.format(out=tmp_path / "out"), ["mode=lossless"], tick)
    assert run.error is None
    assert run.supervisor.processes["w"].restarts_total == 3


def test_a_camera_that_is_away_after_a_restart_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else one camera without power would end the graph of all: also when a crash follows the attempts to reach it."""
    monkeypatch.setattr(Process, "RESTART_LIMIT", 2)
    away, hang, hangs = tmp_path / "away", tmp_path / "hang", tmp_path / "hangs"
    away.touch()
    code = (
        "import os, time\n"
        "from pipeline import UserError\n"
        "from tests.support.enginenodes import Numbers\n"
        "class Plugin(Numbers):\n"
        "    def open(self):\n"
        f"        while os.path.exists({str(hang)!r}):\n"
        f"            open({str(hangs)!r}, 'w').close()\n"
        "            time.sleep(0.01)\n"
        f"        if self.restarted and os.path.exists({str(away)!r}):\n"
        "            raise UserError('no answer')\n"
        "        return super().open()\n"
    )
    register_plugin(monkeypatch, tmp_path, "flaky", code)
    kill = kill_when_flowing("a")

    def tick(supervisor: Supervisor) -> None:
        kill(supervisor)
        process = supervisor.processes["a"]
        if process.restarts_total == 3 and away.exists():  # one crash, two attempts
            hang.touch()
        if hangs.exists() and process.child is not None and away.exists():
            os.kill(process.child.pid, signal.SIGKILL)
            away.unlink()
            hang.unlink()

    run = run_graph("flaky name=a num_buffers=60 ! work delay=10ms ! nothing name=r", ["mode=lossless"], tick)
    assert run.error is None
    assert run.said("no answer; trying again in 0.2 s")
    assert run.said("the process was killed by signal 9; restart 2 of 2")
    assert run.ledgers["a"].captured == 60


@pytest.mark.parametrize("end", ["transform(self, buffer): os._exit(1)", "close(self): os._exit(0)"])
def test_what_an_ended_process_has_said_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str):
    """On a busy machine its end is known before its last words have come: else a camera that is away were a crash."""
    monkeypatch.setattr(supervisor_module, "LAST_WORDS", 60.0)
    code = f"import os\nfrom tests.support.enginenodes import Work\nclass Plugin(Work):\n    def {end}\n"
    register_plugin(monkeypatch, tmp_path, "mute", code)
    speakers: list[threading.Thread] = []

    def speak_for(child: psutil.Process, bus: str) -> None:
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        time.sleep(0.3)
        with zmq.Context() as context, context.socket(zmq.DEALER) as line:
            line.setsockopt(zmq.IDENTITY, b"w")
            line.setsockopt(zmq.LINGER, 1000)
            line.connect(bus)
            line.send(pack({"say": "error", "text": "w: the disk is full"}))
            line.send(pack({"say": "state", "state": "NULL"}))

    def tick(supervisor: Supervisor) -> None:
        child = supervisor.processes["w"].child
        if child is not None and not speakers:
            bus = bus_endpoint(str(supervisor.directory.path))
            speakers.append(threading.Thread(target=speak_for, args=(psutil.Process(child.pid), bus)))
            speakers[0].start()

    run = run_graph("numbers name=a num_buffers=30 ! mute name=w ! nothing", [], tick)
    speakers[0].join()
    assert run.error == "w: the disk is full"


def test_whatever_ends_a_process_its_other_nodes_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also what Python does not count among the ordinary exceptions."""
    closed = tmp_path / "closed"
    code = (
        "import asyncio\n"
        "from tests.support.enginenodes import Work\n"
        "class Plugin(Work):\n"
        "    def transform(self, buffer):\n"
        "        if self.name == 'one' and not self.restarted and buffer.sequence == 5:\n"
        "            raise asyncio.CancelledError\n"
        "        return buffer\n"
        "    def close(self):\n"
        f"        print(self.name, file=open({str(closed)!r}, 'a'))\n"
    )
    register_plugin(monkeypatch, tmp_path, "broken", code)
    run = run_graph(
        "numbers name=a num_buffers=20 ! broken name=one process=p ! broken name=two process=p ! nothing",
        ["mode=lossless"],
    )
    assert run.error is None
    assert sorted(closed.read_text().split()) == ["one", "one", "two", "two"]
    assert run.supervisor.processes["p"].failures_total == 1
    assert run.said("CancelledError")


def test_nobody_is_killed_because_all_of_us_stood_still(monkeypatch: pytest.MonkeyPatch):
    """As in a virtual machine that is paused: neither the workers' word nor the time to hear it was there."""
    monkeypatch.setattr(supervisor_module, "HANG_TIMEOUT", 5)
    paused: list[int] = []

    def tick(supervisor: Supervisor) -> None:
        if not paused and supervisor.figures["r"].done >= 5:
            paused.extend(p.child.pid for p in supervisor.processes.values() if p.child is not None)
            for pid in paused:
                os.kill(pid, signal.SIGSTOP)
            supervisor._hear()
            time.sleep(5.5)
            for pid in paused:
                os.kill(pid, signal.SIGCONT)

    run = run_graph("numbers name=a num_buffers=40 fps=20 ! work ! nothing name=r", [], tick)
    assert paused
    assert run.error is None
    assert [process.restarts_total for process in run.supervisor.processes.values()] == [0, 0, 0]


def test_who_has_seen_the_end_of_a_stream_is_not_told_again(tmp_path: Path):
    out, killed = tmp_path / "out", []

    def tick(supervisor: Supervisor) -> None:
        child = supervisor.processes["w"].child
        if "a" in supervisor.drained and not killed and child is not None:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    graph = (
        f"numbers name=a num_buffers=3 ! work name=w ! record name=r path={out}"
        "  numbers name=b num_buffers=100 ! work delay=20ms ! r."
    )
    run = run_graph(graph, ["mode=lossless"], tick)
    assert killed
    assert run.error is None
    assert [lines.count(["eos"]) for lines in records(out).values()] == [1, 1]
