"""Runs one node inside a worker: takes buffers, calls the node, sends on or sends home.

Every buffer that comes in leaves again, exactly once per unit of its weight: forward to the next nodes, or
home with a fate. Nothing is sent twice and nothing is forgotten, whatever the node does.
"""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pipeline.buffer import UNREADABLE, Buffer, Mark, changed, engines_own, restore
from pipeline.errors import UserError
from pipeline.figures import Stats
from pipeline.links import Home, Link, spread
from pipeline.mishaps import DROPPED, Mishaps
from pipeline.node import BatchTransform, Node, Sink, Transform
from pipeline.plan import NodePlan
from pipeline.ring import DELIVERED, Reader

Kept = tuple[tuple[object, ...], list[Any]]
"""What of a buffer is the engine's while a node has it: see `engines_own`, and its trace."""


def _keep(buffer: Buffer) -> Kept:
    """What to compare with after the node's work. The trace is kept from the node, which could spoil it in place."""
    kept = engines_own(buffer), buffer.trace
    buffer.trace = []
    return kept


class Runner:
    """Base: routing, fates, marks. Subclasses call the node."""

    def __init__(
        self,
        node: Node,
        plan: NodePlan,
        links: dict[str, list[Link]],
        homes: dict[str, Home],
        readers: dict[str, Reader],
        log: Callable[[str, str, str], None],
    ) -> None:
        self.node = node
        self.name = plan.name
        self.plan = plan
        self.links = links
        self.homes = homes
        self.readers = readers
        self.log = log
        self.flush_links: Callable[[], None] = lambda: None
        """Send what has gathered for other processes."""
        self.stats = Stats()
        self.passed = 0
        pad = node.sink
        self.pixels = pad is not None and pad.access != "none"
        self.writes = pad is not None and pad.access == "write"
        self._ended: set[str] = set()
        self.mishaps = Mishaps(self.name, log)

    @property
    def busy(self) -> bool:
        """Whether work waits that no new message will announce."""
        return False

    def take(self, buffer: Buffer) -> None:
        raise NotImplementedError

    def work(self) -> None:
        """Do what `take` put off."""

    # In ------------------------------------------------------------------------------------------------

    def admit(self, buffer: Buffer, now: int) -> bool:
        """Whether the node shall see the buffer at all: in time, and its pixels still there."""
        self.stats.taken += 1
        if buffer.deadline and now > buffer.deadline:
            self.drop(buffer, "late")
            return False
        if self.pixels:
            reader = self.readers[buffer.stream]
            plane = self.plan.plane.get(buffer.stream, buffer.plane) if self.writes else buffer.plane
            try:
                if not reader.current(buffer.slot, buffer.generation):
                    self.drop(buffer, "stale")
                    return False
                frame = reader.frame(buffer.slot, plane, buffer.shape, self.writes)
                if plane != buffer.plane:
                    frame[...] = reader.frame(buffer.slot, buffer.plane, buffer.shape)
                    buffer.plane = plane
            except ValueError:
                self.drop(buffer, "stale")
                return False
            buffer._frame = frame
        return True

    def intact(self, buffer: Buffer) -> bool:
        """After the node's work: were the pixels the buffer's own until the end?"""
        if not self.pixels:
            return True
        buffer._frame = None
        return self.readers[buffer.stream].current(buffer.slot, buffer.generation)

    # Out -----------------------------------------------------------------------------------------------

    def forward(self, buffer: Buffer) -> None:
        try:
            spread(buffer, self.links[buffer.stream])
        except UNREADABLE as error:
            self.mishaps.tell(error, DROPPED)  # the node put something into it that cannot travel
            self.drop(buffer, "error")
            return
        self.stats.done += 1
        self.passed += 1

    def untouched(self, buffer: Buffer, kept: Kept) -> bool:
        """Whether the node has left alone what is the engine's; where not, the buffer goes home as it came."""
        came, buffer.trace = kept
        try:
            if engines_own(buffer) == came:
                return True
        except Exception:
            pass  # an array in the place of a number compares to nothing
        error = changed(buffer, came)
        restore(buffer, came)
        self.mishaps.tell(error, DROPPED)
        self.drop(buffer, "error")
        return False

    def failed(self, error: Exception, batch: list[tuple[Buffer, Kept]]) -> None:
        """The node's call for these has raised."""
        self.mishaps.tell(error, DROPPED)
        for buffer, (came, trace) in batch:
            restore(buffer, came)
            buffer.trace = trace
            self.drop(buffer, "error")

    def settle(self, buffer: Buffer, kept: Kept, result: Buffer | None, entry: list[Any]) -> None:
        """Send on what the node returned, or say why not. entry: for the trace."""
        if not self.untouched(buffer, kept):
            return
        buffer.trace.append(entry)
        if not self.intact(buffer):
            self.drop(buffer, "stale")
        elif result is None:
            self.drop(buffer, "filtered")
        elif result is not buffer:
            self.mishaps.tell(TypeError("a node returns the buffer that it was given, or None"), DROPPED)
            self.drop(buffer, "error")
        else:
            self.forward(buffer)

    def deliver(self, buffer: Buffer) -> None:
        self.stats.done += 1
        self.passed += 1
        self.homes[buffer.stream].buffer_home(buffer, DELIVERED)

    def drop(self, buffer: Buffer, reason: str) -> None:
        self.stats.dropped[reason] = self.stats.dropped.get(reason, 0) + 1
        self.homes[buffer.stream].buffer_home(buffer, (self.name, reason))

    def take_mark(self, mark: Mark) -> None:
        """Let the node see the mark, keep a unit of its weight and pass it on."""
        if mark.kind != "eos" or mark.stream not in self._ended:
            if mark.kind == "eos":
                self._ended.add(mark.stream)
            try:
                self.node.on_mark(mark)
            except UserError as error:
                raise error.at(self.name) from None
            except Exception as error:
                self.mishaps.tell(error, f"'{mark.kind}' of {mark.stream} goes on")
        home = self.homes[mark.stream]
        links = self.links.get(mark.stream, ())
        if links:
            mark.weight -= 1
            home.mark_home(mark, 1)
            spread(mark, links)
        else:
            home.mark_home(mark, mark.weight)


class TransformRunner(Runner):
    """One buffer at a time."""

    node: Transform

    def take(self, buffer: Buffer) -> None:
        start = time.monotonic_ns()
        if not self.admit(buffer, start):
            return
        kept = _keep(buffer)
        try:
            result = self.node.transform(buffer)
        except UserError as error:
            raise error.at(self.name) from None
        except Exception as error:
            self.failed(error, [(buffer, kept)])
            return
        end = time.monotonic_ns()
        self.stats.worked(end - start)
        self.settle(buffer, kept, result, [self.name, start, end, 1])


class SinkRunner(Runner):
    """Where buffers end."""

    node: Sink

    def take(self, buffer: Buffer) -> None:
        start = time.monotonic_ns()
        if not self.admit(buffer, start):
            return
        kept, age = _keep(buffer), start - buffer.captured
        try:
            self.node.consume(buffer)
        except UserError as error:
            raise error.at(self.name) from None
        except Exception as error:
            self.failed(error, [(buffer, kept)])
            return
        end = time.monotonic_ns()
        self.stats.worked(end - start)
        self.stats.observe("age_ms", age / 1e6)
        if not self.untouched(buffer, kept):
            return
        buffer.trace.append([self.name, start, end, 1])
        if self.intact(buffer):
            self.deliver(buffer)
        else:
            self.drop(buffer, "stale")


class BatchRunner(Runner):
    """Gathers whatever waits, from all cameras, and calls the node once for it.

    While the node computes, the next batch gathers in the socket. A mark first lets all that came before it pass.
    """

    node: BatchTransform

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self._waiting: deque[Buffer] = deque()
        self._since = 0

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def take(self, buffer: Buffer) -> None:
        if not self._waiting:
            self._since = time.monotonic_ns()
        self._waiting.append(buffer)

    def take_mark(self, mark: Mark) -> None:
        while self._waiting:
            self._run()
        super().take_mark(mark)

    def work(self) -> None:
        if not self._waiting:
            return
        wait = self.node.max_wait
        if wait and time.monotonic_ns() - self._since < wait * 1e9:
            if sum(self._items(b) for b in self._waiting) < self.node.max_batch:
                return
        self._run()

    def _items(self, buffer: Buffer) -> int:
        try:
            return max(0, operator.index(self.node.items(buffer)))
        except Exception as error:
            self.mishaps.tell(error, "the frame counts as one item")
            return 1

    def _run(self) -> None:
        start = time.monotonic_ns()
        waited = start - self._since
        batch: list[Buffer] = []
        kept: list[Kept] = []
        items = 0
        while self._waiting:
            count = self._items(self._waiting[0])
            if batch and items + count > self.node.max_batch:
                break
            buffer = self._waiting.popleft()
            if self.admit(buffer, start):
                batch.append(buffer)
                kept.append(_keep(buffer))
                items += count
        self._since = start
        if not batch:
            return
        try:
            results = self.node.transform_batch(list(batch))  # a list of its own: it may take some out
            if len(results) != len(batch):
                raise ValueError(f"{len(batch)} buffers went in, {len(results)} results came out")
        except UserError as error:
            raise error.at(self.name) from None
        except Exception as error:
            self.failed(error, list(zip(batch, kept, strict=True)))
            return
        end = time.monotonic_ns()
        self.stats.worked(end - start)
        self.stats.observe("batch_buffers", len(batch))
        self.stats.observe("wait_ms", waited / 1e6)
        if items:
            self.stats.observe("batch_items", items)
        for buffer, own, result in zip(batch, kept, results, strict=True):
            self.settle(buffer, own, result, [self.name, start, end, items])
        self.flush_links()  # before the next batch computes


RUNNERS: dict[str, type[Runner]] = {"transform": TransformRunner, "batch": BatchRunner, "sink": SinkRunner}
