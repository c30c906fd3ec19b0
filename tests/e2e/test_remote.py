"""Two graphs as on two hosts, linked by `send` and `receive` over loopback."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline import subscribe
from tests.support.command import emograph, environment, started, wait_until, workers
from tests.support.host import free_endpoint

FRAMES = 30
COMPLETE = {"captured": FRAMES, "delivered": FRAMES, "dropped": [], "in_flight": 0}


def graph(folder: Path, name: str, mode: str, nodes: dict[str, dict[str, Any]], links: list[str]) -> str:
    """Write a graph file (JSON is YAML); returns its path."""
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"mode": mode, "nodes": nodes, "links": links}))
    return str(file)


def near(folder: Path, link: str) -> str:
    nodes = {
        "door": {"type": "testsrc", "faces": 1, "num_buffers": FRAMES},
        "faces": {"type": "haardetect"},
        "out": {"type": "send", "endpoint": link},
    }
    return graph(folder, "near", "lossless", nodes, ["door ! faces ! out"])


def run_both(first: str, second: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both graphs to their ends; their summaries."""
    with started("launch", first, "--json") as other:
        done = emograph("launch", second, "--json")
        stdout, stderr = other.communicate(timeout=60)
    assert (other.returncode, done.returncode) == (0, 0), stderr + done.stderr
    assert "Traceback" not in stderr + done.stderr
    return json.loads(stdout), json.loads(done.stdout)


def test_the_classifier_on_another_host_needs_no_pixels(tmp_path: Path):
    link, told = free_endpoint(), free_endpoint()
    nodes = {
        "entrance": {"type": "receive", "endpoint": link, "camera": "door"},
        "mood": {"type": "emotion"},
        "events": {"type": "publish", "endpoint": told},
    }
    far = graph(tmp_path, "far", "lossless", nodes, ["entrance ! mood ! events"])
    with subscribe(told, kinds=["observation"]) as events:
        # The sender is there long before torch is imported on the other side: it waits.
        here, there = run_both(near(tmp_path, link), far)
        seen = [event for event in iter(lambda: events.receive(0.3), None) if not event.snapshot]
    assert here["cameras"]["door"] == COMPLETE
    assert there["cameras"]["entrance"] == COMPLETE
    assert [event.sequence for event in seen] == list(range(1, FRAMES + 1))
    assert {event.camera for event in seen} == {"entrance"}
    faces = [region for event in seen for region in event.regions]
    assert len(faces) > FRAMES / 2
    assert all(region.probabilities for region in faces)
    assert here["nodes"]["out"]["metrics"]["frame_bytes"]["count"] == FRAMES
    assert here["nodes"]["out"]["metrics"]["frame_bytes"]["max"] < 6000
    for name in ("out", "door"):
        assert here["processes"][name]["rss_mb"] < 150
    assert there["processes"]["entrance"]["rss_mb"] < 150


def test_pixels_travel_where_something_is_drawn(tmp_path: Path):
    link, film = free_endpoint(), tmp_path / "door.mp4"
    nodes = {
        "door": {"type": "receive", "endpoint": link},
        "draw": {"type": "overlay"},
        "film": {"type": "videosink", "location": str(film)},
    }
    far = graph(tmp_path, "far", "lossless", nodes, ["door ! draw ! film"])
    there, here = run_both(far, near(tmp_path, link))
    assert (here["cameras"]["door"], there["cameras"]["door"]) == (COMPLETE, COMPLETE)
    with av.open(str(film)) as container:
        pictures = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(pictures) == FRAMES
    # A scene, and one that moves: not the black of a slot that nobody filled.
    assert all(picture.std() > 20 for picture in pictures)
    assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 1


def test_both_ends_of_a_live_link_die_and_it_goes_on(tmp_path: Path):
    env = environment(tmp_path / "site")
    link, out = free_endpoint(), tmp_path / "out"
    nodes = {
        "door": {"type": "receive", "endpoint": link, "timeout": "20s"},
        "mark": {"type": "record", "path": str(out)},
    }
    far = graph(tmp_path, "far", "live", nodes, ["door ! mark"])

    source = {"type": "numbers", "fps": 20, "num_buffers": 0}
    sink = {"type": "send", "endpoint": link}
    here_file = graph(tmp_path, "near", "live", {"door": source, "out": sink}, ["door ! out"])

    def frames() -> int:
        return len(out.read_text().splitlines()) if out.exists() else 0

    def wait_for_more(what: str) -> None:
        enough = frames() + 10
        wait_until(lambda: frames() > enough, what)

    with started("launch", here_file, "--json", env=env) as here, started("launch", far, "--json", env=env) as there:
        for launcher, node in ((here, "out"), (there, "door")):
            wait_for_more("frames")
            workers(launcher.pid)[node].kill()
        wait_for_more("frames after both were killed")
        here.send_signal(signal.SIGINT)  # the end of the stream ends the other graph too
        here_out, here_err = here.communicate(timeout=60)
        there_out, there_err = there.communicate(timeout=60)
    assert (here.returncode, there.returncode) == (0, 0), here_err + there_err
    for summary, node in ((json.loads(here_out), "out"), (json.loads(there_out), "door")):
        camera = summary["cameras"]["door"]
        assert camera["captured"] == camera["delivered"] + sum(d["count"] for d in camera["dropped"])
        assert summary["processes"][node]["restarts"] == 1
