"""The timeline of a camera as shapes of an SVG: for each track a strip of its expression and their probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nodes.report.tracks import Camera, Track

LEFT, WIDTH = 64.0, 900.0
"""Pixels: where time begins, and how long it is."""
STRIP, BANDS, LANE = 14.0, 30.0, 56.0
"""Heights: of the strip, of the bands under it, from one lane to the next."""
GAP = 1.0
"""Seconds without the face after which its strip is interrupted (a bin's own width, where that is more)."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_LETTER = 6.5


@dataclass
class Segment:
    """A stretch of one expression."""

    x: float
    width: float
    label: str
    fill: str
    ink: str
    begin: float
    end: float
    text: str = ""


@dataclass
class Lane:
    """A track. bands: (fill, expression, path) from the bottom up; y: of its upper edge."""

    track: Track
    y: float
    segments: list[Segment] = field(default_factory=list)
    bands: list[tuple[str, str, str]] = field(default_factory=list)


def span(camera: Camera) -> float:
    """Seconds that the axis covers, to the end of the last frame's mark; never 0."""
    mark = max((track.width / 2 for track in camera.tracks.values()), default=0.0)
    return max(camera.last - camera.first + mark, 0.1)


def axis(camera: Camera) -> list[tuple[float, float]]:
    """(x, seconds) of the marks on the axis, about eight."""
    length = span(camera)
    step = next((s for s in _STEPS if length / s <= 10), _STEPS[-1])
    count = int(length / step) + 1
    return [(LEFT + WIDTH * i * step / length, camera.first + i * step) for i in range(min(count, 400))]


def lanes(
    tracks: list[Track], camera: Camera, labels: list[str], fill: Callable[[str], str], ink: Callable[[str], str]
) -> list[Lane]:
    """A lane for each track, in their order."""
    found = []
    for number, track in enumerate(tracks):
        lane = Lane(track, number * LANE)
        for run in _runs(track):
            lane.segments += _segments(track, run, camera, fill, ink)
            lane.bands += _bands(track, run, camera, labels, lane.y + STRIP + 2, fill)
        found.append(lane)
    return found


def _x(at: float, camera: Camera) -> float:
    share = (at - camera.first) / span(camera)
    return round(LEFT + WIDTH * min(1.0, max(0.0, share)), 1)


def _runs(track: Track) -> list[list[int]]:
    """The track's bins, in order, split where the face was not seen for a while."""
    runs: list[list[int]] = []
    for index in sorted(track.bins):
        if runs and (index - runs[-1][-1] - 1) * track.width <= GAP:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _edges(track: Track, index: int, follower: int | None) -> tuple[float, float]:
    """When a bin begins and ends; it reaches to the next one of its run."""
    begin = max(index * track.width, track.first)
    end = (follower if follower is not None else index + 1) * track.width
    return begin, max(begin, min(end, track.last + track.width / 2))


def _segments(
    track: Track, run: list[int], camera: Camera, fill: Callable[[str], str], ink: Callable[[str], str]
) -> list[Segment]:
    found: list[Segment] = []
    for place, index in enumerate(run):
        begin, end = _edges(track, index, run[place + 1] if place + 1 < len(run) else None)
        label = track.bins[index].label
        if found and found[-1].label == label:
            found[-1].end = end
        else:
            found.append(Segment(0, 0, label, fill(label), ink(label), begin, end))
    for segment in found:
        segment.x = _x(segment.begin, camera)
        segment.width = round(max(0.8, _x(segment.end, camera) - segment.x), 1)
        if segment.width > _LETTER * len(segment.label) + 6:
            segment.text = segment.label
    return found


def _bands(
    track: Track, run: list[int], camera: Camera, labels: list[str], top: float, fill: Callable[[str], str]
) -> list[tuple[str, str, str]]:
    """Probabilities stacked to full height: an area for each expression."""
    columns: list[tuple[float, list[float]]] = []
    for place, index in enumerate(run):
        begin, end = _edges(track, index, run[place + 1] if place + 1 < len(run) else None)
        sums = track.bins[index].sums
        total = sum(sums.values())
        if total <= 0:
            continue
        heights, level = [0.0], 0.0
        for label in labels:
            level += sums[label] / total
            heights.append(level)
        columns.append((_x(begin, camera), heights))
        if place == len(run) - 1:
            columns.append((max(_x(end, camera), columns[-1][0] + 0.8), heights))
    if not columns:
        return []

    def y(height: float) -> float:
        return round(top + BANDS * (1 - min(1.0, height)), 1)

    found = []
    for number, label in enumerate(labels):
        if all(h[number + 1] - h[number] < 0.005 for _, h in columns):
            continue
        upper = [f"{x:g},{y(h[number + 1]):g}" for x, h in columns]
        lower = [f"{x:g},{y(h[number]):g}" for x, h in reversed(columns)]
        found.append((fill(label), label, f"M{' '.join(upper)} {' '.join(lower)}Z"))
    return found
