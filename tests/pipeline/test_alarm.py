from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from pipeline.alarm import Alarm


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    alarm = Alarm()
    yield alarm
    alarm.close()


def rings(alarm: Alarm, timeout_ms: int = 0) -> bool:
    poll = select.poll()
    poll.register(alarm.fd, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def test_rings_at_its_time_and_until_it_is_set_anew(alarm: Alarm):
    assert not rings(alarm)
    at = time.monotonic_ns() + 20_000_000
    alarm.set(at)
    assert rings(alarm, 60_000)
    assert time.monotonic_ns() >= at
    assert rings(alarm)
    alarm.set(at + 3_600_000_000_000)
    assert not rings(alarm)


@pytest.mark.parametrize("at", [-5, 0, 1])
def test_a_time_that_is_over_rings_at_once(alarm: Alarm, at: int):
    alarm.set(at)
    assert rings(alarm, 60_000)


def test_cleared_is_silent_and_can_be_set_again(alarm: Alarm):
    alarm.set(1)
    assert rings(alarm, 60_000)
    alarm.clear()
    assert not rings(alarm)
    alarm.set(1)
    assert rings(alarm, 60_000)
