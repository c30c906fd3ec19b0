"""`emograph top` and the live status of `emograph launch`, in a real pseudo-terminal, read as a person reads them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.rundir import running
from tests.support.command import emograph, environment, started, wait_until, workers
from tests.support.graphs import ROOT
from tests.support.terminal import Terminal, terminal

ENDLESS = "numbers name=door num_buffers=0 fps=30 ! work name=w ! gather name=g ! nothing name=r  numbers name=desk num_buffers=0 fps=30 ! w."
ALTERNATE_SCREEN, NORMAL_SCREEN, SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?25l"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "site")


@contextmanager
def endless(env: dict[str, str], graph: str = ENDLESS) -> Iterator[subprocess.Popen[str]]:
    with started("launch", graph, "-q", env=env) as launcher:
        wait_until(lambda: any(run.pid == launcher.pid for run in running()), "the run's folder")
        yield launcher
        if launcher.poll() is None:
            launcher.send_signal(signal.SIGTERM)
            launcher.communicate(timeout=60)


def flowing(text: str) -> bool:
    return bool(re.search(r"^door +up +[1-9]", text, re.MULTILINE))


def restored(shown: Terminal) -> bool:
    """Whether the terminal is as the command found it: its modes, its screen, its cursor."""
    modes = termios.tcgetattr(shown.fd)[:4] == shown.modes[:4]
    screen = shown.raw.rfind(NORMAL_SCREEN) >= shown.raw.rfind(ALTERNATE_SCREEN)
    return modes and screen and shown.raw.rfind(SHOW_CURSOR) >= shown.raw.rfind(HIDE_CURSOR)


# top --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["q", "\x03", signal.SIGTERM])
def test_top_shows_the_graph_and_gives_the_terminal_back(env: dict[str, str], end: str | int):
    with endless(env), terminal("top", env=env) as shown:
        text = shown.wait_for(flowing)
        assert text.splitlines()[0].startswith("launch  PLAYING")
        assert "q quits" in text
        for heading in ("camera  state", "node  type", "process  state"):
            assert heading in text
        assert re.search(r"^g +gather +[\d.]+ +[\d.]+ .*%", text, re.MULTILINE)
        assert re.search(r"^w +PLAYING +0 ", text, re.MULTILINE)
        assert not restored(shown)
        shown.send(end) if isinstance(end, str) else shown.process.send_signal(end)
        assert shown.ended() == (0 if isinstance(end, str) else 128 + end)
        assert restored(shown)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 24), (20, 8), (200, 60), (80, 3)])
def test_top_fits_into_any_terminal(env: dict[str, str], columns: int, rows: int):
    with endless(env), terminal("top", env=env, columns=columns, rows=rows) as shown:
        text = shown.wait_for(flowing) if rows > 3 else shown.wait_for("launch")
        assert text.startswith("launch")
        assert ("latency p50" in text) == (columns >= 40 and rows > 3)
        assert ("in flight" in text) == (columns >= 80 and rows > 3)
        shown.resize(200, 60)
        shown.wait_for(lambda t: "captured" in t and "memory" in t)
        shown.resize(40, 10)
        shown.wait_for(lambda t: "captured" not in t and flowing(t))
        shown.send("q")
        assert shown.ended() == 0


def test_top_says_when_the_run_ends(env: dict[str, str]):
    with endless(env, "numbers name=door num_buffers=90 fps=30 ! nothing"), terminal("top", env=env) as shown:
        shown.wait_for(flowing)
        assert shown.ended() == 0
        assert "launch has ended after 0:00:0" in shown.text()
        assert re.search(r"^door +ended .* 90 ", shown.text(), re.MULTILINE)
        assert restored(shown)


def test_top_says_when_the_run_was_killed(env: dict[str, str]):
    with endless(env) as launcher, terminal("top", env=env) as shown:
        shown.wait_for(flowing)
        launcher.kill()
        assert shown.ended() == 1
        assert "emograph: error: launch is gone: it was killed" in shown.text()
        assert restored(shown)


def test_top_shows_a_restart(env: dict[str, str]):
    with endless(env) as launcher, terminal("top", env=env, rows=40) as shown:
        shown.wait_for(flowing)
        workers(launcher.pid)["w"].kill()
        text = shown.wait_for(lambda t: re.search(r"^w +PLAYING +1 ", t, re.MULTILINE))
        assert "w: the process was killed by signal 9; restart 1 of 5" in text


def test_top_once_piped_and_json(env: dict[str, str]):
    with endless(env) as launcher:
        with terminal("top", env=env) as shown:
            shown.wait_for(flowing)
        once = emograph("top", "--once", env=env)
        assert once.returncode == 0
        assert flowing(once.stdout)
        assert "\x1b" not in once.stdout
        snapshot = json.loads(emograph("top", str(launcher.pid), "--once", "--json", env=env).stdout)
        assert snapshot["cameras"]["door"]["delivered"] > 0
        head = subprocess.run(
            f"{sys.executable} -m pipeline.cli top | head -3", shell=True, capture_output=True, text=True, env=env,
            check=False, timeout=60, cwd=ROOT,
        )  # fmt: skip
        assert head.stdout.startswith("launch  PLAYING")
        assert head.stderr == ""
        with started("top", env=env) as table, started("top", "--json", env=env) as lines:
            first, second = (json.loads(lines.stdout.readline()) for _ in range(2))
            assert second["time"] > first["time"]
            heads = (line for line in table.stdout if line.startswith("launch"))
            assert next(heads) != next(heads)
            launcher.send_signal(signal.SIGTERM)
            *_, last = [json.loads(line) for line in lines.stdout]
            assert last["state"] == "ENDED"
            assert "ENDED" in list(heads)[-1]
            for viewer in (table, lines):
                assert "launch has ended after" in viewer.stderr.read()
                assert viewer.wait(60) == 0


@pytest.mark.parametrize(
    "arguments", [(), ("lobby",), ("tcp://127.0.0.1:1",), ("tcp://nonsense",), ("--once", "--json")]
)
def test_top_without_a_run_is_one_line(env: dict[str, str], arguments: tuple[str, ...]):
    done = emograph("top", *arguments, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("emograph: error: ")
    assert done.stderr.count("\n") == 1


# launch -----------------------------------------------------------------------------------------------------


def test_launch_shows_a_status_that_stands_still(env: dict[str, str]):
    graph = "numbers name=door num_buffers=120 fps=30 chatter=2 ! work name=w ! nothing"
    with terminal("launch", graph, env=env) as shown:
        shown.wait_for("door    starting")
        shown.wait_for(flowing)
        assert shown.text().count("PLAYING") == 1
        assert not restored(shown) or SHOW_CURSOR not in shown.raw
        assert shown.ended() == 0
        text = shown.text()
        assert "PLAYING" not in text
        assert "message 0" not in text  # of level info: it was in the status
        assert re.search(r"^door +120 +120 +0 +0 ", text, re.MULTILINE)
        assert HIDE_CURSOR not in shown.raw
        assert ALTERNATE_SCREEN not in shown.raw


def test_launch_keeps_warnings_in_the_scrollback(env: dict[str, str]):
    with terminal("launch", ENDLESS, env=env) as shown:
        shown.wait_for(flowing)
        workers(shown.process.pid)["w"].kill()
        shown.wait_for("w: the process was killed by signal 9; restart 1 of 5")
        shown.wait_for(flowing)
        shown.send("\x03")
        assert shown.ended() == 0
        assert "killed by signal 9" in shown.scrolled() + shown.text()
        assert re.search(r"^door +\d+ +\d+ ", shown.text(), re.MULTILINE)
        assert restored(shown)


def test_the_ledger_fits_where_frames_were_dropped(env: dict[str, str]):
    graph = "numbers name=a-camera-with-a-name num_buffers=40 fps=40 ! work delay=200ms ! nothing"
    with terminal("launch", graph, env=env) as shown:
        assert shown.ended() == 0
        rows = [line for line in shown.lines() if line.startswith(("camera", "a-camera"))]
    head, row, why = rows[-3:]
    assert head.split()[:4] == ["camera", "captured", "delivered", "dropped"]
    assert len(row.split()) >= 4
    assert re.match(r"a-camera-with-a-name: dropped (late|window full) \d+ \(", why)


@pytest.mark.parametrize("columns", [40, 20])
def test_launch_in_a_narrow_terminal(env: dict[str, str], columns: int):
    with terminal("launch", ENDLESS, env=env, columns=columns, rows=12) as shown:
        shown.wait_for(flowing)
        shown.wait_for(lambda text: text.count("launch  P") == 1)
        shown.send("\x03")
        assert shown.ended() == 0


def test_a_killed_launch_leaves_the_terminal_as_it_was(env: dict[str, str], runtime_dir: Path):
    with terminal("launch", ENDLESS, env=env) as shown:
        shown.wait_for(flowing)
        family = workers(shown.process.pid).values()
        shown.process.kill()
        shown.process.wait()
        assert restored(shown)
        wait_until(lambda: not any(p.is_running() for p in family), "the end of all processes", 10)
        wait_until(lambda: not list(runtime_dir.glob("emograph/*")), "the end of all sockets", 10)


def test_a_terminal_that_takes_nothing_does_not_hold_up_the_run(env: dict[str, str], tmp_path: Path):
    out = tmp_path / "out"
    graph = f"numbers name=door num_buffers=0 fps=50 ! work name=w ! record name=r path={out}"
    with terminal("launch", graph, env=env) as shown:
        shown.wait_for(flowing)
        shown.taking.clear()
        for _ in range(200):  # the pipe's own buffer is full after a while
            os.kill(shown.process.pid, signal.SIGWINCH)
        for _ in range(4):  # each gives lines to print
            workers(shown.process.pid)["w"].kill()
            before = len(out.read_text().splitlines())
            wait_until(lambda before=before: len(out.read_text().splitlines()) > before + 50, "frames")
        shown.process.send_signal(signal.SIGINT)
        wait_until(lambda: not list(running()), "the end of the run")
        assert shown.process.poll() is None or not shown.taking.is_set()
        assert shown.ended() == 0
        assert re.search(r"^door +\d+ +\d+ ", shown.text(), re.MULTILINE)


def test_launch_plain_on_a_terminal_and_debug(env: dict[str, str]):
    graph = "numbers name=door num_buffers=30 fps=30 chatter=2 ! nothing"
    with terminal("launch", graph, "--plain", env=env) as shown:
        assert shown.ended() == 0
        assert "info     door: message 0" in shown.text()
        assert "PLAYING" not in shown.text()


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize(
    ("graph", "line", "place"),
    [
        ("work name=w fail_at=1 ! nothing", "error    w: RuntimeError: this frame is bad (", "transform"),
        ("trouble name=w fail_in_close=true", "w: while closing: OSError: No space left on device (", "close"),
    ],
)
def test_with_debug_an_exception_of_a_node_has_its_traceback(
    env: dict[str, str], graph: str, line: str, place: str, debug: bool
):
    done = emograph(*["--debug"] * debug, "launch", f"numbers num_buffers=3 ! {graph}", env=env)
    assert done.returncode == 1
    assert line in done.stderr
    found = re.search(rf"debug +w: .*enginenodes.py.* in {place}$", done.stderr, re.MULTILINE)
    assert (found is not None) == debug
