"""Workers are forked from one process: what they share, what they do not, and what a plugin can do to that."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.spawner import Spawner
from pipeline.supervisor import Supervisor
from tests.support.command import wait_until
from tests.support.graphs import run_graph

pytestmark = pytest.mark.usefixtures("engine_nodes")


def test_workers_are_forked_and_inherit_what_was_imported():
    seen: dict[str, psutil.Process] = {}

    def tick(supervisor: Supervisor) -> None:
        child = supervisor.processes["w"].child
        if child is not None and supervisor.figures["w"].done and not seen:
            seen.update(worker=psutil.Process(child.pid), parent=psutil.Process(child.pid).parent())
            assert supervisor._spawner is not None
            assert seen["parent"].pid == supervisor._spawner.pid
            assert "tests.support.enginenodes" in seen["parent"].cmdline()

    run = run_graph("numbers name=a num_buffers=40 fps=20 ! work name=w ! nothing name=n", [], tick)
    assert run.error is None
    assert seen


def test_a_plugin_that_starts_a_thread_when_it_is_imported_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A process with threads must not be forked: the worker is started anew."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "from tests.support.enginenodes import Work\n"
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
        "class Threaded(Work): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    from pipeline import registry
    from pipeline.registry import NodeType

    types = {**registry.node_types(), "threaded": NodeType("threaded", "threaded:Threaded", "tests")}
    monkeypatch.setattr(registry, "node_types", lambda: types)
    commands: list[list[str]] = []

    def tick(supervisor: Supervisor) -> None:
        child = supervisor.processes["t"].child
        if child is not None and supervisor.figures["t"].done and not commands:
            commands.append(psutil.Process(child.pid).cmdline())

    run = run_graph("numbers name=a num_buffers=40 fps=20 ! threaded name=t ! nothing name=n", [], tick)
    assert run.error is None
    assert run.ledgers["a"].delivered == 40
    assert commands == [[sys.executable, "-P", "-m", "pipeline.worker"]]


def test_return_codes_output_and_the_end():
    spawner = Spawner([], os.getpgid(0), [])
    try:
        child = spawner.spawn(b"garbage, no assignment")
        assert child.wait() == 1
        assert b"Traceback" in os.read(child.stderr, 65536)
        child.close()
        waiting = spawner.spawn(b"")
        os.kill(waiting.pid, signal.SIGKILL)
        assert waiting.wait() in (-signal.SIGKILL, 1)
        waiting.close()
    finally:
        spawner.close()
    assert not psutil.pid_exists(spawner.pid)


def test_a_spawner_that_is_gone_is_an_error_and_its_workers_count_as_killed():
    spawner = Spawner([], os.getpgid(0), [])
    child = spawner.spawn(b"")
    os.kill(spawner.pid, signal.SIGKILL)
    wait_until(lambda: not spawner.alive, "the end of the spawner")
    assert child.wait() == -signal.SIGKILL
    child.close()
    with pytest.raises(OSError, match="Broken pipe|reset|ended"):
        spawner.spawn(b"")
    spawner.close()


def test_a_spawner_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.spawner.REPLY_TIMEOUT", 0.2)
    spawner = Spawner([], os.getpgid(0), [])
    os.kill(spawner.pid, signal.SIGSTOP)
    with pytest.raises(UserError, match="did not answer"):
        spawner.spawn(b"")
    spawner.close()
