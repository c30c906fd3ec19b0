"""`send` and `receive` over real sockets: what arrives, and what is said before anything does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import zmq

from nodes.receive import Receive
from nodes.remotelink import Ask
from nodes.send import Send
from pipeline import GraphError, Harness, UserError
from tests.nodes.remotes import ANY_PORT, Far, connect, face, picture, sender, sending
from tests.support.host import free_port, patiently

pytestmark = pytest.mark.usefixtures("impatient")


# What arrives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["raw", "jpeg"])
def test_what_is_sent_arrives(format):
    with sending(format=format, lossless=True) as h, Far(sender(h).endpoint, lossless=True) as far:
        sent = [
            h.buffer(picture(n), regions=[face(1), face(n + 2)][: n % 3], pts=n * 40_000_000, meta={"truth": [n]})
            for n in range(8)
        ]
        h.push_all(sent)
        h.mark("eos")
        patiently(lambda: far.ended, h.tick)
    assert len(far.got) == 8
    for near, there in zip(sent, far.got, strict=True):
        assert (there.pts, there.wall, there.meta) == (near.pts, near.wall, near.meta)
        assert [r.pack() for r in there.regions] == [r.pack() for r in near.regions]
        difference = np.abs(there.frame.astype(int) - near.frame)
        assert difference.max() <= (0 if format == "raw" else 6)
    assert far.statuses == []


@pytest.mark.parametrize("format", ["raw", "jpeg"])
def test_no_pixels_where_nobody_looks_at_them(format):
    with (
        sending(format=format, lossless=True) as h,
        Far(sender(h).endpoint, pixels=False, lossless=True) as far,
    ):
        for n in range(5):
            h.push(picture(n, (480, 640, 3)), regions=[face()])
        h.mark("eos")
        patiently(lambda: far.ended, h.tick)
    assert len(far.got) == 5
    unwritten = far.got[0].frame
    assert unwritten.all()  # noise, as a Harness gives it, the same in each
    assert all((buffer.frame == unwritten).all() for buffer in far.got)
    assert all(b.regions[0].pack() == face().pack() for b in far.got)
    sizes = h.metrics["frame_bytes"]
    assert len(sizes) == 5
    assert max(sizes) < 6000


class Full:
    """A socket that takes no ask with a certain `ack` until the node has heard of the end."""

    def __init__(self, node: Receive, ack: int):
        self._socket, self._node, self._ack = node._socket, node, ack
        self.refused = 0

    def send(self, data: bytes, flags: int) -> None:
        if Ask.unpack(data).ack == self._ack and not self._node._ended:
            self.refused += 1
            raise zmq.Again
        self._socket.send(data, flags)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_the_word_that_the_last_frame_came_is_said_until_it_goes_through():
    with (
        sending(format="raw", lossless=True, patience="5s") as h,
        Far(sender(h).endpoint, lossless=True) as far,
    ):
        patiently(lambda: far.node._asked)
        far.node._socket = full = Full(far.node, ack=3)  # pyright: ignore[reportAttributeAccessIssue]
        for n in range(3):
            h.push(picture(n))
        h.mark("eos")  # raises when its patience ends
        patiently(lambda: far.ended, h.tick)
    assert full.refused
    assert len(far.got) == 3


def test_two_cameras_and_two_receivers_over_one_port():
    with sending(("door", "desk"), lossless=True, format="raw") as h:
        port = sender(h).endpoint
        with (
            Far(port, "door", lossless=True) as door,
            Far(port, "second", camera="desk", lossless=True) as desk,
            Far(port, "third", camera="door", pixels=False, lossless=True) as copy,
        ):
            connect_all = (door, desk, copy)
            patiently(lambda: all(far.node._asked for far in connect_all))
            connect(h, *connect_all)
            for n in range(1, 7):
                h.push(picture(n), stream="door", pts=n)
                h.push(picture(100 + n), stream="desk", pts=100 + n)
            h.mark("eos", stream="desk")
            patiently(lambda: desk.ended and len(door.got) >= 6, h.tick)
            assert not door.ended
            h.mark("eos", stream="door")
            patiently(lambda: door.ended and copy.ended, h.tick)
    assert [b.pts for b in desk.got] == [0, *range(101, 107)]
    # Of two receivers of a camera the first to come has all; the other may have missed what was sent before.
    first, second = sorted(([b.pts for b in far.got] for far in (door, copy)), key=len, reverse=True)
    assert first == list(range(7))
    assert second in (first, first[1:])
    assert all(np.array_equal(b.frame, picture(b.pts)) for b in door.got + desk.got)


def test_what_was_sent_before_the_sender_closed_arrives():
    with Far(f"tcp://127.0.0.1:{free_port()}", lossless=True) as far:
        with sending(endpoint=far.node.props.endpoint, lossless=True) as h:
            h.push(picture(0), pts=0)
            patiently(lambda: far.got, h.tick)
            far.go.clear()
            for n in range(1, 4):
                h.push(picture(n), pts=n)
            h.node.stopping.set()  # it would wait for the receiver
            h.mark("eos")
            assert any(text.startswith("no receiver has said that the last frames came") for _, text in h.logs)
        time.sleep(0.1)  # the connection is gone before anything is read
        far.go.set()
        patiently(lambda: far.ended)
    assert [b.pts for b in far.got] == [0, 1, 2, 3]


@contextmanager
def slow_link(port: str, rate: float) -> Iterator[str]:
    """A way to `port` for one receiver, which lets `rate` bytes a second through to it; yields where it begins."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def carry(one: socket.socket, other: socket.socket, seconds_per_byte: float) -> None:
            with suppress(OSError):  # either end may close first
                while data := one.recv(1 << 16):
                    time.sleep(len(data) * seconds_per_byte)
                    other.sendall(data)
                other.shutdown(socket.SHUT_WR)

        def link() -> None:
            near, _ = server.accept()
            host, number = port.removeprefix("tcp://").split(":")
            with near, socket.create_connection((host, int(number))) as far:
                asks = threading.Thread(target=carry, args=(near, far, 0))
                asks.start()
                carry(far, near, 1 / rate)
                asks.join()

        thread = threading.Thread(target=link)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_the_end_of_a_stream_comes_over_a_link_that_is_slower_than_the_graph():
    shape = (480, 640, 3)
    with (
        sending(lossless=True, format="raw") as h,
        slow_link(sender(h).endpoint, rate=20e6) as port,
        Far(port, lossless=True, prefetch=8) as far,
    ):
        h.push(picture(0, shape), pts=0)
        patiently(lambda: far.got, h.tick)
        for n in range(1, 9):
            h.push(picture(n, shape), pts=n)
        sender(h)._socket.setsockopt(zmq.LINGER, 0)  # in place of a link so slow that 5 s do not do
        h.mark("eos")
        h.close()
        patiently(lambda: far.ended)
    assert [b.pts for b in far.got] == list(range(9))
    assert not [text for level, text in h.logs if level == "warning"]


def test_receivers_that_never_say_that_the_end_came_are_an_error():
    with sending(lossless=True, patience="200ms") as h, Far(sender(h).endpoint, lossless=True) as far:
        h.push(picture(0))
        patiently(lambda: far.got, h.tick)
        far.go.clear()
        for n in range(2):
            h.push(picture(n))
        message = r"^out: no receiver has said that the last frames came \(\d\), for \d+ s on tcp.*; 'patience' sets"
        with pytest.raises(UserError, match=message):
            h.mark("eos")


def test_status_and_end_are_passed_on_in_order():
    with sending(lossless=True) as h, Far(sender(h).endpoint, lossless=True) as far:
        h.push(picture(1))
        patiently(lambda: len(far.got) == 1, h.tick)
        h.mark("status", up=False, reason="unplugged")
        patiently(lambda: far.statuses, h.tick)
        h.mark("status", up=True)
        patiently(lambda: len(far.statuses) == 2, h.tick)
        h.mark("status", up=False, reason="unplugged again")
        h.push(picture(2))
        h.mark("flush")
        h.mark("eos")
        patiently(lambda: far.ended, h.tick)
    assert far.statuses == [(False, "unplugged"), (True, ""), (False, "unplugged again"), (True, "")]
    assert len(far.got) == 2


# Starting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "camera", "message"),
    [
        (1, "dor", "has no camera 'dor'; did you mean 'door'?"),
        (1, "zzz", "has no camera 'zzz'; known: desk, door"),
        (0, "door", r"no frame of camera 'door' from tcp://\S+ within 0.4 s; it offers: door, desk$"),
    ],
)
def test_a_camera_that_does_not_come(frames, camera, message):
    with sending(("door", "desk")) as h:
        for _ in range(frames):
            h.push(picture(0), stream="door")
        with Far(sender(h).endpoint, "in", camera=camera, timeout="400ms") as far:
            patiently(lambda: far.error, h.tick)
    with pytest.raises(UserError, match=message) as error:
        raise far.error or AssertionError
    assert str(error.value).startswith("in: ")


def test_nobody_there():
    with pytest.raises(UserError, match=r"^in: no frame of camera 'in' from tcp://\S+ within 0.2 s; no answer$"):
        Harness(Receive(name="in", endpoint=f"tcp://127.0.0.1:{free_port()}", timeout="200ms"))
    for host in ("nosuchhost.invalid", "no..host"):
        with pytest.raises(UserError, match="within 0.2 s; its host's name cannot be resolved$"):
            Harness(Receive(name="in", endpoint=f"tcp://{host}:5570", timeout="200ms"))


def test_a_port_in_use():
    with sending() as h:
        port = sender(h).endpoint
        with pytest.raises(UserError, match=f"^other: cannot bind {port}: address already in use$"):
            Harness(Send(name="other", endpoint=port))


@pytest.mark.parametrize("node", [Send, Receive])
@pytest.mark.parametrize("wrong", ["nonsense", "ipc:///tmp/x", "tcp://127.0.0.1", "udp://127.0.0.1:1"])
def test_a_malformed_endpoint_is_found_before_the_start(node, wrong):
    with pytest.raises(GraphError, match="is not an endpoint such as"):
        node(name="x", endpoint=wrong)


@pytest.mark.parametrize(("where", "warns"), [("tcp://0.0.0.0:*", True), (ANY_PORT, False)])
def test_warns_where_strangers_can_read(where, warns):
    with sending(endpoint=where) as h:
        assert any("can be read by anybody" in text for level, text in h.logs if level == "warning") == warns
