"""How far apart a stream's frames are as a rule: what tells a slow camera from one that fell silent, in the nodes that
follow faces over time (`emograph launch "testsrc fps=0.5 ! haardetect ! emotion ! publish"`)."""

from __future__ import annotations

from collections import deque

STEPS = 5
"""That the usual one is taken from."""


class Pace:
    """The usual step from frame to frame of one stream, in whatever unit its times are given.

    It is the median of the last ones: neither one gap changes it, nor two frames that a network has delivered together.
    Nothing is known before the second frame: the step is 0 until then.
    """

    def __init__(self) -> None:
        self.step = 0.0
        self._steps: deque[float] = deque(maxlen=STEPS)
        self._last: float | None = None

    def frame(self, at: float) -> None:
        """A frame has come. Times that do not rise say nothing."""
        if self._last is not None and at > self._last:
            self._steps.append(at - self._last)
            self.step = sorted(self._steps)[(len(self._steps) - 1) // 2]
        self._last = at
