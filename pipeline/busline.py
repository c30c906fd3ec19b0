"""A worker's line to its supervisor: what it says, within bounds, and what it is told."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import zmq

from pipeline.plan import Assignment
from pipeline.wire import pack, readable, unpack

LOGS_PER_REPORT = 50
"""Messages that a process may post between two reports; the rest is counted."""


class BusLine:
    """`say` and all of `hear` belong to the worker's main thread; `log` may be called by any."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], assignment: Assignment) -> None:
        self.process = assignment.process
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, self.process.encode())
        self.socket.setsockopt(zmq.LINGER, 500)
        # What is said once must arrive; `log` sees to it that it cannot become much.
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.connect(assignment.bus)
        self._logs: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self._logs_left = LOGS_PER_REPORT
        self._logs_dropped = 0
        self._unheard: deque[dict[str, Any]] = deque()

    def say(self, what: str, **fields: Any) -> None:
        self.socket.send(pack({"say": what, **fields}))

    def log(self, level: str, node: str, text: str) -> None:
        """Post a message; from any thread (a live source's reader has one), though a socket belongs to the main one."""
        self._logs.put((level, node, str(text)))
        if threading.current_thread() is threading.main_thread():
            self.send_logs()

    def send_logs(self) -> None:
        """Say what other threads have posted."""
        while not self._logs.empty():
            level, node, text = self._logs.get()
            if self._logs_left > 0:
                self._logs_left -= 1
                self.say("log", level=level, node=node, text=text)
            else:
                self._logs_dropped += 1

    def allow_logs(self) -> None:
        """A report is due: as many messages again; those that were too many are told as a number."""
        self._logs_left = LOGS_PER_REPORT
        if self._logs_dropped:
            self.log("warning", self.process, f"{self._logs_dropped} more messages are left out")
            self._logs_dropped = 0

    @property
    def waiting(self) -> bool:
        """Whether `look` has found what is still to be heard."""
        return bool(self._unheard)

    def look(self) -> bool:
        """In the middle of something else: whether the end has come. What is there stays to be heard."""
        self._unheard += self._receive()
        return any(message["do"] == "quit" for message in self._unheard)

    def hear(self) -> Iterator[dict[str, Any]]:
        """What there is to hear now, the oldest first."""
        self._unheard += self._receive()
        while self._unheard:  # by what is done about it more may come to be heard, in `look`
            yield self._unheard.popleft()

    def _receive(self) -> Iterator[dict[str, Any]]:
        while readable(self.socket):
            yield unpack(self.socket.recv(zmq.NOBLOCK))
