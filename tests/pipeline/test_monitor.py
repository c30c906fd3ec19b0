"""Snapshots of a run as its viewers see them: real graphs, real sockets, bad guests."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from pipeline import UserError, wire
from pipeline.figures import NodeFigures, Stats
from pipeline.monitor import INTERVAL, Monitor, Watch, locate, watch
from pipeline.rundir import RunDirectory, base_directory, running
from pipeline.snapshot import VERSION, is_snapshot
from tests.support.command import emograph, environment, started, wait_until, workers
from tests.support.graphs import run_graph

GRAPH = "numbers name=a num_buffers=0 fps=40 ! work name=w delay=1ms ! gather name=g ! nothing name=r"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "site")


@contextmanager
def launched(env: dict[str, str], *arguments: str, graph: str = GRAPH) -> Iterator[tuple[Any, str]]:
    """(launcher, address of its snapshots) of a graph that runs until it is told to stop."""
    with started("launch", graph, "-q", *arguments, env=env) as launcher:
        wait_until(lambda: any(run.pid == launcher.pid for run in running()), "the run's folder")
        yield launcher, locate(str(launcher.pid))
        if launcher.poll() is None:
            launcher.send_signal(signal.SIGTERM)
            launcher.communicate(timeout=60)


def until(endpoint: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first snapshot of which `condition` holds."""
    end = time.monotonic() + 60
    for snapshot in watch(endpoint, timeout=60):
        if condition(snapshot):
            return snapshot
        assert time.monotonic() < end, snapshot
    raise AssertionError("no snapshots")


def adds_up(camera: dict[str, Any]) -> bool:
    dropped = sum(drop["count"] for drop in camera["dropped"])
    return camera["captured"] == camera["delivered"] + dropped + camera["in_flight"]


# What a snapshot says ---------------------------------------------------------------------------------------


def test_rates_ledger_and_restarts_of_a_real_run(env: dict[str, str]):
    with launched(env) as (launcher, endpoint):
        flowing = until(endpoint, lambda s: s["cameras"]["a"]["fps"] > 10 and s["uptime_s"] > 3)
        assert (flowing["v"], flowing["state"], flowing["pid"]) == (VERSION, "PLAYING", launcher.pid)
        assert abs(flowing["time"] / 1e9 - time.time()) < 60
        camera = flowing["cameras"]["a"]
        assert adds_up(camera)
        assert camera["captured"] > 0
        assert camera["capture_fps"] <= 45
        assert camera["up"]
        assert abs(camera["since"] / 1e9 - (time.time() - flowing["uptime_s"])) < 30
        assert 0 < camera["latency_ms"]["p50"] <= camera["latency_ms"]["p95"] <= camera["latency_ms"]["max"]
        node = flowing["nodes"]["w"]
        assert (node["type"], node["kind"], node["links"], node["streams"]) == ("work", "transform", ["g"], ["a"])
        assert node["settings"] == {"delay": "1ms"}
        assert 0 < node["in"] <= camera["captured"]
        assert node["metrics"]["work_ms"]["p50"] >= 1
        assert 0 < node["busy"] < 1
        assert flowing["nodes"]["g"]["metrics"]["batch_buffers"]["mean"] >= 1
        process = flowing["processes"]["w"]
        assert process["pid"] == workers(launcher.pid)["w"].pid
        assert (process["state"], process["restarts"]) == ("PLAYING", 0)
        assert 0 < process["cpu"] < 4
        assert process["rss_mb"] > 1

        os.kill(process["pid"], signal.SIGKILL)
        again = until(endpoint, lambda s: s["processes"]["w"]["restarts"] and s["processes"]["w"]["state"] == "PLAYING")
        assert again["processes"]["w"]["restarts"] == 1
        assert again["processes"]["w"]["pid"] != process["pid"]
        assert adds_up(again["cameras"]["a"])
        assert any("killed by signal 9" in m["text"] and m["level"] == "warning" for m in again["messages"])


def test_a_source_whose_process_was_killed_is_not_up(env: dict[str, str]):
    graph = "numbers name=a num_buffers=0 fps=20 slow_reopen=3s ! nothing"
    with launched(env, graph=graph) as (_, endpoint):
        playing = until(endpoint, lambda s: s["cameras"]["a"]["delivered"])
        os.kill(playing["processes"]["a"]["pid"], signal.SIGKILL)
        down = until(endpoint, lambda s: not s["cameras"]["a"]["up"])["cameras"]["a"]
        assert down["reason"] == "its process is being restarted"
        assert down["since"] >= playing["time"] - 10**9
        assert until(endpoint, lambda s: s["cameras"]["a"]["up"])["processes"]["a"]["restarts"] == 1


def test_a_camera_that_is_down_shows_why_and_since_when(env: dict[str, str], tmp_path: Path):
    before = time.time_ns()
    with launched(env, graph="away name=a ! nothing") as (_, endpoint):
        camera = until(endpoint, lambda s: s["cameras"]["a"]["reason"] not in ("", "starting"))["cameras"]["a"]
        assert not camera["up"]
        assert camera["reason"] == "no answer from rtsp://***@10.0.0.5/stream"
        assert before < camera["since"] < time.time_ns()


def test_another_reason_for_the_same_absence_does_not_begin_it_anew(env: dict[str, str]):
    with launched(env, graph="away name=a comes_after=2s ! nothing") as (_, endpoint):
        since = [
            until(endpoint, lambda s, why=why: why in s["cameras"]["a"]["reason"])["cameras"]["a"]["since"]
            for why in ("no answer", "no frame")
        ]
        assert since[0] == since[1]
        playing = until(endpoint, lambda s: s["cameras"]["a"]["delivered"])
    assert (playing["cameras"]["a"]["up"], playing["cameras"]["a"]["since"] > since[0]) == (True, True)
    assert [m["text"] for m in playing["messages"] if m["node"] == "a"][-1] == "up"  # not again: it never was


def test_a_camera_is_up_with_its_first_frame_and_not_before(env: dict[str, str]):
    graph = "away name=a says=false ! nothing name=n  numbers name=b num_buffers=0 fps=20 ! n."
    with launched(env, graph=graph) as (_, endpoint):
        cameras = until(endpoint, lambda s: s["cameras"]["b"]["delivered"] > 20)["cameras"]
    assert [(c["up"], c["since"] > 0, c["reason"]) for c in cameras.values()] == [
        (False, False, "starting"),
        (True, True, ""),
    ]


@pytest.mark.parametrize("killed", ["a", "w"])
def test_a_process_that_is_back_plays_while_its_camera_is_away(env: dict[str, str], killed: str):
    """No buffer can pass it, and none is awaited: a watchdog that goes by /healthz need not end the graph."""
    with launched(env, graph="away name=a ! work name=w ! nothing") as (_, endpoint):
        down = until(endpoint, lambda s: "no answer" in s["cameras"]["a"]["reason"])
        os.kill(down["processes"][killed]["pid"], signal.SIGKILL)
        back = until(endpoint, lambda s: s["processes"][killed]["restarts"])
        assert back["processes"][killed]["state"] in ("RESTARTING", "PLAYING")
        until(endpoint, lambda s: {p["state"] for p in s["processes"].values()} == {"PLAYING"})


def test_settings_are_shown_without_secrets(env: dict[str, str]):
    graph = "away name=a uri=rtsp://user:word@10.0.0.5/stream token=abc ! nothing"
    with launched(env, graph=graph) as (_, endpoint):
        snapshot = until(endpoint, lambda s: s["nodes"])
    assert snapshot["nodes"]["a"]["settings"] == {"uri": "rtsp://***@10.0.0.5/stream", "token": "***"}
    assert "word" not in str(snapshot)


def test_the_last_snapshot_says_that_the_run_has_ended(env: dict[str, str]):
    with launched(env, graph="numbers name=a num_buffers=20 fps=20 ! nothing") as (launcher, endpoint):
        with Watch(endpoint) as viewer:
            last = {}
            while (snapshot := viewer.receive(60)) is not None:
                last = snapshot
                if last["state"] == "ENDED":
                    break
        launcher.communicate(timeout=60)
    camera = last["cameras"]["a"]
    assert (camera["captured"], camera["in_flight"], camera["ended"]) == (20, 0, True)
    assert last["errors"] == []


def test_no_snapshot_is_built_while_nobody_looks(engine_nodes: None, monkeypatch: pytest.MonkeyPatch):
    built: list[int] = []
    original = Monitor.snapshot
    monkeypatch.setattr(Monitor, "snapshot", lambda self: built.append(1) or original(self))
    state: dict[str, Any] = {}

    def look(supervisor: Any) -> None:
        if supervisor.figures["r"].done < 10:
            assert not built
        elif "thread" not in state:

            def view() -> None:
                with Watch(locate("launch")) as viewer:
                    state["seen"] = [viewer.receive(60) for _ in range(2)]

            state["thread"] = threading.Thread(target=view)
            state["thread"].start()
        elif not state["thread"].is_alive():
            state.setdefault("built", (len(built), time.monotonic()))
            if time.monotonic() - state["built"][1] > 2 and supervisor.stop_reason is None:
                supervisor.stop("seen enough")

    run = run_graph(GRAPH, on_tick=look)
    assert run.error is None
    assert all(is_snapshot(snapshot) for snapshot in state["seen"])
    assert len(built) <= state["built"][0] + 1, "snapshots were made after the last viewer had gone"


def test_figures_of_now_forget_what_was(engine_nodes: None):
    figures = NodeFigures()
    stats = Stats()
    for second in range(20):
        stats.taken = stats.done = 10 if second < 10 else 0
        stats.worked(10_000_000 if second < 10 else 0)
        figures.add(stats.report(), float(second))
    assert figures.taken == 100
    assert figures.recent(19.0)["fps"] == 0
    assert figures.recent(60.0) == {"in_fps": 0.0, "fps": 0.0, "busy": 0.0, "metrics": {}}
    busy = NodeFigures()
    for second in range(10):
        stats.taken = stats.done = 10
        busy.add(stats.report(), float(second))
    assert busy.recent(9.0)["fps"] == pytest.approx(10)
    assert busy.recent(13.0)["fps"] < 8, "a worker that fell silent four seconds ago is not as fast as ever"


# Finding a run ------------------------------------------------------------------------------------------------


def test_locate_with_no_run():
    with pytest.raises(UserError, match="no graph of this user is running here"):
        locate(None)
    with pytest.raises(UserError, match=re.escape("no running graph is called 'lobby'; running: none")):
        locate("lobby")
    assert locate("tcp://127.0.0.1:9") == "tcp://127.0.0.1:9"


def test_locate_by_name_file_pid_and_with_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "lobby.yaml"
    file.touch()
    first = RunDirectory("lobby", str(file.resolve()))
    try:
        address = f"ipc://{first.path}/monitor"
        monkeypatch.chdir(tmp_path)
        for what in (None, "lobby", "lobby.yaml", "./lobby.yaml", str(file), str(os.getpid()), address):
            assert locate(what) == address
        with pytest.raises(UserError, match=re.escape("no running graph is called 'loby'; did you mean 'lobby'?")):
            locate("loby")
        with pytest.raises(UserError, match=re.escape("'x/loby.yaml'; did you mean 'lobby'?")):
            locate("x/loby.yaml")
        with pytest.raises(UserError, match=re.escape("'garden'; running: lobby")):
            locate("garden")
        second = RunDirectory("lobby")
        try:
            with pytest.raises(UserError) as error:
                locate("lobby")
            assert "several graphs are running; say which by its process id or address" in str(error.value)
            assert address in str(error.value)
            assert str(second.path) in str(error.value)
        finally:
            second.remove()
        assert locate(None) == address
    finally:
        first.remove()


def test_what_is_no_run_is_passed_over():
    base = base_directory()
    (base / "a-file").touch()
    (base / "dead").mkdir()
    (base / "dead" / "lock").touch()
    (base / "dead" / "run").write_text('{"directory": "x", "graph": "dead", "file": "", "pid": 1}')
    assert list(running()) == []
    broken = RunDirectory("broken")  # sweeps the dead one
    (broken.path / "run").write_text("[1, 2")
    try:
        assert list(running()) == []
    finally:
        broken.remove()
        (base / "a-file").unlink()


# The additional address -----------------------------------------------------------------------------------------


def test_an_additional_address(env: dict[str, str]):
    with launched(env, "--monitor", "tcp://127.0.0.1:*") as (_, endpoint):
        text = until(endpoint, lambda s: s["messages"])["messages"][0]["text"]
        address = text.removeprefix("snapshots on ")
        assert until(address, lambda s: s["cameras"]["a"]["delivered"])["graph"]


def test_an_address_that_others_reach_is_warned_of(env: dict[str, str]):
    done = emograph("launch", "numbers num_buffers=1 ! nothing", "--monitor", "tcp://0.0.0.0:*", env=env)
    assert done.returncode == 0
    assert "can be read by anybody who reaches this port" in done.stderr


@pytest.mark.parametrize("address", ["taken", "5557", "tcp://nowhere", "ipc://{tmp}/precious", "tcp://127.0.0.1:99999"])
def test_an_address_that_cannot_be_had_is_one_line(
    env: dict[str, str], address: str, tmp_path: Path, runtime_dir: Path
):
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"tcp://127.0.0.1:{taken.getsockname()[1]}" if address == "taken" else address.format(tmp=tmp_path)
        done = emograph("launch", GRAPH, "--monitor", where, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("emograph: error: --monitor: ")
    assert where in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(runtime_dir.glob("emograph/*"))
    assert precious.read_text() == "keep me"


# Bad guests -------------------------------------------------------------------------------------------------------


def greeting() -> bytes:
    """ZMTP 3.0 greeting and READY of a SUB socket, by hand: a peer that may then say anything."""
    signature = b"\xff" + bytes(8) + b"\x7f" + bytes([3, 0]) + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
    ready = b"\x05READY" + bytes([11]) + b"Socket-Type" + struct.pack(">I", 3) + b"SUB"
    return signature + bytes([4, len(ready)]) + ready


def test_garbage_neither_stops_the_snapshots_nor_the_graph(env: dict[str, str]):
    with launched(env) as (launcher, endpoint), zmq.Context() as context:
        until(endpoint, lambda s: s["cameras"]["a"]["delivered"] > 5)
        path = endpoint.removeprefix("ipc://")
        with context.socket(zmq.XSUB) as peer:
            peer.linger = 1000
            peer.connect(endpoint)
            for message in (b"", b"hello", b"\x01" * 900, b"\x02", wire.pack({"v": 1}), b"\x00emotion/"):
                peer.send(message)
            for _ in range(5000):
                peer.send(b"noise")
        for talk in (b"GET / HTTP/1.1\r\n\r\n", struct.pack("<Q", 2**63), greeting() + bytes([0, 1, 0]) * 50):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(path)
                raw.sendall(talk)
                raw.settimeout(0.5)
                with pytest.raises((TimeoutError, BlockingIOError)) if talk[:3] == b"GET" else _nothing():
                    while raw.recv(4096):
                        pass
                    raise TimeoutError
        before = until(endpoint, lambda s: True)
        after = until(endpoint, lambda s: s["cameras"]["a"]["delivered"] > before["cameras"]["a"]["delivered"] + 20)
        assert not any(p["restarts"] for p in after["processes"].values())
        assert launcher.poll() is None


def test_nobody_can_end_what_others_watch(env: dict[str, str]):
    """libzmq tells of the end of a subscription also where a peer ends one that it never had."""
    with launched(env, "--monitor", "tcp://127.0.0.1:*") as (_, endpoint), zmq.Context() as context:
        text = until(endpoint, lambda s: s["messages"])["messages"][0]["text"]
        address = text.removeprefix("snapshots on ")
        with Watch(address) as viewer, context.socket(zmq.XSUB) as peer:
            assert viewer.receive(30) is not None
            peer.linger = 1000
            peer.connect(address)
            for _ in range(3):
                peer.send(b"\x00")
                time.sleep(1.2 * INTERVAL)  # for it to come there
            newest = viewer.receive(30)
            assert newest is not None
            later = viewer.receive(30)
            assert later is not None
            assert later["time"] > newest["time"]


@contextmanager
def _nothing() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        pass


def test_a_viewer_passes_over_what_is_no_snapshot():
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.linger = 0
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        stop = threading.Event()
        good = {
            "v": VERSION, "graph": "x", "mode": "live", "latency_budget_ms": 1, "pid": 1, "time": 1, "state": "PLAYING",
            "uptime_s": 0, "cameras": {}, "nodes": {}, "processes": {}, "messages": [], "errors": [], "garbage": 0,
        }  # fmt: skip
        garbage: list[Any] = [b"", b"\xc1", b"hello", *(wire.pack(v) for v in (
            7, {"v": VERSION}, {**good, "v": 99}, {**good, "cameras": []}, {**good, "cameras": {"a": {"up": True}}},
            {**good, "messages": [{"text": 3}]}, {**good, "graph": None}, {**good, "graph": b"x"},
            {**good, "uptime_s": "1.5"}, {**good, "uptime_s": math.inf}, {**good, "time": "1"}, {**good, "pid": 1.0},
            {**good, "nodes": {"a": dict.fromkeys(("type", "kind", "process", "base"), "x") | {
                "settings": {}, "streams": [], "links": [], "dropped": {}, "in_fps": 1, "fps": 1, "busy": 1, "metrics": {},
            }}},
        ))]  # fmt: skip

        def flood() -> None:
            while not stop.is_set():
                for message in garbage:
                    publisher.send(message)

        thread = threading.Thread(target=flood)
        thread.start()
        with Watch(f"tcp://127.0.0.1:{port}") as viewer:
            begin = time.monotonic()
            assert viewer.receive(1.0) is None
            assert time.monotonic() - begin < 30
            stop.set()
            thread.join()
            while (snapshot := viewer.receive(1.0)) is None:
                publisher.send(wire.pack(good))
            assert snapshot == good


def test_an_address_that_is_none_is_one_line():
    with pytest.raises(UserError, match="cannot connect to tcp://nonsense"):
        Watch("tcp://nonsense")


def test_percentiles_of_now():
    figures, stats = NodeFigures(), Stats()
    for second in range(6):
        for value in range(1, 21):
            stats.observe("m", value)
        figures.add(stats.report(), float(second))
    metric = figures.recent(5.0)["metrics"]["m"]
    assert (metric["p50"], metric["p95"], metric["max"], metric["mean"]) == (11, 20, 20, 10.5)
