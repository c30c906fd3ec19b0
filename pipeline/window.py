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
_WHOLE = 10
"""Delivered buffers that widen it by a whole one. The window is counted in these parts, which floats hold exactly."""
_LEAST = _WHOLE / 4
"""The smallest window. A quarter of one is one buffer, and after it a rest of three times as long as it took."""


class Window:
    """The buffers that one source may have out, by how their forerunners came home.

    size: buffers, the node's own property `window`. budget: of latency, ns; 0 in lossless mode, where nothing is
    ever late, so that the window stays as it is."""

    def __init__(self, size: int, budget: int) -> None:
        self._budget = budget
        self._most = size * _WHOLE
        self._allowed: float = self._most
        self.rest_until = 0
        """Monotonic ns before which no buffer leaves."""

    def full(self, out: int) -> bool:
        """Whether no further buffer may leave now, with `out` of them on their way."""
        if out >= max(1, self._allowed // _WHOLE):
            return True
        return self.rest_until > 0 and time.monotonic_ns() < self.rest_until

    def delivered(self, latency: int) -> None:
        """A buffer came home delivered, after so many ns."""
        if latency < _GROW_BELOW * self._budget:
            self._allowed = min(self._allowed + 1, self._most)

    def late(self) -> None:
        """A buffer came home late."""
        self._allowed = self._allowed - _WHOLE if self._allowed >= 2 * _WHOLE else max(_LEAST, self._allowed / 2)

    def home(self, captured: int | None) -> None:
        """Any buffer that had left is whole again: rest, if it is time for that. captured: monotonic ns, if known."""
        now = time.monotonic_ns()
        self.rest_until = 0
        if self._allowed < _WHOLE:
            # What took longer than the budget waited for a node that stood still, which says nothing of the next one.
            trip = min(now - captured, self._budget) if captured is not None else 0
            # Not all at the same moment again: cameras that started together would go on in the same order.
            trip *= random.uniform(0.5, 1.5)
            self.rest_until = now + int(trip * (_WHOLE / self._allowed - 1))
