"""Runs a source inside a worker: fills slots, keeps the window, takes weights home, settles what was lost.

Invariants. Every captured frame is in the ledger before anything else happens to it. At most `window` frames are
out in the graph. In live mode a frame that finds the window full waits as the newest, and the one that waited
before is a drop at the source; so is one that came while this process was at work on an older one, where nodes share
it. A slot is used again only when its buffer's weight is whole, or when a mark that followed it through every queue is
home and proves that it was lost.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.buffer import UNREADABLE, WHOLE, Buffer, Mark
from pipeline.errors import UserError
from pipeline.figures import Stats
from pipeline.links import Link, spread
from pipeline.mishaps import DROPPED, Mishaps
from pipeline.node import Source, VideoInfo, gave_frame, open_source
from pipeline.plan import NodePlan
from pipeline.reading import LiveReader
from pipeline.ring import DELIVERED, Fate, Writer
from pipeline.window import Window

FLUSH_RETRY_NS = 2_000_000_000
"""A flush that is not home by then gets company, at intervals that double: a node on its way may have died too."""

Trace = list[list]


@dataclass
class _Sent:
    """A mark that is out: how much of it is still to come home, and what it settles."""

    mark: str
    left: int
    upto: int
    sent_at: int
    lost_in: str = ""


class SourceRunner:
    """One source: a `step` does all that can be done now and says when to come back."""

    def __init__(
        self,
        node: Source,
        plan: NodePlan,
        links: list[Link],
        ring_fd: int,
        *,
        planes: int,
        budget_ns: int,
        phase: float,
        log: Callable[[str, str, str], None],
        on_sent: Callable[[int, int], None] = lambda now, took: None,
        on_trace: Callable[[int, Fate, Trace], None] | None = None,
        on_status: Callable[[bool, str, int], None] = lambda up, reason, since: None,
    ) -> None:
        self.node = node
        self.name = plan.name
        self.plan = plan
        self.links = links
        self.ring = Writer(ring_fd)
        self.planes = planes
        self.budget_ns = budget_ns
        self.phase = phase
        """0 to 1: when within each frame interval a paced source's frames are due. Those of all sources together come
        evenly, where in step they would queue up behind each other at every node, and the nodes rest after that."""
        self._skips = any(link.local for link in links) and not node.lossless
        """Whether sending a frame may take as long as a node's work, so that newer ones make those between obsolete."""
        self.log = log
        self.mishaps = Mishaps(self.name, log)
        self.on_sent = on_sent
        self.on_trace = on_trace
        self.on_status = on_status
        self.stats = Stats()
        self.passed = 0
        self.playing = False
        self.ended = False
        """No further frame will be captured."""
        self._info = VideoInfo(1, 1)
        self._layout: tuple[int, tuple[int, int, int]] | None = None
        """Slots and frame shape that the ring shall have as soon as nothing is out."""
        self._window = Window(node.props.window, budget_ns)
        self._interval = 0
        """Nanoseconds between two frames of a paced source; 0 where that is not known."""
        self._base: int | None = None
        """Monotonic ns of PTS 0 for a paced source; from its first frame on."""
        self._fill_took = 0
        """Nanoseconds; the next frame will take about as long."""
        self._captured_at: dict[int, int] = {}
        """slot -> monotonic ns of the frame in it."""
        self._ready: Buffer | None = None
        self._pending: Buffer | None = None
        self._marks: dict[int, _Sent] = {}
        self._flush_retry_ns = FLUSH_RETRY_NS
        self._mark_number = int(time.monotonic_ns() // 1000)
        self._statuses: queue.SimpleQueue[tuple[bool, str, int]] = queue.SimpleQueue()
        self._down: tuple[str, int] | None = None
        """Why the camera is down, and since when (UTC ns); None while it is up."""
        node._status = self._post_status
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when another thread has left something for this one: a frame, a status."""
        self._reader: LiveReader | None = None
        """Of a live source, once it plays."""

    # States --------------------------------------------------------------------------------------------

    def open(self, restarted: bool) -> None:
        """NULL -> READY: the camera answers, the slots are allocated in full."""
        if restarted and self.ring.shape is not None:
            self.node.shape_before = self.ring.shape
            self.node.live = self.ring.live
            self.node.last_before = self.ring.last
        self._info = info = open_source(self.node)
        self.ring.live = self.node.live
        self._interval = int(1e9 / info.fps) if info.fps > 0 else 0
        if restarted:
            self.node.seek(self.ring.captured)
        shape = (info.height, info.width, info.channels)
        # Slots more than the window: for the newest that waits, and for those being filled.
        filling = LiveReader.slots(self._skips and self.node.live)
        self._layout = (self.node.props.window + 1 + filling, shape)
        if self.ring.fits(self._layout[0], info.height * info.width * info.channels, self.planes):
            self.ring.shape = shape  # it may have been turned
            self._layout = None
        elif not self.ring.out:
            self._lay_out()

    def _lay_out(self) -> None:
        """Make the ring fit. A source that came back with another size first waits for what is out."""
        assert self._layout is not None
        slots, shape = self._layout
        self.ring.allocate(self.name, slots, shape, self.planes)
        self._layout = None

    def play(self, restarted: bool) -> None:
        self.playing = True
        if restarted:
            self.flush(self.name)
        if self.node.live:
            self._reader = LiveReader(
                self.name, self._fill, lambda b: self._empty(b.slot, b.generation), self.wake, self._skips
            )
            self._reader.start()

    def stop(self) -> None:
        """End the stream: no new frames; EOS follows what is out."""
        self.node.stopping.set()
        if not self.ended:
            self._end()

    def close(self) -> None:
        self.node.stopping.set()
        # Half a second is well within QUIT_TIMEOUT of the supervisor; where the reader is stuck even then, the process
        # ends without closing the camera.
        if self._reader is None or self._reader.stop(patience=0.5):
            self.node.close()

    @property
    def drained(self) -> bool:
        """EOS has passed every node and every buffer is home."""
        return self.ended and not self._marks and not self.ring.out

    # Out -----------------------------------------------------------------------------------------------

    def step(self) -> int | None:
        """Do all that can be done now; the monotonic ns at which to call again, or None for 'on a message'."""
        now = time.monotonic_ns()
        self._send_statuses()
        self._retry_marks(now)
        if not self.playing or self.ended:
            return now + FLUSH_RETRY_NS if self._marks else None
        if self._layout is not None:
            if self.ring.out:
                return None
            self._lay_out()
        self._send_pending()
        again = self._step_inline() if self._reader is None else self._step_live(self._reader)
        if self._window.rest_until > now:
            again = self._window.rest_until if again is None else min(again, self._window.rest_until)
        return again

    def _step_inline(self) -> int | None:
        node = self.node
        paced = node.paced and not node.lossless
        behind = False
        for _ in range(16):  # then messages get their turn
            if self._ready is None:
                if not paced and self._window_full:
                    return None
                buffer = self._blank()
                if buffer is None:
                    return None
                if not self._fill(buffer):
                    self._end()
                    return None
                self._ready = buffer
            buffer = self._ready
            if paced:
                now = time.monotonic_ns()
                if self._base is None:
                    self._base = self._in_phase(now) - buffer.pts
                due = self._base + buffer.pts
                if now < due:
                    return due
                if now - due > 1_000_000_000:  # hopelessly behind (a slow decoder, a suspended laptop): start over
                    self._base = now - buffer.pts
                behind = self._skips and 0 < self._interval < now - due
                buffer.captured = max(due, buffer.captured)
                # It was decoded ahead: the trace has that just before the moment that counts.
                entry = buffer.trace[0]
                entry[1], entry[2] = buffer.captured - (entry[2] - entry[1]), buffer.captured
            self._ready = None
            self._captured(buffer, behind)
            self.on_sent(time.monotonic_ns(), max(self._fill_took, self._interval if paced else 0))
            if paced and not behind:
                break  # the next one may be due already: without a look at what has come home the window seems full
        return time.monotonic_ns()

    def _in_phase(self, now: int) -> int:
        """The next moment, in monotonic ns, at which a frame of this source may be due: at most a frame away."""
        return now + (int(self.phase * self._interval) - now) % self._interval if self._interval else now

    def _step_live(self, reader: LiveReader) -> int | None:
        if reader.ready:
            item, missed = reader.take()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                self._end()
                return None
            for _ in range(missed):
                self.stats.taken += 1
                self._drop(self.ring.capture(item.slot))
                self.ring.retake(item.slot)
            if self._skips:  # sending this one may take a while
                self._supply(reader)
            self._captured(item)
        self._supply(reader)
        # Messages get their turn between any two frames.
        return time.monotonic_ns() if reader.ready else None

    def _supply(self, reader: LiveReader) -> None:
        """Give the reader the slots that it may hold, as far as any are free."""
        while reader.hungry and not (self.node.lossless and self._window_full):
            buffer = self._blank()
            if buffer is None:
                break
            reader.supply(buffer)

    def _blank(self) -> Buffer | None:
        place = self.ring.acquire()
        return None if place is None else self._empty(*place)

    def _empty(self, slot: int, generation: int) -> Buffer:
        shape = (self._info.height, self._info.width, self._info.channels)
        buffer = Buffer(self.name, 0, shape=shape, slot=slot, generation=generation, home=self.name)
        buffer._frame = self.ring.frame(slot, 0, shape, writable=True)
        return buffer

    def _fill(self, buffer: Buffer) -> bool:
        slot, generation = buffer.slot, buffer.generation
        start = time.monotonic_ns()
        try:
            more = self.node.fill(buffer)
        except UserError as error:
            raise error.at(self.name) from None
        now = time.monotonic_ns()
        # Whatever the node has put there: by these the buffer finds its pixels, and comes home.
        buffer.slot, buffer.generation, buffer.plane, buffer.weight = slot, generation, 0, WHOLE
        buffer.stream = buffer.home = self.name
        assert buffer._frame is not None, "a buffer that is to be filled has pixels"
        buffer.shape = buffer._frame.shape  # as `resize` has left it
        if more is not True and not gave_frame(self.node, more):
            self.ring.release(slot)
            return False
        buffer.trace = [[self.name, start, now, 1]]
        buffer.captured = now
        return True

    def _captured(self, buffer: Buffer, behind: bool = False) -> None:
        """A frame exists: into the ledger, then out, or it waits as the newest. behind: another one is due already."""
        entry = buffer.trace[0]
        self._fill_took = entry[2] - entry[1]
        self.stats.worked(self._fill_took)
        if not buffer.wall:  # a source that receives frames knows better when they were captured
            buffer.wall = _wall(buffer.captured)
        buffer.deadline = buffer.captured + self.budget_ns if self.budget_ns else 0
        if not self._skips:
            self._send_pending()  # it is older, and its rest may have ended while this one was captured
        full = behind or self._pending is not None or self._window_full
        buffer.sequence = self.ring.capture(buffer.slot)
        self._captured_at[buffer.slot] = buffer.captured
        buffer._frame = None
        self.stats.taken += 1
        if full:
            if self._pending is not None:
                self._drop(self._pending.sequence)
            self._pending = buffer
        else:
            self._send(buffer)

    def _send(self, buffer: Buffer) -> None:
        buffer.trace[0][2] = time.monotonic_ns()
        if self.node.live and type(buffer.pts) is int and 0 <= buffer.pts < 1 << 63:
            self.ring.last = buffer.pts, buffer.captured
        try:
            spread(buffer, self.links)
        except UNREADABLE as error:  # the node put something into it that cannot travel
            self.mishaps.tell(error, DROPPED)
            self._drop(buffer.sequence, "error")
        else:
            self.stats.done += 1
            self.passed += 1

    def _send_pending(self) -> None:
        """Send the frame that waits, if the window has room; not if half its time has gone with waiting."""
        if self._pending is None or self._window_full:
            return
        pending, self._pending = self._pending, None
        if self.budget_ns and time.monotonic_ns() - pending.captured > self.budget_ns / 2:
            self._drop(pending.sequence)
        else:
            self._send(pending)
            self.on_sent(time.monotonic_ns(), self._fill_took)

    def _drop(self, sequence: int, reason: str = "window full") -> None:
        """Give up a captured frame that has not left: there is a newer one, or it cannot travel."""
        self._settle(sequence, WHOLE, (self.name, reason), [])

    @property
    def _window_full(self) -> bool:
        return self._window.full(len(self.ring.out) - (self._pending is not None))

    def _end(self) -> None:
        self.ended = True
        if self._ready is not None:
            self.ring.release(self._ready.slot)
            self._ready = None
        if self._pending is not None:  # the last frame of a stream is not dropped for want of a successor
            pending, self._pending = self._pending, None
            self._send(pending)
        self._send_statuses()
        self._send_mark("eos")

    # Marks ---------------------------------------------------------------------------------------------

    def flush(self, lost_in: str) -> None:
        """A process of `lost_in` died: find out what it took along."""
        self._send_mark("flush", lost_in=lost_in)
        if self.ended:  # the process that took over has not seen the end of this stream
            out = next((s for s in self._marks.values() if s.mark == "eos"), None)
            self._send_mark("eos", replaces=out)
        elif self._down is not None:  # nor has it heard that no frame is to be expected
            reason, since = self._down
            self._send_mark("status", up=False, reason=reason, since=since)

    def _send_mark(self, kind: str, *, lost_in: str = "", replaces: _Sent | None = None, **data: object) -> None:
        if replaces is not None:
            self._marks = {n: s for n, s in self._marks.items() if s is not replaces}
        self._mark_number += 1
        pending = self._pending.sequence if self._pending is not None else None
        upto = self.ring.captured if pending is None else pending
        self._marks[self._mark_number] = _Sent(kind, WHOLE, upto, time.monotonic_ns(), lost_in)
        spread(Mark(kind, self.name, self._mark_number, WHOLE, self.name, dict(data)), self.links)

    def _retry_marks(self, now: int) -> None:
        flushes = [s for s in self._marks.values() if s.mark == "flush"]
        if flushes and now - flushes[-1].sent_at > self._flush_retry_ns:
            # The earlier ones stay: whichever comes home first settles, however long the way takes.
            self._flush_retry_ns *= 2
            self.flush(flushes[-1].lost_in)

    def _post_status(self, up: bool, reason: str) -> None:
        # Called by the node, perhaps on the reader thread: the main thread sends it.
        self._statuses.put((up, reason, time.time_ns()))
        os.eventfd_write(self.wake, 1)

    def _send_statuses(self) -> None:
        while not self._statuses.empty():
            up, reason, since = self._statuses.get()
            if not up and self._down is not None:
                since = self._down[1]  # another reason for the same absence
            back = "up again" if self.passed else "up"
            self.log("info" if up else "warning", self.name, back if up else f"down: {reason}")
            self.on_status(up, reason, since)
            self._down = None if up else (reason, since)
            self._send_mark("status", up=up, reason=reason, since=since)

    # Home ----------------------------------------------------------------------------------------------

    def buffer_home(self, sequence: int, weight: int, fate: Fate, trace: Trace) -> bool:
        """Weight of a buffer comes home. False when it is unknown here (declared lost, or garbage)."""
        if sequence not in self.ring.out or weight <= 0:
            return False
        try:
            self._settle(sequence, weight, fate, trace)
        except KeyError:
            return False
        self._send_pending()
        return True

    def _settle(self, sequence: int, weight: int, fate: Fate, trace: Trace) -> None:
        captured = self._captured_at.get(self.ring.out[sequence])
        final = self.ring.come_home(sequence, weight, fate)
        if self.on_trace is not None and trace:
            self.on_trace(sequence, fate, trace)
        if final == DELIVERED and trace and captured is not None:
            latency = trace[-1][2] - captured
            self.stats.observe("latency_ms", latency / 1e6)
            self._window.delivered(latency)
        elif final is not None and final[1] == "late":
            self._window.late(captured)
        elif final is not None and final != DELIVERED and final[0] == self.name:
            self.stats.dropped[final[1]] = self.stats.dropped.get(final[1], 0) + 1
        if final is not None and final[0] != self.name:
            self._window.home(captured)

    def mark_home(self, number: int, weight: int) -> bool:
        """Weight of a mark comes home; a whole flush settles all that went before it."""
        sent = self._marks.get(number)
        if sent is None or not 0 < weight <= sent.left:
            return False
        sent.left -= weight
        if sent.left:
            return True
        del self._marks[number]
        if sent.mark == "flush":
            self._flush_retry_ns = FLUSH_RETRY_NS
            # Older marks went the same way: what is not home of them went down with the node.
            self._marks = {n: s for n, s in self._marks.items() if n > number}
            pending = self._pending.sequence if self._pending is not None else -1
            missing = [s for s in self.ring.out if s < sent.upto and s != pending]
            for sequence in sorted(missing):
                self.ring.lose(sequence, (sent.lost_in, "lost"))
            if missing:
                self.stats.dropped["lost"] = self.stats.dropped.get("lost", 0) + len(missing)
                frames = "frame was" if len(missing) == 1 else "frames were"
                self.log("warning", self.name, f"{len(missing)} {frames} lost in {sent.lost_in}")
            self._send_pending()
        return True


_AT_ONCE_NS = 5_000
"""Between two readings of a clock; they take a tenth of it where nothing comes between."""


def _wall(moment: int) -> int:
    """UTC ns of a moment, monotonic ns.

    The two clocks must be read at once: a thread that is kept from running between the readings dates the frame too
    late by that. So a pair of readings counts that took next to nothing, or the quickest of three.
    """
    took, ahead = _read_clocks()
    if took > _AT_ONCE_NS:
        _, ahead = min((took, ahead), _read_clocks(), _read_clocks())
    return moment + ahead


def _read_clocks() -> tuple[int, int]:
    """How long it took to read both clocks, and how far UTC is ahead of the monotonic clock, ns."""
    before = time.monotonic_ns()
    wall = time.time_ns()
    return time.monotonic_ns() - before, wall - before
