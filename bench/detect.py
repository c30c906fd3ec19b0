"""Face detection on real clips: frames/s, and who is found, against the plain cascade on every full frame.

A box counts as a face where the plain cascade is sure of one (more than 8 windows agree) at that place within half a
second; whatever else is reported, by whomever, is a false alarm. What `haardetect` has to find is every face that the
plain cascade found with its usual 5.
"""

from __future__ import annotations

import multiprocessing
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.clips import find_clips
from bench.record import Result, Row, Settings, middle
from nodes.facedetector import CASCADES
from nodes.haardetect import HaarDetect
from nodes.tracker import iou
from pipeline import Buffer, Harness, UserError

CASCADE = Path(cv2.__file__).parent / "data" / CASCADES["frontal"]
SURE = 8
START_LIMIT = 300.0
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
    faces: Boxes
    counts: list[np.ndarray]

    def is_face(self, index: int, box: Any) -> bool:
        """Whether the plain cascade is sure of a face at that place about then."""
        reach = round(NEAR * self.fps)
        for near in range(max(0, index - reach), min(len(self.frames), index + reach + 1)):
            for other, count in zip(self.faces[near], self.counts[near], strict=True):
                if count > SURE and iou(box, other) >= 0.3:
                    return True
        return False


WAYS: dict[str, tuple[Callable[[list[Clip], Path], float], int]] = {
    "plain cascade, one core": (lambda clips, _: _time_plain(clips, 1), 1),
    "plain cascade, both cores": (lambda clips, _: _time_plain(clips, 2), 2),
    "haardetect, one camera": (lambda clips, _: _time_haardetect(clips), 1),
    "haardetect, two cameras": (lambda _, videos: _time_two(videos), 2),
    "haardetect, full_scan_interval 0": (lambda clips, _: _time_haardetect(clips, full_scan_interval=0), 1),
}
"""Contestant -> how to measure its seconds, of clips in memory and their folder, and the cores it has."""
GSTREAMER = "GStreamer facedetect"


def contestants(settings: Settings) -> list[str]:
    return [*WAYS, GSTREAMER]


def run(settings: Settings) -> Result:
    """Every clip by every contestant; a table of speed, one of what was found, one per clip."""
    result = Result("detect")
    clips = [_read(path) for path in find_clips(settings.videos)]
    frames = sum(len(clip.frames) for clip in clips)
    ways = {name: way for name, way in WAYS.items() if settings.wants(name)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(settings.runs):
        for name, (measure, _) in ways.items():
            seconds[name].append(measure(clips, settings.videos))
    rows = {
        name: {"contestant": name, "cores": cores, "frames/s": frames / middle(seconds[name])}
        for name, (_, cores) in ways.items()
    }
    if settings.wants(GSTREAMER):
        _add_gstreamer(rows, clips, settings, result)
    base = {1: rows.get("plain cascade, one core"), 2: rows.get("plain cascade, both cores")}
    for row in rows.values():
        against = base[int(row["cores"])]
        row["x plain, same cores"] = row["frames/s"] / against["frames/s"] if against else None
        result.add("speed", **row)
    _accuracy(clips, result)
    result.notes.append(
        "Decoded frames in memory; grey conversion, tracking and cutting of the patches are inside haardetect's time. "
        "two cameras: two processes, each all clips; frames/s of both together."
    )
    return result


def _read(path: Path) -> Clip:
    video = cv2.VideoCapture(str(path))
    fps = video.get(cv2.CAP_PROP_FPS) or 30.0
    frames = []
    while (frame := video.read()[1]) is not None:
        frames.append(frame)
    clip = Clip(path.name, fps, frames, [], [])
    plain = _plain()
    for frame in frames:
        boxes, counts = plain.detectMultiScale2(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 1.1, 5, minSize=(30, 30))
        clip.faces.append(np.reshape(boxes, (-1, 4)))
        clip.counts.append(np.ravel(counts))
    return clip


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
    with Harness(node):
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
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(3), context.Event()
    times: Any = context.Queue()
    processes = [context.Process(target=_one_of_two, args=(videos, ready, go, times)) for _ in range(2)]
    for process in processes:
        process.start()
    try:
        ready.wait(START_LIMIT)
        go.set()
        longest = max(times.get(timeout=START_LIMIT) for _ in processes)
    except (threading.BrokenBarrierError, queue.Empty):
        raise UserError("the two processes that detect side by side did not come to an end") from None
    for process in processes:
        process.join()
    return longest / 2


def _one_of_two(videos: Path, ready: Any, go: Any, times: Any) -> None:
    clips = [_read(path) for path in find_clips(videos)]
    ready.wait()
    go.wait()
    times.put(_time_haardetect(clips))


def _add_gstreamer(rows: dict[str, Row], clips: list[Clip], settings: Settings, result: Result) -> None:
    """GStreamer's facedetect, its nose, mouth and eyes profiles switched off, over the same decoded frames."""
    launch = shutil.which("gst-launch-1.0")
    if launch is None or subprocess.run(["gst-inspect-1.0", "facedetect"], capture_output=True, check=False).returncode:
        result.skipped.append("GStreamer facedetect: apt-get install gstreamer1.0-tools gstreamer1.0-opencv")
        return
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips:
            height, width, _ = clip.frames[0].shape
            raw = Path(folder, "raw")
            with raw.open("wb") as file:
                for frame in clip.frames:
                    file.write(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).tobytes())
            parse = f"rawvideoparse format=rgb width={width} height={height} framerate=30/1"
            detect = (
                f"facedetect profile={CASCADE} nose-profile= mouth-profile= eyes-profile= display=false "
                "scale-factor=1.1 min-neighbors=5 min-size-width=30 min-size-height=30"
            )
            command = f"{launch} filesrc location={raw} blocksize={width * height * 3} ! {parse} ! {detect} ! fakesink"
            told = subprocess.run(command.split(), capture_output=True, text=True, timeout=600, check=False)
            took = re.search(r"Execution ended after (\d+):(\d+):([\d.]+)", told.stdout)
            if took is None:
                result.skipped.append(f"GStreamer facedetect: {(told.stderr.strip() or 'no word').splitlines()[-1]}")
                return
            seconds += int(took[1]) * 3600 + int(took[2]) * 60 + float(took[3])
    frames = sum(len(clip.frames) for clip in clips)
    rows[GSTREAMER] = {"contestant": GSTREAMER, "cores": 2, "frames/s": frames / seconds}


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
