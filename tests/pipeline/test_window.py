"""The window of a source: narrower at once for what came home late, wider slowly, and turns below one."""

from __future__ import annotations

import time

import pytest

from pipeline.window import Window

BUDGET = 1_000_000_000


def room(window: Window) -> int:
    """Buffers that may be out."""
    return next(out for out in range(100) if window.full(out))


@pytest.mark.parametrize("size", range(2, 9))
def test_a_late_buffer_costs_one_and_ten_good_ones_bring_it_back(size: int):
    window = Window(size, BUDGET)
    assert room(window) == size
    window.late()
    assert room(window) == size - 1
    for _ in range(9):
        window.delivered(BUDGET // 10)
    assert room(window) == size - 1
    window.delivered(BUDGET // 2)  # in time, but no sign of room to spare
    assert room(window) == size - 1
    window.delivered(BUDGET // 10)
    assert room(window) == size
    for _ in range(20):
        window.delivered(BUDGET // 10)
    assert room(window) == size  # never more than the node's own


def test_in_lossless_mode_it_stays_as_it_is():
    window = Window(2, 0)
    window.delivered(10 * BUDGET)
    window.home(None)
    assert room(window) == 2
    assert window.rest_until == 0


@pytest.mark.parametrize(("late", "rests"), [(1, 0), (2, 1), (3, 3), (9, 3)])
def test_below_one_it_is_one_buffer_and_a_rest_as_many_times_as_long(late: int, rests: int):
    """Of two at first: 1, 1/2, 1/4, and no less. The rest varies by half, so that cameras fall out of step."""
    window = Window(2, BUDGET)
    for _ in range(late):
        window.late()
    assert room(window) == 1
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
    for _ in range(9):
        window.late()
    now = time.monotonic_ns()
    window.home(now - 60 * BUDGET)
    assert 0 < window.rest_until - now <= 1.6 * 3 * BUDGET
