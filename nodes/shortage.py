"""Whether live cameras' frames are dropped for want of time, or soon will be, as a node can see it.

Frames that were dropped leave gaps in the numbers of those that come. Frames that soon will be come late: they have
waited for half of the time that they may take at all. A node that costs much time spares some of it then, for all of
its cameras, so that the frames go first: what it leaves out is made up for a moment later, while a frame that is
dropped is gone.
"""

from __future__ import annotations

from pipeline import Buffer

HOLD_NS = 5_000_000_000
"""After the last sign of it time counts as short for so long: if less, it would be so again at once."""

LONGEST_NS = 60_000_000_000
"""The same where time is short again and again: each try to do without sparing costs frames."""


class Shortage:
    """Watches the frames that come to one node. In lossless mode nothing is dropped, so there is no asking it there."""

    def __init__(self) -> None:
        self._sequences: dict[str, int] = {}
        """Camera -> number of the frame that came last."""
        self._hold = HOLD_NS
        self._until = -LONGEST_NS  # never yet
        self._begun = 0

    def seen(self, buffer: Buffer, now: int) -> bool:
        """Whether time is short at `now` (monotonic ns), when `buffer` has come. To be asked once for each buffer."""
        before = self._sequences.get(buffer.stream, buffer.sequence)
        self._sequences[buffer.stream] = buffer.sequence
        late = buffer.deadline > 0 and now - buffer.captured > (buffer.deadline - buffer.captured) / 2
        if late or buffer.sequence > before + 1:
            if now >= self._until:  # there was time enough until now
                again = now < self._until + self._hold
                self._hold = min(2 * self._hold, LONGEST_NS) if again else HOLD_NS
                self._begun = now
            self._until = now + self._hold
        return now < self._until

    def lasts(self, now: int) -> bool:
        """Whether time is short, and there was more than one sign of it: not only while the graph started."""
        return now < self._until and now - self._begun > HOLD_NS
