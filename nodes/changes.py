"""Says when a tracked face appeared, changed its expression or left: what `publish` tells as `change` events.

    changes = Changes(hold=300_000_000, margin=0.05, gone_after=1_000_000_000)
    for change in changes.frame(regions, Moment(at, wall, pts)):
        print(change["what"], change["track"], change["label"])

The label that a region brings is smoothed already (`emotion` does that). Here comes the hysteresis: a face
between two expressions would else change at every other frame. One object serves one camera; times come with
the frames, so the same frames always give the same changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.buffer import Buffer, Region


class Moment(NamedTuple):
    """When a frame was: `at` is what `hold`, `gone_after` and durations are measured by; all in ns."""

    at: int
    wall: int
    pts: int


@dataclass(slots=True)
class _Track:
    """A face that is here: what was told of it, and the expression that may come next."""

    label: str | None
    since: Moment
    first: Moment
    last: Moment
    box: list[float]
    probabilities: dict[str, float] | None
    candidate: str | None = None
    candidate_since: Moment | None = None


class Changes:
    """The faces of one camera.

    hold: ns that another label must last, without a break, before it is told. margin: how much more probable
    than the told label it must be all that time. gone_after: ns without a face's track after which the face
    has left.
    """

    def __init__(self, hold: int, margin: float, gone_after: int) -> None:
        self.hold = hold
        self.margin = margin
        self.gone_after = gone_after
        self._tracks: dict[int, _Track] = {}
        self._at = 0

    def frame(self, regions: Iterable[Region], now: Moment) -> list[dict[str, Any]]:
        """Take one frame's regions; returns the changes they bring, as the fields of docs/PROTOCOL.md.

        Regions without a track cannot be followed and are passed over.
        """
        told = self.leave() if now.at < self._at else []  # time went back: the stream began anew
        self._at = now.at
        for region in regions:
            if region.track is None:
                continue
            track_id = int(region.track)
            box, probabilities = [float(v) for v in region.box], plain(region.scores)
            track = self._tracks.get(track_id)
            if track is None:
                track = self._tracks[track_id] = _Track(region.label, now, now, now, box, probabilities)
                told.append(_change("appeared", track_id, track))
                continue
            track.last, track.box = now, box
            if region.label is not None:
                track.probabilities = probabilities
                previous, since = track.label, track.since
                if self._changed(track, region.label, now):
                    lasted = None if previous is None else track.since.at - since.at
                    told.append(_change("changed", track_id, track, previous, lasted))
        for track_id, track in list(self._tracks.items()):
            if track.last is not now and now.at - track.last.at >= self.gone_after:
                told.append(self._leave(track_id))
        return told

    def leave(self) -> list[dict[str, Any]]:
        """The camera is down, at its end or silent: everybody has left."""
        return [self._leave(track_id) for track_id in list(self._tracks)]

    def present(self) -> list[dict[str, Any]]:
        """Who is here, as told so far."""
        return [_change("present", track_id, track) for track_id, track in self._tracks.items()]

    def _changed(self, track: _Track, label: str, now: Moment) -> bool:
        """Whether the face has now, for long enough, another expression than the told one; then it is the
        told one."""
        told, new = ((track.probabilities or {}).get(name) for name in (track.label or "", label))
        # The margin is between two classes; `uncertain` is none and has no probability.
        if label == track.label or (told is not None and new is not None and new - told < self.margin):
            track.candidate = None
            return False
        if label != track.candidate or track.candidate_since is None:
            track.candidate, track.candidate_since = label, now
        # A face without an expression so far has none to hold on to.
        if track.label is not None and now.at - track.candidate_since.at < self.hold:
            return False
        track.label, track.since, track.candidate = label, track.candidate_since, None
        return True

    def _leave(self, track_id: int) -> dict[str, Any]:
        track = self._tracks.pop(track_id)
        change = _change("left", track_id, track, lasted=track.last.at - track.first.at)
        return {**change, "since_ns": track.last.wall, "since_pts_ns": track.last.pts}


def _change(
    what: str, track_id: int, track: _Track, previous: str | None = None, lasted: int | None = None
) -> dict[str, Any]:
    return {
        "what": what,
        "track": track_id,
        "label": track.label,
        "previous": previous,
        "score": label_score(track.label, track.probabilities),
        "probabilities": track.probabilities,
        "box": track.box,
        "since_ns": track.since.wall,
        "since_pts_ns": track.since.pts,
        "duration_ns": lasted,
    }


def label_score(label: str | None, probabilities: dict[str, float] | None) -> float | None:
    """The probability of a label; of a verdict that is no class (`uncertain`), the highest one there was."""
    if label is None or not probabilities:
        return None
    return probabilities.get(label, max(probabilities.values()))


def picture_of(buffer: Buffer) -> str | None:
    """The name of the file that a frame is, where it is one of a folder of pictures."""
    picture = buffer.meta.get("picture")
    return picture if isinstance(picture, str) else None


def plain(probabilities: dict[str, float] | None) -> dict[str, float] | None:
    """Label -> probability in types that go over a wire (a classifier's may be numpy's)."""
    return None if probabilities is None else {str(label): float(p) for label, p in probabilities.items()}
