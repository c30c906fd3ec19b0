"""Workers are forked from one process: what they share, what they do not, and what a plugin can do to that."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.spawner import Spawner
from pipeline.supervisor import Supervisor
from tests.support.command import wait_until
from tests.support.graphs import register_plugin, run_graph

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
    code = (
        "import threading, time\n"
        "from tests.support.enginenodes import Work\n"
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
        "class Plugin(Work): pass\n"
    )
    register_plugin(monkeypatch, tmp_path, "threaded", code)
    commands: list[list[str]] = []

    def tick(supervisor: Supervisor) -> None:
        child = supervisor.processes["t"].child
        if child is not None and supervisor.figures["t"].done and not commands:
            commands.append(psutil.Process(child.pid).cmdline())

    run = run_graph("numbers name=a num_buffers=40 fps=20 ! threaded name=t ! nothing name=n", [], tick)
    assert run.error is None
    assert run.ledgers["a"].delivered == 40
    assert commands == [[sys.executable, "-P", "-m", "pipeline.worker"]]


@contextmanager
def spawner(*modules: str) -> Iterator[Spawner]:
    """One that is ready; ended afterwards."""
    made = Spawner(modules, os.getpgid(0), [])
    try:
        wait_until(lambda: made.ready, "the spawner")
        yield made
    finally:
        made.close()


def test_the_return_code_and_the_output_of_a_worker():
    with spawner() as made:
        child = made.spawn(b"garbage, no assignment")
        assert child.wait() == 1
        assert b"Traceback" in os.read(child.stderr, 65536)
        child.kill()  # too late, and no error
        child.close()
    assert not psutil.pid_exists(made.pid)


def test_a_plugin_that_exits_when_it_is_imported_leaves_the_spawner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "exits.py").write_text("import sys\nsys.exit('needs something')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    with spawner("exits") as made:
        assert made.alive


def test_signals_that_go_to_everybody_do_not_end_the_spawner():
    with spawner() as made:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(made.pid, signum)
        child = made.spawn(b"")
        assert child.wait() == 1
        child.close()


def test_a_spawner_that_is_gone_is_an_error_that_nobody_waits_for():
    with spawner() as made:
        os.kill(made.pid, signal.SIGKILL)
        wait_until(lambda: not made.alive, "the end of the spawner")
        assert made.exit_code(1) == -signal.SIGKILL
        with pytest.raises(OSError, match="Broken pipe|reset|ended"):
            made.spawn(b"")


def test_a_spawner_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.spawner.REPLY_TIMEOUT", 0.2)
    with spawner() as made:
        os.kill(made.pid, signal.SIGSTOP)
        with pytest.raises(UserError, match="did not answer"):
            made.spawn(b"")
        assert made.exit_code(1) == -signal.SIGKILL
