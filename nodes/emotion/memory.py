"""What the `emotion` node remembers of each face of one stream: its smoothed probabilities, and its last look.

Time is the stream's own (PTS, ns), so the frame rate does not change a result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

FORGET_AFTER_NS = 10_000_000_000
"""A track that was not seen for so long is forgotten; detectors never use an id again."""

_COARSE = 12
"""Side in pixels of the pictures compared: noise and a box that shakes by a pixel are gone in them."""


@dataclass(slots=True)
class Answer:
    """What the network says of one face: raw probabilities, float32 (classes,), once its batch was computed."""

    raw: np.ndarray | None = None


@dataclass(slots=True)
class _Track:
    """`smoothed` was reported last, at `pts`; `answer` is of the face that looked like `look`, at `asked`."""

    pts: int
    smoothed: np.ndarray | None = None
    answer: Answer | None = None
    look: np.ndarray | None = None
    asked: int = 0


class Memory:
    """The tracks of one stream.

    smoothing: time constant in seconds, 0 for none. change: mean absolute difference in grey levels (0..255) above
    which a face counts as changed.
    """

    def __init__(self, smoothing: float, change: float = 0.0) -> None:
        self._smoothing, self._change = smoothing, change
        self._tracks: dict[int, _Track] = {}

    def recall(self, track: int, pts: int, patch: np.ndarray, interval: float) -> Answer | None:
        """The track's last answer, if it is younger than `interval` seconds and may stand for this patch, uint8 (S, S),
        too."""
        known = self._tracks.get(track)
        if known is None or known.answer is None or known.look is None:
            return None
        if not 0 <= pts - known.asked < round(interval * 1e9):
            return None
        return known.answer if difference(coarse(patch), known.look) <= self._change else None

    def ask(self, track: int, pts: int, patch: np.ndarray, interval: float) -> Answer:
        """A new answer for this patch, to be filled by whoever runs the network; kept where `interval` is not 0."""
        answer = Answer()
        if interval:
            known = self._track(track, pts)
            known.answer, known.look, known.asked = answer, coarse(patch), pts
        return answer

    def forget_answers(self) -> None:
        """The network failed: what was asked stays without an answer."""
        for track in self._tracks.values():
            track.answer = None

    def smooth(self, track: int, pts: int, raw: np.ndarray) -> np.ndarray:
        """Exponential smoothing over the stream's time: raw -> smoothed, both float32 (classes,)."""
        if self._smoothing <= 0:
            return raw
        known = self._track(track, pts)
        if known.smoothed is None:
            known.smoothed = raw.copy()
        else:
            weight = 1 - math.exp(-max(0, pts - known.pts) / 1e9 / self._smoothing)
            known.smoothed += weight * (raw - known.smoothed)
        known.pts = pts
        return known.smoothed

    def _track(self, track: int, pts: int) -> _Track:
        known = self._tracks.get(track)
        if known is None:
            for old in [t for t, seen in self._tracks.items() if pts - max(seen.pts, seen.asked) > FORGET_AFTER_NS]:
                del self._tracks[old]
            known = self._tracks[track] = _Track(pts)
        return known


def coarse(patch: np.ndarray) -> np.ndarray:
    """uint8 (S, S) -> its block means, float32 (12, 12)."""
    return cv2.resize(patch, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA).astype(np.float32)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two coarse pictures, in grey levels."""
    return float(np.abs(a - b).mean())
