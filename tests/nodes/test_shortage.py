"""When time counts as short: for a while after frames came late, or with gaps in their numbers."""

from __future__ import annotations

import pytest

from nodes.shortage import HOLD_NS, LONGEST_NS, Shortage
from pipeline import Buffer

SECOND = 1_000_000_000
HOLD = HOLD_NS / SECOND


def short(shortage: Shortage, dropped_at: list[float], until: float) -> list[tuple[float, float]]:
    """The spans in seconds, begin and end, in which time is short for a camera with ten frames a second. At each time
    of `dropped_at` one frame is missing before the one that comes."""
    spans: list[tuple[float, float]] = []
    sequence, begun = 0, None
    for tenth in range(round(10 * until)):
        now = tenth / 10
        sequence += 1 + (now in dropped_at)
        is_short = shortage.seen(Buffer("door", sequence), 1_000 * SECOND + tenth * SECOND // 10)
        if is_short and begun is None:
            begun = now
        elif not is_short and begun is not None:
            spans.append((begun, now))
            begun = None
    return spans if begun is None else [*spans, (begun, until)]


@pytest.mark.parametrize(
    ("dropped_at", "spans"),
    [
        ([], []),
        ([3.0], [(3.0, 8.0)]),
        ([3.0, 3.1, 7.0], [(3.0, 12.0)]),  # each frame that is dropped puts the end off
        ([3.0, 9.0], [(3.0, 8.0), (9.0, 19.0)]),  # soon after: that was too early an end
        ([3.0, 9.0, 19.5, 40.0], [(3.0, 8.0), (9.0, 19.0), (19.5, 39.5), (40.0, 80.0)]),
        ([3.0, 13.0], [(3.0, 8.0), (13.0, 18.0)]),  # it had had time enough for longer than that
        ([3.0, 9.0, 29.0], [(3.0, 8.0), (9.0, 19.0), (29.0, 34.0)]),
    ],
)
def test_from_a_frame_that_is_dropped_on_for_a_while(dropped_at: list[float], spans: list[tuple[float, float]]):
    assert HOLD == 5
    assert short(Shortage(), dropped_at, 120) == spans


def test_who_is_short_of_time_again_and_again_tries_once_a_minute():
    shortage, dropped, now = Shortage(), [1.0], 1.0
    for hold in (5, 10, 20, 40, 60, 60, 60):  # a frame is dropped as soon as it tries
        now = round(now + hold + 0.5, 1)
        dropped.append(now)
    spans = short(shortage, dropped, dropped[-1])
    assert [round(end - begin) for begin, end in spans] == [5, 10, 20, 40, 60, 60, 60]
    assert LONGEST_NS == 60 * SECOND


def test_all_cameras_of_a_node_have_the_same_time():
    shortage = Shortage()
    frames = [("door", 7), ("desk", 3), ("door", 8), ("desk", 4), ("door", 10), ("desk", 5)]
    assert [shortage.seen(Buffer(*frame), at) for at, frame in enumerate(frames)] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("age", "budget", "is_short"), [(0.12, 0.25, False), (0.13, 0.25, True), (9.0, 0.0, False), (-5.0, 0.25, False)]
)
def test_frames_that_have_waited_for_half_of_their_time_are_a_sign_of_it(age: float, budget: float, is_short: bool):
    now = 100 * SECOND
    captured = now - round(age * SECOND)
    buffer = Buffer("door", 0, captured=captured, deadline=captured + round(budget * SECOND) if budget else 0)
    assert Shortage().seen(buffer, now) == is_short


def test_the_first_frame_and_numbers_that_go_back_are_no_gap():
    shortage = Shortage()
    assert not any(shortage.seen(Buffer("door", n), SECOND) for n in (500, 501, 7, 8, 8))
