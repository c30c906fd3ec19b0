"""Makes events of what arrives: a sink's frames and marks in, the events of docs/PROTOCOL.md out.

    narrator = Narrator(props, clock=self.clock, lossless=self.lossless, tell=events.append)
    narrator.frame(buffer)

Shared by the sinks that tell them: `publish` over ZeroMQ, `webview` over WebSockets. Who gets an event, and what
happens to one that nobody takes, is up to the sink.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from nodes.changes import Changes, Moment, label_score, picture_of, plain
from nodes.pace import Pace
from pipeline import Buffer, Mark, Properties, Region, Seconds
from pipeline.errors import redact
from pipeline.events import VERSION

MISSING = 2
"""Usual steps from frame to frame after which a camera is silent: one of few frames a minute is not."""

Event = dict[str, Any]
"""The fields of an event in plain types (docs/PROTOCOL.md)."""


class NarratorProperties(Properties):
    """What every sink that tells events has."""

    hold: Seconds = Field(0.3, description="how long a new expression must last before a change is told")
    margin: float = Field(
        0.05, ge=0, le=1, description="how much more probable than the old one it must be all that time"
    )
    gone_after: Seconds = Field(1.0, description="how long a face must be out of sight before it has left")


@dataclass(slots=True)
class _Camera:
    """What there is to know of one camera, and to tell to a late joiner."""

    name: str
    changes: Changes
    pace: Pace = field(default_factory=Pace)
    last: Moment | None = None
    arrived: int = 0
    status: Event | None = None
    observation: Event | None = None
    sequence: dict[str, int] = field(default_factory=dict)


class Narrator:
    """Tells the events of all cameras of one sink, in their order, through `tell`.

    Times are measured by the frames' capture time, `lossless` by their PTS. Belongs to one thread at a time.
    """

    def __init__(
        self,
        props: NarratorProperties,
        *,
        clock: Callable[[], int],
        lossless: bool,
        tell: Callable[[Event], None],
        observations: bool = True,
        cameras: Sequence[str] = (),
    ) -> None:
        """clock: monotonic ns. observations: also tell what is seen in each single frame. cameras: all that will come,
        so that a subscriber knows when the last of them has ended; without them a status does not say."""
        self.run = uuid.uuid4().hex[:12]
        self._began = time.time_ns()
        self._props = props
        self._clock = clock
        self._lossless = lossless
        self._tell = tell
        self._observations = observations
        self._names = {"cameras": list(cameras)} if cameras else {}
        self._cameras: dict[str, _Camera] = {}

    # What comes in -------------------------------------------------------------------------------------

    def frame(self, buffer: Buffer) -> None:
        """A frame and what was found in it; its pixels are not looked at."""
        camera = self._camera(buffer.stream)
        camera.arrived = self._clock()
        at = buffer.pts if self._lossless else buffer.captured
        camera.pace.frame(at)
        camera.last = now = Moment(at, buffer.wall, buffer.pts)
        latency = camera.arrived - buffer.captured
        self._tell_status(camera, "up", "", now.wall)
        self._tell_changes(camera, camera.changes.frame(buffer.regions, now), now, latency)
        if self._observations:
            regions = [_region(region) for region in buffer.regions]
            height, width, _ = buffer.shape
            about = {"frame": buffer.sequence, "width": width, "height": height, "regions": regions}
            if picture := picture_of(buffer):
                about["picture"] = picture
            stamp = {"pts_ns": now.pts, "latency_ns": latency}
            camera.observation = self._send(camera, "observation", now.wall, {**stamp, **about})

    def mark(self, mark: Mark) -> None:
        """The end of a stream, or its camera went down or up."""
        camera = self._camera(mark.stream)
        if mark.kind == "eos":
            self._all_left(camera)
            self._tell_status(camera, "ended", "", self._now(camera).wall)
        elif mark.kind == "status":
            if not mark.data.get("up"):
                self._all_left(camera)
            since = mark.data.get("since")
            what = "up" if mark.data.get("up") else "down"
            wall = since if type(since) is int else self._now(camera).wall
            self._tell_status(camera, what, str(mark.data.get("reason") or ""), wall)

    def tick(self) -> None:
        """Time passes, also while no frame comes."""
        if self._lossless:
            return  # there a frame takes as long as it takes; silence says nothing
        now, gone_after = self._clock(), self._props.gone_after * 1e9
        for camera in self._cameras.values():
            if camera.last and now - camera.arrived >= max(gone_after, MISSING * camera.pace.step):
                self._all_left(camera)

    def snapshot(self, wanted: Callable[[str, str], bool]) -> Iterator[Event]:
        """How things stand, camera by camera, where `wanted(camera, kind)`: what a late joiner has to hear."""
        for camera in self._cameras.values():
            now = camera.last or self._now(camera)
            tracks = [{k: v for k, v in change.items() if k != "what"} for change in camera.changes.present()]
            about = {"pts_ns": now.pts, "what": "present", "tracks": tracks}
            present = self._event(camera, "change", now.wall, about)
            for event in (camera.status, present, camera.observation):
                if event and wanted(camera.name, event["kind"]):
                    yield {**event, "snapshot": True}

    def _camera(self, name: str) -> _Camera:
        camera = self._cameras.get(name)
        if camera is None:
            p = self._props
            changes = Changes(int(p.hold * 1e9), p.margin, int(p.gone_after * 1e9))
            camera = self._cameras[name] = _Camera(name, changes)
        return camera

    def _now(self, camera: _Camera) -> Moment:
        """The present on the camera's own clocks, also while no frame comes."""
        last = camera.last
        if last is None:
            return Moment(0, time.time_ns(), 0)
        return last if self._lossless else last._replace(wall=last.wall + self._clock() - last.at)

    # What goes out -------------------------------------------------------------------------------------

    def _send(self, camera: _Camera, kind: str, wall: int, about: Event) -> Event:
        """Tell one event; returns it."""
        camera.sequence[kind] = camera.sequence.get(kind, 0) + 1
        event = self._event(camera, kind, wall, about)
        self._tell(event)
        return event

    def _event(self, camera: _Camera, kind: str, wall: int, about: Event) -> Event:
        return {
            "version": VERSION,
            "kind": kind,
            "camera": camera.name,
            "run": self.run,
            "run_ns": self._began,
            "sequence": camera.sequence.get(kind, 0),
            "snapshot": False,
            "time_ns": wall,
            "pts_ns": None,
            "latency_ns": None,
            **about,
        }

    def _tell_changes(self, camera: _Camera, changes: list[Event], now: Moment, latency: int | None = None) -> None:
        for change in changes:
            self._send(camera, "change", now.wall, {"pts_ns": now.pts, "latency_ns": latency, **change})

    def _all_left(self, camera: _Camera) -> None:
        self._tell_changes(camera, camera.changes.leave(), self._now(camera))
        camera.observation = None  # who was seen last is here no more

    def _tell_status(self, camera: _Camera, what: str, reason: str, since: int) -> None:
        """Tell a status that is news: another state, or another reason for being down."""
        reason = redact(reason)
        old = camera.status
        if old and old["what"] == what and (what == "up" or old["reason"] == reason):
            return
        about = {"what": what, "reason": reason, "since_ns": since, **self._names}
        camera.status = self._send(camera, "status", since, about)


def _region(region: Region) -> Event:
    probabilities = plain(region.scores)
    return {
        "box": [float(value) for value in region.box],
        "track": None if region.track is None else int(region.track),
        "label": region.label,
        "score": label_score(region.label, probabilities),
        "probabilities": probabilities,
        "raw": plain(region.raw),
        "detection": float(region.score),
        "held": bool(region.attrs.get("held")),
        "reused": bool(region.attrs.get("reused")),
    }
