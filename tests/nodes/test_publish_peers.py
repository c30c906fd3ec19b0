"""`publish` with slow, stuck and hostile peers: nobody can slow it down or bring it down."""

from __future__ import annotations

import os
import socket
import threading

import msgpack
import pytest
import zmq

from nodes.publish import Publish
from pipeline.audience import MAX_PREFIXES
from tests.nodes.publishing import drain, endpoint, face, join, narrow, publishing
from tests.support.host import patiently, resident


def test_a_stuck_subscriber_costs_nobody_anything_but_itself():
    count, crowd = 2500, [face(track=n) for n in range(40)]  # about 6 kB an event, 15 MB in all
    with publishing(hwm=50) as h:
        h.push(regions=crowd)
        context = zmq.Context()
        stuck = narrow(context, "emotion/door/observation", endpoint(h))
        with context, stuck, join(h, kinds="observation") as awake:
            patiently(lambda: stuck.poll(10), h.tick)
            stuck_first = msgpack.unpackb(stuck.recv_multipart()[1])
            memory = resident()
            read = 1
            next(awake)
            for number in range(2, count + 1):
                h.push(regions=crowd)
                while number - read > 20:  # it reads along, a little behind
                    read = next(awake).sequence
            while read < count:
                read = next(awake).sequence
            assert awake.lost == 0
            assert resident() - memory < 8e6  # the stuck one's queue is bounded
            # It wakes up: a few old events, then a gap that its numbers show.
            got: list[int] = []

            def wake() -> None:
                if stuck.poll(100):
                    got.append(msgpack.unpackb(stuck.recv_multipart()[1])["sequence"])
                else:
                    h.push(regions=crowd)

            patiently(lambda: got and got[-1] > count, wake)
    assert stuck_first["snapshot"]
    assert got == sorted(set(got))
    assert got[:40] == list(range(2, 42))
    assert len(got) < count


def raw_bytes(target: str) -> None:
    host, port = target.removeprefix("tcp://").split(":")
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 5000,
        os.urandom(2000),
        b"\xff" + b"\x00" * 8 + b"\x7f",
    ):
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(data)


def wrong_messages(target: str) -> None:
    with zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.connect(target)
        peer.send(b"\x01emotion/")
        peer.recv_multipart()  # answered: the connection stands
        peer.send_multipart([b"\x01emotion/door", b"more"])
        for _ in range(300):
            peer.send(b"hello")
        peer.send(b"\x02" * 100)


def endless_topic(target: str) -> None:
    with zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.linger = 100
        peer.connect(target)
        peer.send(b"\x01" + b"emotion/" * 1000)


@pytest.mark.parametrize("attack", [raw_bytes, wrong_messages, endless_topic])
def test_garbage_from_a_peer_is_ignored(attack):
    with publishing(observations=False) as h:
        h.push(regions=[face()])
        with join(h) as events:
            peer = threading.Thread(target=attack, args=(endpoint(h),))
            peer.start()
            while peer.is_alive():
                h.tick()
                peer.join(0.01)
            h.tick()
            if attack is wrong_messages:
                patiently(lambda: len(h.metrics.get("garbage", [])) == 302, h.tick)
            h.push(regions=[face(), face(track=2)])
            h.mark("eos")
            told = drain(events)
    assert [e.what for e in told if e.kind == "change"] == ["present", "appeared", "left", "left"]
    assert [e.lost for e in told] == [0] * len(told)
    if attack is wrong_messages:
        warnings = [text for level, text in h.logs if level == "warning"]
        assert warnings == ["a peer sent something that is no subscription; it is ignored"]


@pytest.mark.parametrize("kind", [b"\x01", b"\x02"], ids=["a subscription", "anything else"])
def test_a_message_that_is_too_long_ends_its_senders_connection(kind: bytes):
    with publishing() as h, zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.linger = 0
        monitor = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.connect(endpoint(h))
        peer.send(b"\x01emotion/")
        peer.send(kind + bytes(100))
        assert not monitor.poll(300)
        peer.send(kind + bytes(200))
        assert monitor.poll(10_000)
        peer.disable_monitor()


def test_a_flood_of_subscriptions_is_ended_and_honest_subscribers_come_back():
    """libzmq keeps all of it, and one peer could take all of the machine's memory."""
    with publishing(observations=False) as h, zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.linger = 0
        peer.sndhwm = 0
        h.push(regions=[face()])
        with join(h) as events:
            assert {next(events).what, next(events).what} == {"present", "up"}
            peer.connect(endpoint(h))
            for number in range(2 * MAX_PREFIXES):
                peer.send(b"\x01emotion/" + str(number).encode())
            patiently(lambda: any("flood" in text for _, text in h.logs), h.tick)
            peer.close()
            patiently(lambda: events._socket.poll(10), h.tick)  # it is there again: the snapshot tells how things stand
            h.push(regions=[face(), face(track=2)])
            h.mark("eos")
            told = drain(events)
    assert [e.what for e in told if e.kind == "change"][-3:] == ["appeared", "left", "left"]
    assert [text for level, text in h.logs if level == "warning"] == [
        f"{endpoint(h)}: a peer sent a flood of subscriptions: all were thrown out, and may connect again"
    ]


@pytest.mark.parametrize("hwm", [10, 1000])
def test_what_a_slow_subscriber_may_have_waiting_is_a_setting(hwm: int):
    """Of the socket: how much more fits into the network's buffers, nobody knows."""
    with publishing(hwm=hwm) as h:
        assert isinstance(h.node, Publish)
        assert h.node._audience is not None
        assert h.node._audience._socket is not None
        assert h.node._audience._socket.getsockopt(zmq.SNDHWM) == hwm
