"""Gives each face a stable id from frame to frame: the memory of `emograph launch "testsrc ! haardetect ! fakesink"`.

One `Tracker` follows the faces of one stream. A found box belongs to the track that it overlaps most (IoU) where
the track is expected. A face that is missed is held there for a while, so that a blink of the detector neither
ends the track nor leaves a hole. A face is believed once it was found again, so that a false alarm of a single
frame never shows. Boxes are smoothed lightly, so that the picture cut from them does not shake.

Time is the stream's own, in seconds: a frame that was dropped is a longer step, nothing worse. Where the frames are
further apart than a missed face is held, each is still looked for in the next one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nodes.pace import Pace

REACH = 0.25
"""Boxes are grown by this fraction of their side on each side before they are compared: faces move."""

MATCH = 0.3
"""IoU of the grown boxes from which a found face may belong to a track: a jump of 0.8 of its side."""

NEXT = 1.5
"""Usual steps from frame to frame within which the next frame comes."""

COAST = 0.1
"""Seconds that a missed face goes on as it moved; then it stands still, for nobody knows better."""


class OneEuro:
    """Low-pass filter of a box (centre x, centre y, width, height): steady at rest, quick behind fast motion.

    min_cutoff: Hz at rest. beta: Hz more for each side length per second of speed, so that the size of the picture
    plays no part. slope_cutoff: Hz, for the speed itself. value and slope: float64 (4,), pixels and pixels/s.

    Method: G. Casiez, N. Roussel and D. Vogel, 1 euro filter, CHI 2012.
    """

    def __init__(
        self, value: np.ndarray, min_cutoff: float = 2.0, beta: float = 10.0, slope_cutoff: float = 3.0
    ) -> None:
        self.value = value
        self.slope = np.zeros_like(value)
        self.min_cutoff = min_cutoff
        self.beta = beta
        self.slope_cutoff = slope_cutoff

    def update(self, value: np.ndarray, step: float) -> None:
        """`value` was measured `step` seconds after the one before."""
        if step <= 0:
            self.value = value
            return
        slope = (value - self.value) / step
        self.slope = self.slope + _gain(self.slope_cutoff, step) * (slope - self.slope)
        speed = np.abs(self.slope) / self.value[2:].max()
        self.value = self.value + _gain(self.min_cutoff + self.beta * speed, step) * (value - self.value)

    def ahead(self, step: float) -> np.ndarray:
        """The box `step` seconds after the last one, if it moves on as it did; its size stays."""
        value = self.value.copy()
        value[:2] += self.slope[:2] * step
        return value


class Track:
    """A face over time.

    id: 1, 2, 3 ... (or from the tracker's `first_id` on) in the order in which faces were believed, None until then.
    box: x y w h in pixels, smoothed; where the face was missed (`held`), expected. score: the detector's when it found
    the face last.
    """

    def __init__(self, box: Sequence[float], score: float, now: float) -> None:
        self.id: int | None = None
        self.score = score
        self.held = False
        self.hits = 1
        self.misses = 0
        self._found_at = now
        self._filter = OneEuro(_centred(box))
        self.box = _corner(self._filter.value)

    def expect(self, now: float) -> None:
        """Move on to `now`, before it is known whether the face is found there."""
        self.held = True
        self.box = _corner(self._filter.ahead(min(self.missed_for(now), COAST)))

    def found(self, box: Sequence[float], score: float, now: float) -> None:
        self._filter.update(_centred(box), self.missed_for(now))
        self.box = _corner(self._filter.value)
        self.score = score
        self.held = False
        self.hits += 1
        self.misses = 0
        self._found_at = now

    def missed_for(self, now: float) -> float:
        """Seconds since the face was found."""
        return now - self._found_at


class Tracker:
    """The faces of one stream.

    confirm: frames in which a face must be found before it is believed; one frame in between may miss it.
    gap: seconds for which a believed face is held when it is missed; with 0 no face is known from the frame before.
    first_id: of the first face.
    """

    def __init__(self, confirm: int = 2, gap: float = 0.5, first_id: int = 1) -> None:
        self.confirm = confirm
        self.gap = gap
        self.tracks: list[Track] = []
        """All that are followed, believed or not yet."""
        self._now = -math.inf
        self._pace = Pace()
        self._next_id = first_id

    @property
    def believed(self) -> list[Track]:
        """Faces to report, found or held, in the order of their ids."""
        return sorted((t for t in self.tracks if t.id is not None), key=lambda t: t.id or 0)

    def clear(self) -> None:
        """Forget the faces. Ids go on from where they were: none is given twice."""
        self.tracks = []
        self._now = -math.inf

    def advance(self, now: float, alone: bool = False) -> None:
        """Go on to the frame at `now` seconds: tracks move to where they are expected, or end. alone: it is no frame of
        a video, so that only the time since the one before says whether they have to do with each other.

        Time that runs backwards means that the stream began anew, and ends all of them.
        """
        if now < self._now:
            self.clear()
        self._now = now
        self._pace.frame(now)
        reach = max(self.gap, NEXT * self._pace.step) if self.gap and not alone else self.gap
        self.tracks = [t for t in self.tracks if t.missed_for(now) <= reach]
        for track in self.tracks:
            track.expect(now)

    def update(self, boxes: np.ndarray, scores: np.ndarray, sure: np.ndarray | None = None) -> list[Track]:
        """What was found in the frame that `advance` went on to; returns `believed`.

        boxes: (N, 4), x y w h in pixels. scores: (N,). sure: bool (N,), faces to be believed at once.
        """
        certain = np.zeros(len(boxes), bool) if sure is None else sure
        owners = self._owners(boxes)
        for index, box in enumerate(boxes):
            track = owners.get(index)
            if track is None:
                track = Track(box, float(scores[index]), self._now)
                self.tracks.append(track)
            else:
                track.found(box, float(scores[index]), self._now)
            if track.id is None and (certain[index] or track.hits >= self.confirm):
                track.id = self._next_id
                self._next_id += 1
        for track in self.tracks:
            track.misses += track.held
        self.tracks = [t for t in self.tracks if not self._is_over(t)]
        return self.believed

    def _is_over(self, track: Track) -> bool:
        """Whether it was missed for too long: a believed face by time, another by frames."""
        return track.missed_for(self._now) > self.gap or (track.id is None and track.misses > 1)

    def _owners(self, boxes: np.ndarray) -> dict[int, Track]:
        """Index of a found face -> its track: the best overlaps first, each track and face once."""
        pairs = [
            (overlap, -i, index)
            for i, track in enumerate(self.tracks)
            for index, box in enumerate(boxes)
            if (overlap := iou(_grown(track.box), _grown(box))) >= MATCH
        ]
        owners: dict[int, Track] = {}
        for _, i, index in sorted(pairs, reverse=True):
            track = self.tracks[-i]
            if index not in owners and track not in owners.values():
                owners[index] = track
        return owners


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x, y, w, h)."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return float(shared / (a[2] * a[3] + b[2] * b[3] - shared))


def _grown(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x - REACH * w, y - REACH * h, w * (1 + 2 * REACH), h * (1 + 2 * REACH)


def _centred(box: Sequence[float]) -> np.ndarray:
    x, y, w, h = (float(v) for v in box)
    return np.array([x + w / 2, y + h / 2, w, h])


def _corner(value: np.ndarray) -> tuple[float, float, float, float]:
    x, y, w, h = (float(v) for v in value)
    return x - w / 2, y - h / 2, w, h


def _gain(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
    """Weight of a new sample in a first-order low-pass of `cutoff` Hz after `step` seconds."""
    turns = 2 * math.pi * step * cutoff
    return turns / (turns + 1)
