"""How far apart a stream's frames are as a rule: what tells a slow camera from one that fell silent, in the nodes that
follow faces over time (`emograph launch "testsrc fps=0.5 ! haardetect ! emotion ! publish"`)."""

from __future__ import annotations


class Pace:
    """The usual step from frame to frame of one stream, in whatever unit its times are given.

    A shorter step counts at once; a longer one is a gap until more of them come, each of which may double the usual
    one. Nothing is known before the second frame: the step is 0 until then.
    """

    def __init__(self) -> None:
        self.step = 0.0
        self._last: float | None = None

    def frame(self, at: float) -> None:
        """A frame has come. Times that do not rise say nothing."""
        if self._last is not None and at > self._last:
            step = at - self._last
            self.step = min(step, 2 * self.step) if self.step else step
        self._last = at
