"""How many frames of a source may be out in the graph at once, and when the next one may leave.

Cameras that share what is too little for all of them shall have even shares, though none knows of another. What each
sees is how long its own buffers wait on their way, in front of nodes that are at work on others, and in one queue all
wait alike, whatever their own pictures cost. So the window is a function of that wait, the same for each camera: it has
no history of its own to be unfair by. (As in FAST TCP, Wei et al. 2006, the state in which nothing changes is a fair
one; additive increase and multiplicative decrease, Chiu and Jain 1989, come to it only on average, and slowly where
there are but a dozen trips in a second.)

Between two whole numbers the window is now the one and now the other. Below one it is a single buffer at a time with a
rest after it, so that many cameras take turns.
"""

from __future__ import annotations

import random
import time

_LEAST = 1 / 8
"""The smallest window: one buffer, and after it a rest of seven times as long as it took."""
_SHORT, _LONG = 0.2, 0.9
"""Of the latency budget: up to the first, a wait leaves a window as it is; from the second on it is the smallest."""
_WEIGHT, _WEIGHT_LATE = 0.05, 0.1
"""Of one buffer in the running mean of waits; one that came late was work for nothing."""


class Window:
    """The buffers that one source may have out, by how their forerunners came home.

    size: buffers, the node's own property `window`. budget: of latency, ns; 0 in lossless mode, where nothing is
    ever late, so that the window stays as it is."""

    def __init__(self, size: int, budget: int) -> None:
        self._budget = budget
        self._size = size
        self._allowed = float(size)
        self._room = size
        """What is allowed now, as a whole number."""
        self._wait = 0.0
        """Running mean, as a share of the budget."""
        self._last = 0
        """The last wait, ns."""
        self.rest_until = 0
        """Monotonic ns before which no buffer leaves."""

    def full(self, out: int) -> bool:
        """Whether no further buffer may leave now, with `out` of them on their way."""
        return out >= self._room or (self.rest_until > 0 and time.monotonic_ns() < self.rest_until)

    def sent(self) -> None:
        """A buffer has left: of one and a half there is room for two after every other one."""
        self._room = max(1, int(self._allowed + random.random()))

    def delivered(self, waited: int) -> None:
        """A buffer came home delivered; on its way it waited so many ns."""
        # One long wait is a burst that drains again: a search of a large frame, which the next one waits for. In a jam
        # all are long.
        usual, self._last = min(waited, self._last), waited
        if self._budget:
            self._see(min(1.0, max(0.0, usual / self._budget)), _WEIGHT)

    def late(self) -> None:
        """A buffer came home late."""
        self._see(1.0, _WEIGHT_LATE)

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

    def _see(self, wait: float, weight: float) -> None:
        self._wait += weight * (wait - self._wait)
        jam = min(1.0, max(0.0, (self._wait - _SHORT) / (_LONG - _SHORT)))
        # Geometric: a step of the wait is the same share of a large window as of a small one.
        self._allowed = self._size * (_LEAST / self._size) ** jam
