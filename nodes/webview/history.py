"""Who is in view of each camera, and what their faces showed in the last minutes: what the page's timelines draw.

Made of the same events that subscribers get. Bounded in time and in number, whatever comes. All times are by this
host's clock: a camera of another host has a clock of its own, and one picture has one axis.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from nodes.narrator import Event

RATE = 2.0
"""Samples per second and face."""
LIMIT = 60_000
"""Samples of all faces together that are kept at the most."""


SET_BACK = 60_000
"""Milliseconds in the future from which on a sample is one of a clock that was set back since."""


class Sample(NamedTuple):
    """One face at one time. visit: counts appearances, so that a track id that is used again begins anew.
    at: UTC ms. probabilities: in the order of `History.labels`."""

    visit: int
    camera: str
    track: int
    at: int
    label: str | None
    probabilities: tuple[float, ...]


class History:
    """Fed with events as they happen. labels: the classifier's, in its order; empty before the first face."""

    def __init__(self, seconds: float, clock: Callable[[], int] = time.time_ns) -> None:
        """clock: UTC ns."""
        self.seconds = seconds
        self._clock = clock
        self.labels: tuple[str, ...] = ()
        self.faces: dict[str, dict[str, Any]] = {}
        """camera -> who is in view now: time (UTC ms), width, height (pixels), faces (maps of visit, track, label,
        score, box, probabilities)."""
        self.changed = 0
        """Counts what `faces` has seen, for who wants to know whether there is news."""
        self._labels_of: dict[str, tuple[str, ...]] = {}
        self._samples: deque[Sample] = deque()
        self._dropped = 0
        self._due: dict[str, float] = {}
        self._visits: dict[tuple[str, int], int] = {}
        self._visit = 0

    def see(self, event: Event) -> None:
        if event["kind"] == "observation":
            self._observe(event)
        elif event["kind"] == "status":
            if event["what"] != "up" and self.faces.pop(event["camera"], None):
                self.changed += 1
        elif event["kind"] == "change":
            key = event["camera"], event["track"]
            if event["what"] == "appeared":
                self._visit += 1
                self._visits[key] = self._visit
            elif event["what"] == "left":
                visit = self._visits.pop(key, None)
                seen = self.faces.get(event["camera"])
                if seen:
                    seen["faces"] = [face for face in seen["faces"] if face["visit"] != visit]
                    self.changed += 1

    def since(self, position: int, limit: int = 2000) -> tuple[list[Sample], int]:
        """Up to `limit` samples from `position` on, and the position behind them. Who starts begins at 0."""
        first = max(0, position - self._dropped)
        found = [self._samples[i] for i in range(first, min(first + limit, len(self._samples)))]
        return found, self._dropped + first + len(found)

    def _fitting(self, camera: str, probabilities: dict[str, float]) -> dict[str, float]:
        """A face's probabilities; none where its labels are others than those of a camera that came before: two
        models' cannot stand in one picture. Once no camera has the old labels any more the new ones take over."""
        labels = tuple(probabilities)
        if not labels:
            return probabilities
        self._labels_of[camera] = labels
        if labels == self.labels:
            return probabilities
        if self.labels in self._labels_of.values():
            return {}
        self.labels = labels
        self._clear()
        return probabilities

    def _clear(self) -> None:
        self._dropped += len(self._samples)
        self._samples.clear()

    def _observe(self, event: Event) -> None:
        camera = event["camera"]
        at = (self._clock() - event["latency_ns"]) // 1_000_000
        faces = []
        for region in event["regions"]:
            probabilities = self._fitting(camera, region["probabilities"] or {})
            faces.append(
                {
                    "visit": self._visits.get((camera, region["track"])), "track": region["track"],
                    "label": region["label"], "score": region["score"], "box": region["box"],
                    "probabilities": [round(p, 3) for p in probabilities.values()],
                }
            )  # fmt: skip
        self.faces[camera] = {"time": at, "width": event["width"], "height": event["height"], "faces": faces}
        self.changed += 1
        if at >= self._due.get(camera, 0) or at < self._due[camera] - 2e3 / RATE:
            self._due[camera] = at + 1e3 / RATE
            if self._samples and self._samples[-1].at > at + SET_BACK:
                self._clear()  # one axis cannot show both
            for face in faces:
                if face["visit"] is not None and face["probabilities"]:
                    values = tuple(face["probabilities"])
                    self._samples.append(Sample(face["visit"], camera, face["track"], at, face["label"], values))
            oldest = at - self.seconds * 1e3
            while self._samples and (self._samples[0].at < oldest or len(self._samples) > LIMIT):
                self._samples.popleft()
                self._dropped += 1
