"""`emograph launch` as a process: how it ends, whatever happens to it, and what it says on the way."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import psutil
import pytest
import zmq

from tests.support.command import emograph, environment, started, wait_until, workers
from tests.support.graphs import ROOT

GRAPH = "numbers name=a num_buffers=0 fps=50 ! work name=w ! gather name=g ! record name=r path={out}"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "site")


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_ctrl_c_ends_in_order_with_the_ledger(tmp_path: Path, env: dict[str, str]):
    out = tmp_path / "out"
    with started("launch", GRAPH.format(out=out), env=env) as launcher:
        wait_until(lambda: lines(out) > 20, "frames")
        launcher.send_signal(signal.SIGINT)
        stdout, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    row = next(line for line in stdout.splitlines() if line.startswith("a ")).split()
    captured, delivered, dropped, in_flight = (int(v) for v in row[1:5])
    assert captured == delivered + dropped
    assert in_flight == 0
    assert delivered == lines(out) - 1  # the last line is the end of the stream
    assert "Traceback" not in stderr


def test_a_sigterm_to_every_process_of_the_run_ends_it_in_order(tmp_path: Path, env: dict[str, str]):
    """As `systemctl stop` sends it: the sinks close their files, nobody is killed."""
    out = tmp_path / "out"
    with started("launch", GRAPH.format(out=out), "--json", env=env) as launcher:
        wait_until(lambda: lines(out) > 20, "frames")
        family = psutil.Process(launcher.pid).children(recursive=True)
        launcher.send_signal(signal.SIGTERM)
        for process in family:
            process.send_signal(signal.SIGTERM)
        stdout, stderr = launcher.communicate(timeout=60)
    assert "signal 9" not in stderr
    camera = json.loads(stdout)["cameras"]["a"]
    assert camera["captured"] == camera["delivered"] + sum(d["count"] for d in camera["dropped"]) + camera["in_flight"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_arrives_twice_is_one(signum: int, tmp_path: Path, env: dict[str, str]):
    """A terminal that closes tells the whole group, and `uv run` passes on what it has got."""
    out = tmp_path / "out"
    with started("launch", GRAPH.format(out=out), "--json", env=env) as launcher:
        wait_until(lambda: lines(out) > 20, "frames")
        for _ in range(3):
            launcher.send_signal(signum)
            time.sleep(0.005)
        stdout, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    camera = json.loads(stdout)["cameras"]["a"]
    assert (camera["in_flight"], camera["captured"]) == (
        0,
        camera["delivered"] + sum(d["count"] for d in camera["dropped"]),
    )
    assert camera["delivered"] == lines(out) - 1


def test_a_run_that_was_stopped_says_so(tmp_path: Path, env: dict[str, str]):
    """A recording cut short looks like a whole one else, in its table and in the ledger."""
    out = tmp_path / "out"
    with started("launch", GRAPH.format(out=out), env=env) as launcher:
        wait_until(lambda: lines(out) > 20, "frames")
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=60)
    assert (launcher.returncode, stderr.splitlines()[-1]) == (0, "stopped by SIGINT")
    with started("launch", "numbers name=a ! trouble hang_in_open=true", env=env) as launcher:
        wait_until(lambda: len(workers(launcher.pid)) > 1, "the workers")
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=60)
    assert stderr.splitlines()[-1] == "stopped by SIGINT before the first frame"
    whole = emograph("launch", "numbers name=a num_buffers=5 ! nothing", "--json", env=env)
    assert json.loads(whole.stdout)["stopped"] is None


def test_who_keeps_ctrl_c_down_ends_it_at_once(tmp_path: Path, env: dict[str, str]):
    """Each repeat of the key is soon after the one before; the second that counts does not wait for the sink."""
    with started("launch", f"{GRAPH.format(out=tmp_path / 'out')} g. ! trouble slow_close=3600", env=env) as launcher:
        wait_until(lambda: lines(tmp_path / "out") > 20, "frames")

        def has_ended() -> bool:
            if launcher.poll() is None:
                launcher.send_signal(signal.SIGINT)
                time.sleep(0.03)
            return launcher.poll() is not None

        wait_until(has_ended, "its end")
        _, stderr = launcher.communicate()
    assert "had to end at once and was killed" in stderr


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3, 0.6])
def test_ctrl_c_twice_while_it_starts_is_no_traceback(moment: float, env: dict[str, str]):
    with started("launch", "numbers name=a num_buffers=0 ! nothing", env=env) as launcher:
        wait_until(lambda: psutil.Process(launcher.pid).children(), "the spawner")
        time.sleep(moment)
        for _ in range(2):
            launcher.send_signal(signal.SIGINT)
            time.sleep(0.006)
        _, stderr = launcher.communicate(timeout=60)
    assert "Traceback" not in stderr


def test_ctrl_c_as_soon_as_there_is_a_folder_leaves_none(env: dict[str, str], runtime_dir: Path):
    for _ in range(5):  # at another moment each time
        with started("launch", "numbers name=a num_buffers=0 ! nothing", env=env) as launcher:
            while not list(runtime_dir.glob("emograph/*")) and launcher.poll() is None:
                pass  # each look as soon as the last: the moment is a short one
            launcher.send_signal(signal.SIGINT)
            _, stderr = launcher.communicate(timeout=60)
        assert "Traceback" not in stderr
        assert not list(runtime_dir.glob("emograph/*"))


def test_kill_9_of_the_launcher_leaves_nothing(tmp_path: Path, env: dict[str, str], runtime_dir: Path):
    out = tmp_path / "out"
    with started("launch", GRAPH.format(out=out), env=env) as launcher:
        wait_until(lambda: lines(out) > 20, "frames")
        family = psutil.Process(launcher.pid).children(recursive=True)
        assert len(family) == 6  # four workers, their spawner and the reaper
        assert list(runtime_dir.glob("emograph/*/*"))
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        wait_until(lambda: not any(_alive(p) for p in family), "the end of all processes", 5)
        wait_until(lambda: not list(runtime_dir.glob("emograph/*")), "the end of all sockets", 5)


def test_kill_9_of_launcher_and_reaper_is_swept_by_the_next_start(
    tmp_path: Path, env: dict[str, str], runtime_dir: Path
):
    out = tmp_path / "out"
    with started("launch", GRAPH.format(out=out), env=env) as launcher:
        wait_until(lambda: lines(out) > 20, "frames")
        family = psutil.Process(launcher.pid).children(recursive=True)
        known = {p.pid for p in workers(launcher.pid).values()}
        for process in family:
            if process.pid not in known:
                process.kill()
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        wait_until(lambda: not any(_alive(p) for p in family), "the end of all processes", 5)
    assert list(runtime_dir.glob("emograph/*")), "the folder should have been left: nobody was there to remove it"
    assert emograph("launch", "numbers num_buffers=1 ! nothing", env=env).returncode == 0
    assert not list(runtime_dir.glob("emograph/*"))


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_garbage_on_every_socket_is_counted_and_harmless(tmp_path: Path, env: dict[str, str], runtime_dir: Path):
    out = tmp_path / "out"
    rng = random.Random(3)
    graph = GRAPH.format(out=out).replace("num_buffers=0", "num_buffers=200").replace("fps=50", "fps=60")
    with started("launch", graph, "--json", env=env) as launcher, zmq.Context() as context:
        wait_until(lambda: lines(out) > 5, "frames")
        sockets = [p for p in runtime_dir.glob("emograph/*/*") if p.is_socket()]
        assert len(sockets) == 2 + 2 * 4  # bus, monitor; in and home of each worker
        for path in sockets:
            kind = zmq.DEALER if path.name == "bus" else zmq.PUSH
            with context.socket(kind) as peer:
                peer.linger = 1000
                peer.connect(f"ipc://{path}")
                for message in (b"", b"hello", rng.randbytes(500), msgpack.packb({"say": "state"}),
                                msgpack.packb([1, "w", "nobody", 0, 0, 0, 0, 0, [1, 1, 1], 0, 0, 0, 1, "x", [], [], {}]),
                                msgpack.packb([[0, "a", 10**9, 5, ["", "delivered"], []]]),
                                msgpack.packb([[7, "zzz"]]), msgpack.packb({"say": "__init__"})):  # fmt: skip
                    peer.send(message)
            with socket.socket(socket.AF_UNIX) as raw:  # not even ZeroMQ
                raw.connect(str(path))
                raw.sendall(struct.pack("<Q", 2**63) + rng.randbytes(200))
        stdout, stderr = launcher.communicate(timeout=100)
    summary = json.loads(stdout)
    assert launcher.returncode == 0, stderr
    camera = summary["cameras"]["a"]
    assert camera["captured"] == 200
    assert camera["captured"] == camera["delivered"] + sum(d["count"] for d in camera["dropped"])
    assert summary["garbage"] >= 2 * 8
    assert not any(p["restarts"] for p in summary["processes"].values())
    assert "dropped a garbage message" in stderr


def test_workers_die_and_come_back_under_the_command(tmp_path: Path, env: dict[str, str]):
    out = tmp_path / "out"
    with started("launch", GRAPH.format(out=out), "--json", env=env) as launcher:
        wait_until(lambda: lines(out) > 5, "frames")
        workers(launcher.pid)["w"].kill()
        before = lines(out)
        wait_until(lambda: lines(out) > before + 20, "frames after the restart")
        launcher.send_signal(signal.SIGTERM)
        stdout, _ = launcher.communicate(timeout=60)
    summary = json.loads(stdout)
    assert launcher.returncode == 0
    assert summary["stopped"] == "SIGTERM"
    assert summary["processes"]["w"]["restarts"] == 1
    camera = summary["cameras"]["a"]
    assert camera["captured"] == camera["delivered"] + sum(d["count"] for d in camera["dropped"])


def test_a_folder_for_sockets_with_a_blank_in_its_name(runtime_dir: Path, env: dict[str, str]):
    place = runtime_dir / "my run"
    place.mkdir()
    env = {**env, "XDG_RUNTIME_DIR": str(place)}
    with started("launch", "numbers name=a num_buffers=0 fps=20 ! nothing", env=env) as launcher:
        wait_until(lambda: list(place.glob("emograph/*/monitor")), "the run's sockets")
        seen = emograph("top", "--once", env=env)
        launcher.send_signal(signal.SIGINT)
        launcher.communicate(timeout=60)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "PLAYING" in seen.stdout or "READY" in seen.stdout or "NULL" in seen.stdout


def test_a_folder_for_sockets_whose_name_is_no_text_is_one_line(tmp_path: Path, env: dict[str, str]):
    place = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(place)
    done = emograph("launch", "numbers num_buffers=1 ! nothing", env={**env, "XDG_RUNTIME_DIR": os.fsdecode(place)})
    assert done.returncode == 1
    assert "sockets cannot lie in" in done.stderr
    assert "whose name is no UTF-8; set XDG_RUNTIME_DIR" in done.stderr


def test_duration_trace_and_set(tmp_path: Path, env: dict[str, str]):
    trace = tmp_path / "trace.json"
    begin = time.monotonic()
    done = emograph(
        "launch", GRAPH.format(out=tmp_path / "out"), "--duration", "1s", "--trace", str(trace), "--set", "a.fps=20", env=env
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin >= 1
    assert f"trace: {trace} (https://ui.perfetto.dev opens it)" in done.stderr
    slices = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X" and e["cat"] == "r"]
    assert 5 < len(slices) <= 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("launch", "nosuch.yaml"), "no such graph file: nosuch.yaml"),
        (("launch", "numbers ! nosuch"), "launch string: nosuch0: unknown node type 'nosuch'"),
        (("launch", "numbers ! work"), "its src pad is not linked"),
        (("launch", "numbers ! nothing", "--duration", "soon"), "--duration: 'soon' is not a duration"),
        (("launch", "numbers ! nothing", "--trace", "/nosuch/x.json"), "cannot write the trace /nosuch/x.json"),
        (("launch", "numbers ! nothing", "--trace", "/tmp/" + 300 * "x"), "File name too long"),
        (("launch", "numbers ! record path=/nosuch/file"), "/nosuch/file"),
        (("check", "numbers ! work dealy=1 ! nothing"), "did you mean 'delay'?"),
        (("inspect", "numberz"), "did you mean 'numbers'?"),
        (("graph", "numbers ! nothing", "--format", "pdf"), "unknown format 'pdf'"),
        (("launch", "numbers window=200000 ! nothing"), "it must be at most 4096"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(env: dict[str, str], arguments: tuple[str, ...], message: str):
    done = emograph(*arguments, env=env)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("emograph: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


def test_a_foreign_folder_for_sockets_is_refused(tmp_path: Path, env: dict[str, str]):
    open_folder = tmp_path / "x"
    (open_folder / "emograph").mkdir(parents=True)
    os.chmod(open_folder / "emograph", 0o777)
    done = emograph("launch", "numbers ! nothing", env={**env, "XDG_RUNTIME_DIR": str(open_folder)})
    assert done.returncode == 1
    assert "is not a private folder of this user" in done.stderr


def test_check_inspect_and_graph(env: dict[str, str]):
    graph = "numbers name=a ! work name=w ! nothing"
    assert "ok: 1 camera, 3 nodes, 3 processes, live" in emograph("check", graph, env=env).stdout
    plan = json.loads(emograph("check", graph, "--json", env=env).stdout)
    assert plan["cameras"] == ["a"]
    text = emograph("inspect", "numbers", env=env).stdout
    assert "num_buffers" in text
    assert "video/raw, format=BGR" in text
    schema = json.loads(emograph("inspect", "numbers", "--json", env=env).stdout)["properties"]
    assert schema["properties"]["num_buffers"]["default"] == 100
    assert schema["additionalProperties"] is False
    types = {row["type"]: row["package"] for row in json.loads(emograph("inspect", "--json", env=env).stdout)}
    assert types["numbers"] == "engine-nodes"
    assert emograph("graph", graph, "--format", "dot", env=env).stdout.startswith("digraph")


def test_a_reader_that_goes_away_ends_the_graph_in_order(tmp_path: Path, env: dict[str, str]):
    out = tmp_path / "out"
    talker = "numbers name=b num_buffers=60 fps=20 chatter=3 ! nothing"
    with started("launch", f"{GRAPH.format(out=out)} {talker}", env=env) as launcher:
        wait_until(lambda: lines(out) > 5, "frames")
        launcher.stdout.close()
        launcher.stderr.close()
        assert launcher.wait(60) == 0
    assert out.read_text().splitlines()[-1] == "a eos"


@pytest.mark.parametrize("limit", [20, 100, 150, 200])
def test_too_few_file_descriptors_are_one_line(env: dict[str, str], limit: int):
    graph = "nothing name=z  " + "  ".join(f"numbers name=c{n} ! z." for n in range(40))
    command = f"ulimit -n {limit}; exec {sys.executable} -m pipeline.cli launch '{graph}'"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=env, check=False, timeout=60, cwd=ROOT
    )
    assert done.returncode == 1
    needed = f"41 processes and 40 cameras need about 240 open files; the limit here is {limit} (`ulimit -n`)"
    assert done.stderr.splitlines() == [f"emograph: error: {needed}"]


def test_as_many_file_descriptors_as_it_says_are_enough(env: dict[str, str]):
    graph = "nothing name=z  " + "  ".join(f"numbers name=c{n} num_buffers=3 ! z." for n in range(40))
    soft = f"ulimit -S -n 30; ulimit -H -n 240; exec {sys.executable} -m pipeline.cli launch --json '{graph}'"
    done = subprocess.run(
        ["sh", "-c", soft], capture_output=True, text=True, env=env, check=False, timeout=90, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert sum(camera["delivered"] for camera in json.loads(done.stdout)["cameras"].values()) == 120
    assert all(process["restarts"] == 0 for process in json.loads(done.stdout)["processes"].values())


@pytest.mark.parametrize(
    ("graph", "last"),
    [
        (
            "numbers name=a num_buffers=30 ! work name=w fail_at=7 ! nothing",
            "a: 1 frame was dropped because w failed on it",
        ),
        (
            "numbers name=a num_buffers=30 ! work fail_at=7 ! work fail_at=8 ! nothing",
            "a: 1 frame was dropped because work0 failed on it (and 1 more)",
        ),
        ("numbers num_buffers=30 ! work fail_at=7 ! work name=w fatal_at=9 ! nothing", "w: the disk is full"),
        (
            "numbers num_buffers=3 ! trouble name=t fail_in_close=true",
            "t: while closing: OSError: No space left on device",
        ),
    ],
)
def test_each_error_is_told_once_and_the_last_line_says_what_came_of_it(env: dict[str, str], graph: str, last: str):
    done = emograph("launch", graph, "--set", "mode=lossless", env=env)
    assert done.returncode == 1
    *before, line = done.stderr.splitlines()
    assert re.sub(r" \(/\S+:\d+\)$", "", line) == f"emograph: error: {last}"  # and the file and line of an exception
    assert not any(last in other for other in before)
    assert sum("this frame is bad" in other for other in before) == graph.count("fail_at")


def test_an_error_that_a_node_has_told_is_the_last_line_where_there_is_no_other(env: dict[str, str]):
    graph = "numbers num_buffers=3 ! trouble name=t fail_in_mark=true"
    done = emograph("launch", graph, "--set", "mode=lossless", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("emograph: error: t: ValueError: a mark is nothing to this node (")
    assert done.stderr.splitlines()[-1].endswith("; 'eos' of numbers0 goes on")


def test_frames_that_a_node_failed_on_are_told_at_the_end(env: dict[str, str]):
    graph = "numbers name=a num_buffers=30 ! work name=w fail_at=7 ! nothing"
    done = emograph("launch", graph, "--set", "mode=lossless", "--json", env=env)
    assert done.returncode == 1
    bad, dropped = json.loads(done.stdout)["errors"]
    assert bad.startswith("w: RuntimeError: this frame is bad")
    assert dropped == "a: 1 frame was dropped because w failed on it"


def test_a_process_that_an_exception_ended_is_told_at_the_end(env: dict[str, str]):
    """Its successor did the rest, but something is wrong with the node."""
    done = emograph("launch", "numbers name=a num_buffers=20 fail_at=7 ! nothing", "--set", "mode=lossless", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "emograph: error: a: the process ended once because a node failed"
    assert re.search(r"^a +20 ", done.stdout, re.MULTILINE), done.stdout
