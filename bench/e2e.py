"""Whole graphs on real faces: what the framework costs, four live cameras, how it grows, and what is too much.

(a) Every frame of the clips, lossless, against the same node objects called in a plain loop by one worker per core.
(b) Four cameras live, with detection, classification, overlay and events, and a subscriber that holds the watch.
(c) One to sixteen cameras at five frames/s: processor, memory and latency per camera.
(d) Cameras at 15 frames/s, more than the machine can do: what is lost, and by whom.

The network is resnet9-s, the one for machines without a GPU; (b) also with resnet9, the default, and (d) only with it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2

from bench.clips import find_clips
from bench.graphs import Measured, measure
from bench.peers import HOW_TO_GET_FER
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
PEER = Path(__file__).parent / "peers" / "fer_loop.py"


def contestants(settings: Settings) -> list[str]:
    return ["efficiency", "live", "growth", "overload"]


def run(settings: Settings) -> Result:
    """The four parts; `--only efficiency`, `--only live`, `--only growth`, `--only overload` for one of them."""
    result = Result("e2e")
    int8 = int8_can_be_had("auto")
    clips = find_clips(settings.videos)
    if settings.wants("efficiency"):
        _efficiency(clips, settings, result)
    large = [clip for clip in clips if _width(clip) >= 640] or clips
    if settings.wants("live"):
        for mood in (SMALL, FULL, *([f"{FULL}, {IN_INT8}"] if int8 else [])):
            for index in range(settings.runs):
                found = _live(large, 4, 15, max(15.0, settings.seconds), mood)
                title = f"four cameras, 640x480, 15 frames/s each, {mood}"
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
                lost = [1 - done / (15 * found.seconds) for done in found.delivered.values()]
                row = {"cameras": str(count), **_live_row(found, count)}
                row |= {"lost by a camera: least": f"{max(0.0, min(lost)):.0%}", "most": f"{max(lost):.0%}"}
                result.add(f"too much: 640x480, 15 frames/s each, {mood}", **row)
    if not int8 and (settings.wants("live") or settings.wants("growth")):
        result.skipped.append(f"{IN_INT8}: not on this CPU, or neither openvino nor onnxruntime is installed")
    result.notes += [
        f"The network has {SMALL} where nothing else is named.",
        "Latency: from the frame's capture time to a subscriber in another process holding its event.",
        "Memory: proportional set size of the workers and their spawner, the frame rings included.",
    ]
    return result


def _width(clip: Path) -> int:
    return int(cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FRAME_WIDTH))


# (a) --------------------------------------------------------------------------------------------------------


def _efficiency(clips: list[Path], settings: Settings, result: Result) -> None:
    title = "efficiency: every frame of the clips, all cores"
    cores = len(os.sched_getaffinity(0))
    # Each clip once per core, as each worker of the plain loop has all clips: the same work in the same mixture.
    names = [f"camera{index}" for index in range(cores * len(clips))]
    sources = "\n".join(
        f"  {name}: {{type: capture, uri: '{clips[index % len(clips)]}', loop: true}}"
        for index, name in enumerate(names)
    )

    def graph(replicas: int, place: str = APART) -> str:
        threads = 1 if replicas > 1 else 0
        return (
            f"nodes:\n{sources}\n  faces: {{type: haardetect, {place}}}\n"
            f"  mood: {{type: emotion, {SMALL}, replicas: {replicas}, threads: {threads}}}\n"
            "  sink: {type: fakesink}\n"
            f"links:\n  - [{', '.join(names)}] ! faces ! mood ! sink\n"
        )

    def speed(text: str) -> float:
        return measure(text, "lossless", settings.seconds, WARM_UP).fps

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
    peer = _fer(clips, settings, result)
    if peer is not None:
        result.add(title, contestant="fer (package), one process", **{"frames/s": peer, "x plain loop": peer / base})


def _plain_loop(clips: list[Path], seconds: float) -> float:
    """Frames/s of one worker per core, each taking a frame of every clip in turn."""
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    ready, count = context.Barrier(cores + 1), context.Value("q", 0)
    workers = [context.Process(target=_worker, args=(clips, ready, count), daemon=True) for _ in range(cores)]
    for worker in workers:
        worker.start()
    try:
        ready.wait(START_LIMIT)
        time.sleep(WARM_UP)
        start, before = time.monotonic(), count.value
        time.sleep(seconds)
        speed = (count.value - before) / (time.monotonic() - start)
        if not all(worker.is_alive() for worker in workers):
            raise UserError("a worker of the plain loop died, so its speed would be that of fewer cores")
    except threading.BrokenBarrierError:
        raise UserError("the workers of the plain loop did not start") from None
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return speed


def _worker(clips: list[Path], ready: Any, count: Any) -> None:
    quieten()
    cv2.setNumThreads(1)
    faces, mood = HaarDetect("faces"), Emotion("mood", weights=WEIGHTS)
    for node in (faces, mood):
        node.open()
    streams = [_Stream(clip) for clip in clips]
    ready.wait()
    for stream in cycle(streams):
        buffer = stream.next()
        faces.transform(buffer)
        mood.transform_batch([buffer])
        with count.get_lock():
            count.value += 1


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


def _fer(clips: list[Path], settings: Settings, result: Result) -> float | None:
    """Frames/s of the `fer` package, frame by frame, as its documentation shows it."""
    command = [settings.python, str(PEER), str(settings.seconds), *map(str, clips)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        return float(told.stdout.split()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        result.skipped.append(HOW_TO_GET_FER)
        return None


# (b) and (c) ------------------------------------------------------------------------------------------------


def _live(clips: list[Path], cameras: int, fps: int, seconds: float, mood: str = SMALL, place: str = APART) -> Measured:
    """mood: properties of `emotion`."""
    names = [f"camera{index}" for index in range(cameras)]
    sources = "\n".join(
        # Not all at the same place of the same clip, so that they do not do the same work at the same moment.
        f"  {name}: {{type: capture, uri: '{clips[index % len(clips)]}', loop: true, fps: {fps}, "
        f"start: {0.1 * (index // len(clips)):.1f}}}"
        for index, name in enumerate(names)
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    graph = (
        f"nodes:\n{sources}\n  faces: {{type: haardetect, {place}}}\n"
        f"  mood: {{type: emotion, {mood}}}\n"
        f"  draw: {{type: overlay}}\n  sink: {{type: fakesink}}\n"
        f"  events: {{type: publish, endpoint: '{endpoint}'}}\n"
        f"links:\n  - [{', '.join(names)}] ! faces ! mood\n  - mood ! draw ! sink\n  - mood ! events\n"
    )
    return measure(graph, "live", seconds, WARM_UP, events=endpoint)


def _live_row(found: Measured, cameras: int) -> Row:
    latencies = [1e3 * value for value in found.latencies]
    return {
        "frames/s": found.fps, "dropped": sum(found.dropped.values()), "p50 ms": percentile(latencies, 50),
        "p95 ms": percentile(latencies, 95), "cores in use": found.cpu_seconds / found.seconds,
        "CPU ms per frame": 1e3 * found.cpu_seconds / found.frames,
        "memory MB": found.pss / 1e6, "memory MB per camera": found.pss / 1e6 / cameras,
    }  # fmt: skip
