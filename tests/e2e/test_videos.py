"""The main job on real people: files in, every frame accounted for, events and annotated videos out."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from pathlib import Path

import av
import pytest

from pipeline import Event, subscribe
from tests.support.command import emograph
from tests.support.graphs import VIDEOS
from tests.support.host import free_port

FRAMES = {"book.mkv": 109, "help.mkv": 58, "no.mkv": 66, "thanks.mkv": 51, "walking.mp4": 41}
SIGNING = ("book", "help", "no", "thanks")

pytestmark = pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"the test videos are not here ({VIDEOS})")


class Subscriber(threading.Thread):
    """Collects events from before the graph starts until `stop`."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.endpoint = endpoint
        self.events: list[Event] = []
        self.lost = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        with subscribe(self.endpoint) as subscription:
            while True:
                event = subscription.receive(0.3)
                if event is not None:
                    self.events.append(event)
                elif self._stop_asked.is_set():
                    break
            self.lost = subscription.lost

    def stop(self) -> list[Event]:
        self._stop_asked.set()
        self.join(30)
        return self.events


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def graph(names: list[str], out: Path, endpoint: str) -> str:
    cameras = [Path(n).stem for n in names]
    sources = "\n".join(f"  {Path(n).stem}: {{type: capture, uri: '{VIDEOS / n}'}}" for n in names)
    return f"""
mode: lossless
nodes:
{sources}
  faces: {{type: haardetect, replicas: 2}}
  mood: {{type: emotion}}
  draw: {{type: overlay}}
  film: {{type: videosink, location: '{out}/{{camera}}.mp4'}}
  events: {{type: publish, endpoint: '{endpoint}'}}
links:
  - [{", ".join(cameras)}] ! faces ! mood
  - mood ! draw ! film
  - mood ! events
"""


@pytest.mark.parametrize("names", [["thanks.mkv"], ["help.mkv", "walking.mp4"], list(FRAMES)], ids=["1", "2", "5"])
def test_every_frame_is_delivered_annotated_and_told(tmp_path: Path, names: list[str]):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    file = tmp_path / "videos.yaml"
    file.write_text(graph(names, tmp_path, endpoint))
    subscriber = Subscriber(endpoint)
    subscriber.start()
    done = emograph("launch", str(file), "--json")
    events = subscriber.stop()
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    seen: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.kind == "observation":
            seen[event.camera].append(event)
    assert subscriber.lost == 0
    for name in names:
        camera = Path(name).stem
        ledger = summary["cameras"][camera]
        assert ledger == {"captured": FRAMES[name], "delivered": FRAMES[name], "dropped": [], "in_flight": 0}
        assert frames_in(tmp_path / f"{camera}.mp4") == FRAMES[name]
        assert [e.sequence for e in seen[camera]] == list(range(1, FRAMES[name] + 1))
        assert all(sum(r.probabilities.values()) == pytest.approx(1, abs=1e-3) for e in seen[camera] for r in e.regions)
        if camera in SIGNING:
            with_face = [e for e in seen[camera] if e.regions]
            assert len(with_face) >= 0.95 * FRAMES[name]
            longest = {r.track for e in with_face for r in e.regions}
            assert longest == {1}, "one person, one track id through the clip"
    ended = {e.camera for e in events if e.kind == "status" and e.what == "ended"}
    assert ended == {Path(n).stem for n in names}
    for name, process in summary["processes"].items():
        if name != "mood":  # the one with torch
            assert 0 < process["rss_mb"] < 150, name
