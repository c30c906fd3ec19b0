"""Hands cameras over to a graph on another host: the near end of a link, `receive` is the far one.

    emograph launch "testsrc name=door ! haardetect ! send endpoint=tcp://0.0.0.0:5570"
    emograph launch "receive camera=door endpoint=tcp://10.0.0.7:5570 ! emotion ! publish"

A frame goes out only against a receiver's credit, so nothing piles up in the network: in `mode: live` what finds
no credit waits as the newest, in `mode: lossless` the graph waits. Pixels go along only where the receiver's graph
looks at them. Two rules hold: a peer never brings the graph down by what it says, and never holds up a live one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import zmq
from pydantic import Field

from nodes import remotelink
from nodes.remotelink import DEFAULT_ENDPOINT, Ask, Endpoint, Header, Info
from nodes.remotepixels import encode
from pipeline import Buffer, Mark, Properties, Seconds, Sink, UserError, pad
from pipeline.buffer import BadMessage
from pipeline.endpoints import is_local
from pipeline.wire import readable

_BLOCK = 2.0
"""Seconds that one `consume` waits at most: the engine takes a node that is silent for longer than 15 for dead."""
_SIGN_OF_LIFE = 3.0
"""Seconds between two lines of the log while the end waits: for whoever looks on, and for the engine too."""
_PROBE_AFTER = 2.0
"""Seconds of silence after which a peer is spoken to, to learn whether it is still there."""
_MAX_PEERS = 64
_SILENT_AFTER = 5.0
"""Seconds without an ask after which a receiver, which asks once a second at the least, may have to make room."""
_INFOS = 8  # messages without a frame that may be on their way to a receiver besides
_MAX_REQUESTS = 256  # taken at one go, so that a flood of them cannot keep the video waiting
_GONE = (zmq.EHOSTUNREACH, zmq.ENOTCONN)


class _Frame:
    """A frame to be sent, once or to several receivers; its pixels are encoded when first needed."""

    def __init__(self, buffer: Buffer, format: str, quality: int) -> None:
        self._header = Header(
            buffer.stream, 0, buffer.sequence, buffer.pts, buffer.wall, buffer.shape, "none", [], buffer.meta
        )
        self._regions = [region.pack() for region in buffer.regions]
        self._frame: np.ndarray | None = buffer.frame
        self._format, self._quality = format, quality
        self._encoded: bytes | None = None

    def keep(self, pixels: bool, encoded: bool) -> None:
        """Make it outlive the call that brought it: the engine's slot is used again after that. `encoded`: in the
        form that takes less memory; else in the form that takes less time, as it may never be sent."""
        if encoded:
            self.pixels()
        self._frame = self._frame.copy() if pixels and not encoded and self._frame is not None else None

    def pixels(self) -> bytes:
        if self._encoded is None:
            assert self._frame is not None, "`message` looks before it asks"
            self._encoded = encode(self._frame, self._format, self._quality)
        return self._encoded

    def message(self, number: int, pixels: bool) -> list[bytes]:
        """Header and pixels; without pixels too when they were not kept (its receiver did not want them then)."""
        pixels = pixels and (self._encoded is not None or self._frame is not None)
        self._header.number = number
        self._header.format = self._format if pixels else "none"
        return [remotelink.pack_header(self._header, self._regions), self.pixels() if pixels else b""]


@dataclass(slots=True)
class _Peer:
    """A receiver. sent, acked: numbers of the last frame to it, and of the last that it says it has. asked: when it
    last spoke. heard: the same, or when it was last spoken to. stuck_since: since when it has had no room for a frame
    that is there."""

    camera: str
    pixels: bool
    window: int
    sent: int
    acked: int
    heard: float
    asked: float = 0.0
    stuck_since: float | None = None
    waiting: deque[_Frame] = field(default_factory=deque)

    @property
    def credit(self) -> int:
        return self.window - (self.sent - self.acked)

    @property
    def ready(self) -> bool:
        return self.credit > 0 and not self.waiting

    @property
    def owed(self) -> int:
        """Frames that it has not said to have."""
        return self.sent - self.acked + len(self.waiting)


@dataclass(slots=True)
class _Camera:
    """What there is to tell of one camera. backlog: lossless frames that no receiver was there for. stuck_since: since
    when there is none."""

    shape: tuple[int, int, int] | None = None
    up: bool = True
    reason: str = ""
    ended: bool = False
    stuck_since: float | None = None
    backlog: deque[_Frame] = field(default_factory=deque)


class Send(Sink):
    """Send cameras to graphs on other hosts, where `receive` takes them in.

    Binds a port; receivers come and go. Frames go with their regions, metadata and times; pixels only to
    receivers whose graph needs them. In live mode a receiver that is behind gets the newest frame (metric
    `replaced`: those it did not get); a camera that nobody asked for goes nowhere. In lossless mode each frame is
    sent once to every receiver of its camera, and the graph waits for them, up to `patience`; at the end too, until
    they have said that all has come.
    """

    sink = pad("video/raw", format="BGR", access="read")
    tick_interval = 0.05

    class Properties(Properties):
        endpoint: Endpoint = Field(
            DEFAULT_ENDPOINT, description="where to listen: tcp://ADDRESS:PORT (port * takes a free one)"
        )
        format: Literal["jpeg", "raw"] = Field("jpeg", description="how pixels travel, where they are needed")
        quality: int = Field(90, ge=1, le=100, description="of JPEG")
        patience: Seconds = Field(
            30.0, gt=0, le=3600, description="lossless: how long a camera may wait for its receiver to take a frame"
        )

    endpoint: str = ""
    """The endpoint that is bound, with the port that `*` became."""
    _context: zmq.Context[zmq.Socket[bytes]] | None = None

    @classmethod
    def binds(cls, props: Send.Properties) -> list[str]:
        return [props.endpoint]

    def open(self) -> None:
        self._cameras = {name: _Camera() for name in self.streams}
        self._peers: dict[bytes, _Peer] = {}
        self._starting: dict[bytes, str] = {}
        """Receivers, the newest last, whose graph does not play yet, and their cameras: they ask for no frame."""
        self.garbage = 0
        self._refused = False
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # who is gone is told by an error, not by silence
        self._socket.setsockopt(zmq.MAXMSGSIZE, remotelink.MAX_ASK)
        # No more than a receiver may have asked for: one that acknowledges what it never read gets no more than that.
        self._socket.setsockopt(zmq.SNDHWM, remotelink.MAX_WINDOW + _INFOS)
        # A lossless end has waited for what is on its way before; any other must not take longer than it may.
        self._socket.setsockopt(zmq.LINGER, 500)
        remotelink.tune(self._socket, self.props.endpoint)
        try:
            self._socket.bind(self.props.endpoint)
        except zmq.ZMQError as error:
            self.close()  # a context that is merely forgotten waits for its sockets for ever
            reason = os.strerror(error.errno or 0)
            text = f"cannot bind {self.props.endpoint}: {reason[:1].lower()}{reason[1:]}"
            raise UserError(f"{self.name}: {text}") from None
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if not is_local(self.endpoint):
            self.log(
                "warning",
                f"frames and faces on {self.endpoint} can be read by anybody who reaches this port; "
                "docs/remote.md tells how to keep strangers out",
            )
        self.log("info", f"cameras {', '.join(self.streams)} on {self.endpoint}")

    def close(self) -> None:
        if self._context is None:
            return
        for name in self._cameras:  # a graph that is stopped may end before the mark of a stream's end has come
            self._give_up(name)
        self._socket.close()
        self._context.term()  # waits until all is sent, but not longer than LINGER
        self._context = None
        if self.garbage:
            self.log("info", f"{self.garbage} messages from peers were none of ours and were ignored")

    # What comes in -------------------------------------------------------------------------------------

    def consume(self, buffer: Buffer) -> None:
        camera = self._cameras[buffer.stream]
        camera.shape, camera.up, camera.reason, camera.ended = buffer.shape, True, "", False
        self._serve()
        if self.lossless:
            self._wait(buffer.stream, _BLOCK)
        frame = _Frame(buffer, self.props.format, self.props.quality)
        peers = self._peers_of(buffer.stream)
        for identity, peer in peers:
            self._offer(identity, peer, frame)
        if self.lossless and not peers:  # where the last of them went away just now, `_forget` has kept it
            camera.backlog.append(frame)
        wanted = self.lossless or any(peer.pixels for _, peer in peers if frame in peer.waiting)
        frame.keep(wanted, encoded=self.lossless and frame in self._kept(buffer.stream))

    def on_mark(self, mark: Mark) -> None:
        camera = self._cameras[mark.stream]
        if mark.kind == "status":
            camera.up, camera.reason = bool(mark.data.get("up")), str(mark.data.get("reason") or "")
        elif mark.kind == "eos":
            if self.lossless and camera.backlog:
                while camera.backlog and not self.stopping.is_set():
                    self._wait(mark.stream, _SIGN_OF_LIFE)
                    if camera.backlog and not self.stopping.is_set():
                        frames = f"{len(camera.backlog)} frame{'s' * (len(camera.backlog) != 1)}"
                        self.log("info", f"waiting for a receiver of '{mark.stream}' ({frames})")
                self._give_up(mark.stream)
            camera.ended = True  # not earlier: who comes meanwhile gets the frames first
        else:
            return
        for identity, peer in self._peers_of(mark.stream):
            # Beyond the credit: the last frame of a stream is not dropped for want of a successor.
            self._flush(identity, peer, all=True)
            self._send(identity, [self._info(mark.stream)])
        for identity in [identity for identity, camera in self._starting.items() if camera == mark.stream]:
            self._send(identity, [self._info(mark.stream)])  # there may be nobody left to ask once they play
        # Not after each: who has all of one camera may need the next of another before it takes any more.
        if self.lossless and all(camera.ended for camera in self._cameras.values()):
            self._see_off()

    def tick(self) -> None:
        self._serve()
        silent = time.monotonic() - _PROBE_AFTER
        for identity, peer in list(self._peers.items()):
            if peer.heard < silent:
                peer.heard = time.monotonic()
                self._send(identity, [self._info(peer.camera)])

    def _wait(self, name: str, limit: float) -> None:
        """Until every receiver of a camera (and there is one) can take a frame; raises UserError when patience ends."""
        camera = self._cameras[name]
        end = time.monotonic() + limit
        while not self._ready(name):
            now = time.monotonic()
            since = now
            for stuck in [peer for _, peer in self._peers_of(name) if not peer.ready] or [camera]:
                stuck.stuck_since = stuck.stuck_since or now
                since = min(since, stuck.stuck_since)
            if now - since > self.props.patience:
                raise self._unclaimed(name, now - since)
            if now > end or self.stopping.is_set():
                return
            self._socket.poll(20)
            self.breathe()
            self.tick()

    def _give_up(self, name: str) -> None:
        """No receiver will come any more for what waits for one."""
        backlog = self._cameras[name].backlog
        if backlog:
            self.log("warning", f"no receiver took the last frames of '{name}' ({len(backlog)})")
            backlog.clear()

    def _see_off(self) -> None:
        """Until receivers have all that was sent: `close` throws away what a slow link still has before it."""
        left = self._on_their_way()
        moved = told = time.monotonic()
        while left:
            now = time.monotonic()
            if self.stopping.is_set():
                self.log("warning", f"no receiver has said that the last frames came ({left})")
                return
            if now - moved > self.props.patience:
                waited = f"for {now - moved:.0f} s on {self.endpoint}; 'patience' sets the limit"
                raise UserError(f"{self.name}: no receiver has said that the last frames came ({left}), {waited}")
            if now - told > _SIGN_OF_LIFE:
                told = now
                self.log("info", f"waiting for receivers to say that the last frames came ({left})")
            self._socket.poll(20)
            self.breathe()
            self.tick()
            before, left = left, self._on_their_way()
            if left < before:
                moved = now

    def _on_their_way(self) -> int:
        """Frames that some receiver has not acknowledged yet, or that wait for one."""
        kept = sum(len(camera.backlog) for camera in self._cameras.values())
        return kept + sum(peer.owed for peer in self._peers.values())

    def _ready(self, name: str) -> bool:
        peers = self._peers_of(name)
        return bool(peers) and all(peer.ready for _, peer in peers)

    def _unclaimed(self, name: str, waited: float) -> UserError:
        peers = self._peers_of(name)
        what = f"no receiver took a frame of camera '{name}'" if peers else f"no receiver of '{name}'"
        if any(peer.ready for _, peer in peers):
            what = f"a receiver took no frame of camera '{name}'"
        return UserError(f"{self.name}: {what} for {waited:.0f} s on {self.endpoint}; 'patience' sets the limit")

    # Receivers -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Take what receivers have to say."""
        for _ in range(_MAX_REQUESTS):
            if not readable(self._socket):
                return
            identity, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            try:
                if len(parts) != 1:
                    raise BadMessage("an ask has one part")
                ask = Ask.unpack(parts[0])
            except BadMessage as error:
                self._count_garbage(error)
                continue
            self._starting.pop(identity, None)
            if ask.window and ask.camera in self._cameras:
                self._grant(identity, ask)
            elif ask.camera in self._cameras:
                self._starting[identity] = ask.camera
                if len(self._starting) > _MAX_PEERS:
                    del self._starting[next(iter(self._starting))]
            if ask.hello:  # after the frames: it may be the end
                self._send(identity, [self._info(ask.camera)])

    def _grant(self, identity: bytes, ask: Ask) -> None:
        """A receiver has room."""
        peer = self._peers.get(identity)
        if peer is None or peer.camera != ask.camera:
            if peer is None and len(self._peers) >= _MAX_PEERS and not self._make_room():
                if not self._refused:
                    self._refused = True
                    self.log("warning", f"more than {_MAX_PEERS} receivers; the others get nothing")
                return
            if self.lossless:  # those that are gone leave their frames; this one may be one of them, come back
                for other, _ in self._peers_of(ask.camera):
                    self._send(other, [self._info(ask.camera)])
            # Numbers go on where they stood before the connection broke.
            peer = _Peer(ask.camera, ask.pixels, ask.window, ask.ack, ask.ack, 0.0)
            self._peers[identity] = peer
            backlog = self._cameras[ask.camera].backlog
            peer.waiting.extend(backlog)
            backlog.clear()
        peer.heard = peer.asked = time.monotonic()
        peer.pixels, peer.window, peer.acked = ask.pixels, ask.window, min(ask.ack, peer.sent)
        self._flush(identity, peer, all=self._cameras[peer.camera].ended)

    def _make_room(self) -> bool:
        """Put the receiver out that has been silent for longest, if that is long; in lossless mode frames would be
        lost."""
        identity, peer = min(self._peers.items(), key=lambda item: item[1].asked)
        if self.lossless or peer.asked > time.monotonic() - _SILENT_AFTER:
            return False
        self._forget(identity)
        return True

    def _peers_of(self, name: str) -> list[tuple[bytes, _Peer]]:
        return [(identity, peer) for identity, peer in self._peers.items() if peer.camera == name]

    def _forget(self, identity: bytes) -> None:
        peer = self._peers.pop(identity, None)
        if peer is None:
            return
        self._refused = False
        if not self.lossless:
            return
        if not self._peers_of(peer.camera):
            self._cameras[peer.camera].backlog.extend(peer.waiting)
            peer.waiting.clear()
        if peer.owed:
            self.log("warning", f"a receiver of '{peer.camera}' went away; frames to it may be lost ({peer.owed})")

    def _kept(self, name: str) -> list[_Frame]:
        return [*self._cameras[name].backlog, *(f for _, peer in self._peers_of(name) for f in peer.waiting)]

    def _info(self, name: str) -> bytes:
        camera = self._cameras.get(name) or _Camera()
        return Info(name, list(self.streams), camera.shape, camera.up, camera.reason, camera.ended).pack()

    def _count_garbage(self, error: BadMessage) -> None:
        self.garbage += 1
        self.observe("garbage", 1)
        if self.garbage == 1:
            self.log("warning", f"a peer sent something that no receiver says ({str(error)[:80]}); it is ignored")

    # What goes out -------------------------------------------------------------------------------------

    def _offer(self, identity: bytes, peer: _Peer, frame: _Frame) -> None:
        """Send a frame, or let it wait: behind the others in lossless mode, in the place of an older in live mode."""
        peer.waiting.append(frame)
        self._flush(identity, peer)
        if not self.lossless and len(peer.waiting) > 1:
            peer.waiting.popleft()
            self.observe("replaced", 1)

    def _flush(self, identity: bytes, peer: _Peer, all: bool = False) -> None:
        while peer.waiting and (all or peer.credit > 0):
            parts = peer.waiting[0].message(peer.sent + 1, peer.pixels)
            if not self._send(identity, parts):
                return
            self.observe("frame_bytes", sum(map(len, parts)))
            peer.sent += 1
            peer.waiting.popleft()
            peer.stuck_since = self._cameras[peer.camera].stuck_since = None

    def _send(self, identity: bytes, parts: list[Any]) -> bool:
        """False when it did not go: the peer is gone (and forgotten), or does not read at all."""
        try:
            self._socket.send_multipart([identity, *parts], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno not in _GONE:
                raise
            self._forget(identity)
            return False
        return True
