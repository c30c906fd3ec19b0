"""`publish` in a harness, and its subscribers, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from nodes.publish import Publish
from pipeline import Event, Harness, Region, subscribe
from pipeline.subscription import Subscription
from tests.support.host import patiently

ANY_PORT = "tcp://127.0.0.1:*"


def face(label: str | None = "happy", track: int | None = 1, probability: float = 0.75) -> Region:
    if label is None:
        return Region((10, 20, 30, 40), track=track)
    scores = {label: probability, "neutral": 1 - probability}
    return Region((10, 20, 30, 40), 0.5, track, label, scores, raw={label: 1.0, "neutral": 0.0})


@contextmanager
def publishing(streams: tuple[str, ...] = ("door",), lossless: bool = False, **properties) -> Iterator[Harness]:
    properties = {"endpoint": ANY_PORT, **properties}
    with Harness(Publish(name="events", **properties), streams=streams, lossless=lossless) as h:
        yield h


def endpoint(h: Harness) -> str:
    assert isinstance(h.node, Publish)
    return h.node.endpoint


def join(h: Harness, cameras=None, kinds=None) -> Subscription:
    """A subscriber that the node has answered; there must be something to answer with."""
    events = subscribe(endpoint(h), cameras, kinds, timeout=5)
    patiently(lambda: events._socket.poll(10), h.tick)
    return events


def narrow(context: zmq.Context, prefix: str, target: str) -> zmq.Socket:
    """A subscriber for which next to nothing fits into the network's buffers: events queue up in the node."""
    peer = context.socket(zmq.SUB)
    peer.setsockopt(zmq.RCVHWM, 5)
    peer.setsockopt(zmq.RCVBUF, 300_000)
    peer.subscribe(prefix)
    peer.connect(target)
    return peer


def drain(events: Subscription, until: str = "ended") -> list[Event]:
    """All events up to and with the first whose `what` is `until`."""
    got = []
    for event in events:
        got.append(event)
        if event.what == until:
            break
    return got


def brief(events: list[Event]) -> list[tuple]:
    return [(e.kind, e.what, e.track, e.label, e.snapshot) for e in events]
