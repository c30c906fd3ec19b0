"""The window of a source: smaller the longer its buffers wait, alike for all cameras that wait in one queue."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter, deque

import pytest

from pipeline import window as window_module
from pipeline.buffer import waited
from pipeline.window import Window

BUDGET = 1_000_000_000
MS = 1_000_000


def rooms(window: Window, count: int = 400) -> float:
    """Buffers that may be out, on average over so many."""
    total = 0
    for _ in range(count):
        window.sent()
        total += next(out for out in range(100) if window.full(out))
    return total / count


def waits(window: Window, count: int, wait: int) -> None:
    """So many buffers that come home delivered."""
    for _ in range(count):
        window.delivered(wait)


def test_the_longer_buffers_wait_the_smaller_it_is():
    window = Window(4, BUDGET)
    assert rooms(window) == 4
    found = []
    for tenths in range(10):
        waits(window, 400, BUDGET * tenths // 10)
        found.append(window._allowed)
    assert found[:3] == [4, 4, pytest.approx(4)]
    assert found == sorted(found, reverse=True)
    assert found[5] == pytest.approx(4 * (1 / 32) ** (3 / 7))
    assert found[9] == pytest.approx(1 / 8)
    waits(window, 400, 0)
    assert rooms(window) == 4


def test_between_two_whole_numbers_it_is_now_the_one_and_now_the_other():
    random.seed(1)
    window = Window(4, BUDGET)
    window._allowed = 1.5
    assert 1.4 < rooms(window) < 1.6
    window._allowed = 0.3
    assert rooms(window) == 1


def test_a_frame_now_and_then_that_others_wait_for_is_no_jam():
    """A search of a large frame takes 180 ms of 250, four times a second, and the three behind it wait."""
    window = Window(4, BUDGET)
    for _ in range(100):
        for share in (0.72, 0.45, 0.2, 0.1):  # only the first one is long
            window.delivered(int(share * BUDGET))
        assert window._allowed > 2


def test_one_buffer_that_comes_late_changes_little_and_many_much():
    window = Window(4, BUDGET)
    window.late()
    assert window._allowed > 3.9
    for _ in range(3):
        window.late()
    assert 0.5 < window._allowed < 2  # as much as a standstill of the node costs: it works on without a loss
    for _ in range(100):
        window.late()
    assert window._allowed == pytest.approx(1 / 8)


def test_a_trace_that_no_clock_can_have_made_spoils_it_no_more_than_a_late_buffer():
    window = Window(4, BUDGET)
    for absurd in (10**30, 10**30, -(10**30)):
        window.delivered(absurd)
    waits(window, 100, 0)
    assert window._allowed == 4


def test_the_wait_is_what_is_neither_the_sources_time_nor_a_nodes():
    trace = [["cam", 0, 100, 1], ["faces", 150, 190, 1], ["mood", 200, 260, 3], ["sink", 260, 261, 1]]
    assert waited(trace) == 50 + 10
    assert waited(trace[:1]) == 0


def test_in_lossless_mode_it_stays_as_it_is():
    window = Window(2, 0)
    waits(window, 100, 10 * BUDGET)
    window.home(None)
    assert rooms(window) == 2
    assert window.rest_until == 0


@pytest.mark.parametrize(("allowed", "rests"), [(2, 0), (1, 0), (0.5, 1), (0.25, 3)])
def test_below_one_it_is_one_buffer_and_a_rest_as_many_times_as_long(allowed: float, rests: int):
    """The rest varies by half, so that cameras fall out of step."""
    window = Window(4, BUDGET)
    window._allowed = allowed
    trip = BUDGET // 2
    now = time.monotonic_ns()
    window.home(now - trip)
    rest = window.rest_until - now
    if rests:
        assert 0.5 * rests * trip <= rest <= 1.6 * rests * trip  # the clock went on a little meanwhile
        assert window.full(0)
    else:
        assert window.rest_until == 0
        assert not window.full(0)


def test_after_a_standstill_it_rests_no_longer_than_after_any_late_buffer():
    window = Window(1, BUDGET)
    window._allowed = 0.25
    now = time.monotonic_ns()
    window.home(now - 60 * BUDGET)
    assert 0 < window.rest_until - now <= 1.6 * 3 * BUDGET


class Clock:
    """Stands in for `time` in the module under test."""

    now = 0

    def monotonic_ns(self) -> int:
        return self.now


def share_a_node(
    monkeypatch: pytest.MonkeyPatch,
    cameras: int,
    work_ms: float,
    seconds: int,
    late_start: int = 0,
    spread: float = 0.0,
) -> tuple[list[float], int]:
    """Cameras at 15 frames/s in front of one node that takes their frames in order; budget 250 ms.

    Half of them start at `late_start` s. spread: how far above and below the mean the work of a camera's frames lies.
    Returns (the share of its frames, after the first 5 s of all, that each one gets through; frames that came late).
    """
    random.seed(3)
    clock = Clock()
    monkeypatch.setattr(window_module, "time", clock)
    budget, interval = 250 * MS, 1_000_000_000 // 15
    windows = [Window(4, budget) for _ in range(cameras)]
    out, done, captured = Counter(), Counter(), Counter()
    pending: dict[int, int] = {}
    queue: deque[tuple[int, int, int]] = deque()
    events: list[tuple[int, int, str, tuple[int, ...]]] = []
    order = itertools.count()
    busy, late = False, 0

    def after(delay: int, what: str, *about: int) -> None:
        heapq.heappush(events, (clock.now + delay, next(order), what, about))

    def serve() -> None:
        nonlocal busy, late
        while queue and not busy:
            camera, taken_at, sent_at = queue.popleft()
            if clock.now > taken_at + budget:
                late += 1
                out[camera] -= 1
                windows[camera].late()
                windows[camera].home(taken_at)
                go(camera)
                continue
            busy = True
            work = work_ms * (1 + spread * (2 * camera / (cameras - 1) - 1)) * random.uniform(0.7, 1.3)
            after(int(work * MS), "done", camera, taken_at, clock.now - sent_at)

    def go(camera: int) -> None:
        window = windows[camera]
        if camera in pending and not window.full(out[camera]):
            out[camera] += 1
            window.sent()
            queue.append((camera, pending.pop(camera), clock.now))
            serve()
        elif camera in pending and window.rest_until > clock.now:
            after(window.rest_until - clock.now, "rested", camera)

    for camera in range(cameras):
        start = late_start * 1_000_000_000 if camera % 2 else 0
        after(start + interval * camera // cameras, "frame", camera)
    while clock.now < seconds * 1_000_000_000:
        clock.now, _, what, about = heapq.heappop(events)
        camera = about[0]
        counted = clock.now > (late_start + 5) * 1_000_000_000
        if what == "frame":
            after(interval, "frame", camera)
            captured[camera] += counted
            pending[camera] = clock.now  # instead of an older one
        elif what == "done":
            busy = False
            out[camera] -= 1
            done[camera] += counted
            windows[camera].delivered(about[2])
            windows[camera].home(about[1])
            serve()
        go(camera)
    return [done[camera] / captured[camera] for camera in range(cameras)], late


@pytest.mark.parametrize(
    ("cameras", "work_ms", "late_start", "spread"),
    [(4, 20, 0, 0), (8, 9, 0, 0), (16, 6.6, 0, 0), (16, 6.6, 10, 0), (16, 6.6, 0, 0.4), (32, 7, 0, 0)],
)
def test_cameras_that_share_what_is_too_little_get_even_shares_of_all_of_it(
    monkeypatch: pytest.MonkeyPatch, cameras: int, work_ms: float, late_start: int, spread: float
):
    shares, late = share_a_node(monkeypatch, cameras, work_ms, late_start + 30, late_start, spread)
    possible = 1000 / work_ms / (15 * cameras)
    mean = sum(shares) / cameras
    assert mean > 0.95 * possible
    assert max(abs(share - mean) for share in shares) < 0.06
    assert late < 0.02 * 30 * 15 * cameras


def test_where_there_is_enough_for_all_nobody_loses_a_frame(monkeypatch: pytest.MonkeyPatch):
    shares, late = share_a_node(monkeypatch, 8, 7, 20)
    assert min(shares) > 0.99
    assert late == 0
