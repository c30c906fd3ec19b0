"""One node inside a worker, without a process: what it is given, what waits for it, and what comes home."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline import BatchTransform, Buffer, Mark, Sink, Transform, pad
from pipeline.buffer import WHOLE
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
        self.weights: list[int] = []
        self.told: list[str] = []

    def send(self, item: Buffer | Mark) -> None:
        self.sent.append(item)

    def flush(self) -> None:
        pass

    def buffer_home(self, buffer: Buffer, fate: Fate) -> None:
        self.home.append((buffer.sequence, fate))
        self.weights.append(buffer.weight)

    def mark_home(self, mark: Mark, weight: int) -> None:
        pass


def runner(node: Node, ways: Ways, **readers: Reader) -> Runner:
    plan = NodePlan(node.name, node.name, "", "", node.kind, "p", {}, ["a"], {"a": ["next"]})

    def log(level: str, name: str, text: str) -> None:
        ways.told.append(text)

    return RUNNERS[node.kind](node, plan, {"a": [ways]}, {"a": ways}, readers, log)


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


CHANGES = {
    "sequence": 0, "weight": 1, "stream": "nowhere", "home": "n", "slot": None, "generation": -1, "plane": "x",
    "shape": np.arange(3),
}  # fmt: skip


class Meddle:
    """What each kind of node does to a buffer, and whether it raises then."""

    field, raises = "", False

    def meddle(self, buffer: Buffer) -> Buffer:
        setattr(buffer, self.field, CHANGES[self.field])
        if self.raises:
            raise ValueError("boom")
        return buffer


class MeddleOne(Meddle, Transform):
    sink = pad("video/raw", access="read")
    src = pad("video/raw")
    transform = Meddle.meddle


class MeddleMany(Meddle, BatchTransform):
    sink = pad("video/raw", access="read")
    src = pad("video/raw")

    def transform_batch(self, buffers: list[Buffer]) -> list[Buffer | None]:
        return [self.meddle(buffer) for buffer in buffers]


class MeddleLast(Meddle, Sink):
    sink = pad("video/raw", access="read")

    def consume(self, buffer: Buffer) -> None:
        self.meddle(buffer)


@pytest.mark.parametrize("cls", [MeddleOne, MeddleMany, MeddleLast])
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("field", CHANGES)
def test_a_buffer_comes_home_whole_whatever_a_node_writes_into_it(fd: int, cls: type, field: str, raises: bool):
    writer, ways = Writer(fd), Ways()
    writer.allocate("a", 1, SHAPE, 1)
    place = writer.acquire()
    assert place is not None
    node = cls("n")
    node.field, node.raises = field, raises
    run = runner(node, ways, a=Reader(fd))
    number = writer.capture(place[0]) + 5
    trace = [["a", 1, 2, 1]]
    run.take(Buffer("a", number, shape=SHAPE, slot=place[0], generation=place[1], home="a", trace=trace))
    run.work()
    assert (ways.sent, ways.home, ways.weights) == ([], [(number, ("n", "error"))], [WHOLE])
    wrong = "ValueError: boom" if raises else f"TypeError: a node may not change {field} of a buffer"
    [told] = ways.told
    assert told.startswith(wrong)


@pytest.mark.parametrize("cls", [MeddleOne, MeddleMany, MeddleLast])
def test_the_trace_is_kept_from_a_node(fd: int, cls: type):
    """What it writes into that in place could not be found out."""
    writer, ways = Writer(fd), Ways()
    writer.allocate("a", 1, SHAPE, 1)
    place = writer.acquire()
    assert place is not None
    node = cls("n")
    node.meddle = lambda buffer: buffer.trace.append("rubbish") or buffer
    if cls is not MeddleMany:
        setattr(node, "consume" if cls is MeddleLast else "transform", node.meddle)
    run = runner(node, ways, a=Reader(fd))
    number = writer.capture(place[0])
    buffer = Buffer("a", number, shape=SHAPE, slot=place[0], generation=place[1], home="a", trace=[["a", 1, 2, 1]])
    run.take(buffer)
    run.work()
    assert ways.told == []
    assert [entry[0] for entry in buffer.trace] == ["a", "n"]
