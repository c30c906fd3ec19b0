"""Where a command writes: closed streams, a full disk, a pipe that nobody reads, few letters, a terminal that goes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.command import emograph, environment, started, wait_until, workers
from tests.support.graphs import ROOT

SHORT = "numbers name=a num_buffers=5 ! nothing"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "site")


def shell(command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command line in which `emograph` is ours."""
    line = f'emograph() {{ "{sys.executable}" -m pipeline.cli "$@"; }}; {command}'
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, env=env, check=False, timeout=100, cwd=ROOT
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_matter(tmp_path: Path, env: dict[str, str], closed: str):
    out = tmp_path / "out"
    done = shell(f"emograph launch 'numbers name=a num_buffers=5 ! record path={out}' {closed}", env)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 6
    assert "Traceback" not in done.stderr
    assert bool(re.search("^a +5 +5 ", done.stdout, re.MULTILINE)) == (" >&-" not in f" {closed}")


@pytest.mark.parametrize(
    "command",
    [
        f"launch '{SHORT}'",
        f"launch '{SHORT}' --json",
        "launch 'testsrc fps=20 name=a ! haardetect ! emotion ! publish endpoint=tcp://127.0.0.1:*' --duration 2s",
        f"check '{SHORT}'",
        "inspect",
        f"graph '{SHORT}'",
    ],
)
def test_a_full_disk_behind_stdout_is_one_line(env: dict[str, str], command: str):
    done = shell(f"emograph {command} > /dev/full", env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("emograph: error: ")]
    assert errors == ["emograph: error: cannot write the output: No space left on device"]


def test_a_pipe_that_nobody_reads_does_not_hold_up_a_run(env: dict[str, str]):
    graph = "numbers name=a num_buffers=0 fps=50 saying=0123456789012345678901234567890123456789 ! nothing"
    with started("launch", graph, "--duration", "4s", env=env) as launcher:
        for pipe in (launcher.stdout, launcher.stderr):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        wait_until(lambda: workers(launcher.pid), "the workers")
        wait_until(lambda: not psutil.Process(launcher.pid).children(), "the end of the run")
        launcher.send_signal(signal.SIGTERM)  # the ledger still waits for a reader, or was written
        assert launcher.wait(20) in (0, -signal.SIGTERM)


def test_who_reads_gets_every_line(env: dict[str, str]):
    graph = "numbers name=a num_buffers=60 fps=30 saying=hello ! nothing"
    with started("launch", graph, env=env) as launcher:
        fcntl.fcntl(launcher.stderr, fcntl.F_SETPIPE_SZ, 4096)
        wait_until(lambda: workers(launcher.pid), "the workers")
        text = launcher.stderr.read()
        assert launcher.wait(60) == 0
    said = [line.split("a: ")[1] for line in text.splitlines() if "a: " in line]
    assert len(said) == 60


def test_letters_that_an_encoding_lacks(tmp_path: Path, env: dict[str, str]):
    graph = tmp_path / "g.yaml"
    graph.write_text("name: Süd\nnodes:\n  a: {type: numbers}\n  z: {type: nothing}\nlinks:\n  - a ! z\n")
    done = emograph("graph", str(graph), "--format", "dot", env={**env, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('digraph "S\\xfcd"')


def test_nohup_outlives_the_terminal(env: dict[str, str]):
    command = ["nohup", sys.executable, "-m", "pipeline.cli", "launch", "numbers name=a num_buffers=0 fps=20 ! nothing"]
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as launcher:
        wait_until(lambda: len(workers(launcher.pid)) == 2, "the workers")
        launcher.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            launcher.wait(1.5)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(30) == 0


def test_the_end_of_the_terminal_ends_a_run_in_order(env: dict[str, str]):
    with started("launch", "numbers name=a num_buffers=0 fps=20 ! nothing", env=env) as launcher:
        wait_until(lambda: len(workers(launcher.pid)) == 2, "the workers")
        launcher.send_signal(signal.SIGHUP)
        assert launcher.wait(30) == 0


@pytest.mark.parametrize("place", [".", "/dev/full"])
def test_a_trace_that_cannot_be_written_takes_nothing_else_along(env: dict[str, str], place: str):
    done = emograph("launch", SHORT, "--trace", place, "--json", env=env)
    assert done.returncode == 1
    reason = "Is a directory" if place == "." else "No space left on device"
    assert done.stderr.splitlines()[-1] == f"emograph: error: cannot write the trace {place}: {reason}"
    if place == ".":
        assert not done.stdout  # known before the start
    else:
        assert json.loads(done.stdout)["cameras"]["a"]["delivered"] == 5


def test_a_run_that_does_not_start_leaves_no_trace(tmp_path: Path, env: dict[str, str]):
    done = emograph("launch", SHORT, "--trace", str(tmp_path / "t.json"), "--monitor", "tcp://127.0.0.1:x", env=env)
    assert (done.returncode, "127.0.0.1:x" in done.stderr) == (1, True)
    assert not list(tmp_path.glob("t*"))


def test_a_graph_is_not_written_over(tmp_path: Path, env: dict[str, str]):
    graph = tmp_path / "g.yaml"
    graph.write_text("nodes:\n  a: {type: numbers}\n  z: {type: record, path: x}\nlinks:\n  - a ! z\n")
    before = graph.read_text()
    done = emograph("launch", str(graph), "--trace", os.path.relpath(graph, ROOT), env=env)
    assert done.returncode == 1
    assert "--trace: it would be written over the graph file" in done.stderr
    assert graph.read_text() == before


def test_json_is_json_whatever_a_node_observes(env: dict[str, str]):
    done = emograph("launch", "numbers name=a num_buffers=5 ! trouble name=t unknown=true", "--json", env=env)
    assert done.returncode == 0, done.stderr

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(done.stdout, parse_constant=refuse)["nodes"]["t"]["metrics"]["unknown"]["mean"] is None


def test_what_nodes_say_is_no_command_to_the_terminal(env: dict[str, str]):
    done = emograph("launch", "numbers name=a num_buffers=3 saying=\x1b[2Jhello ! nothing", env=env)
    assert "\x1b" not in done.stderr
    assert "?[2Jhello" in done.stderr
    done = emograph("check", "numbers name=\x1b[31mred ! nothing", env=env)
    assert ("\x1b" in done.stderr, "'?[31mred' is no name for a node" in done.stderr) == (False, True)


def test_a_second_ctrl_c_that_kills_is_no_success(tmp_path: Path, env: dict[str, str]):
    out = tmp_path / "out"
    with started("launch", f"numbers name=a num_buffers=0 fps=20 ! record name=z path={out}", env=env) as launcher:
        wait_until(lambda: out.exists() and out.stat().st_size, "a frame")
        workers(launcher.pid)["z"].send_signal(signal.SIGSTOP)
        launcher.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two signals at once may become one
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=30)
    assert launcher.returncode == 1
    assert re.search(r"error: (a|z): had to end at once and was killed", stderr)
