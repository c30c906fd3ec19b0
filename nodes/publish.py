"""Tells emotion events to any number of subscribers, and never waits for one.

    emograph launch "testsrc ! haardetect ! emotion ! publish endpoint=tcp://127.0.0.1:5556"
    emograph events tcp://127.0.0.1:5556

An XPUB socket; docs/PROTOCOL.md has the format, pipeline/events.py reads it. Two rules hold:
- A subscriber that does not keep up loses events (its sequence numbers show it); the video loses nothing. So
  ZMQ_XPUB_NODROP must never be set here.
- Whoever subscribes gets the present state first. XPUB_VERBOSE tells of each subscription, and the snapshot
  goes out as flagged events that take no sequence number, so that those who had joined before can pass over
  them. (XPUB_MANUAL could hold a subscription back until its snapshot is sent, but there a peer's stray
  message makes libzmq attribute the next subscription to the wrong peer.)
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any

import zmq
from pydantic import AfterValidator, Field

from nodes.changes import Changes, Moment, label_score, plain
from pipeline import Buffer, Mark, Properties, Region, Seconds, Sink, UserError, pad
from pipeline.caps import ANY
from pipeline.events import VERSION, check_endpoint, encode, topic

_LINGER_MS = 500  # how long `close` may wait for what is queued for slow subscribers
_MAX_REQUEST = 1024  # bytes; a subscription is a topic prefix, anything longer ends the peer's connection
_MAX_REQUESTS = 256  # taken at one go, so that a flood of them cannot keep the video waiting
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")


@dataclass(slots=True)
class _Camera:
    """What there is to know of one camera, and to tell to a late joiner."""

    name: str
    changes: Changes
    last: Moment | None = None
    arrived: int = 0
    status: dict[str, Any] | None = None
    observation: dict[str, Any] | None = None
    sequence: dict[str, int] = field(default_factory=dict)


class Publish(Sink):
    """Publish who is seen with which expression, as messages that any program can subscribe to.

    A bound ZeroMQ XPUB socket, topic `emotion/<camera>/<kind>`, payload msgpack (docs/PROTOCOL.md). Times are
    measured by the frames' capture time, in `mode: lossless` by their PTS: the same file then gives the same
    events however fast it is read.
    """

    sink = pad(ANY, needs="faces", access="none")
    tick_interval = 0.05

    class Properties(Properties):
        endpoint: Annotated[str, AfterValidator(check_endpoint)] = Field(
            "tcp://127.0.0.1:5556",
            description="where to listen: tcp://ADDRESS:PORT (port * takes a free one) or ipc://PATH",
        )
        observations: bool = Field(True, description="also tell what is seen in each single frame")
        hold: Seconds = Field(0.3, description="how long a new expression must last before a change is told")
        margin: float = Field(
            0.05, ge=0, le=1, description="how much more probable than the old one it must be all that time"
        )
        gone_after: Seconds = Field(1.0, description="how long a face must be out of sight before it has left")
        hwm: int = Field(
            1000, ge=1, le=1_000_000, description="events queued for a slow subscriber before it loses some"
        )

    endpoint: str = ""
    """The endpoint that is bound, with the port that `*` became."""
    _context: zmq.Context[zmq.Socket[bytes]] | None = None
    _file: tuple[str, int] | None = None
    """The ipc socket's path and inode."""

    def open(self) -> None:
        self.run = uuid.uuid4().hex[:12]
        self._cameras: dict[str, _Camera] = {}
        self.garbage = 0
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.SNDHWM, self.props.hwm)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_REQUEST)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.IPV6, "[" in self.props.endpoint)
        self._bind(self.props.endpoint)
        if not _is_local(self.endpoint):
            self.log(
                "warning",
                f"events on {self.endpoint} (who is seen when, with which expression) can be read by anybody "
                "who reaches this port; tcp://127.0.0.1:PORT keeps them on this host",
            )
        self.log("info", f"events on {self.endpoint}")

    def _bind(self, endpoint: str) -> None:
        scheme, _, path = endpoint.partition("://")
        is_file = scheme == "ipc" and not path.startswith("@")  # `@name`: Linux' abstract names are no files
        try:
            if is_file:
                _refuse_used(path)
            self._socket.bind(endpoint)
        except (OSError, zmq.ZMQError) as error:
            self.close()  # a context that is merely forgotten waits for its sockets for ever
            reason = os.strerror(error.errno or 0)
            text = f"cannot bind {endpoint}: {reason[:1].lower()}{reason[1:]}"
            raise UserError(f"{self.name}: {text}") from None
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._file = (path, os.stat(path).st_ino) if is_file else None

    def close(self) -> None:
        if self._context is None:
            return
        self._socket.close()
        self._context.term()  # waits until all is sent, _LINGER_MS at most
        self._context = None
        if self._file:
            path, inode = self._file
            with contextlib.suppress(FileNotFoundError):  # libzmq removes it in some versions
                if os.stat(path).st_ino == inode:
                    os.unlink(path)
        if self.garbage:
            self.log("info", f"{self.garbage} messages from peers were no subscriptions and were ignored")

    # What comes in -------------------------------------------------------------------------------------

    def consume(self, buffer: Buffer) -> None:
        self._serve()
        camera = self._camera(buffer.stream)
        camera.arrived = self.clock()
        at = buffer.pts if self.lossless else buffer.captured
        camera.last = now = Moment(at, buffer.wall, buffer.pts)
        latency = camera.arrived - buffer.captured
        self._tell_status(camera, "up", "", now.wall)
        self._tell_changes(camera, camera.changes.frame(buffer.regions, now), now, latency)
        if self.props.observations:
            regions = [_region(region) for region in buffer.regions]
            height, width, _ = buffer.shape
            about = {"frame": buffer.sequence, "width": width, "height": height, "regions": regions}
            stamp = {"pts_ns": now.pts, "latency_ns": latency}
            camera.observation = self._send(camera, "observation", now.wall, {**stamp, **about})

    def on_mark(self, mark: Mark) -> None:
        self._serve()
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
        self._serve()
        if self.lossless:
            return  # there a frame takes as long as it takes; silence says nothing
        silent_since = self.clock() - self.props.gone_after * 1e9
        for camera in self._cameras.values():
            if camera.last and camera.arrived <= silent_since:
                self._all_left(camera)

    def _camera(self, name: str) -> _Camera:
        camera = self._cameras.get(name)
        if camera is None:
            p = self.props
            changes = Changes(int(p.hold * 1e9), p.margin, int(p.gone_after * 1e9))
            camera = self._cameras[name] = _Camera(name, changes)
        return camera

    def _now(self, camera: _Camera) -> Moment:
        """The present on the camera's own clocks, also while no frame comes."""
        last = camera.last
        if last is None:
            return Moment(0, time.time_ns(), 0)
        return last if self.lossless else last._replace(wall=last.wall + self.clock() - last.at)

    # What goes out -------------------------------------------------------------------------------------

    def _send(self, camera: _Camera, kind: str, wall: int, about: dict[str, Any]) -> dict[str, Any]:
        """Send one event; returns it."""
        camera.sequence[kind] = camera.sequence.get(kind, 0) + 1
        event = self._event(camera, kind, wall, about)
        self._socket.send_multipart(encode(event), zmq.NOBLOCK)
        return event

    def _event(self, camera: _Camera, kind: str, wall: int, about: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": VERSION,
            "kind": kind,
            "camera": camera.name,
            "run": self.run,
            "sequence": camera.sequence.get(kind, 0),
            "snapshot": False,
            "time_ns": wall,
            "pts_ns": None,
            "latency_ns": None,
            **about,
        }

    def _tell_changes(
        self, camera: _Camera, changes: list[dict[str, Any]], now: Moment, latency: int | None = None
    ) -> None:
        for change in changes:
            self._send(camera, "change", now.wall, {"pts_ns": now.pts, "latency_ns": latency, **change})

    def _all_left(self, camera: _Camera) -> None:
        self._tell_changes(camera, camera.changes.leave(), self._now(camera))
        camera.observation = None  # who was seen last is here no more

    def _tell_status(self, camera: _Camera, what: str, reason: str, since: int) -> None:
        """Tell a status that is news: another state, or another reason for being down."""
        reason = _CREDENTIALS.sub("***@", reason)
        old = camera.status
        if old and old["what"] == what and (what == "up" or old["reason"] == reason):
            return
        about = {"what": what, "reason": reason, "since_ns": since}
        camera.status = self._send(camera, "status", since, about)

    # Late joiners --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Answer new subscriptions with a snapshot; one for all that came together."""
        prefixes = set()
        for _ in range(_MAX_REQUESTS):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if len(frames) == 1 and frames[0][:1] == b"\x01":
                prefixes.add(frames[0][1:])
            elif len(frames) != 1 or frames[0][:1] != b"\x00":
                self._count_garbage()
        if prefixes:
            for camera in self._cameras.values():
                self._send_snapshot(camera, prefixes)

    def _send_snapshot(self, camera: _Camera, prefixes: set[bytes]) -> None:
        now = camera.last or self._now(camera)
        tracks = [_without(change, "what") for change in camera.changes.present()]
        about = {"pts_ns": now.pts, "what": "present", "tracks": tracks}
        present = self._event(camera, "change", now.wall, about)
        for event in (camera.status, present, camera.observation):
            if event and any(topic(camera.name, event["kind"]).startswith(prefix) for prefix in prefixes):
                self._socket.send_multipart(encode({**event, "snapshot": True}), zmq.NOBLOCK)

    def _count_garbage(self) -> None:
        self.garbage += 1
        self.observe("garbage", 1)
        if self.garbage == 1:
            self.log("warning", "a peer sent something that is no subscription; it is ignored")


def _region(region: Region) -> dict[str, Any]:
    probabilities = plain(region.scores)
    return {
        "box": [float(value) for value in region.box],
        "track": None if region.track is None else int(region.track),
        "label": region.label,
        "score": label_score(region.label, probabilities),
        "probabilities": probabilities,
        "raw": plain(region.raw),
        "detection": float(region.score),
    }


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def _is_local(endpoint: str) -> bool:
    """Whether only programs on this host can reach a bound endpoint."""
    if not endpoint.startswith("tcp://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]").partition("%")[0]
    return ipaddress.ip_address(host).is_loopback


def _refuse_used(path: str) -> None:
    """Raise OSError when something is at `path` that must not be replaced: libzmq deletes whatever is there,
    a file or the socket of a running program, and binds. The socket that a killed program left may go."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(17, "", path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
    raise OSError(98, "", path)
