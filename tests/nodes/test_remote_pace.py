"""`send` and `receive` where one is too slow: a live camera drops, a recording waits, and both say so."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from nodes.receive import Receive
from nodes.remotelink import Header
from pipeline import UserError
from tests.nodes.remotes import SHAPE, Far, connect, picture, sender, sending
from tests.support.host import patiently, resident

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.mark.parametrize("pixels", [True, False])
def test_a_slow_receiver_of_a_live_camera_gets_the_newest_and_holds_nobody_up(pixels):
    with sending(format="raw") as h, Far(sender(h).endpoint, pixels=pixels, prefetch=2) as far:
        connect(h, far)
        far.go.clear()
        patiently(lambda: far.got, lambda: h.push(picture(0), pts=0))
        frame = np.empty(SHAPE, np.uint8)  # one piece of memory for all frames, as a slot is
        began = len(far.got)
        for n in range(1, 501):
            frame[...] = picture(n)
            h.push(frame, pts=n)
        frame[...] = 255
        (peer,) = sender(h)._peers.values()
        assert len(peer.waiting) == 1
        assert peer.sent - peer.acked <= 2
        far.go.set()
        patiently(lambda: far.got[-1].pts == 500, h.tick)
    late = [b for b in far.got[began:] if b.pts]
    assert len(late) <= 5  # what was on its way, and the newest
    assert len(h.metrics["replaced"]) >= 490
    if pixels:
        assert np.array_equal(late[-1].frame, picture(500))


def test_a_stuck_receiver_of_a_live_camera_costs_no_memory():
    frame = np.zeros((480, 640, 3), np.uint8)
    with sending(format="raw") as h, Far(sender(h).endpoint) as far:
        h.push(frame)
        patiently(lambda: far.got, lambda: h.push(frame))
        far.go.clear()
        for _ in range(10):
            h.push(frame)
        before = resident()
        for _ in range(200):  # 184 MB of pixels
            h.push(frame)
        assert resident() - before < 40e6
        assert len(h.metrics["replaced"]) >= 200


def test_the_last_frame_of_a_live_camera_is_not_dropped():
    with sending(format="raw") as h, Far(sender(h).endpoint, prefetch=1) as far:
        connect(h, far)
        far.go.clear()
        for n in range(1, 20):
            h.push(picture(n), pts=n)
        h.mark("eos")
        far.go.set()
        patiently(lambda: far.ended, h.tick)
    assert far.got[-1].pts == 19


def test_lossless_waits_for_a_slow_receiver():
    with sending(lossless=True, format="raw") as h, Far(sender(h).endpoint, lossless=True, prefetch=1) as far:
        h.push(picture(0), pts=0)
        patiently(lambda: far.got, h.tick)
        far.go.clear()
        pushing = threading.Thread(target=lambda: [h.push(picture(n), pts=n) for n in range(1, 30)])
        pushing.start()
        pushing.join(0.1)
        assert pushing.is_alive()
        far.go.set()
        pushing.join(20)
        h.mark("eos")
        patiently(lambda: far.ended, h.tick)
    assert [b.pts for b in far.got] == list(range(30))
    assert "replaced" not in h.metrics


@pytest.mark.parametrize("format", ["raw", "jpeg"])
def test_lossless_keeps_what_was_sent_before_the_receiver_came(monkeypatch, format):
    monkeypatch.setattr("nodes.send._BLOCK", 0.01)
    with sending(lossless=True, format=format) as h:
        frame = np.empty(SHAPE, np.uint8)
        for n in range(6):
            frame[...] = picture(n)
            h.push(frame, pts=n)
        with Far(sender(h).endpoint, lossless=True, prefetch=2) as far:
            ending = threading.Thread(target=lambda: h.mark("eos"))
            ending.start()
            ending.join(10)
            patiently(lambda: far.ended, h.tick)
    assert [b.pts for b in far.got] == list(range(6))
    assert all(np.abs(b.frame.astype(int) - picture(b.pts)).max() <= 6 for b in far.got)


def test_lossless_without_a_receiver_is_an_error_and_not_a_loss():
    message = r"^out: no receiver of 'door' for \d+ s on tcp.*'patience' sets the limit"
    with sending(lossless=True, patience="50ms") as h, pytest.raises(UserError, match=message):
        h.push(picture(0))


def test_lossless_without_a_receiver_until_the_end_is_an_error_too(monkeypatch):
    monkeypatch.setattr("nodes.send._BLOCK", 0.01)
    with sending(lossless=True, patience="200ms") as h:
        h.push(picture(0))
        with pytest.raises(UserError, match="^out: no receiver of 'door' for"):
            h.mark("eos")


def test_the_end_waits_for_a_receiver_as_long_as_patience_says(monkeypatch):
    monkeypatch.setattr("nodes.send._BLOCK", 0.01)
    monkeypatch.setattr("nodes.send._SIGN_OF_LIFE", 0.02)
    with sending(lossless=True, patience="60s") as h:
        h.push(picture(0))
        ending = threading.Thread(target=lambda: h.mark("eos"))
        ending.start()
        told = ("info", "waiting for a receiver of 'door' (1 frame)")
        patiently(lambda: h.logs.count(told) >= 3)
        with Far(sender(h).endpoint, lossless=True) as far:
            ending.join(30)
            patiently(lambda: far.ended, h.tick)
    assert len(far.got) == 1


def test_one_receiver_that_is_stuck_ends_the_graph_though_another_takes_every_frame(monkeypatch):
    """And does not pile up frames for ever."""
    monkeypatch.setattr("nodes.send._BLOCK", 0.05)
    with (
        sending(lossless=True, patience="500ms") as h,
        Far(sender(h).endpoint, lossless=True) as far,
        Far(sender(h).endpoint, lossless=True, prefetch=1) as stuck,
    ):
        patiently(lambda: far.got and stuck.got, lambda: h.push(picture(0)))
        before = {identity: peer.sent for identity, peer in sender(h)._peers.items()}  # one may have come long before
        stuck.go.clear()
        with pytest.raises(UserError, match="^out: a receiver took no frame of camera 'door' for"):  # noqa: PT012
            for _ in range(1000):
                h.push(picture(0))
        found = [(len(peer.waiting), peer.sent - before[identity]) for identity, peer in sender(h)._peers.items()]
        (_, served), (waiting, to_the_stuck) = sorted(found)
        assert served > to_the_stuck
        assert waiting <= 500 / 50 + 2


def test_a_stop_ends_the_wait_and_what_nobody_took_is_told():
    with sending(lossless=True) as h:
        pushing = threading.Thread(target=lambda: h.push(picture(0)))
        pushing.start()
        h.node.stopping.set()
        pushing.join(1.5)
        assert not pushing.is_alive()
        h.mark("eos")
    assert ("warning", "no receiver took the last frames of 'door' (1)") in h.logs


def test_frames_that_did_not_come_are_counted():
    with sending() as h, Far(sender(h).endpoint, pixels=False, prefetch=1) as far:
        connect(h, far)
        patiently(lambda: far.got, lambda: h.push(picture(0)))
        far.go.clear()
        time.sleep(0.1)
        for _ in range(20):
            h.push(picture(0))
        far.go.set()
        last = h._sequence["door"] - 1
        patiently(lambda: far.node._sequence == last, h.tick)
    assert far.node.skipped == sum(h.metrics["replaced"]) > 10
    assert far.harness is not None
    assert sum(far.harness.metrics["skipped"]) == far.node.skipped  # the last ones as it closes


def test_times_of_a_sender_that_was_started_again_go_on_as_long_after_as_they_came():
    node, second = Receive(name="door"), 1_000_000_000
    node._offset, node._last_pts, node._last_wall = 0, 10 * second, 100 * second
    assert node._time(Header("door", 1, 0, 0, 105 * second, (48, 64, 3), "none", [], {})) == 15 * second
