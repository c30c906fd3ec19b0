"""One node inside a worker, without a process: what it is given, what waits for it, and what comes home."""

from __future__ import annotations

import time

import pytest

from pipeline import BatchTransform, Buffer, Mark, Transform, pad
from pipeline.node import Node
from pipeline.plan import NodePlan
from pipeline.ring import Fate, Reader, Writer
from pipeline.runner import RUNNERS, Runner

SHAPE = (4, 6, 3)


class Ways:
    """Both ways out of a node: what went on, and what came home with which fate."""

    local = True

    def __init__(self) -> None:
        self.sent: list[Buffer | Mark] = []
        self.home: list[tuple[int, Fate]] = []

    def send(self, item: Buffer | Mark) -> None:
        self.sent.append(item)

    def flush(self) -> None:
        pass

    def buffer_home(self, buffer: Buffer, fate: Fate) -> None:
        self.home.append((buffer.sequence, fate))

    def mark_home(self, mark: Mark, weight: int) -> None:
        pass


def runner(node: Node, ways: Ways, **readers: Reader) -> Runner:
    plan = NodePlan(node.name, node.name, "", "", node.kind, "p", {}, ["a"], {"a": ["next"]})
    return RUNNERS[node.kind](node, plan, {"a": [ways]}, {"a": ways}, readers, lambda level, name, text: None)


class Crowd(BatchTransform):
    """Keeps the numbers of the frames that came in one call; a frame has as many items as its meta says."""

    sink = pad("ANY", access="none")
    src = pad("ANY")

    def open(self) -> None:
        self.calls: list[list[int]] = []

    def items(self, buffer: Buffer) -> int:
        return buffer.meta.get("items", 1)

    def transform_batch(self, buffers: list[Buffer]) -> list[Buffer | None]:
        self.calls.append([buffer.sequence for buffer in buffers])
        return list(buffers)


@pytest.fixture
def crowd() -> Crowd:
    node = Crowd("crowd")
    node.open()
    return node


def test_a_partial_batch_waits_for_more_until_it_is_full_or_its_time_is_up(crowd: Crowd):
    crowd.max_batch, crowd.max_wait = 3, 100.0
    run = runner(crowd, Ways())
    for number, calls in enumerate([[], [], [[0, 1, 2]], [[0, 1, 2]]]):
        run.take(Buffer("a", number))
        run.work()
        assert crowd.calls == calls
    crowd.max_wait = 0.05
    time.sleep(0.06)
    run.work()
    assert crowd.calls == [[0, 1, 2], [3]]
    crowd.max_wait = 0.0
    run.take(Buffer("a", 4))
    run.work()
    assert crowd.calls[2:] == [[4]]


def test_a_frame_with_more_items_than_a_batch_holds_goes_by_itself(crowd: Crowd):
    crowd.max_batch = 4
    run = runner(crowd, Ways())
    for number, items in enumerate([1, 9, 1, 3]):
        run.take(Buffer("a", number, meta={"items": items}))
    for _ in range(3):
        run.work()
    assert crowd.calls == [[0], [1], [2, 3]]


@pytest.mark.parametrize("when", ["never", "before", "during"])
def test_a_frame_whose_slot_was_used_again_is_nobodys_result(fd: int, when: str):
    """It was declared lost meanwhile, and its pixels are another frame's."""
    writer, ways, seen = Writer(fd), Ways(), []
    writer.allocate("a", 1, SHAPE, 1)

    def use_again() -> None:
        writer.lose(0, ("n", "lost"))
        assert writer.acquire() is not None

    class Slow(Transform):
        sink = pad("video/raw", format="BGR", access="read")
        src = pad("video/raw", format="BGR")

        def transform(self, buffer: Buffer) -> Buffer | None:
            seen.append(buffer.sequence)
            if when == "during":
                use_again()
            return buffer

    place = writer.acquire()
    assert place is not None
    slot, generation = place
    buffer = Buffer("a", writer.capture(slot), shape=SHAPE, slot=slot, generation=generation)
    if when == "before":
        use_again()
    runner(Slow("n"), ways, a=Reader(fd)).take(buffer)
    assert seen == ([] if when == "before" else [0])
    assert ways.home == ([] if when == "never" else [(0, ("n", "stale"))])
    assert len(ways.sent) == (when == "never")
