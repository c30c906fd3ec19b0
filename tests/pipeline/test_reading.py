"""The reader thread of a live source: what it hands over, what it gives up, and that it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.buffer import Buffer
from pipeline.reading import LiveReader


class Camera:
    """`fill` waits until a frame is let through; after the last one it says what comes then."""

    def __init__(self, then: BaseException | None = None) -> None:
        self.frames = threading.Semaphore(0)
        self.entered = threading.Event()
        self.last = False
        self.then = then
        self.calls = 0

    def fill(self, buffer: Buffer) -> bool:
        self.entered.set()
        self.frames.acquire()
        self.calls += 1
        if self.last and self.then is not None:
            raise self.then
        buffer.pts = self.calls
        return not self.last


@pytest.fixture
def wake() -> Iterator[int]:
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


def reader(fill: Callable[[Buffer], bool], wake: int, skips: bool) -> LiveReader:
    made = LiveReader("door", fill, lambda b: Buffer("door", 0, slot=b.slot), wake, skips)
    made.start()
    for slot in range(LiveReader.slots(skips)):
        made.supply(Buffer("door", 0, slot=slot))
    assert not made.hungry
    return made


def test_without_skipping_each_frame_waits_to_be_taken(wake: int):
    camera = Camera()
    live = reader(camera.fill, wake, skips=False)
    for number in (1, 2):
        camera.frames.release()
        assert os.eventfd_read(wake) == 1
        item, missed = live.take()
        assert isinstance(item, Buffer)
        assert (item.pts, missed, live.ready, live.hungry) == (number, 0, False, True)
        live.supply(Buffer("door", 0))
    camera.frames.release()
    assert live.stop(20)


def test_with_skipping_the_newest_takes_the_place_of_what_was_not_taken(wake: int):
    camera = Camera()
    live = reader(camera.fill, wake, skips=True)
    for _ in range(3):
        camera.frames.release()
        os.eventfd_read(wake)
    item, missed = live.take()
    assert isinstance(item, Buffer)
    assert (item.pts, missed, live.ready) == (3, 2, False)
    live.supply(Buffer("door", 0, slot=7))
    camera.frames.release()
    os.eventfd_read(wake)
    item, missed = live.take()
    assert isinstance(item, Buffer)
    assert (item.pts, missed) == (4, 0)
    camera.frames.release()
    assert live.stop(20)


@pytest.mark.parametrize("then", [None, ValueError("the cable")])
@pytest.mark.parametrize("skips", [False, True])
def test_the_end_is_handed_over_behind_the_last_frame_and_nothing_is_read_after_it(
    then: BaseException | None, skips: bool, wake: int
):
    camera = Camera(then)
    live = reader(camera.fill, wake, skips)
    camera.frames.release()
    os.eventfd_read(wake)
    if not skips:
        assert isinstance(live.take()[0], Buffer)
        live.supply(Buffer("door", 0))
    camera.last = True
    camera.frames.release(5)
    os.eventfd_read(wake)
    if skips:
        assert isinstance(live.take()[0], Buffer)
    assert live.take() == (then, 0)
    live.supply(Buffer("door", 0))
    assert live.stop(20)
    assert camera.calls == 2


def test_one_that_skips_can_be_stopped_while_nobody_takes(wake: int):
    live = reader(lambda buffer: not threading.Event().wait(0.002), wake, skips=True)
    for _ in range(3):
        os.eventfd_read(wake)
    assert live.stop(20)


def test_one_that_is_stuck_is_told(wake: int):
    camera = Camera()
    live = reader(camera.fill, wake, skips=False)
    assert camera.entered.wait(20)
    assert not live.stop(0.05)
    camera.frames.release()
    assert live.stop(20)
