"""Face detection on real clips: frames/s, and who is found, against the plain cascade on every full frame.

A box counts as a face where the plain cascade is sure of one (more than 8 windows agree) at that place within half a
second; whatever else is reported, by whomever, is a false alarm. What `haardetect` has to find is every face that the
plain cascade found with its usual 5.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from bench.children import CONTEXT, orphaned, started
from bench.clips import find_clips
from bench.peers import MissingPeer
from bench.record import Result, Row, Settings, middle
from nodes.facedetector import CASCADES
from nodes.haardetect import HaarDetect
from nodes.tracker import iou
from pipeline import Buffer, Harness, UserError

CASCADE = Path(cv2.__file__).parent / "data" / CASCADES["frontal"]
SURE = 8
NEAR = 0.5
"""Seconds around a frame in which a sure face there speaks for a doubtful one."""
Boxes = list[np.ndarray]
"""A list of (N, 4) arrays, x y w h in pixels: one of each frame."""


@dataclass
class Clip:
    """A clip in memory. faces: the plain cascade's in each frame; counts: how many windows agreed on each."""

    name: str
    fps: float
    frames: list[np.ndarray]
    faces: Boxes = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)

    def is_face(self, index: int, box: Any) -> bool:
        """Whether the plain cascade is sure of a face at that place about then."""
        reach = round(NEAR * self.fps)
        for near in range(max(0, index - reach), min(len(self.frames), index + reach + 1)):
            for other, count in zip(self.faces[near], self.counts[near], strict=True):
                if count > SURE and iou(box, other) >= 0.3:
                    return True
        return False


Way = Callable[[list[Clip], Path], float]
"""How to measure a contestant's seconds, of clips in memory and their folder. Raises MissingPeer."""


TWO = "haardetect, two cameras"
GSTREAMER = "GStreamer facedetect"
WAYS: dict[str, tuple[Way, int]] = {
    "plain cascade, one core": (lambda clips, _: _time_plain(clips, 1), 1),
    "plain cascade, both cores": (lambda clips, _: _time_plain(clips, 2), 2),
    "haardetect, one camera": (lambda clips, _: _time_haardetect(clips), 1),
    TWO: (lambda _, videos: _time_two(videos), 2),
    "haardetect, full_scan_interval 0": (lambda clips, _: _time_haardetect(clips, full_scan_interval=0), 1),
    GSTREAMER: (lambda clips, _: _time_gstreamer(clips), 2),
}
"""Contestant -> how it is measured, and the cores it has."""


def contestants(settings: Settings) -> list[str]:
    return list(WAYS)


def run(settings: Settings) -> Result:
    """Every clip by every contestant; a table of speed, one of what was found, one per clip."""
    result = Result("detect")
    paths = find_clips(settings.videos)
    _check_memory(paths, copies=3 if settings.wants(TWO) else 1)
    clips = [_decode(path) for path in paths]
    for clip in clips:
        _judge(clip)
    frames = sum(len(clip.frames) for clip in clips)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS if settings.wants(name)}
    for _ in range(settings.runs):
        for name in tuple(seconds):
            try:
                seconds[name].append(WAYS[name][0](clips, settings.videos))
            except MissingPeer as missing:
                result.skipped.append(f"{name}: {missing}")
                del seconds[name]
    rates = {name: frames / middle(taken) for name, taken in seconds.items()}
    plain = {1: rates.get("plain cascade, one core"), 2: rates.get("plain cascade, both cores")}
    for name, rate in rates.items():
        cores = WAYS[name][1]
        ratio = rate / base if (base := plain[cores]) else None
        result.add("speed", contestant=name, cores=cores, **{"frames/s": rate, "x plain, same cores": ratio})
    _accuracy(clips, result)
    result.notes.append(
        "Decoded frames in memory; grey conversion, tracking and cutting of the patches are inside haardetect's time. "
        "two cameras: two processes, each all clips; frames/s of both together."
    )
    return result


def _check_memory(paths: list[Path], copies: int) -> None:
    """UserError where the decoded frames would not fit into memory, by what the headers say of them."""
    wanted = 0
    for path in paths:
        video = cv2.VideoCapture(str(path))
        sizes = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        wanted += round(3 * copies * np.prod([max(0.0, video.get(size)) for size in sizes]))
    there = psutil.virtual_memory().available
    if wanted > 0.8 * there:
        raise UserError(
            f"the clips' frames would take {wanted / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are free: "
            "give shorter clips, --videos DIR"
        )


def _decode(path: Path) -> Clip:
    video = cv2.VideoCapture(str(path))
    clip = Clip(path.name, video.get(cv2.CAP_PROP_FPS) or 30.0, [])
    while (frame := video.read()[1]) is not None:
        clip.frames.append(frame)
    return clip


def _judge(clip: Clip) -> None:
    """What the plain cascade says of each frame."""
    plain = _plain()
    for frame in clip.frames:
        boxes, counts = plain.detectMultiScale2(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 1.1, 5, minSize=(30, 30))
        clip.faces.append(np.reshape(boxes, (-1, 4)))
        clip.counts.append(np.ravel(counts))


def _plain() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(CASCADE))


# Speed ------------------------------------------------------------------------------------------------------


def _time_plain(clips: list[Clip], threads: int) -> float:
    """What a user writes first: the cascade over every frame, minimum size 30."""
    cv2.setNumThreads(threads)
    plain = _plain()
    start = time.perf_counter()
    for clip in clips:
        for frame in clip.frames:
            plain.detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 1.1, 5, minSize=(30, 30))
    return time.perf_counter() - start


def _detect(clip: Clip, **properties: Any) -> Boxes:
    """haardetect as a graph would run it."""
    found: Boxes = []
    node = HaarDetect("faces", **properties)
    with Harness(node, lossless=True):
        for index, frame in enumerate(clip.frames):
            buffer = Buffer(clip.name, index, pts=round(index * 1e9 / clip.fps), shape=frame.shape, _frame=frame)
            node.transform(buffer)
            found.append(np.array([region.box for region in buffer.regions]).reshape(-1, 4))
    return found


def _time_haardetect(clips: list[Clip], **properties: Any) -> float:
    cv2.setNumThreads(1)  # as in a worker
    start = time.perf_counter()
    for clip in clips:
        _detect(clip, **properties)
    return time.perf_counter() - start


def _time_two(videos: Path) -> float:
    """Two processes at once; the time that one camera's frames take when both cores are busy, halved."""
    go, told = CONTEXT.Event(), CONTEXT.Queue()
    with started(_one_of_two, [(videos, go, told)] * 2) as processes:
        for _ in processes:
            _next(told, processes)
        go.set()
        return max(_next(told, processes) for _ in processes) / 2


def _next(told: Any, processes: list[SpawnProcess]) -> float:
    """What one of the processes says next. UserError if one died."""
    while True:
        try:
            return told.get(timeout=1.0)
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise UserError("a process that detects beside another one died") from None


def _one_of_two(videos: Path, go: Any, told: Any) -> None:
    """Says 0 when it is ready, then the seconds that it took."""
    clips = [_decode(path) for path in find_clips(videos)]
    told.put(0.0)
    while not go.wait(1.0):
        if orphaned():
            return
    told.put(_time_haardetect(clips))


def _time_gstreamer(clips: list[Clip]) -> float:
    """GStreamer's facedetect, its nose, mouth and eyes profiles switched off, over the same decoded frames."""
    launch = shutil.which("gst-launch-1.0")
    if launch is None or subprocess.run(["gst-inspect-1.0", "facedetect"], capture_output=True, check=False).returncode:
        raise MissingPeer("apt-get install gstreamer1.0-tools gstreamer1.0-opencv")
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        for clip in clips:
            height, width, _ = clip.frames[0].shape
            with raw.open("wb") as file:
                for frame in clip.frames:
                    file.write(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).tobytes())
            words = [
                launch, "filesrc", f"location={raw}", f"blocksize={width * height * 3}",
                "!", "rawvideoparse", "format=rgb", f"width={width}", f"height={height}", "framerate=30/1",
                "!", "facedetect", f"profile={CASCADE}", "nose-profile=", "mouth-profile=", "eyes-profile=",
                "display=false", "scale-factor=1.1", "min-neighbors=5", "min-size-width=30", "min-size-height=30",
                "!", "fakesink",
            ]  # fmt: skip
            told = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=_on_two_cores)
            took = re.search(r"Execution ended after (\d+):(\d+):([\d.]+)", told.stdout)
            if took is None:
                raise MissingPeer((told.stderr.strip() or "no word").splitlines()[-1])
            seconds += int(took[1]) * 3600 + int(took[2]) * 60 + float(took[3])
    return seconds


def _on_two_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


# Who is found -----------------------------------------------------------------------------------------------


def _accuracy(clips: list[Clip], result: Result) -> None:
    """Each clip: the plain cascade's faces that haardetect finds too (IoU >= .5), and the false alarms of both."""
    total: dict[str, int] = {"faces": 0, "found": 0, "false": 0, "false_plain": 0}
    cv2.setNumThreads(1)
    for clip in clips:
        count = dict.fromkeys(total, 0)
        for index, (own, plain) in enumerate(zip(_detect(clip), clip.faces, strict=True)):
            for box in plain:
                if clip.is_face(index, box):
                    count["faces"] += 1
                    count["found"] += any(iou(box, other) >= 0.5 for other in own)
                else:
                    count["false_plain"] += 1
            count["false"] += sum(not clip.is_face(index, box) for box in own)
        result.add("who is found", **_found_row(clip.name, count))
        total = {key: total[key] + count[key] for key in total}
    result.add("who is found", **_found_row("all", total))


def _found_row(name: str, count: dict[str, int]) -> Row:
    return {
        "clip": name, "faces of the plain cascade": count["faces"], "found": count["found"],
        "share": f"{count['found'] / max(1, count['faces']):.1%}", "false alarms": count["false"],
        "false alarms of the plain cascade": count["false_plain"],
    }  # fmt: skip
