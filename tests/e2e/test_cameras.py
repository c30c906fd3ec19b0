"""Whole graphs with a camera that is away at the start and need not be there (`required: false`)."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import subscribe
from pipeline.events import Event
from pipeline.monitor import locate, watch
from pipeline.rundir import running
from tests.servers import Server
from tests.support.command import emograph, started, wait_until, workers

OPTIONAL = "required=false width=160 height=120"
NOBODY = "rtsp://user:s3cret@127.0.0.1:1/stream"
REFUSED = "nothing listens on 127.0.0.1:1"


@pytest.fixture
def camera() -> Iterator[Server]:
    with Server("http_server.py") as server:
        yield server


def snapshots_of(launcher: subprocess.Popen[str]) -> str:
    """The address at which a graph shows how it stands."""
    wait_until(lambda: any(run.pid == launcher.pid for run in running()), "the run's folder")
    return locate(str(launcher.pid))


def status_of(endpoint: str, camera: str) -> Event:
    """What a subscriber that comes now is told of a camera's state."""
    with subscribe(endpoint, cameras=[camera], kinds=["status"]) as events:
        event = events.receive(60)
    assert event is not None, "no status came"
    return event


def snapshot_where(endpoint: str, **cameras: bool) -> dict:
    """The first snapshot in which each camera is up or down as given, the ones that are up with frames."""
    end = time.monotonic() + 60
    for snapshot in watch(endpoint, timeout=60):
        seen = snapshot["cameras"]
        known = all(seen[name]["up"] == up and (not up or seen[name]["delivered"]) for name, up in cameras.items())
        if known and not any(c["reason"] == "starting" for c in seen.values()):
            return snapshot
        assert time.monotonic() < end, seen
    raise AssertionError("no snapshots")


def test_one_dead_camera_does_not_keep_the_others_from_running(camera: Server, tmp_path: Path):
    events = f"ipc://{tmp_path}/events"
    graph = (
        f"haardetect name=f ! publish endpoint={events}  capture name=dead uri={NOBODY} {OPTIONAL} ! f.  "
        f"capture name=alive uri=http://127.0.0.1:{camera.port}/stream ! f."
    )
    with started("launch", graph, "--json") as launcher:
        monitor = snapshots_of(launcher)
        shown = snapshot_where(monitor, dead=False, alive=True)
        dead = shown["cameras"]["dead"]
        assert (dead["captured"], dead["reason"]) == (0, REFUSED)
        assert shown["state"] == "PLAYING"
        top = emograph("top", monitor, "--once").stdout
        assert REFUSED in next(line for line in top.splitlines() if line.startswith("dead "))
        late = status_of(events, "dead")
        assert (late.what, late.reason, late.snapshot) == ("down", REFUSED, True)
        assert status_of(events, "alive").what == "up"
        launcher.send_signal(signal.SIGINT)
        stdout, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    ledgers = json.loads(stdout.splitlines()[-1])["cameras"]
    assert ledgers["alive"]["delivered"] > 0
    assert (ledgers["dead"]["captured"], ledgers["dead"]["dropped"], ledgers["dead"]["in_flight"]) == (0, [], 0)
    warnings = [line for line in stderr.splitlines() if "warning" in line]
    assert [line.split("dead: ")[1] for line in warnings] == [f"down: {REFUSED}"]  # once, however often it was tried
    assert "s3cret" not in stdout + stderr + top + str(shown)


def test_it_joins_when_it_answers_and_who_is_restarted_meanwhile_hears_of_it(camera: Server, tmp_path: Path):
    camera.stop()
    events = f"ipc://{tmp_path}/events"
    graph = (
        f"haardetect name=f ! publish name=told endpoint={events}  testsrc name=other ! f.  "
        f"capture name=late uri=http://127.0.0.1:{camera.port}/stream {OPTIONAL} ! f."
    )
    with started("launch", graph, "--json") as launcher:
        monitor = snapshots_of(launcher)
        reason = snapshot_where(monitor, late=False, other=True)["cameras"]["late"]["reason"]
        assert status_of(events, "late").what == "down"
        workers(launcher.pid)["told"].kill()
        again = status_of(events, "late")
        assert (again.what, again.reason) == ("down", reason)
        camera.start()
        snapshot_where(monitor, late=True, other=True)
        wait_until(lambda: status_of(events, "late").what == "up", "the camera in the events")
        launcher.send_signal(signal.SIGINT)
        stdout, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    late = json.loads(stdout.splitlines()[-1])["cameras"]["late"]
    assert late["captured"] == late["delivered"] + sum(d["count"] for d in late["dropped"]) + late["in_flight"]
    assert late["delivered"] > 0


def test_its_process_is_killed_while_it_is_away(camera: Server):
    camera.stop()
    graph = (
        f"fakesink name=s  testsrc name=other ! s.  "
        f"capture name=late uri=http://127.0.0.1:{camera.port}/stream {OPTIONAL} ! s."
    )
    with started("launch", graph, "--json") as launcher:
        monitor = snapshots_of(launcher)
        snapshot_where(monitor, late=False, other=True)
        workers(launcher.pid)["late"].kill()
        wait_until(
            lambda: snapshot_where(monitor, late=False, other=True)["processes"]["late"]["restarts"], "a restart"
        )
        wait_until(lambda: "late" in workers(launcher.pid), "its successor")
        # Now one that finds the camera at once, and so has never told that it is down.
        worker = workers(launcher.pid)["late"]
        worker.suspend()
        camera.start()
        worker.kill()
        shown = snapshot_where(monitor, late=True, other=True)
        assert shown["processes"]["late"]["restarts"] == 2
        launcher.send_signal(signal.SIGINT)
        stdout, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["cameras"]["late"]["delivered"] > 0


@pytest.mark.parametrize("mode", ["live", "lossless"])
def test_its_times_go_on_where_its_process_was_killed(mode: str, camera: Server, tmp_path: Path):
    endpoint = f"ipc://{tmp_path}/events"
    graph = f"capture name=door uri=http://127.0.0.1:{camera.port}/stream ! haardetect ! publish endpoint={endpoint}"
    with started("launch", graph, "--set", f"mode={mode}", "--json") as launcher:
        frames: list[tuple[int, int]] = []
        last = None
        with subscribe(endpoint, kinds=["observation"]) as events:
            while last is None or frames[-1][0] < last + 10:
                event = events.receive(60)
                assert event is not None, "no observation came"
                assert event.pts is not None
                frames.append((event.fields["frame"], event.pts))
                if last is None and len(frames) == 10:
                    workers(launcher.pid)["door"].kill()
                    last = frames[-1][0] + 10  # what is on its way has the old times all the same
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    assert "door: the process was killed by signal 9" in stderr
    times = [pts for _, pts in sorted(set(frames))]
    assert all(before < after for before, after in itertools.pairwise(times)), times


@pytest.mark.parametrize("mode", ["live", "lossless"])
def test_a_graph_whose_only_camera_never_came_can_be_stopped(mode: str):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and says nothing
        uri = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/stream"
        graph = f"capture name=door uri={uri} {OPTIONAL} timeout=1h ! fakesink"
        done = emograph("launch", graph, "--set", f"mode={mode}", "--duration", "1s", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cameras"]["door"]["captured"] == 0


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (f"uri={NOBODY} required=false width=160", "door: 'required: false' needs 'width' and 'height'"),
        (f"uri=film.mp4 {OPTIONAL}", "door: 'required: false' is for cameras, and 'film.mp4' is a file or a folder"),
        (f"uri={NOBODY} {OPTIONAL} reconnect=false", "door: 'required: false' waits for the camera"),
        (f"uri=rtps://user:s3cret@h/x {OPTIONAL}", "door: cannot read 'rtps://' in 'rtps://***@h/x'; did you mean"),
    ],
)
def test_what_cannot_be_right_is_found_before_the_start(properties: str, message: str):
    done = emograph("check", f"capture name=door {properties} ! fakesink")
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if message in line] == done.stderr.splitlines()
    assert "s3cret" not in done.stderr


def test_what_is_no_camera_stops_the_graph():
    done = emograph("launch", f"capture name=door uri=v4l2:///dev/null {OPTIONAL} ! fakesink")
    assert done.returncode == 1
    assert "emograph: error: door: '/dev/null' is not a camera" in done.stderr.splitlines()
