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
import errno
import os
import socket
import stat
from typing import Annotated

import zmq
from pydantic import AfterValidator, Field

from nodes.narrator import Event, Narrator, NarratorProperties
from pipeline import Buffer, Mark, Sink, UserError, pad
from pipeline.caps import ANY
from pipeline.endpoints import check_endpoint, is_local
from pipeline.events import encode, topic

_LINGER_MS = 500  # how long `close` may wait for what is queued for slow subscribers
_MAX_REQUEST = 1024  # bytes; a subscription is a topic prefix, anything longer ends the peer's connection
_MAX_REQUESTS = 256  # taken at one go, so that a flood of them cannot keep the video waiting


class Publish(Sink):
    """Publish who is seen with which expression, as messages that any program can subscribe to.

    A bound ZeroMQ XPUB socket, topic `emotion/<camera>/<kind>`, payload msgpack (docs/PROTOCOL.md). Times are
    measured by the frames' capture time, in `mode: lossless` by their PTS: the same file then gives the same
    events however fast it is read.
    """

    sink = pad(ANY, needs="faces", access="none")
    tick_interval = 0.05

    class Properties(NarratorProperties):
        endpoint: Annotated[str, AfterValidator(check_endpoint)] = Field(
            "tcp://127.0.0.1:5556",
            description="where to listen: tcp://ADDRESS:PORT (port * takes a free one) or ipc://PATH",
        )
        observations: bool = Field(True, description="also tell what is seen in each single frame")
        hwm: int = Field(
            1000, ge=1, le=1_000_000, description="events queued for a slow subscriber before it loses some"
        )

    endpoint: str = ""
    """The endpoint that is bound, with the port that `*` became."""
    _context: zmq.Context[zmq.Socket[bytes]] | None = None
    _file: tuple[str, int] | None = None
    """The ipc socket's path and inode."""

    def open(self) -> None:
        self._narrator = Narrator(
            self.props,
            clock=self.clock,
            lossless=self.lossless,
            tell=self._send,
            observations=self.props.observations,
            cameras=self.streams,
        )
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
        if not is_local(self.endpoint):
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
            if scheme == "tcp" and error.errno == errno.EADDRINUSE:
                text += f"; `endpoint: {endpoint.rpartition(':')[0]}:*` takes a free port"
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

    def consume(self, buffer: Buffer) -> None:
        self._serve()
        self._narrator.frame(buffer)

    def on_mark(self, mark: Mark) -> None:
        self._serve()
        self._narrator.mark(mark)

    def tick(self) -> None:
        self._serve()
        self._narrator.tick()

    def _send(self, event: Event) -> None:
        self._socket.send_multipart(encode(event), zmq.NOBLOCK)

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

            def wanted(camera: str, kind: str) -> bool:
                return any(topic(camera, kind).startswith(prefix) for prefix in prefixes)

            for event in self._narrator.snapshot(wanted):
                self._send(event)

    def _count_garbage(self) -> None:
        self.garbage += 1
        self.observe("garbage", 1)
        if self.garbage == 1:
            self.log("warning", "a peer sent something that is no subscription; it is ignored")


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
