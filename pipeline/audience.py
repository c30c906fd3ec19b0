"""An XPUB socket at an address that anybody may reach: subscribers come and go, and none of them can fill its memory.

    audience = Audience("tcp://127.0.0.1:5556", hwm=1000)
    prefixes, garbage = audience.take()     # who has subscribed since, and to what
    audience.send([b"emotion/door/change", payload])

libzmq keeps what peers send in a queue, and their prefixes in a tree, both without a limit. A peer that sends far more
than any subscriber would is put out here, and all others with it, since libzmq does not say whose message is whose: the
socket is bound anew, where honest subscribers connect again by themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time

import zmq

from pipeline.endpoints import check_endpoint
from pipeline.wire import readable

MAX_REQUEST = 128
"""Bytes; a subscription is a topic's prefix, anything longer ends its peer's connection."""
MAX_PREFIXES = 10_000
"""Prefixes at a time, of all subscribers."""
MAX_UNBROKEN = 20_000
"""Requests that may come without a pause: as many as the subscribers of a crowd that connects anew."""
_TURN = 0.005
"""Seconds that one `take` may cost, so that a flood of requests cannot keep the video waiting."""


class Audience:
    """Raises OSError where `endpoint`, tcp:// or ipc://, cannot be bound, ValueError where it is none.

    hwm: messages queued for a slow subscriber before it loses some. linger_ms: how long `close` may wait for them.
    endpoint: what is bound, with the port that `*` became. thrown_out: how often all peers were.
    """

    def __init__(self, endpoint: str, hwm: int, linger_ms: int = 0) -> None:
        self.endpoint = check_endpoint(endpoint)
        self.thrown_out = 0
        self._hwm = hwm
        self._linger_ms = linger_ms
        self._prefixes: set[bytes] = set()
        self._unbroken = 0
        self._closed = False
        self._file: tuple[str, int] | None = None
        """The ipc socket's path and inode."""
        self._bind()

    def _bind(self) -> None:
        scheme, _, path = self.endpoint.partition("://")
        is_file = scheme == "ipc" and not path.startswith("@")  # `@name`: Linux' abstract names are no files
        if is_file:
            _refuse_used(path)
        self._context = zmq.Context()  # of its own: only its end says that the address is free again
        self._socket: zmq.Socket[bytes] | None = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tells of each subscription, not of the first to a prefix alone
        self._socket.setsockopt(zmq.SNDHWM, self._hwm)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)  # ms: who connects and says nothing holds no descriptor
        self._socket.setsockopt(zmq.IPV6, "[" in self.endpoint)
        try:
            self._socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            self._leave(0)
            raise OSError(error.errno, os.strerror(error.errno or 0)) from None
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._file = (path, os.stat(path).st_ino) if is_file else None

    def take(self) -> tuple[set[bytes], int]:
        """The prefixes that were subscribed to since the last call, and how many messages were no subscriptions.

        Never waits. Where somebody floods the socket, all peers are thrown out.
        """
        new, garbage = set(), 0
        if self._socket is None and not self._closed:  # somebody else has taken the address in between
            with contextlib.suppress(OSError):
                self._bind()
        end = time.monotonic() + _TURN
        while self._socket is not None and time.monotonic() < end:
            if not readable(self._socket):
                self._unbroken = 0
                break
            request, *more = self._socket.recv_multipart(zmq.NOBLOCK)
            self._unbroken += 1
            kind, prefix = request[:1], request[1:]
            if more or kind not in (b"\0", b"\1"):
                garbage += 1
            elif kind == b"\1":
                self._prefixes.add(prefix)
                new.add(prefix)
            else:
                self._prefixes.discard(prefix)
            if self._unbroken > MAX_UNBROKEN or len(self._prefixes) > MAX_PREFIXES:
                self._throw_out()
                new.clear()
        return new, garbage

    def _throw_out(self) -> None:
        self.thrown_out += 1
        self._prefixes.clear()
        self._unbroken = 0
        self._leave(0)
        with contextlib.suppress(OSError):
            self._bind()

    def send(self, parts: list[bytes]) -> None:
        """To all who have subscribed to what begins so. Never waits: who does not keep up loses messages, so
        ZMQ_XPUB_NODROP must never be set here."""
        if self._socket is not None:
            self._socket.send_multipart(parts, zmq.NOBLOCK)

    def close(self) -> None:
        """Leave the address for good, at the latest after `linger_ms`."""
        self._closed = True
        self._leave(self._linger_ms)

    def _leave(self, linger_ms: int) -> None:
        if self._socket is None:
            return
        self._socket.close(linger_ms)
        self._socket = None
        self._context.term()  # a context that is merely forgotten waits for its sockets for ever
        if self._file:
            path, inode = self._file
            with contextlib.suppress(FileNotFoundError):  # libzmq removes it in some versions
                if os.stat(path).st_ino == inode:
                    os.unlink(path)


def _refuse_used(path: str) -> None:
    """Raise OSError when something is at `path` that must not be replaced: libzmq deletes whatever is there,
    a file or the socket of a running program, and binds. The socket that a killed program left may go."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
