"""Whole graphs on real faces: what the framework costs, four live cameras, how it grows, and what is too much.

(a) Every frame of the clips, lossless, against the same node objects called in a plain loop by one worker per core.
(b) Four cameras live, with detection, classification, overlay and events, and a subscriber that holds the watch.
(c) One to sixteen cameras at five frames/s: processor, memory and latency per camera.
(d) Cameras at 15 frames/s, more than the machine can do: what is lost, and by whom.

The network is resnet9-s, the one for machines without a GPU; (b) also with resnet9, the default, and (d) only with it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2

from bench.children import CONTEXT, orphaned, started
from bench.clips import find_clips
from bench.graphs import Measured, measure
from bench.peers import MissingPeer, ask_fer
from bench.record import Result, Row, Settings, middle, percentile
from nodes.capture.reader import quieten
from nodes.emotion.backends import int8_can_be_had
from nodes.emotion.node import Emotion
from nodes.haardetect import HaarDetect
from pipeline import Buffer, UserError

WARM_UP = 4.0
START_LIMIT = 120.0
WEIGHTS = "resnet9-s"
SMALL, FULL = f"weights: {WEIGHTS}", "weights: resnet9"
IN_INT8 = "precision: int8"
UNSPARED = "busy_reclassify_interval: 0"
APART, TOGETHER = "replicas: auto", 'process: "{camera}"'
"""Where the detector of a camera runs: in a process of its own, or in the camera's."""
WITH_CAMERAS = "detectors in the cameras' processes"


def contestants(settings: Settings) -> list[str]:
    return ["efficiency", "live", "growth", "overload"]


def run(settings: Settings) -> Result:
    """The four parts; `--only efficiency`, `--only live`, `--only growth`, `--only overload` for one of them."""
    result = Result("e2e")
    int8 = int8_can_be_had("auto")
    clips = find_clips(settings.videos)
    if settings.wants("efficiency"):
        _efficiency(clips, settings, result)
    large = [clip for clip in clips if _size(clip)[0] >= 640] or clips
    sizes = " and ".join(sorted({"{}x{}".format(*_size(clip)) for clip in large}))
    if settings.wants("live"):
        for mood in (SMALL, FULL, *([f"{FULL}, {IN_INT8}"] if int8 else [])):
            for index in range(settings.runs):
                found = _live(large, 4, 15, max(15.0, settings.seconds), mood)
                title = f"four cameras, {sizes}, 15 frames/s each, {mood}"
                result.add(title, run=str(index + 1), **_live_row(found, 4))
    if settings.wants("growth"):
        ways = [("cameras at 5 frames/s", SMALL, APART), (f"the same, {WITH_CAMERAS}", SMALL, TOGETHER)]
        if int8:
            ways.append((f"the same, and {IN_INT8}", f"{SMALL}, {IN_INT8}", TOGETHER))
        for title, mood, place in ways:
            for count in (1, 2, 4, 8, 16):
                found = _live(large, count, 5, max(10.0, settings.seconds), mood, place)
                result.add(title, cameras=str(count), **_live_row(found, count))
    if settings.wants("overload"):
        for mood in (FULL, f"{FULL}, {UNSPARED}"):
            for count in (8, 16):
                found = _live(large, count, 15, max(20.0, settings.seconds), mood)
                row = {"cameras": str(count), **_live_row(found, count), **_lost_row(found, 15)}
                result.add(f"too much: {sizes}, 15 frames/s each, {mood}", **row)
    if not int8 and (settings.wants("live") or settings.wants("growth")):
        result.skipped.append(f"{IN_INT8}: not on this CPU, or neither openvino nor onnxruntime is installed")
    result.notes += [
        f"The network has {SMALL} where nothing else is named.",
        "Several runs: efficiency without the peer (the median), and live (each of them). All else ran once.",
        "Latency: from the frame's capture time to a subscriber in another process holding its event.",
        "Memory: proportional set size of the workers and their spawner, the frame rings included.",
    ]
    return result


def _size(clip: Path) -> tuple[int, int]:
    """Width and height."""
    video = cv2.VideoCapture(str(clip))
    return int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))


# (a) --------------------------------------------------------------------------------------------------------


def _efficiency(clips: list[Path], settings: Settings, result: Result) -> None:
    title = "efficiency: every frame of the clips, all cores"
    cores = len(os.sched_getaffinity(0))
    # Each clip once per core, as each worker of the plain loop has all clips: the same work in the same mixture.
    played = {f"camera{index}": clips[index % len(clips)] for index in range(cores * len(clips))}
    sources = "\n".join(f"  {name}: {{type: capture, loop: true}}" for name in played)

    def graph(replicas: int, place: str = APART) -> str:
        threads = 1 if replicas > 1 else 0
        return (
            f"nodes:\n{sources}\n  faces: {{type: haardetect, {place}}}\n"
            f"  mood: {{type: emotion, {SMALL}, replicas: {replicas}, threads: {threads}}}\n"
            "  sink: {type: fakesink}\n"
            f"links:\n  - [{', '.join(played)}] ! faces ! mood ! sink\n"
        )

    def speed(text: str) -> float:
        return measure(text, "lossless", settings.seconds, WARM_UP, clips=played).fps

    ways: dict[str, Callable[[], float]] = {
        f"plain loop, {cores} workers": lambda: _plain_loop(clips, settings.seconds),
        f"emograph, {cores} classifiers": lambda: speed(graph(cores)),
        f"the same, {WITH_CAMERAS}": lambda: speed(graph(cores, TOGETHER)),
        "emograph, one classifier": lambda: speed(graph(1)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(settings.runs):
        for name, way in ways.items():
            speeds[name].append(way())
    base = middle(next(iter(speeds.values())))
    for name, found in speeds.items():
        row: Row = {"contestant": name, "frames/s": middle(found), "x plain loop": middle(found) / base}
        result.add(title, **row)
    try:
        peer = float(ask_fer(settings.python, "fer_loop.py", settings.seconds, *clips).split()[-1])
    except MissingPeer as missing:
        result.skipped.append(str(missing))
    else:
        result.add(title, contestant="fer (package), one process", **{"frames/s": peer, "x plain loop": peer / base})


def _plain_loop(clips: list[Path], seconds: float) -> float:
    """Frames/s of one worker per core, each taking a frame of every clip in turn."""
    cores = len(os.sched_getaffinity(0))
    ready, count = CONTEXT.Barrier(cores + 1), CONTEXT.Value("q", 0)
    with started(_worker, [(clips, ready, count)] * cores) as workers:
        try:
            ready.wait(START_LIMIT)
        except threading.BrokenBarrierError:
            raise UserError("the workers of the plain loop did not start") from None
        time.sleep(WARM_UP)
        start, before = time.monotonic(), count.value
        time.sleep(seconds)
        speed = (count.value - before) / (time.monotonic() - start)
        if not all(worker.is_alive() for worker in workers):
            raise UserError("a worker of the plain loop died, so its speed would be that of fewer cores")
    return speed


def _worker(clips: list[Path], ready: Any, count: Any) -> None:
    quieten()
    cv2.setNumThreads(1)
    faces, mood = HaarDetect("faces"), Emotion("mood", weights=WEIGHTS)
    for node in (faces, mood):
        node.lossless = True
        node.open()
    streams = [_Stream(clip) for clip in clips]
    ready.wait()
    for stream in cycle(streams):
        buffer = stream.next()
        faces.transform(buffer)
        mood.transform_batch([buffer])
        with count.get_lock():
            count.value += 1
        if orphaned():
            return


class _Stream:
    """A clip that starts over when it ends, as `capture loop=true` plays it."""

    def __init__(self, clip: Path) -> None:
        self._clip = clip
        self._video = cv2.VideoCapture(str(clip))
        self._fps = self._video.get(cv2.CAP_PROP_FPS) or 30.0
        self._sequence = 0

    def next(self) -> Buffer:
        frame = self._video.read()[1]
        if frame is None:
            self._video = cv2.VideoCapture(str(self._clip))
            frame = self._video.read()[1]
        pts = round(self._sequence * 1e9 / self._fps)
        buffer = Buffer(self._clip.stem, self._sequence, pts=pts, shape=frame.shape, _frame=frame)
        self._sequence += 1
        return buffer


# (b) and (c) ------------------------------------------------------------------------------------------------


def _live(clips: list[Path], cameras: int, fps: int, seconds: float, mood: str = SMALL, place: str = APART) -> Measured:
    """mood: properties of `emotion`."""
    played = {f"camera{index}": clips[index % len(clips)] for index in range(cameras)}
    sources = "\n".join(
        # Not all at the same place of the same clip, so that they do not do the same work at the same moment.
        f"  {name}: {{type: capture, loop: true, fps: {fps}, start: {0.1 * (index // len(clips)):.1f}}}"
        for index, name in enumerate(played)
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    graph = (
        f"nodes:\n{sources}\n  faces: {{type: haardetect, {place}}}\n"
        f"  mood: {{type: emotion, {mood}}}\n"
        f"  draw: {{type: overlay}}\n  sink: {{type: fakesink}}\n"
        f"  events: {{type: publish, endpoint: '{endpoint}'}}\n"
        f"links:\n  - [{', '.join(played)}] ! faces ! mood\n  - mood ! draw ! sink\n  - mood ! events\n"
    )
    return measure(graph, "live", seconds, WARM_UP, events=endpoint, clips=played)


def _live_row(found: Measured, cameras: int) -> Row:
    latencies = [1e3 * value for value in found.latencies]
    return {
        "frames/s": found.fps, "dropped": sum(found.dropped.values()), "p50 ms": percentile(latencies, 50),
        "p95 ms": percentile(latencies, 95), "cores in use": found.cpu_seconds / found.seconds,
        "CPU ms per frame": 1e3 * found.cpu_seconds / found.frames,
        "memory MB": found.pss / 1e6, "memory MB per camera": found.pss / 1e6 / cameras,
    }  # fmt: skip


def _lost_row(found: Measured, fps: int) -> Row:
    """Of the frames that a camera had, the share that did not come through: the luckiest camera's and the other's."""
    lost = [1 - delivered / (fps * found.seconds) for delivered in found.delivered.values()]
    return {"lost by a camera: least": f"{max(0.0, min(lost)):.0%}", "most": f"{max(0.0, *lost):.0%}"}
