"""Cameras: sources without an end, which go away and come back.

`emograph launch "capture uri=rtsp://10.0.0.5/stream1 ! fakesink"` reads through this. It reads on as fast as
frames come, which keeps every buffer between the camera and here empty; the engine keeps the newest frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

from nodes.capture.connect import NoCamera
from nodes.capture.reader import Interrupted, Reader
from nodes.capture.timeline import LiveTimeline, RateLimit, period
from pipeline.errors import UserError
from pipeline.node import Source

FIRST_DELAY, LAST_DELAY = 0.5, 10.0
"""Seconds before the first attempt to reconnect, and the most between later ones; each waits twice the last."""
RETRIES = 30
"""Frames in a row that may be undecodable before the connection is given up and made anew."""


class Live:
    """One camera, over as many connections as it takes.

    node: whose clock, log, status and stop are used. reader: the first connection; connect: makes another, raises
    UserError, which says why the camera is away. stamped: whether the frames of a connection carry times of their own.
    limit: which of them to deliver. timeout: seconds without a frame after which the camera counts as lost. A camera
    that gives not even one frame is not reconnected; `lost` says why. Without a `reader` nobody has waited for the
    camera: it is tried at once, and then as if it had been lost.
    """

    def __init__(
        self,
        node: Source,
        reader: Reader | None,
        connect: Callable[[], Reader],
        stamped: Callable[[Reader], bool],
        limit: RateLimit,
        timeout: float,
        reconnect: bool,
    ) -> None:
        self._node, self._connect, self._has_stamps = node, connect, stamped
        self._timeout, self._reconnect = timeout, reconnect
        self._limit = limit
        self._timeline = LiveTimeline(node.last_before)
        self._reader: Reader | None = None
        self._stamped = False
        if reader is not None:
            self._go_on_with(reader)
        self.lost = ""
        self._begun = False
        self._awaited = reader is None
        self._told: set[str] = set()
        """Why the camera is away, since it is: each reason is told once, for two may take turns."""
        self._delay = 0.0 if self._awaited else FIRST_DELAY
        self._failed = self._damaged = 0
        self._heard = 0.0

    def advance(self) -> int | None:
        """Step to the next frame to deliver, over reconnects; its PTS in ns, or None when the graph stops, or
        when the camera is lost and shall not be reconnected. Raises NoCamera, at the first attempt only."""
        self._heard = time.monotonic()  # the graph may have kept us waiting; that is not the camera's silence
        try:
            while not self._node.stopping.is_set():
                if self._reader is None:
                    if not (self._reconnect and (self._begun or self._awaited)):
                        return None
                    self._try_again()
                elif self._grab(self._reader):
                    pts = self._timeline.pts(self._node.clock(), self._stamp(self._reader))
                    if self._limit.wants(pts):
                        return pts
        except Interrupted:
            pass  # the graph stops: the same as the end
        return None

    def picture(self, into: np.ndarray) -> np.ndarray | None:
        """The current frame: `into` itself where the size allows, else another array; None when it is damaged."""
        if self._reader is None:
            return None
        picture = self._reader.retrieve(into)
        if picture is None:
            self._damaged += 1
            if self._damaged >= RETRIES:
                self._lose("its frames cannot be decoded")
        else:
            self._begun = True
            self._damaged = 0
            self._delay = FIRST_DELAY
            if self.lost:
                self.lost = ""
                self._told.clear()
                self._node.status(True)
        return picture

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _go_on_with(self, reader: Reader) -> None:
        self._reader = reader
        self._stamped = self._has_stamps(reader)
        self._limit.follow(period(reader.fps if self._stamped else 0.0))

    def _stamp(self, reader: Reader) -> int | None:
        return round(reader.get(cv2.CAP_PROP_POS_MSEC) * 1e6) if self._stamped else None

    def _grab(self, reader: Reader) -> bool:
        try:
            if reader.grab(self._timeout):
                self._heard = time.monotonic()
                self._failed = 0
                return True
        except TimeoutError:
            self._lose(f"no frame for {self._timeout:g} s")
            return False
        # A damaged frame, a timeout of the driver's and the end of the stream all look the same.
        self._failed += 1
        if time.monotonic() - self._heard > self._timeout:
            self._lose(f"no frame for {self._timeout:g} s")
        elif self._failed >= RETRIES:
            self._lose("the stream ended")
        return False

    def _lose(self, reason: str) -> None:
        self.close()
        self._failed = self._damaged = 0
        if (self._begun or self._awaited) and reason not in self._told:
            self._told.add(reason)
            self._node.status(False, reason)
        self.lost = reason

    def _try_again(self) -> None:
        self._node.stopping.wait(self._delay)
        if self._node.stopping.is_set():
            return
        self._delay = min(max(FIRST_DELAY, 2 * self._delay), LAST_DELAY)
        try:
            self._go_on_with(self._connect())
        except UserError as error:
            if isinstance(error, NoCamera) and not self.lost:
                raise
            self._node.log("debug", f"camera still away: {error}")
            self._lose(str(error))  # it may be another reason than before
            return
        self._heard = time.monotonic()
        self._timeline.reconnected()
