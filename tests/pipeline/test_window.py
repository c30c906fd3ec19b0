"""The window of a source: smaller while trips are long, half for what came home late, and turns below one."""

from __future__ import annotations

import time

import pytest

from pipeline import window as window_module
from pipeline.window import Window

BUDGET = 1_000_000_000
SHORT, LONG = BUDGET // 10, BUDGET * 8 // 10
"""Trips; the second is a long one where the first has been seen."""


def room(window: Window) -> int:
    """Buffers that may be out."""
    return next(out for out in range(100) if window.full(out))


def trips(window: Window, count: int, latency: int, used: bool = True) -> None:
    """So many buffers that come home delivered; used: a frame found the window full before each."""
    for _ in range(count):
        assert not used or window.full(100)
        window.delivered(latency)


def test_while_trips_are_long_it_shrinks_by_a_share_and_then_grows_by_a_constant():
    window = Window(4, BUDGET)
    trips(window, 1, SHORT)
    trips(window, 1, LONG)  # one alone says nothing
    assert window._allowed == 4
    trips(window, 18, LONG)
    assert window._allowed == pytest.approx(4 - 18 * 0.05)
    assert room(window) == 3
    trips(window, 1000, LONG)
    assert window._allowed == pytest.approx(0.25)
    trips(window, 1, SHORT)
    assert window._allowed == pytest.approx(0.25 + 0.05 / 0.25)  # a small one has few trips, each of which brings more
    trips(window, 1000, SHORT)
    assert room(window) == 4  # never more than the node's own


def test_a_frame_now_and_then_that_others_wait_for_is_no_jam():
    """A search of a large frame takes 180 ms of 250, four times a second, and the three behind it wait."""
    window = Window(4, BUDGET)
    for _ in range(100):
        for share in (0.72, 0.45, 0.2, 0.1):  # only the first one is long
            window.full(2)
            window.delivered(int(share * BUDGET))
    assert room(window) == 4


def test_two_that_share_what_is_too_little_come_to_even_shares():
    """Both see the same trips: as long as their windows together ask for."""
    large, small = Window(8, BUDGET), Window(8, BUDGET)
    for window in (large, small):
        window.delivered(SHORT)
    small._allowed = 1.0
    owed = [0.0, 0.0]
    for _ in range(2000):  # a tenth of a trip each
        latency = int(BUDGET * (large._allowed + small._allowed) / 8)
        for index, window in enumerate((large, small)):
            owed[index] += window._allowed / 10
            while owed[index] >= 1:
                owed[index] -= 1
                trips(window, 1, latency)
    assert 0.8 < large._allowed / small._allowed < 1.25
    assert 3 < large._allowed + small._allowed < 6  # and use what there is: at 4.4 trips count as long


def test_one_that_is_not_in_use_does_not_grow():
    window = Window(4, BUDGET)
    window.late(None)
    trips(window, 100, SHORT, used=False)
    assert room(window) == 2
    trips(window, 200, SHORT)
    assert room(window) == 4


def test_what_always_takes_long_is_no_sign_of_a_jam(monkeypatch: pytest.MonkeyPatch):
    window = Window(4, BUDGET)
    trips(window, 100, LONG)
    assert room(window) == 4
    # Where it was short for a while it is one, until that is some time ago: the scene may need more work now.
    trips(window, 1, SHORT)
    trips(window, 10, LONG)
    smaller = window._allowed
    assert smaller < 4
    for _ in range(2):
        monkeypatch.setattr(window_module, "_MEMORY_NS", 0)
        trips(window, 1, LONG)
        monkeypatch.undo()
    trips(window, 1000, LONG)
    assert room(window) == 4


def test_a_late_buffer_halves_it_and_those_of_the_same_jam_do_not_again():
    window = Window(4, BUDGET)
    before = time.monotonic_ns()
    window.late(before)
    assert room(window) == 2
    for _ in range(3):
        window.late(before)  # these had left already
    assert room(window) == 2
    window.late(time.monotonic_ns())
    assert room(window) == 1


def test_in_lossless_mode_it_stays_as_it_is():
    window = Window(2, 0)
    trips(window, 100, 10 * BUDGET)
    window.home(None)
    assert room(window) == 2
    assert window.rest_until == 0


@pytest.mark.parametrize(("late", "rests"), [(1, 0), (2, 1), (3, 3), (9, 3)])
def test_below_one_it_is_one_buffer_and_a_rest_as_many_times_as_long(late: int, rests: int):
    """Of two at first: 1, 1/2, 1/4, and no less. The rest varies by half, so that cameras fall out of step."""
    window = Window(2, BUDGET)
    for _ in range(late):
        window.late(None)
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
        window.late(None)
    now = time.monotonic_ns()
    window.home(now - 60 * BUDGET)
    assert 0 < window.rest_until - now <= 1.6 * 3 * BUDGET
