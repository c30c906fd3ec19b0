"""What was seen in a run, in bounded memory: for each face how often which expression, and when.

Time is kept in bins. A track that lasts longer than its bins reach gets bins twice as wide, so that an hour takes
no more than a minute does; the shares stay exact.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pipeline import Region

BINS = 600
"""Bins of a track, at the most: more than a timeline has pixels to show."""
TRACKS = 240
"""Tracks of a camera that are kept one by one, at the most; of shorter ones only what they add to the whole."""
QUIET = 60.0
"""Seconds after which a track that was not seen will not be seen again."""
FIRST_WIDTH = 0.1
"""Seconds of a bin at first."""


@dataclass(slots=True)
class Bin:
    """Of a stretch of time: frames, how many of them had which label, the sum of each expression's probability."""

    frames: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Bin) -> None:
        self.frames += other.frames
        self.labels.update(other.labels)
        self.sums.update(other.sums)

    @property
    def label(self) -> str:
        """The most frequent one, "" if there is none."""
        return self.labels.most_common(1)[0][0] if self.labels else ""


@dataclass(slots=True)
class Track:
    """One face of a camera. number: None for faces that no tracker follows. Times in seconds of the camera's axis."""

    number: int | None
    first: float = 0.0
    last: float = 0.0
    frames: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    width: float = FIRST_WIDTH
    bins: dict[int, Bin] = field(default_factory=dict)
    best: float = -1.0
    patch: np.ndarray | None = None
    """uint8 (h, w) grey picture of the face where its expression was clearest; only if pictures are kept."""

    def add(self, at: float, region: Region, keep_patch: bool) -> None:
        if not self.frames:
            self.first = at
        self.last = max(self.last, at)
        self.frames += 1
        label = region.label or ""
        if label:
            self.labels[label] += 1
        bin_ = self.bins.setdefault(int(at / self.width), Bin())
        bin_.frames += 1
        if label:
            bin_.labels[label] += 1
        for name, probability in (region.scores or {}).items():
            bin_.sums[name] += probability  # type: ignore[assignment]
        if len(self.bins) > BINS:
            self._widen()
        clearness = max((region.scores or {}).values(), default=0.0)
        if keep_patch and region.patch is not None and clearness > self.best:
            self.best, self.patch = clearness, region.patch.copy()

    def _widen(self) -> None:
        self.width *= 2
        before, self.bins = self.bins, {}
        for index, bin_ in before.items():
            self.bins.setdefault(index // 2, Bin()).merge(bin_)


@dataclass
class Camera:
    """What one camera saw."""

    name: str
    keep_patches: bool = False
    frames: int = 0
    first: float = 0.0
    last: float = 0.0
    tracks: dict[int | None, Track] = field(default_factory=dict)
    others: int = 0
    """Tracks that are no longer kept one by one."""
    other_labels: Counter[str] = field(default_factory=Counter)

    def add(self, at: float, regions: list[Region]) -> None:
        """The faces of one frame, at `at` seconds."""
        if not self.frames:
            self.first = at
        self.frames += 1
        self.last = max(self.last, at)
        for region in regions:
            track = self.tracks.setdefault(region.track, Track(region.track))
            track.add(at, region, self.keep_patches)
        if len(self.tracks) > TRACKS:
            self._fold(at)

    def _fold(self, now: float) -> None:
        """Let the shortest tracks go, half of what is kept, but for those that may still be in view."""
        gone = sorted((t for t in self.tracks.values() if now - t.last > QUIET), key=lambda track: track.frames)
        for track in gone[: TRACKS // 2]:
            del self.tracks[track.number]
            self.others += 1
            self.other_labels += track.labels

    @property
    def labels(self) -> Counter[str]:
        """Of all its faces together."""
        return sum((track.labels for track in self.tracks.values()), self.other_labels)
