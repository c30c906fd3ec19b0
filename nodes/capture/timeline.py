"""When a frame is: a recording's own time, a live stream's on this host's clock, and what a rate limit lets through.

`emograph launch "capture uri=0 fps=15 ! fakesink"` uses the last two. All times are integers in ns.
"""

from __future__ import annotations

SECOND = 1_000_000_000


def period(fps: float) -> int:
    """ns from frame to frame at `fps`; 0 for 0, which stands for unknown."""
    return round(SECOND / fps) if fps else 0


class RateLimit:
    """Lets at most `fps` frames a second through, chosen by PTS alone, so that the choice is repeatable.

    Time is cut into slots of 1/fps and the first frame of each slot passes. source_period: the source's frame
    duration in ns (0 when unknown); stamps are taken 0.45 of it late, so that rounding in the container (33, 67,
    100 ms) does not push a frame over a slot's edge. Not half of it, which would put frames on the edges where
    the rates are as 3 to 2.
    """

    def __init__(self, fps: float | None, source_period: int) -> None:
        self._fps = fps
        self._slot = -1
        self.follow(source_period)

    def follow(self, source_period: int) -> None:
        """The source's frame duration, in ns, is another one from now on."""
        self._slack = source_period * 45 // 100

    def wants(self, pts: int) -> bool:
        if self._fps is None:
            return True
        slot = int((pts + self._slack) * self._fps / SECOND)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


class RecordedTimeline:
    """Times of a recording's frames: the stamps they carry, made to rise strictly.

    frame_period: nominal, ns. It counts only while no stamp has risen: a file that in truth runs faster would else be
    late for good after one bad stamp. A frame without a stamp stands one step behind the one before, a frame whose
    stamp repeats or steps back half a step, so that the next good stamps take over. Stamps more than `RESTART` frames
    behind mean that the counting began anew (joined transport streams); they go on from there.
    """

    RESTART = 5

    def __init__(self, frame_period: int) -> None:
        self._period = frame_period
        self._at = -1
        self._stamp = 0
        self._step: int | None = None
        """From one stamp to the next, the nominal period at most; None while none has risen."""
        self._offset = 0

    def at(self, stamp: int) -> int:
        """The frame's time from the stream's start. stamp: its own; 0, beyond the first frame, for none."""
        if self._at < 0:
            self._at = max(0, stamp)
            self._stamp = stamp
            return self._at
        step = self._period if self._step is None else self._step
        if stamp <= 0:
            self._at += step
            return self._at
        if stamp < self._stamp - self.RESTART * self._period:
            self._offset = self._at + step - stamp
        elif stamp > self._stamp:
            self._step = min(stamp - self._stamp, self._period)
        self._stamp = stamp
        time = stamp + self._offset
        if time <= self._at:
            time = self._at + (self._period if self._step is None else max(1, self._step // 2))
        self._at = time
        return time


class LiveTimeline:
    """Puts a live stream's own stamps on our clock, so that PTS are as even as the camera made them, rise over
    reconnects and never wander off.

    A frame cannot come before it was taken: one that seems to is early only because the ones before it were
    late, so the offset between the clocks is the smallest seen. It creeps up by `CREEP` of the excess per frame
    to follow a camera whose clock runs slow. Stamps more than `JUMP` behind mean that the camera began to
    count anew.

    before: PTS and moment (monotonic ns) of the last frame of the process that this one takes over from; PTS go on from
    there.
    """

    JUMP = SECOND
    CREEP = 1000

    def __init__(self, before: tuple[int, int] | None = None) -> None:
        self._last, moment = before or (-1, 0)
        self._origin = moment - self._last if before else None
        self._offset: int | None = None

    def reconnected(self) -> None:
        """The stamps to come have another origin."""
        self._offset = None

    def pts(self, now: int, stamp: int | None) -> int:
        """The frame's PTS: ns since the first frame, strictly rising. now: the clock when it arrived, monotonic
        ns. stamp: the stream's own, ns from any origin; None when it has none."""
        if self._origin is None:
            self._origin = now
        arrived = now - self._origin
        pts = arrived
        if stamp is not None:
            late = arrived - stamp if self._offset is None else arrived - stamp - self._offset
            if self._offset is None or late < 0 or late > self.JUMP:
                self._offset = arrived - stamp
            else:
                self._offset += late // self.CREEP
                pts = stamp + self._offset
        self._last = max(pts, self._last + 1)
        return self._last
