"""What `emograph launch` says where no picture can stand still: a line for each message and event.

Written by a thread of its own, as the live status is: a pipe that nobody reads never holds up the supervisor.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.console import message_line
from pipeline.events import Event
from pipeline.events_cli import line_writer
from pipeline.streams import Unbuffered
from pipeline.supervisor import Supervisor

KEPT = 10_000
"""Lines that wait for a reader who does not take them; then the oldest go."""
PATIENCE = 1.0
"""Seconds that the end of a run waits for such a reader."""


class Lines:
    """Messages to stderr, events to stdout, in their order."""

    def __init__(self, started: float, media_time: bool) -> None:
        """started: monotonic s, from which messages are timed. media_time: see `line_writer`, of events."""
        self.started = started
        self.failed: OSError | None = None
        """What went wrong with writing; nothing more is written after it."""
        self._write_event = line_writer(Unbuffered(sys.stdout.fileno(), sys.stdout.encoding), media_time)
        messages: Any = Unbuffered(sys.stderr.fileno(), sys.stderr.encoding)
        self._console = Console(file=messages, highlight=False, soft_wrap=True)
        self._queue: deque[Text | Event] = deque()
        self._lost = 0
        self._told = False
        self._closing = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def message(self, level: str, node: str, text: str) -> None:
        self._put(message_line(level, node, text, self.started))

    def event(self, event: Event) -> None:
        self._put(event)

    def tick(self, supervisor: Supervisor) -> None:
        """Raises what went wrong with writing, once."""
        if self.failed is not None and not self._told:
            self._told = True
            raise self.failed

    def close(self) -> None:
        """Write what waits, as far as somebody takes it."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(PATIENCE)
        with self._news:
            self._queue.clear()

    def _put(self, line: Text | Event) -> None:
        with self._news:
            if len(self._queue) == KEPT:
                self._queue.popleft()
                self._lost += 1
            self._queue.append(line)
            self._news.notify()
        if self._thread is None:  # not before: the supervisor forks while there are no threads
            self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._queue or self._closing)
                    if not self._queue:
                        return
                    line = self._queue.popleft()
                    lost, self._lost = self._lost, 0
                if lost:
                    self._write_message(Text(f"{lost} lines are missing here: they were not read in time", "yellow"))
                if isinstance(line, Text):
                    self._write_message(line)
                else:
                    self._write_event(line)
        except OSError as error:
            self.failed = error
        except SystemExit:  # rich makes this of a broken pipe
            self.failed = BrokenPipeError()

    def _write_message(self, line: Text) -> None:
        self._console.print(line)
