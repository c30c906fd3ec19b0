"""Takes in a camera that a graph on another host hands over: the far end of a link, `send` is the near one.

    emograph launch "testsrc name=door ! haardetect ! send endpoint=tcp://0.0.0.0:5570"
    emograph launch "receive camera=door endpoint=tcp://10.0.0.7:5570 ! emotion ! publish"

To this graph it is a camera like any other: a source, with a window and a ledger of its own. It asks for each frame
that it has room for, and for pixels only when a node behind it looks at them. Whatever else comes from the network
is counted and dropped.
"""

from __future__ import annotations

import contextlib
import time

import zmq
from pydantic import Field, model_validator

from nodes import remotelink
from nodes.remotelink import DEFAULT_ENDPOINT, Ask, Endpoint, Header, Info
from nodes.remotepixels import decode
from pipeline import Buffer, Seconds, Source, SourceProperties, UserError, VideoInfo, pad
from pipeline.buffer import BadMessage
from pipeline.errors import did_you_mean

_ASK_AGAIN = 1.0
"""Seconds of silence after which the sender is asked anew: it may have been started again."""
_LAST_WORD = 5.0
"""Seconds to get it through to the sender that the last frame came; a lossless one waits for that."""
_LEAP = 365 * 24 * 3600 * 1_000_000_000
"""Nanoseconds between two frames that nobody believes."""
_POLL_MS = 50
"""How long a stop may go unnoticed."""


class Receive(Source):
    """Receive one camera from a `send` node on another host, as a live source.

    Regions, metadata, PTS and capture time are the sender's; the frames' numbers and the ledger are this graph's.
    It offers all metadata that the nodes of emograph can have added: the check of a graph cannot see through the
    network, so it is on you that the other graph has the detector. When the sender goes away the camera is down
    until it comes back; when the sender says that the stream has ended, it ends here, unless `reconnect` is set. One
    that is not `required` is down until it comes for the first time, too.
    """

    src = pad("video/raw", format="BGR", adds="faces,emotions,truth")
    live = True
    tick_interval = 0.5

    class Properties(SourceProperties):
        endpoint: Endpoint = Field(DEFAULT_ENDPOINT, description="where `send` listens: tcp://HOST:PORT")
        camera: str | None = Field(
            None, min_length=1, max_length=200, description="its name at the sender; unset: this node's own name"
        )
        timeout: Seconds = Field(
            10.0, gt=0, le=60, description="how long the first frame may take, and from frame to frame"
        )
        reconnect: bool = Field(
            False, description="when the stream has ended at the sender, wait for it as for a camera that is away"
        )
        prefetch: int = Field(
            4, ge=1, le=remotelink.MAX_WINDOW, description="frames on their way at once: more for a slow network"
        )
        required: bool = Field(
            True,
            description="false: the graph starts without this camera, which joins when it is there; "
            "needs 'width' and 'height'",
        )
        width: int | None = Field(None, ge=1, le=16384, description="of its frames, where they are not waited for")
        height: int | None = Field(None, ge=1, le=16384, description="of its frames, where they are not waited for")

        @model_validator(mode="after")
        def _size_where_it_is_needed(self) -> Receive.Properties:
            if not self.required and not (self.width and self.height):
                raise ValueError("'required: false' needs 'width' and 'height': memory is taken before a frame comes")
            if self.required and (self.width or self.height):
                raise ValueError("'width' and 'height' go with 'required: false'; else frames have the sender's size")
            return self

    _context: zmq.Context[zmq.Socket[bytes]] | None = None

    def open(self) -> VideoInfo:
        self.camera: str = self.props.camera or self.name
        self.garbage = self.skipped = 0
        """Messages that were dropped, and frames of the camera that did not come, so far."""
        self._told = (0, 0)
        self._garbled = ""
        self._heard = 0.0
        self._down_there = False
        self._over = False
        """Whether the stream had ended before this graph played, and no frame has come all the same."""
        self._ack = self._ack_told = 0
        self._asked = 0.0
        self._sequence: int | None = None
        self._last_pts = self._last_wall = self._offset = 0
        if self.last_before is not None:
            self._last_pts, moment = self.last_before
            self._last_wall = time.time_ns() - (time.monotonic_ns() - moment)
        self._down = ""
        self._ended = False
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        # Asks do not pile up while nobody is there. (ZMQ_IMMEDIATE would see to that as well, but it throws away
        # what has come and was not read yet when the sender closes: the end of a stream.)
        self._socket.setsockopt(zmq.SNDHWM, 4)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, remotelink.MAX_PART)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        remotelink.tune(self._socket, self.props.endpoint)
        try:
            self._socket.connect(self.props.endpoint)
            self._shape = self._known_shape() or self._first()
        except zmq.ZMQError as error:
            self.close()
            reason = zmq.strerror(error.errno or 0).lower()
            raise UserError(f"{self.name}: cannot connect to {self.props.endpoint}: {reason}") from None
        except UserError:
            self.close()
            raise
        return VideoInfo(*self._shape)

    def close(self) -> None:
        if self._context is None:
            return
        self._report()
        if self._ended:  # a sender may wait for our word that the last frame came
            self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.close()
        self._context.term()
        self._context = None

    def fill(self, buffer: Buffer) -> bool:
        began = time.monotonic()
        self._ask(hello=self._sequence is None)
        while not self._ended and not self.stopping.is_set():
            message = self._receive()
            if isinstance(message, Info):
                down = self._down
                self._hear(message)
                if down and not self._down:
                    began = time.monotonic()  # from now on its silence counts
            elif message is not None:
                if self._take(*message, buffer):
                    return True
                self._ask()
            now = time.monotonic()
            if now - self._asked > _ASK_AGAIN:
                self._ask(hello=True)
            if now - began > self.props.timeout:
                self._silence(now)
        end = time.monotonic() + _LAST_WORD
        while self._ack_told < self._ack and not self.stopping.is_set() and time.monotonic() < end:
            self._socket.poll(_POLL_MS, zmq.POLLOUT)
            self._ask()
        return False

    def tick(self) -> None:
        self._report()

    def _known_shape(self) -> tuple[int, int, int] | None:
        """The shape of the frames, where the graph does not wait for the first of them."""
        if self.restarted and self.shape_before is not None:
            return self.shape_before
        height, width = self.props.height, self.props.width
        return (height, width, 3) if height and width else None

    # Before the first frame ----------------------------------------------------------------------------

    def _first(self) -> tuple[int, int, int]:
        """The shape of the frames; UserError when the sender does not tell in time."""
        p = self.props
        info: Info | None = None
        end = time.monotonic() + p.timeout
        while time.monotonic() < end:
            if self.stopping.is_set():
                raise UserError(f"{self.name}: stopped while waiting for {p.endpoint}")
            if time.monotonic() - self._asked > _ASK_AGAIN:
                self._ask(hello=True, window=0)
            message = self._receive()
            if not isinstance(message, Info):
                continue
            info = message
            if self.camera not in info.cameras:
                raise UserError(f"{self.name}: {self._no_camera(info)}")
            if info.ended and info.shape is None:
                raise UserError(f"{self.name}: camera '{self.camera}' at {p.endpoint} has ended")
            if info.shape is not None:
                self._over = info.ended and not p.reconnect
                return info.shape
        text = f"{self.name}: no frame of camera '{self.camera}' from {p.endpoint} within {p.timeout:g} s"
        if info is None:
            nobody = "no answer" if remotelink.resolves(p.endpoint) else "its host's name cannot be resolved"
            who = f"what answers there is no 'send' of this version ({self._garbled})" if self._garbled else nobody
            raise UserError(f"{text}; {who}")
        down = f"; it is down: {info.reason}" if not info.up else ""
        raise UserError(f"{text}; it offers: {', '.join(info.cameras)}{down}")

    # What comes in -------------------------------------------------------------------------------------

    def _ask(self, hello: bool = False, window: int | None = None) -> None:
        """Say what is wanted and what has come; what does not go through is said again a little later."""
        room: int = self.props.prefetch if window is None else window
        with contextlib.suppress(zmq.Again):
            self._socket.send(Ask(self.camera, hello, self.pixels_wanted, self._ack, room).pack(), zmq.NOBLOCK)
            self._ack_told = self._ack
        self._asked = time.monotonic()

    def _receive(self) -> tuple[Header, memoryview] | Info | None:
        """The next message about our camera, or None when none came for a moment."""
        if not self._socket.poll(_POLL_MS):
            return None
        parts = [frame.buffer for frame in self._socket.recv_multipart(zmq.NOBLOCK, copy=False)]
        try:
            message = remotelink.unpack(parts[0])
            if message.camera != self.camera:
                raise BadMessage("another camera")
            if len(parts) != (2 if isinstance(message, Header) else 1):
                raise BadMessage(f"{len(parts)} parts")
        except BadMessage as error:
            self._drop(error)
            return None
        self._heard = time.monotonic()
        return (message, parts[1]) if isinstance(message, Header) else message

    def _take(self, header: Header, data: memoryview, buffer: Buffer) -> bool:
        """Enter what came into `buffer`. False when it cannot be used."""
        self._ack = header.number
        self._over = False
        if self._sequence is not None and header.sequence > self._sequence + 1:
            self.skipped += header.sequence - self._sequence - 1
        self._sequence = header.sequence
        if header.shape != self._shape:
            self.skipped += 1
            self._tell(self._misfit(header.shape))
            return False
        try:
            pts = self._time(header)
            if self.pixels_wanted:
                decode(data, header.format, buffer.frame)
        except BadMessage as error:
            self._drop(error)
            return False
        self._last_pts, self._last_wall, self._offset = pts, header.wall, pts - header.pts
        buffer.pts, buffer.wall = pts, header.wall
        buffer.regions, buffer.meta = header.regions, header.meta
        self._tell("")
        return True

    def _time(self, header: Header) -> int:
        """PTS that never step back: those of a sender that was started again go on where the old ones ended."""
        pts = header.pts + self._offset
        if pts < self._last_pts:
            pts = self._last_pts + max(1, header.wall - self._last_wall)
        # A time that leads nowhere must not be where all that follow go on from.
        limit = self._last_pts + _LEAP if self._last_pts else remotelink.MAX_TIME // 2
        if not 0 <= pts < limit:
            raise BadMessage("a time out of range")
        return pts

    # Up and down ---------------------------------------------------------------------------------------

    def _hear(self, info: Info) -> None:
        if self.camera not in info.cameras:
            self._tell(self._no_camera(info))
        elif not info.up:
            self._tell(info.reason or "down at the sender", there=True)
        elif info.ended and self.props.reconnect:
            self._tell("the stream has ended at the sender")
        elif self._down_there and info.shape == self._shape:
            self._tell("")
        self._ended = info.ended and not self.props.reconnect

    def _silence(self, now: float) -> None:
        """No frame for `timeout`. A lossless graph may well take that long, as long as its sender is there."""
        answers = now - self._heard < 3 * _ASK_AGAIN
        if self._over and not answers:  # it has gone, and had said that no frame would come
            self._ended = True
            return
        if not self._down and not (answers and self.lossless):
            what = "sends no frame" if answers else "does not answer"
            self._tell(f"{self.props.endpoint} {what} for {self.props.timeout:g} s")

    def _misfit(self, shape: tuple[int, int, int]) -> str:
        now, was = (f"{width}x{height}" for height, width, _ in (shape, self._shape))
        if not self.props.required:
            return f"its frames are {now}, and 'width' and 'height' say {was}"
        return f"it is {now} now and was {was}: launch this graph again"

    def _no_camera(self, info: Info) -> str:
        known = did_you_mean(self.camera, info.cameras)
        return f"{self.props.endpoint} has no camera '{self.camera}'{known}"

    def _tell(self, down: str, there: bool = False) -> None:
        """Post it when the camera goes down (and why) or up (no reason). there: the sender says so, and says when it
        is over; after any other reason only a frame proves that the camera is up."""
        self._down_there = there
        if down != self._down:
            self._down = down
            self.status(not down, down)

    # What is told on the bus: by the engine's thread, not by the one that reads ---------------------------

    def _drop(self, error: BadMessage) -> None:
        self.garbage += 1
        self._garbled = self._garbled or str(error)[:80]

    def _report(self) -> None:
        garbage, skipped = self.garbage - self._told[0], self.skipped - self._told[1]
        if garbage and not self._told[0]:
            self.log("warning", f"dropped a message from {self.props.endpoint} that is none of ours ({self._garbled})")
        if garbage:
            self.observe("garbage", garbage)
        if skipped:
            self.observe("skipped", skipped)
            if self.lossless:
                self.log("warning", f"{skipped} frames of camera '{self.camera}' did not come")
        self._told = (self._told[0] + garbage, self._told[1] + skipped)
