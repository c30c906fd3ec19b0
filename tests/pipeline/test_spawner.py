"""Workers are forked from one process: what they share, what they do not, and what a plugin can do to that."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline import spawner as spawner_module
from pipeline.errors import UserError
from pipeline.forkserver import MAX_DESCRIPTORS
from pipeline.spawner import Spawner, begin
from pipeline.supervisor import Supervisor
from tests.support.command import emograph, wait_until
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
            assert seen["worker"].cmdline() == seen["parent"].cmdline()  # no program was started for it

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

    run = run_graph(
        "numbers name=a num_buffers=40 ! threaded name=t delay=50ms ! nothing name=n", ["mode=lossless"], tick
    )
    assert run.error is None
    assert run.ledgers["a"].delivered == 40
    assert commands == [[sys.executable, "-P", "-m", "pipeline.worker"]]


@contextmanager
def spawner(*modules: str, keep: Sequence[int] = ()) -> Iterator[Spawner]:
    """One that is ready; ended afterwards."""
    made = Spawner(modules, os.getpgid(0), keep)
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


# Begun before it is known what for ----------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """One that has been told nothing yet, which can import from tmp_path."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    begin()
    (interpreter,) = spawner_module._begun
    yield psutil.Process(interpreter.process.pid)
    spawner_module._discard()


def test_what_was_begun_is_taken_and_learns_what_has_changed_meanwhile(
    begun: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "tells.py").write_text(
        "import json, os\n"
        f"with open({str(tmp_path / 'told')!r}, 'w') as file:\n"
        "    json.dump([os.environ['A_WORD'], os.environ['OMP_NUM_THREADS'], os.environ.get('HOME')], file)\n"
    )
    monkeypatch.setenv("A_WORD", "gr\udcfcn")  # no UTF-8
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        with spawner("tells") as made:
            assert made.pid == begun.pid
            assert os.getpgid(made.pid) == os.getpgid(0)
            assert begun.rlimit(psutil.RLIMIT_NOFILE) == (soft - 1, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert json.loads((tmp_path / "told").read_text()) == ["gr\udcfcn", "1", None]
    assert not spawner_module._begun


def test_what_its_imports_have_put_into_the_environment_stays(begun: psutil.Process, tmp_path: Path):
    """OpenCV writes there where its window's parts are, and is imported before the launcher's environment is known."""
    (tmp_path / "tells.py").write_text(
        "import cv2, os\n"
        f"with open({str(tmp_path / 'told')!r}, 'w') as file:\n"
        "    file.write(os.environ.get('QT_QPA_PLATFORM_PLUGIN_PATH', ''))\n"
    )
    with spawner("tells"):
        pass
    assert Path((tmp_path / "told").read_text()).is_dir()
    assert "cv2" in (tmp_path / "told").read_text()


def test_more_descriptors_than_it_was_allowed_when_it_started(tmp_path: Path):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = [os.open(tmp_path / f"{n}", os.O_CREAT | os.O_RDWR) for n in range(60)]
    try:
        begin()
        (interpreter,) = spawner_module._begun
        resource.prlimit(interpreter.process.pid, resource.RLIMIT_NOFILE, (40, hard))
        with spawner(keep=files) as made:
            assert len(set(made.inherited.values())) == 60
    finally:
        for fd in files:
            os.close(fd)


def test_too_few_descriptors_are_one_line():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = set(os.listdir("/proc/self/fd"))
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    try:
        for room in range(4):  # none for the sockets, for one of them, for what it writes, for its start
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
            with pytest.raises(UserError, match=r"^cannot start a process: Too many open files$"):
                Spawner([], os.getpgid(0), [])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_process_that_was_forked_from_the_launcher_leaves_it_alone(begun: psutil.Process):
    pid = os.fork()
    if pid == 0:
        spawner_module._discard()
        os._exit(0)
    os.waitpid(pid, 0)
    with spawner() as made:
        assert made.pid == begun.pid


def test_one_that_has_died_meanwhile_is_no_reason_to_wait(begun: psutil.Process):
    begun.kill()
    wait_until(lambda: begun.status() == psutil.STATUS_ZOMBIE, "its end")
    made = Spawner([], os.getpgid(0), [])
    assert not made.alive
    assert not made.ready
    made.close()


@pytest.mark.parametrize("count", [3, MAX_DESCRIPTORS + 3])
def test_descriptors_are_handed_over_whatever_their_number(count: int, tmp_path: Path):
    files = [os.open(tmp_path / f"{n}", os.O_CREAT | os.O_RDWR) for n in range(count)]
    try:
        with spawner(keep=files) as made:
            theirs = {os.readlink(f"/proc/{made.pid}/fd/{made.inherited[fd]}") for fd in files}
            assert theirs == {str(tmp_path / f"{n}") for n in range(count)}
            assert [Path(os.readlink(f"/proc/{made.pid}/fd/{made.inherited[fd]}")).name for fd in files[:3]] == list(
                "012"
            )
    finally:
        for fd in files:
            os.close(fd)


def test_nothing_is_left_of_it_when_the_graph_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The process that ends by itself is the launcher; its spawner would go on for the time of its imports."""
    mark = str(tmp_path)
    result = emograph("launch", "tsetsrc ! fakesink", env={**os.environ, "A_MARK": mark})
    assert result.returncode == 1
    assert result.stderr.startswith("emograph: error: ")
    left = [p for p in psutil.process_iter() if _has(p, "A_MARK", mark)]
    assert left == []


def _has(process: psutil.Process, name: str, value: str) -> bool:
    try:
        return process.environ().get(name) == value
    except psutil.Error:
        return False
