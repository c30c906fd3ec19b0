"""How many frames of a source may be out in the graph at once, and when the next one may leave.

A buffer that comes home `late` was work for nothing, so the source sends fewer: less at once, more again slowly
(additive increase, as TCP does it; decrease by one, below two by half). Below one it is a single buffer at a time with
a rest after it: where many cameras share what is too little for one buffer of each, they take turns.
"""

from __future__ import annotations

import random
import time

_GROW_BELOW = 0.5
"""Share of the latency budget under which a delivered buffer widens the window again."""
_GROWTH = 0.1
"""Buffers by which it does: ten good ones undo a late one."""
_LEAST = 1 / 4
"""The smallest window. One of 1/n is one buffer, and after it a rest of n - 1 times as long as it took."""


class Window:
    """size: buffers, the node's own property `window`. budget: of latency, ns; 0 in lossless mode, where nothing is
    ever late, so that the window stays as it is."""

    def __init__(self, size: int, budget: int) -> None:
        self._size, self._budget = size, budget
        self._allowed = float(size)
        self.rest_until = 0
        """Monotonic ns before which no buffer leaves."""

    def full(self, out: int) -> bool:
        """Whether no further buffer may leave now, with `out` of them on their way."""
        if out >= max(1, int(self._allowed)):
            return True
        return self.rest_until > 0 and time.monotonic_ns() < self.rest_until

    def delivered(self, latency: int) -> None:
        """A buffer came home delivered, after so many ns."""
        if latency < _GROW_BELOW * self._budget:
            self._allowed = min(self._allowed + _GROWTH, self._size)

    def late(self) -> None:
        """A buffer came home late."""
        self._allowed = self._allowed - 1 if self._allowed >= 2 else max(_LEAST, self._allowed / 2)

    def home(self, captured: int | None) -> None:
        """Any buffer that had left is whole again: rest, if it is time for that. captured: monotonic ns, if known."""
        now = time.monotonic_ns()
        self.rest_until = 0
        if self._allowed < 1:
            # Not all at the same moment again: cameras that started together would go on in the same order.
            trip = (now - captured) * random.uniform(0.5, 1.5) if captured is not None else 0
            self.rest_until = now + int(trip * (1 / self._allowed - 1))
