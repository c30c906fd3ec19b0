"""Tells emotion events to any number of subscribers, and never waits for one.

    emograph launch "testsrc ! haardetect ! emotion ! publish endpoint=tcp://127.0.0.1:5556"
    emograph events tcp://127.0.0.1:5556

docs/PROTOCOL.md has the format, pipeline/events.py reads it, pipeline/audience.py has the socket. Three rules hold:
- A subscriber that does not keep up loses events (its sequence numbers show it); the video loses nothing.
- Who waits for this address before it is bound tries to connect now and then, and a recording may be read in less time
  than lies between two tries. So a publisher is there for a moment at least: a lossless one is silent until somebody
  has come, a live one stays at its end; neither for longer than `_PATIENCE` after the start. No live event waits.
- Whoever subscribes gets the present state first. XPUB_VERBOSE tells of each subscription, and the snapshot
  goes out as flagged events that take no sequence number, so that those who had joined before can pass over
  them. (XPUB_MANUAL could hold a subscription back until its snapshot is sent, but there a peer's stray
  message makes libzmq attribute the next subscription to the wrong peer.)
"""

from __future__ import annotations

import errno
import time
from typing import Annotated

from pydantic import AfterValidator, Field

from nodes.narrator import Event, Narrator, NarratorProperties
from pipeline import Buffer, Mark, Sink, UserError, pad
from pipeline.audience import Audience
from pipeline.caps import ANY
from pipeline.endpoints import check_endpoint, is_local
from pipeline.events import encode, topic

_LINGER_MS = 500  # how long `close` may wait for what is queued for slow subscribers
_PATIENCE = 1.0  # seconds from the start on in which the first subscriber is waited for; most try every 0.1 to 0.2
_COMPANY = 0.4  # seconds from the start on in which others are waited for, once one is there
_PAUSE = 0.005  # seconds between two looks for them


class Publish(Sink):
    """Publish who is seen with which expression, as messages that any program can subscribe to.

    A bound ZeroMQ XPUB socket, topic `emotion/<camera>/<kind>`, payload msgpack (docs/PROTOCOL.md). Times are
    measured by the frames' capture time, in `mode: lossless` by their PTS: the same file then gives the same
    events however fast it is read.
    """

    sink = pad(ANY, needs="faces", access="none")
    tick_interval = 0.05

    class Properties(NarratorProperties):
        endpoint: Annotated[str, AfterValidator(check_endpoint)] = Field(
            "tcp://127.0.0.1:5556",
            description="where to listen: tcp://ADDRESS:PORT (port * takes a free one) or ipc://PATH",
        )
        observations: bool = Field(True, description="also tell what is seen in each single frame")
        hwm: int = Field(
            1000, ge=1, le=1_000_000, description="events queued for a slow subscriber before it loses some"
        )

    endpoint: str = ""
    """The endpoint that is bound, with the port that `*` became."""
    _audience: Audience | None = None

    @classmethod
    def binds(cls, props: Publish.Properties) -> list[str]:
        return [props.endpoint]

    def open(self) -> None:
        self._narrator = Narrator(
            self.props,
            clock=self.clock,
            lossless=self.lossless,
            tell=self._send,
            observations=self.props.observations,
            cameras=self.streams,
        )
        self.garbage = 0
        self._audience = self._bind(self.props.endpoint)
        self._since = time.monotonic()
        self._joined = self._told = False
        self.endpoint = self._audience.endpoint
        if not is_local(self.endpoint):
            self.log(
                "warning",
                f"events on {self.endpoint} (who is seen when, with which expression) can be read by anybody "
                "who reaches this port; tcp://127.0.0.1:PORT keeps them on this host",
            )
        self.log("info", f"events on {self.endpoint}")

    def _bind(self, endpoint: str) -> Audience:
        try:
            return Audience(endpoint, self.props.hwm, _LINGER_MS)
        except OSError as error:
            reason = error.strerror or "no reason"
            text = f"cannot bind {endpoint}: {reason[:1].lower()}{reason[1:]}"
            if endpoint.startswith("tcp://") and error.errno == errno.EADDRINUSE:
                text += f"; `endpoint: {endpoint.rpartition(':')[0]}:*` takes a free port"
            raise UserError(f"{self.name}: {text}") from None

    def close(self) -> None:
        if self._audience is None:
            return
        while self._told and not self._joined and self._expects():
            time.sleep(_PAUSE)
            self._serve()
        self._serve()  # who has just come gets the snapshot, and so hears of the end
        self._audience.close()
        self._audience = None
        if self.garbage:
            self.log("info", f"{self.garbage} messages from peers were no subscriptions and were ignored")

    def consume(self, buffer: Buffer) -> None:
        self._meet()
        self._narrator.frame(buffer)

    def on_mark(self, mark: Mark) -> None:
        self._meet()
        self._narrator.mark(mark)

    def tick(self) -> None:
        self._serve()
        self._narrator.tick()

    def _send(self, event: Event) -> None:
        assert self._audience is not None, "open() makes it"
        self._told = True
        self._audience.send(encode(event))

    # Who joins -----------------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Serve who has come; before the first event of a lossless graph, also who has waited and is about to come."""
        self._serve()
        while self.lossless and self._expects():
            time.sleep(_PAUSE)
            self._serve()

    def _expects(self) -> bool:
        """Whether somebody may still be about to connect who has waited for this publisher. By the real clock, since
        that is what a subscriber's tries go by."""
        return time.monotonic() < self._since + (_COMPANY if self._joined else _PATIENCE)

    def _serve(self) -> None:
        """Answer new subscriptions with a snapshot; one for all that came together."""
        assert self._audience is not None, "open() makes it"
        before = self._audience.thrown_out
        prefixes, garbage = self._audience.take()
        if before == 0 < self._audience.thrown_out:
            text = "a peer sent a flood of subscriptions: all were thrown out, and may connect again"
            self.log("warning", f"{self.endpoint}: {text}")
        if garbage:
            self._count_garbage(garbage)
        if prefixes:
            self._joined = True

            def wanted(camera: str, kind: str) -> bool:
                return any(topic(camera, kind).startswith(prefix) for prefix in prefixes)

            for event in self._narrator.snapshot(wanted):
                self._send(event)

    def _count_garbage(self, count: int) -> None:
        if self.garbage == 0:
            self.log("warning", "a peer sent something that is no subscription; it is ignored")
        self.garbage += count
        for _ in range(count):
            self.observe("garbage", 1)
