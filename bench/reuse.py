"""What `reclassify_interval` of the emotion node saves on real clips, and what it changes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.clips import find_clips
from bench.record import Result, Settings
from nodes.emotion.backends import load
from nodes.emotion.memory import Memory
from nodes.haardetect import HaarDetect
from pipeline import Harness, UserError

INTERVALS = (0.1, 0.2, 0.5)
CHANGES = (2, 4, 8)
SMOOTHING, THRESHOLD = 0.4, 0.4
"""The node's defaults."""

Track = list[tuple[int, np.ndarray, np.ndarray]]
"""PTS in ns, patch uint8 (S, S), raw probabilities float32 (classes,), frame by frame."""


def measure(result: Result, settings: Settings, weights: str) -> None:
    """One row for each interval and change, against every frame classified."""
    try:
        clips = find_clips(settings.videos)
    except UserError as error:
        result.skipped.append(f"reclassify_interval: {error}")
        return
    network = load(weights, device="cpu")
    tracks = [track for clip in clips for track in _tracks(clip, network)]
    frames = sum(map(len, tracks))
    if not frames:
        result.skipped.append(f"reclassify_interval: no faces are found in {settings.videos}; give --videos FOLDER")
        return
    for interval in INTERVALS:
        for change in CHANGES:
            row = _compare(tracks, interval, change)
            result.add(f"reclassify_interval on {len(clips)} clips, {frames} faces", **row)


def _tracks(clip: Path, network: Any) -> list[Track]:
    """The tracked faces of a clip, each frame of them classified."""
    capture = cv2.VideoCapture(str(clip))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    found: dict[int, Track] = defaultdict(list)
    with Harness(HaarDetect(), lossless=True) as harness:
        number = 0
        while (read := capture.read())[0]:
            pts = round(number / rate * 1e9)
            number += 1
            for buffer in harness.push(read[1], pts=pts):
                for region in buffer.regions:
                    if region.track is not None and region.patch is not None:
                        found[region.track].append((pts, region.patch, network(region.patch[None])[0]))
    capture.release()
    return list(found.values())


def _compare(tracks: list[Track], interval: float, change: float) -> dict[str, Any]:
    asked, labels_differ, apart = 0, 0, []
    for track in tracks:
        every, some = Memory(SMOOTHING), Memory(SMOOTHING, change)
        for pts, patch, raw in track:
            answer = some.recall(1, pts, patch, interval)
            if answer is None:
                asked += 1
                answer = some.ask(1, pts, patch, interval)
                answer.raw = raw
            assert answer.raw is not None
            exact, near = every.smooth(1, pts, raw), some.smooth(1, pts, answer.raw)
            apart.append(float(np.abs(exact - near).max()))
            labels_differ += _label(exact) != _label(near)
    return {
        "reclassify_interval": f"{interval * 1e3:.0f}ms", "reclassify_change": change,
        "faces classified": f"{asked / len(apart):.0%}", "mean difference": f"{np.mean(apart):.3f}",
        "95th percentile": f"{np.percentile(apart, 95):.3f}", "labels that differ": f"{labels_differ / len(apart):.1%}",
    }  # fmt: skip


def _label(smoothed: np.ndarray) -> int:
    """The class, -1 for 'uncertain'."""
    return int(smoothed.argmax()) if smoothed.max() >= THRESHOLD else -1
