"""Open connections, bounded in number, in the time until they ask for something, and in the time until they read it.

Who opens a thousand and says nothing, or says it a letter at a time, or asks and does not read the answers, keeps
nobody out: the one that has been idle longest makes room for the next. WebSockets and answers that are read are let be.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

Connection = H11Protocol | WebSocketsSansIOProtocol

REQUEST_TIMEOUT = 10.0
"""Seconds until a request's head is complete, and again until its body is."""
READ_TIMEOUT = 20.0
"""Seconds in which who is sent something has to read any of it."""
SLOW = 1.0
"""Seconds of not reading after which a connection makes room for another, where there are too many."""
SPARE = 64
"""Connections beside the viewers' WebSockets: a browser opens up to six for the page's files."""


class Limits:
    """See the module. most: connections at once. Belongs to the server's thread."""

    def __init__(self, most: int, log: Callable[[str, str], None]) -> None:
        self._most = most
        self._log = log
        self._waiting: dict[Connection, tuple[Any, float]] = {}
        """Those without a complete request -> (their newest request, since when); who has waited longest is first."""
        self._unread: dict[Connection, tuple[int, float]] = {}
        """Those that have not read all -> (bytes left, since when it has not become less); the longest is first."""
        self._told = False

    def enter(self, connection: H11Protocol) -> None:
        """A connection is open."""
        self._waiting[connection] = None, time.monotonic()
        if len(connection.connections) <= self._most:
            return
        slow = time.monotonic() - SLOW
        idle = (c for c in self._waiting if c is not connection and c in c.connections and _waits(c))
        deaf = (c for c, (_, since) in self._unread.items() if since < slow and c in c.connections)
        next(itertools.chain(idle, deaf), connection).transport.abort()
        if not self._told:
            self._told = True
            self._log("warning", f"more than {self._most} connections at once: those that do nothing are ended")

    def look(self, connections: Collection[Any]) -> None:
        """Now and then, with all that are open: end those that take too long."""
        now = time.monotonic()
        waiting, unread = {}, {}
        for connection in connections:
            left = connection.transport.get_write_buffer_size()
            if left:
                before, since = self._unread.get(connection, (0, now))
                unread[connection] = left, since if left >= before else now
            if _waits(connection):
                before, since = self._waiting.get(connection, (None, now))
                # Between two requests a connection may wait each time that we look, and yet be a busy one.
                newest = getattr(connection, "cycle", None)
                waiting[connection] = newest, since if newest is before else now
        self._waiting = dict(sorted(waiting.items(), key=lambda item: item[1][1]))
        for connection, (_, since) in self._waiting.items():
            if now - since > REQUEST_TIMEOUT:
                connection.transport.abort()
        self._unread = dict(sorted(unread.items(), key=lambda item: item[1][1]))
        for connection, (_, since) in self._unread.items():
            if now - since > READ_TIMEOUT:
                connection.transport.abort()


def _waits(connection: Connection) -> bool:
    """Whether it is the other side's turn to say something: between requests, or within one."""
    if connection.transport.is_closing():
        return False
    if isinstance(connection, WebSocketsSansIOProtocol):
        return not connection.handshake_initiated  # a head too long for it stays without an answer
    return connection.conn.their_state in (h11.IDLE, h11.SEND_BODY)


def limited(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol, under these limits."""

    class Limited(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            limits.enter(self)

    return Limited
