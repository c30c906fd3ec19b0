"""What waits for the nodes of a worker: all that is in its socket, each stream in its own order.

A process that was killed and its successor send through two pipes, which ZeroMQ reads in turns. So messages of the
successor come between those of the dead one, and a mark can overtake frames that went before it. Whatever the dead
one had sent is here by the time its successor speaks; taking in all of it at once lets us put it in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import zmq

from pipeline import wire
from pipeline.buffer import BadMessage, Buffer, Mark, decode
from pipeline.runner import Runner


class Inbox:
    """The worker's end of all links from other processes. waiting: (runner, buffer or mark), next first."""

    def __init__(
        self, socket: zmq.Socket[bytes], runners: dict[str, Runner], on_garbage: Callable[[Exception], None]
    ) -> None:
        self.socket = socket
        self.runners = runners
        self.on_garbage = on_garbage
        self.waiting: deque[tuple[Runner, Buffer | Mark]] = deque()

    def receive(self) -> None:
        """Take in all that is there: buffers where their sequence belongs, marks behind all of them."""
        marks: list[tuple[Runner, Mark]] = []
        newest: dict[tuple[str, str], int] = {}
        for runner, earlier in self.waiting:
            if isinstance(earlier, Buffer):
                newest[runner.name, earlier.stream] = earlier.sequence
        for data in wire.arrived(self.socket):
            try:
                items = wire.unpack(data)
                if type(items) is not list:
                    raise BadMessage("not a list of buffers and marks")
            except ValueError as error:
                self.on_garbage(error)
                continue
            for raw in items:
                try:
                    to, item = decode(raw)
                    runner = self.runners[to]
                    if item.stream not in runner.homes or item.home != item.stream:
                        raise BadMessage("no such stream here")
                except (BadMessage, KeyError) as error:
                    self.on_garbage(error)
                    continue
                if isinstance(item, Mark):
                    marks.append((runner, item))
                    continue
                key = (to, item.stream)
                if item.sequence > newest.get(key, -1):
                    newest[key] = item.sequence
                    self.waiting.append((runner, item))
                else:
                    self.waiting.insert(self._place(runner, item), (runner, item))
        self.waiting.extend(marks)

    def _place(self, runner: Runner, late: Buffer) -> int:
        """Where a buffer belongs that came after a later one of its stream."""
        for index, (other, item) in enumerate(self.waiting):
            if other is runner and isinstance(item, Buffer) and item.stream == late.stream:
                if item.sequence > late.sequence:
                    return index
        return len(self.waiting)
