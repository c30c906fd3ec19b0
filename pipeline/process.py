"""A worker as the supervisor sees it: its state, its last words, what it costs, when it may start again."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.spawner import Child

_READS_PER_TURN = 16


@dataclass
class Process:
    """One process of the plan, whether it runs just now or not. Times are monotonic seconds."""

    RESTART_LIMIT: ClassVar[int] = 5
    """Restarts in a row after which the graph gives up. A buffer that passed begins a new row, but not after an
    exception of a node, which would come again for ever."""
    HEALTHY_AFTER: ClassVar[float] = 60.0
    """Seconds of READY or PLAYING after which a restart is no longer 'in a row'."""
    MAX_BACKOFF: ClassVar[float] = 5.0
    """Seconds between an end and the next start, at the most."""

    name: str
    nodes: list[str]
    child: Child | None = None
    state: str = "NULL"
    started_at: float = 0.0
    ready_at: float = 0.0
    heard_at: float = 0.0
    restarts: int = 0
    """In a row, after crashes."""
    failed: bool = False
    """Whether an exception of a node ends this start of it."""
    failures: int = 0
    """Such ends in a row, whether buffers passed between them or not."""
    failures_total: int = 0
    attempts: int = 0
    """In a row, to open what is away."""
    restarts_total: int = 0
    not_before: float = 0.0
    died_at: float = 0.0
    has_closed: bool = False
    """Whether this start of it has said its last word."""
    recovering: bool = False
    waits_for_pass: set[str] = field(default_factory=set)
    cpu: float = 0.0
    """Seconds of CPU."""
    cpu_at: float = 0.0
    cpu_share: float = 0.0
    """Cores in use between its last two reports."""
    rss: int = 0
    """Bytes."""
    garbage: int = 0
    told_slow: bool = False
    """Whether it was told of this start that it takes long."""
    killed_for: str = ""
    """Why the supervisor itself killed it."""
    error: str | None = None
    """What it said before it ended, for a person."""
    stderr: deque[str] = field(default_factory=lambda: deque(maxlen=40))
    _partial: bytes = b""

    def begin(self, child: Child) -> None:
        """A process was started."""
        os.set_blocking(child.stderr, False)
        self.child = child
        self.stderr.clear()
        self._partial = b""
        self.has_closed, self.told_slow, self.failed, self.killed_for = False, False, False, ""
        self.state = "NULL"
        self.started_at = self.heard_at = time.monotonic()

    def end(self) -> None:
        """It has ended, if there was one; its successor counts from zero."""
        if self.child is not None:
            self.child.close()
        self.child = None
        self.state = "NULL"
        self.died_at = time.monotonic()

    @property
    def was_ready(self) -> bool:
        """Whether this start of it came as far as READY, whatever it is now."""
        return self.ready_at >= self.started_at > 0

    def recover(self) -> None:
        """A buffer has passed every one of its nodes."""
        self.recovering = False
        self.restarts, self.attempts = self.failures, 0

    def report(self, now: float, cpu: float, rss: int, garbage: int) -> None:
        """What it said of itself."""
        if self.cpu_at:
            self.cpu_share = max(0.0, cpu - self.cpu) / max(now - self.cpu_at, 0.1)
        self.heard_at = self.cpu_at = now
        self.cpu, self.rss, self.garbage = cpu, rss, garbage

    def read_stderr(self) -> tuple[list[str], bool]:
        """(new lines that it wrote to stderr, whether there can be no more); never waits."""
        assert self.child is not None
        found: list[str] = []
        for _ in range(_READS_PER_TURN):
            try:
                data = os.read(self.child.stderr, 65536)
            except BlockingIOError:
                return found, False
            if not data:
                return found, True
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._partial = self._partial[-4096:]
            new = [line.decode(errors="replace") for line in lines]
            self.stderr += new
            found += new
        return found, False

    @property
    def last_words(self) -> str:
        """The last line that it wrote to stderr, or nothing."""
        return next((line for line in reversed(self.stderr) if line.strip()), "")

    def plan_restart(self, patient: bool) -> float | None:
        """Count one restart more; returns the seconds until it, or None when there were too many in a row.

        patient: what it needs is away and will come back; it is tried without limit, and does not count as a crash.
        """
        now = time.monotonic()
        if self.was_ready and now - self.ready_at > self.HEALTHY_AFTER:
            self.restarts = self.attempts = self.failures = 0
        self.failures += self.failed
        self.restarts_total += 1
        if patient:
            self.attempts += 1
        else:
            self.restarts += 1
            if self.restarts > self.RESTART_LIMIT:
                return None
        in_a_row = self.attempts + self.restarts
        delay = min(0.1 * 2 ** min(in_a_row - 1, 10), self.MAX_BACKOFF) if in_a_row > 1 else 0.0
        self.not_before = now + delay
        self.recovering = True
        self.waits_for_pass = set(self.nodes)
        # Its successor counts from zero.
        self.cpu = self.cpu_at = self.cpu_share = 0.0
        self.rss = self.garbage = 0
        return delay


def how_it_ended(code: int) -> str:
    """An exit code in words; negative for a signal."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
