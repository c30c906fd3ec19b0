"""`publish` and those who were there before it: who waits for its address hears all of a recording, or at least its end."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
import zmq

from nodes import publish
from nodes.publish import Publish
from pipeline import Harness, subscribe
from pipeline.subscription import Subscription
from tests.nodes.publishing import drain, endpoint, face, join, publishing
from tests.support.host import free_endpoint, patiently

FOREVER = 1e6  # seconds


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """However busy the machine is: subscribers come in time."""
    monkeypatch.setattr(publish, "_PATIENCE", 30.0)
    monkeypatch.setattr(publish, "_LINGER_MS", 30_000)


def waiting(place: str) -> Subscription:
    """A subscriber whose first try to connect has failed."""
    events = subscribe(place, timeout=10)
    time.sleep(0.05)
    return events


def tell_all(h: Harness) -> None:
    for _ in range(3):
        h.push(regions=[face()])
    h.mark("eos")


ALL = [
    ("status", "up", 1),
    ("change", "appeared", 1),
    ("observation", "", 1),
    ("observation", "", 2),
    ("observation", "", 3),
    ("change", "left", 2),
    ("status", "ended", 2),
]


@pytest.mark.parametrize("count", [1, 2])
def test_who_waited_hears_all_of_a_lossless_graph(monkeypatch, count: int):
    if count > 1:
        monkeypatch.setattr(publish, "_COMPANY", 3.0)
    place = free_endpoint()
    with ExitStack() as stack:
        early = [stack.enter_context(waiting(place)) for _ in range(count)]
        with publishing(endpoint=place, lossless=True) as h:
            tell_all(h)
        for events in early:
            told = drain(events)
            assert [(e.kind, e.what, e.sequence) for e in told] == ALL
            assert not any(e.snapshot for e in told)


def test_a_program_without_our_code_that_waited_hears_all_too():
    place = free_endpoint()
    with zmq.Context() as context, context.socket(zmq.SUB) as peer:
        peer.subscribe("emotion/")
        peer.connect(place)
        time.sleep(0.05)
        with publishing(endpoint=place, lossless=True) as h:
            tell_all(h)
        told: list[str] = []
        while len(told) < len(ALL) and peer.poll(10_000):
            told.append(peer.recv_multipart()[0].decode())
    assert told == [f"emotion/door/{kind}" for kind, _, _ in ALL]


def test_who_waited_for_a_live_graph_that_is_soon_over_hears_of_its_end():
    place = free_endpoint()
    with waiting(place) as events:
        with publishing(endpoint=place) as h:
            tell_all(h)
        told = drain(events)
    assert (told[-1].kind, told[-1].what) == ("status", "ended")  # as news or in the snapshot


def test_who_comes_in_the_last_moment_hears_of_the_end():
    with publishing() as h:
        h.push(regions=[])
        with join(h):
            h.mark("eos")
            late = subscribe(endpoint(h), timeout=10)
            assert isinstance(h.node, Publish)
            audience = h.node._audience
            assert audience is not None
            assert audience._socket is not None
            patiently(lambda: audience._socket and audience._socket.poll(10))
    with late:
        assert [e.what for e in drain(late)] == ["ended"]


def test_no_event_of_a_live_graph_waits(monkeypatch):
    monkeypatch.setattr(publish, "_PATIENCE", FOREVER)
    with publishing() as h:
        h.push(regions=[face()])
        h.mark("status", up=True)
        with join(h) as events:
            assert [next(events).snapshot for _ in range(3)] == [True] * 3


def test_a_lossless_graph_without_subscribers_waits_once_and_not_for_long(monkeypatch):
    monkeypatch.setattr(publish, "_PATIENCE", 0.05)
    with publishing(lossless=True) as h:
        h.push(regions=[face()])
        monkeypatch.setattr(time, "sleep", None)  # whoever slept again would fail
        tell_all(h)


def test_a_start_that_failed_waits_for_nobody(monkeypatch):
    monkeypatch.setattr(publish, "_PATIENCE", FOREVER)
    with publishing() as h:
        h.tick()
