"""A source's own rules, without processes: what waits, what is lost, what is dated how."""

from __future__ import annotations

import time

import pytest

from pipeline import Buffer, Mark, VideoInfo, ring
from pipeline.buffer import WHOLE
from pipeline.plan import NodePlan
from pipeline.source import SourceRunner
from tests.support.enginenodes import Numbers

PLAN = NodePlan("a", "a", "numbers", "", "source", "a", {})
SECOND = 1_000_000_000


class Link:
    """Keeps what leaves."""

    local = False

    def __init__(self) -> None:
        self.sent: list[Buffer | Mark] = []

    def send(self, item: Buffer | Mark) -> None:
        self.sent.append(item)

    def flush(self) -> None:
        pass

    @property
    def frames(self) -> list[Buffer]:
        return [item for item in self.sent if isinstance(item, Buffer)]

    @property
    def marks(self) -> list[Mark]:
        return [item for item in self.sent if isinstance(item, Mark)]


@pytest.fixture
def link() -> Link:
    return Link()


def source(fd: int, link: Link, budget: float = 1000.0, restarted: bool = False, **properties) -> SourceRunner:
    runner = SourceRunner(
        Numbers("a", **properties), PLAN, [link], fd, planes=1, budget_ns=int(budget * SECOND), phase=0.0,
        log=lambda level, name, text: None,
    )  # fmt: skip
    runner.open(restarted)
    return runner


def capture(runner: SourceRunner, age: float = 0.0, wall: int = 0) -> None:
    """A frame, taken so many seconds ago."""
    buffer = runner._blank()
    assert buffer is not None
    assert runner._fill(buffer)
    buffer.captured -= round(age * SECOND)
    buffer.wall = wall
    runner._captured(buffer)


def rest(runner: SourceRunner, seconds: float) -> None:
    """Keep frames back for so long, as after one that came late."""
    runner._window.rest_until = time.monotonic_ns() + round(seconds * SECOND)


def test_a_source_that_comes_back_with_another_size_first_waits_for_what_is_out(fd: int, link: Link):
    capture(source(fd, link))
    again = source(fd, link, restarted=True, width=32)
    again.play(restarted=True)
    again.step()
    assert again.ring.fits(6, 64 * 48 * 3, 1)
    assert (again.ring.captured, list(again.ring.out)) == (1, [0])
    again.mark_home(link.marks[0].number, WHOLE)
    again.step()
    assert again.ring.fits(6, 32 * 48 * 3, 1)
    assert [frame.shape for frame in link.frames[:2]] == [(48, 64, 3), (48, 32, 3)]
    assert ring.read_ledger(fd).dropped == {("a", "lost"): 1}


def test_a_recording_that_was_held_up_for_long_goes_on_at_its_own_pace(fd: int, link: Link):
    runner = source(fd, link, fps=1, num_buffers=0, window=50)
    runner.play(restarted=False)
    runner.step()
    runner._base -= 50 * SECOND
    for _ in range(20):
        runner.step()
    assert runner.ring.captured <= 3  # and not all that would have come meanwhile


def test_a_frame_that_has_waited_for_half_its_time_is_not_sent(fd: int, link: Link):
    runner = source(fd, link, budget=100.0)
    for age in (60.0, 20.0):
        rest(runner, 1000)
        capture(runner, age=age)
        rest(runner, 0)
        runner._send_pending()
    assert [frame.sequence for frame in link.frames] == [1]
    assert ring.read_ledger(fd).dropped == {("a", "window full"): 1}


def test_a_frame_says_when_it_was_captured_unless_its_source_knows_better(fd: int, link: Link):
    runner = source(fd, link)
    capture(runner, age=100.0)
    capture(runner, age=100.0, wall=1234)
    early, known = link.frames
    assert early.wall / SECOND == pytest.approx(time.time() - 100, abs=20)
    assert known.wall == 1234


class HeldUp:
    """Both clocks, for a thread that is kept from running for 20 ms after a certain reading of one of them."""

    AHEAD = 1_700_000_000 * SECOND

    def __init__(self, after: int) -> None:
        self._now = 1000 * SECOND
        self._left = after

    def monotonic_ns(self) -> int:
        now = self._now
        self._now += 20_000_000 if self._left == 0 else 100
        self._left -= 1
        return now

    def time_ns(self) -> int:
        return self.monotonic_ns() + self.AHEAD


@pytest.mark.parametrize("after", range(14))
def test_a_thread_that_is_held_up_dates_its_frame_no_later(fd: int, link: Link, monkeypatch, after: int):
    runner = source(fd, link)
    monkeypatch.setattr("pipeline.source.time", HeldUp(after))
    capture(runner)
    (frame,) = link.frames
    assert abs(frame.wall - HeldUp.AHEAD - frame.captured) < 1000


def test_a_flush_settles_what_went_before_it_and_nothing_else(fd: int, link: Link):
    runner = source(fd, link)
    capture(runner)
    rest(runner, 1000)
    capture(runner)  # it waits, and leaves behind the mark
    runner.flush("w")
    rest(runner, 0)
    runner._send_pending()
    capture(runner)
    assert [frame.sequence for frame in link.frames] == [0, 1, 2]
    assert runner.mark_home(link.marks[0].number, WHOLE)
    assert list(runner.ring.out) == [1, 2]
    assert ring.read_ledger(fd).dropped == {("w", "lost"): 1}
    assert runner.stats.dropped == {"lost": 1}


def test_the_last_frame_is_sent_though_the_window_is_full(fd: int, link: Link):
    runner = source(fd, link)
    rest(runner, 1000)
    capture(runner)
    runner.stop()
    assert [frame.sequence for frame in link.frames] == [0]
    assert [mark.kind for mark in link.marks] == ["eos"]
    assert link.sent[-1] is link.marks[0]


def test_a_mark_that_went_down_with_the_node_is_settled_by_a_later_one(fd: int, link: Link):
    runner = source(fd, link)
    capture(runner)
    runner.flush("w")
    runner.flush("w")
    assert runner.mark_home(link.marks[1].number, WHOLE)
    assert not runner.mark_home(link.marks[0].number, WHOLE)
    runner.stop()
    assert not runner.drained
    assert runner.mark_home(link.marks[2].number, WHOLE)
    assert runner.drained


def test_a_flush_that_does_not_come_home_gets_company_ever_more_rarely(fd: int, link: Link):
    runner = source(fd, link)

    def later(seconds: float) -> list[str]:
        for sent in runner._marks.values():
            sent.sent_at -= round(seconds * SECOND)
        runner.step()
        return [mark.kind for mark in link.marks]

    runner.flush("w")
    assert later(1.5) == ["flush"]
    assert later(0.6) == ["flush"] * 2
    assert later(3.5) == ["flush"] * 2
    assert later(0.6) == ["flush"] * 3
    assert runner.mark_home(link.marks[0].number, WHOLE)  # the first one after all: it settles the same
    assert runner.mark_home(link.marks[2].number, WHOLE)
    runner.flush("w")
    assert later(2.1) == ["flush"] * 5


@pytest.mark.parametrize("weight", [0, -1, WHOLE + 1])
def test_weights_that_cannot_be_are_refused(fd: int, link: Link, weight: int):
    runner = source(fd, link)
    capture(runner)
    runner.flush("w")
    assert not runner.buffer_home(0, weight, ("w", "late"), [])
    assert not runner.mark_home(link.marks[0].number, weight)
    assert list(runner.ring.out) == [0]
    assert runner.buffer_home(0, WHOLE, ("", "delivered"), [])
    assert runner.mark_home(link.marks[0].number, WHOLE)


def test_a_source_is_closed_once_the_stream_ends(fd: int, link: Link):
    runner, closed = source(fd, link), []
    runner.node.close = lambda: closed.append(True)
    runner.close()
    assert closed == [True]


class Camera(Numbers):
    """A camera by its class, which keeps what it found when it was opened."""

    live = True

    def open(self) -> VideoInfo:
        self.found = self.live, self.shape_before
        info = super().open()
        self.live = True
        return info


def test_a_camera_that_takes_over_finds_what_was_before(link: Link):
    fd, found = ring.create(), []
    for restarted in (True, False, True):  # the process before the first died while it was opening
        node = Camera("a")
        SourceRunner(node, PLAN, [link], fd, planes=1, budget_ns=0, phase=0.0, log=lambda level, name, text: None).open(
            restarted
        )
        found.append(node.found)
    assert found == [(True, None), (True, None), (True, (48, 64, 3))]


def test_a_camera_that_takes_over_finds_when_the_last_frame_was(fd: int, link: Link):
    before = source(fd, link, fps=1000)
    before.node.live = True
    for number in (1, 2):
        before.node.next = number
        capture(before)
    assert source(ring.create(), link, restarted=True).node.last_before is None
    assert source(fd, link, restarted=True).node.last_before == (link.frames[1].pts, link.frames[1].captured)


def test_what_a_source_writes_into_the_engines_fields_is_set_right(link: Link):
    class Meddler(Numbers):
        def fill(self, buffer: Buffer) -> bool:
            more = super().fill(buffer)
            buffer.shape, buffer.stream, buffer.weight, buffer.slot = (480, 640, 3), "nowhere", 1, 7
            return more

    runner = source(ring.create(), link)
    runner.node = Meddler("a")
    runner.node.open()
    capture(runner)
    [sent] = link.frames
    assert (sent.shape, sent.stream, sent.weight, sent.slot < 7) == ((48, 64, 3), "a", WHOLE, True)
