"""How much of the time the network works: one that always does is what limits its graph."""

from __future__ import annotations

WINDOW_NS = 10_000_000_000
"""The time looked at as a whole: a start, or a crowd that passes, is no reason to speak."""

ALWAYS = 0.95
"""The share from which on it never waits for faces: faces wait for it."""


class Busy:
    """Counts the calls of a node, in windows one after the other. Times are monotonic ns."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._spent = 0

    def add(self, begun: int, ended: int) -> float:
        """One call more. The share spent in calls, 0..1, if a window ends with it; else 0."""
        if self._since is None:
            self._since = begun
        self._spent += ended - begun
        length = ended - self._since
        if length < WINDOW_NS:
            return 0.0
        share = self._spent / length
        self._since, self._spent = None, 0
        return share
