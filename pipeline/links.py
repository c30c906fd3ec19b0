"""The ways out of a node: links to the next ones, and the way home for the weights of buffers.

A link is a socket, or a plain call where the next node is in the same process. Whoever sends gives the item away.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import zmq

from pipeline.buffer import Buffer, Mark
from pipeline.ring import Fate
from pipeline.wire import bundle, pack

if TYPE_CHECKING:
    from pipeline.runner import Runner
    from pipeline.source import SourceRunner


class Home(Protocol):
    """The way home for one camera's weights."""

    def buffer_home(self, buffer: Buffer, fate: Fate) -> None: ...

    def mark_home(self, mark: Mark, weight: int) -> None: ...


class Link(Protocol):
    """The way to one next node: a socket, or a plain call inside the process. It takes the object over."""

    local: bool

    def send(self, item: Buffer | Mark) -> None: ...

    def flush(self) -> None: ...


GATHER_NS = 100_000
"""How long buffers for one process may gather into one message: a message costs more than what is in it."""


class Outbox:
    """What goes to one other process. Items gather while more come quickly; the worker's loop sends them.

    `settle` is called after each buffer that was worked on, `flush` at the end of the loop's turn. An item does not
    wait for slow work on the next one, unless that comes as a surprise.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._parts: list[bytes] = []
        self._since = 0

    def put(self, data: bytes) -> None:
        if not self._parts:
            self._since = time.monotonic_ns()
        self._parts.append(data)

    def settle(self, now: int, took: int) -> None:
        """Send, unless the next item will be here in time; it is expected to take as many ns as the last one `took`."""
        if self._parts and now + took - self._since > GATHER_NS:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self.socket.send(bundle(parts))


class SocketLink:
    """The way to a node in another process."""

    local = False

    def __init__(self, outbox: Outbox, to: str) -> None:
        self.outbox = outbox
        self.to = to

    def send(self, item: Buffer | Mark) -> None:
        self.outbox.put(item.pack(self.to))

    def flush(self) -> None:
        self.outbox.flush()


class CallLink:
    """The way to a node in this process: a plain call."""

    local = True

    def __init__(self, runners: dict[str, Runner], to: str) -> None:
        self.runners = runners
        self.to = to

    def send(self, item: Buffer | Mark) -> None:
        runner = self.runners[self.to]
        if isinstance(item, Buffer):
            runner.take(item)
        else:
            runner.take_mark(item)

    def flush(self) -> None:
        """Nothing gathers here."""


class SocketHome:
    """The way home to a source in another process; weights travel together, once per turn of the loop."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.entries: list[tuple[Any, ...]] = []

    def buffer_home(self, buffer: Buffer, fate: Fate) -> None:
        self.entries.append((0, buffer.stream, buffer.sequence, buffer.weight, fate, buffer.trace))

    def mark_home(self, mark: Mark, weight: int) -> None:
        self.entries.append((1, mark.stream, mark.number, weight, None, None))

    def flush(self) -> None:
        if self.entries:
            self.socket.send(pack(self.entries))
            self.entries = []


class CallHome:
    """The way home to a source in this process."""

    def __init__(self, sources: dict[str, SourceRunner], name: str) -> None:
        self.sources = sources
        self.name = name

    def buffer_home(self, buffer: Buffer, fate: Fate) -> None:
        self.sources[self.name].buffer_home(buffer.sequence, buffer.weight, fate, buffer.trace)

    def mark_home(self, mark: Mark, weight: int) -> None:
        self.sources[self.name].mark_home(mark.number, weight)


def spread(item: Buffer | Mark, links: list[Link] | tuple[Link, ...]) -> None:
    """Send an item to all links, its weight split between them."""
    if len(links) == 1:
        links[0].send(item)
        return
    # Sockets first, and at once where a plain call follows: it may take long. It may also change the item, so all but
    # the last get copies.
    ordered = sorted(links, key=lambda link: link.local)
    share = item.weight // len(ordered)
    whole = item.weight
    for index, link in enumerate(ordered[:-1]):
        if not link.local:
            item.weight = share
            try:
                link.send(item)
            except Exception:
                if index == 0:
                    item.weight = whole  # it could not be packed: nothing has left
                raise
        elif isinstance(item, Buffer):
            _flush_sockets(ordered)
            link.send(item.branch(share))
        else:
            link.send(Mark(item.kind, item.stream, item.number, share, item.home, dict(item.data)))
    item.weight = whole - share * (len(ordered) - 1)
    if ordered[-1].local and not ordered[-2].local:
        _flush_sockets(ordered)
    ordered[-1].send(item)


def _flush_sockets(links: list[Link]) -> None:
    for link in links:
        if not link.local:
            link.flush()
