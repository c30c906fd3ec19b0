"""emograph launch "testsrc ! fakesink delay=50ms"

Counts buffers and throws them away: the end of a graph whose last node is under test, and, with `delay`, the
slow consumer of an overload test.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from pydantic import Field

from pipeline import Buffer, Properties, Seconds, Sink, pad
from pipeline.caps import ANY

PAGE = 4096


class FakeSink(Sink):
    """Counts and discards what it gets."""

    sink = pad(ANY, access="read")

    class Properties(Properties):
        delay: Seconds = Field(0.0, description="time to spend on each buffer")
        read: bool = Field(False, description="read one byte of every page of the frame, as a real sink would")

    def open(self) -> None:
        self.counts: Counter[str] = Counter()
        """Buffers so far, by camera."""

    def consume(self, buffer: Buffer) -> None:
        if self.props.read:
            np.add.reduce(buffer.frame.reshape(-1)[::PAGE])
        if self.props.delay:
            self.stopping.wait(self.props.delay)
        self.counts[buffer.stream] += 1
