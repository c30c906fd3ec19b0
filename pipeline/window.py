"""How many frames of a source may be out in the graph at once, and when the next one may leave.

Cameras that share what is too little for all of them shall come to even shares, though none knows of another. What each
sees is how long its own buffers are on their way, and that tells all of them the same: how full the nodes are that they
share. While it is short, a window grows by a constant for each trip; while it is long, it shrinks by a share of itself,
so that of two windows the larger one loses more (additive increase, multiplicative decrease: Chiu and Jain 1989; by
delay as in TCP Vegas, Brakmo and Peterson 1995). A buffer that comes home `late` was work for nothing: then it is half.
Below one it is a single buffer at a time with a rest after it, so that many cameras take turns.
"""

from __future__ import annotations

import random
import time

_STEP = 0.05
"""What a window grows by in one trip, in buffers; and the share of it by which it shrinks in one."""
_LEAST = 0.25
"""The smallest window. A quarter of one is one buffer, and after it a rest of three times as long as it took."""
_FULL = 0.5
"""Trips are long when this share of what the budget leaves above the shortest one goes with waiting."""
_MEMORY_NS = 10_000_000_000
"""The shortest trip is that of the last one to two of these spans, since a scene may come to need more work."""


class Window:
    """The buffers that one source may have out, by how their forerunners came home.

    size: buffers, the node's own property `window`. budget: of latency, ns; 0 in lossless mode, where nothing is
    ever late, so that the window stays as it is."""

    def __init__(self, size: int, budget: int) -> None:
        self._budget = budget
        self._most = self._allowed = float(size)
        self._refused = False
        """Whether a frame has found the window full since one came home: else it is wide enough."""
        self._last = budget
        """The last trip, ns."""
        self._halved_at = 0
        self._shortest, self._shortest_before, self._since = budget, budget, 0
        """The shortest trip since a moment, and in the span before it; all in monotonic ns."""
        self.rest_until = 0
        """Monotonic ns before which no buffer leaves."""

    def full(self, out: int) -> bool:
        """Whether no further buffer may leave now, with `out` of them on their way."""
        full = out >= max(1, int(self._allowed)) or (self.rest_until > 0 and time.monotonic_ns() < self.rest_until)
        self._refused |= full
        return full

    def delivered(self, latency: int) -> None:
        """A buffer came home delivered, after so many ns."""
        if not self._budget:
            return
        shortest = self._shortest_trip(latency)
        # One long trip is a burst that drains again: a search of a large frame, which the next one waits for. In a jam
        # all are long.
        usual, self._last = min(latency, self._last), latency
        if usual >= shortest + _FULL * (self._budget - shortest):
            self._allowed = max(_LEAST, self._allowed - _STEP)  # one of as many in a trip as the window holds
        elif self._refused:
            self._allowed = min(self._allowed + _STEP / self._allowed, self._most)
        self._refused = False

    def late(self, captured: int | None) -> None:
        """A buffer, captured at so many monotonic ns, came home late. All that left before the first one of several
        tell of the same jam."""
        if captured is None or captured >= self._halved_at:
            self._allowed = max(_LEAST, self._allowed / 2)
            self._halved_at = time.monotonic_ns()

    def home(self, captured: int | None) -> None:
        """Any buffer that had left is whole again: rest, if it is time for that. captured: monotonic ns, if known."""
        now = time.monotonic_ns()
        self.rest_until = 0
        if self._allowed < 1:
            # What took longer than the budget waited for a node that stood still, which says nothing of the next one.
            trip = min(now - captured, self._budget) if captured is not None else 0
            # Not all at the same moment again: cameras that started together would go on in the same order.
            trip *= random.uniform(0.5, 1.5)
            self.rest_until = now + int(trip * (1 / self._allowed - 1))

    def _shortest_trip(self, latency: int) -> int:
        """The shortest of late, with one that took `latency` ns just now."""
        now = time.monotonic_ns()
        if now - self._since > _MEMORY_NS:
            self._shortest_before, self._shortest, self._since = self._shortest, latency, now
        self._shortest = min(self._shortest, latency)
        return min(self._shortest, self._shortest_before)
