"""`send` and `receive` over real sockets: what arrives, what is left out, and what happens when an end goes away."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from nodes import receive as receive_module
from nodes.receive import Receive
from nodes.remotelink import VERSION, Ask, Header, Info, pack_header, unpack
from nodes.remotepixels import decode, encode, jpeg_size
from nodes.send import Send
from pipeline import Buffer, GraphError, Harness, Region, UserError, wire
from pipeline.buffer import BadMessage
from tests.support.command import emograph

ANY_PORT = "tcp://127.0.0.1:*"
SHAPE = (48, 64, 3)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Ask again sooner than on a real network."""
    monkeypatch.setattr(receive_module, "_ASK_AGAIN", 0.1)
    monkeypatch.setattr(receive_module, "_POLL_MS", 5)


def picture(number: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A smooth picture (JPEG keeps it) that tells its number."""
    ramp = np.linspace(0, 100, shape[1])[None, :, None] + np.linspace(0, 100, shape[0])[:, None, None]
    return np.broadcast_to(ramp + number % 50, shape).astype(np.uint8)


def face(track: int = 1) -> Region:
    patch = np.random.default_rng(track).integers(0, 255, (48, 48), np.uint8)
    scores = {"happy": 0.75, "sad": 0.25}
    return Region((1.5, 2, 30, 40), 4.5, track, "happy", scores, {"happy": 1.0}, patch, {"held": True})


def patiently(condition: Callable[[], Any], meanwhile: Callable[[], Any] = lambda: time.sleep(0.002)) -> None:
    """Do `meanwhile` until `condition`; what takes half a minute never comes."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        meanwhile()


@contextmanager
def sending(streams: tuple[str, ...] = ("door",), lossless: bool = False, **properties) -> Iterator[Harness]:
    properties = {"endpoint": ANY_PORT, **properties}
    with Harness(Send(name="out", **properties), streams=streams, lossless=lossless) as h:
        yield h


def sender(h: Harness) -> Send:
    assert isinstance(h.node, Send)
    return h.node


class Far:
    """A `receive` on a thread of its own, as in a graph; `go` lets it take frames.

    Entered before the sender has sent anything: `open` waits in the thread for the first frame.
    """

    def __init__(self, endpoint: str, name: str = "door", pixels: bool = True, lossless: bool = False, **properties):
        self.node = Receive(name=name, endpoint=endpoint, **{"timeout": 20, **properties})
        self.node.pixels_wanted = pixels
        self.lossless = lossless
        self.harness: Harness | None = None
        self.got: list[Buffer] = []
        self.error: Exception | None = None
        self.ended = False
        self.go = threading.Event()
        self.go.set()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.harness = Harness(self.node, lossless=self.lossless)
            while not self.node.stopping.is_set():
                if not self.go.wait(0.005):
                    continue
                pulled = self.harness.pull(1)
                self.got += pulled
                if not pulled:
                    self.ended = not self.node.stopping.is_set()
                    break
        except UserError as error:
            self.error = error

    def __enter__(self) -> Far:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.node.stopping.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.node.close()

    @property
    def statuses(self) -> list[tuple[bool, str]]:
        return self.harness.statuses if self.harness else []


def connect(h: Harness, *fars: Far) -> None:
    """Let the first frame of each camera be seen, until every receiver has been told and takes frames."""
    number = {far.node.camera: 0 for far in fars}
    for camera in number:
        h.push(picture(0), stream=camera, pts=0)
    patiently(lambda: len(sender(h)._peers) == len(fars), h.tick)


# What arrives ----------------------------------------------------------------------------------------------


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
    assert not any(buffer.frame.any() for buffer in far.got)
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


# Too slow --------------------------------------------------------------------------------------------------


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


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


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
    monkeypatch.setattr("nodes.send._LAST_BLOCK", 0.02)
    with sending(lossless=True) as h:
        h.push(picture(0))
        with pytest.raises(UserError, match="^out: no receiver of 'door' for"):
            h.mark("eos")


def test_a_stop_ends_the_wait_and_what_nobody_took_is_told():
    with sending(lossless=True) as h:
        pushing = threading.Thread(target=lambda: h.push(picture(0)))
        pushing.start()
        h.node.stopping.set()
        pushing.join(1.5)
        assert not pushing.is_alive()
        h.mark("eos")
    assert ("warning", "no receiver took the last frames of 'door' (1)") in h.logs


# Away and back ---------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_graph_whose_sender_waits_for_a_receiver_can_be_stopped():
    """In processes of their own: the wait is inside the node's call, where the worker's loop does not get its turn."""
    ended = emograph(
        "launch", "testsrc name=door ! send name=out endpoint=tcp://127.0.0.1:*", "--set", "mode=lossless",
        "--duration", "2s", "--plain",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "out: no receiver took the last frames of 'door'" in ended.stderr


def test_a_sender_that_goes_away_and_comes_back():
    port = f"tcp://127.0.0.1:{free_port()}"
    with Far(port, timeout="20s", pixels=False) as far:
        with sending(endpoint=port) as h:
            patiently(lambda: len(far.got) > 5, lambda: h.push(picture(0), pts=10 * len(far.got)))
        object.__setattr__(far.node.props, "timeout", 0.3)
        patiently(lambda: far.statuses)
        last = far.got[-1].pts
        assert not far.ended
        with sending(endpoint=port) as h:
            before = len(far.got)
            patiently(lambda: len(far.got) > before + 5, lambda: h.push(picture(0), pts=len(far.got) - before))
        assert far.statuses[:2] == [(False, f"{port} does not answer for 0.3 s"), (True, "")]
    times = [b.pts for b in far.got]
    assert times == sorted(times)
    assert times[-1] > last


@pytest.mark.parametrize("reconnect", [False, True])
def test_a_sender_whose_graph_ends_and_is_started_again(reconnect):
    port = f"tcp://127.0.0.1:{free_port()}"
    with Far(port, timeout="20s", pixels=False, reconnect=reconnect) as far:
        with sending(endpoint=port) as h:
            patiently(lambda: len(far.got) > 5, lambda: h.push(picture(0), pts=10 * len(far.got)))
            h.mark("eos")
            patiently(lambda: far.ended or far.statuses, h.tick)
        assert far.ended is not reconnect
        if not reconnect:
            assert far.statuses == []
            return
        last, before = far.got[-1].pts, len(far.got)
        with sending(endpoint=port) as h:
            patiently(lambda: len(far.got) > before + 5, lambda: h.push(picture(0), pts=len(far.got) - before))
        assert far.statuses[:2] == [(False, "the stream has ended at the sender"), (True, "")]
    assert far.got[before].pts > last


def test_a_silent_camera_is_down_though_its_sender_is_there():
    with sending() as h, Far(sender(h).endpoint) as far:
        connect(h, far)
        patiently(lambda: far.got, lambda: h.push(picture(0)))
        object.__setattr__(far.node.props, "timeout", 0.3)
        patiently(lambda: far.statuses, h.tick)
        patiently(lambda: len(far.statuses) == 2, lambda: h.push(picture(0)))
    assert far.statuses == [(False, f"{sender(h).endpoint} sends no frame for 0.3 s"), (True, "")]


def test_silence_says_nothing_in_lossless_mode(monkeypatch):
    with sending(lossless=True) as h, Far(sender(h).endpoint, lossless=True) as far:
        h.push(picture(0))
        patiently(lambda: far.got, h.tick)
        monkeypatch.setattr(receive_module, "_ASK_AGAIN", 5.0)  # on a busy machine an answer takes its time
        object.__setattr__(far.node.props, "timeout", 0.2)
        end = time.monotonic() + 0.6
        patiently(lambda: time.monotonic() > end, h.tick)
        assert far.statuses == []


def test_a_receiver_that_was_started_again_is_served_and_the_old_one_forgotten(monkeypatch):
    monkeypatch.setattr("nodes.send._PROBE_AFTER", 0.05)
    with sending(lossless=True) as h:
        for _ in range(3):
            with Far(sender(h).endpoint, lossless=True) as far:
                patiently(lambda: far.got, lambda: h.push(picture(0)))
            patiently(lambda: not sender(h)._peers, h.tick)


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_frame_whose_receiver_has_just_gone_is_sent_once_to_the_next(monkeypatch, waiting):
    monkeypatch.setattr("nodes.send._BLOCK", 0.01)
    with sending(lossless=True) as h, zmq.Context() as context:
        with context.socket(zmq.DEALER) as peer:
            peer.linger = 0
            peer.connect(sender(h).endpoint)
            peer.send(Ask("door", False, False, 0, 2 - waiting).pack())
            patiently(lambda: sender(h)._peers, h.tick)
            h.push(picture(0), pts=0)
            for n in range(waiting):
                h.push(picture(0), pts=1 + n)
            peer.recv_multipart()
        (identity,) = sender(h)._peers
        patiently(lambda: is_gone(h, identity))
        if not waiting:
            h.push(picture(0), pts=1)
        with Far(sender(h).endpoint, lossless=True) as far:
            h.mark("eos")
            patiently(lambda: far.ended, h.tick)
    assert [b.pts for b in far.got] == [1]
    assert any(text.startswith("a receiver of 'door' went away; frames to it") for _, text in h.logs)


def is_gone(h: Harness, identity: bytes) -> bool:
    """Whether the connection is known to be broken, though the node was not told."""
    try:
        sender(h)._socket.send_multipart([identity, b""], zmq.NOBLOCK)
    except zmq.ZMQError as error:
        return error.errno == zmq.EHOSTUNREACH
    return False


def test_a_receiver_that_comes_back_gets_what_waited_for_it(monkeypatch):
    monkeypatch.setattr("nodes.send._BLOCK", 0.01)
    with sending(lossless=True) as h, zmq.Context() as context:
        with context.socket(zmq.DEALER) as peer:
            peer.linger = 0
            peer.connect(sender(h).endpoint)
            peer.send(Ask("door", False, False, 0, 1).pack())
            patiently(lambda: sender(h)._peers, h.tick)
            h.push(picture(0), pts=0)
            h.push(picture(0), pts=1)
        (identity,) = sender(h)._peers
        patiently(lambda: is_gone(h, identity))
        with Far(sender(h).endpoint, lossless=True) as far:
            patiently(lambda: far.got, h.tick)
            h.mark("eos")
            patiently(lambda: far.ended, h.tick)
    assert [b.pts for b in far.got] == [1]


def hear_more(far: Far, h: Harness) -> None:
    """Until the receiver has been answered twice more."""
    for _ in range(2):
        heard = far.node._heard
        patiently(lambda heard=heard: far.node._heard > heard, h.tick)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_sender_that_has_no_frame_yet_does_not_bring_the_camera_up(lossless):
    port = f"tcp://127.0.0.1:{free_port()}"
    with Far(port, pixels=False, reconnect=True, lossless=lossless) as far:
        with sending(endpoint=port, lossless=lossless) as h:
            patiently(lambda: far.got, lambda: h.push(picture(0)))
            h.mark("eos")
            patiently(lambda: far.statuses, h.tick)
        with sending(endpoint=port, lossless=lossless) as h:
            hear_more(far, h)
            assert far.statuses == [(False, "the stream has ended at the sender")]
            patiently(lambda: len(far.statuses) > 1, lambda: h.push(picture(0)))
    assert far.statuses[1:] == [(True, "")]


@pytest.mark.parametrize("lossless", [False, True])
def test_a_sender_without_the_camera_takes_the_port(lossless):
    port = f"tcp://127.0.0.1:{free_port()}"
    with Far(port, pixels=False, lossless=lossless) as far:
        with sending(endpoint=port, lossless=lossless) as h:
            patiently(lambda: far.got, lambda: h.push(picture(0)))
        with sending(("hall",), endpoint=port) as h:
            h.push(picture(0))
            patiently(lambda: far.statuses, h.tick)
            hear_more(far, h)
        with sending(endpoint=port, lossless=lossless) as h:
            patiently(lambda: len(far.statuses) > 1, lambda: h.push(picture(0)))
    assert far.statuses == [(False, f"{port} has no camera 'door'; known: hall"), (True, "")]


def test_another_size_is_told_and_not_shown():
    with sending(format="raw") as h, Far(sender(h).endpoint) as far:
        connect(h, far)
        patiently(lambda: far.got, lambda: h.push(picture(0)))
        patiently(lambda: far.statuses, lambda: h.push(picture(0, (96, 128, 3))))
        patiently(lambda: len(far.statuses) == 2, lambda: h.push(picture(0)))
    assert far.statuses == [(False, "it is 128x96 now and was 64x48: launch this graph again"), (True, "")]
    assert {b.frame.shape for b in far.got} == {SHAPE}


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
    with pytest.raises(UserError, match="within 0.2 s; its host's name cannot be resolved$"):
        Harness(Receive(name="in", endpoint="tcp://nosuchhost.invalid:5570", timeout="200ms"))


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


# Garbage ----------------------------------------------------------------------------------------------------


def ask(**changes) -> list[Any]:
    fields = {"version": VERSION, "what": "ask", "camera": "door", "hello": True, "pixels": True, "ack": 0, "window": 4}
    return list({**fields, **changes}.values())


WRONG_ASKS = {
    "nothing": [b""],
    "text": [b"hello"],
    "two parts": [wire.pack(ask()), b"more"],
    "version": [wire.pack(ask(version=2))],
    "window": [wire.pack(ask(window=10**6))],
    "negative": [wire.pack(ask(ack=-1))],
    "huge": [wire.pack(ask(ack=2**63))],
    "camera": [wire.pack(ask(camera=["door"]))],
    "map": [wire.pack({1: 2})],
    "nested": [b"\x91" * 3000],
    "claims": [b"\xdd\xff\xff\xff\xff"],
}


def test_garbage_from_a_receiver_is_counted_and_the_others_are_served():
    with sending(lossless=True) as h, Far(sender(h).endpoint, lossless=True) as far, zmq.Context() as context:
        h.push(picture(0))
        patiently(lambda: far.got, h.tick)
        with context.socket(zmq.DEALER) as peer:
            peer.linger = 1000
            peer.connect(sender(h).endpoint)
            for parts in WRONG_ASKS.values():
                peer.send_multipart(parts)
            patiently(lambda: sender(h).garbage == len(WRONG_ASKS), h.tick)
            peer.send(b"\x00" * 100_000)  # ends the connection
            host, port = sender(h).endpoint.removeprefix("tcp://").split(":")
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(np.random.default_rng(0).bytes(3000))  # libzmq may take it for an old version's
            h.push(picture(1))
            patiently(lambda: len(far.got) == 2, h.tick)
    warnings = [text for level, text in h.logs if level == "warning"]
    assert len(warnings) == 1
    assert "that no receiver says" in warnings[0]
    assert len(h.metrics["garbage"]) == sender(h).garbage >= len(WRONG_ASKS)


def frame_message(regions: list[Any] | None = None, pixels: bytes | None = None, **changes) -> list[bytes]:
    fields = {
        "camera": "door", "number": 1, "sequence": 0, "pts": 0, "wall": 0, "shape": SHAPE, "format": "raw",
        "regions": [], "meta": {},
    }  # fmt: skip
    header = Header(**{**fields, **changes})
    return [pack_header(header, regions or []), picture(0).tobytes() if pixels is None else pixels]


def region(**changes) -> list[Any]:
    """A packed region with some of its fields changed."""
    names = ("box", "score", "track", "label", "scores", "raw", "patch", "attrs")
    return list({**dict(zip(names, face().pack(), strict=True)), **changes}.values())


BOMB = bytes.fromhex("ffd8ffc0001108ffffffff03012200021101031101") + b"\x00" * 100
"""A JPEG that claims 65535 x 65535 pixels."""
OTHER_SIZE = encode(picture(0, (96, 128, 3)), "jpeg", 90)
RIGHT_SIZE = encode(picture(0), "jpeg", 90)

WRONG_FRAMES = {
    "nothing": [b""],
    "noise": [b"\xc1\xff\x00", b""],
    "no pixels part": frame_message()[:1],
    "three parts": [*frame_message(), b""],
    "another camera": frame_message(camera="desk"),
    "raw too short": frame_message(pixels=b"\x00"),
    "no pixels": frame_message(format="none", pixels=b""),
    "format": frame_message(format="png"),
    "bomb": frame_message(format="jpeg", pixels=BOMB),
    "other size": frame_message(format="jpeg", pixels=OTHER_SIZE),
    "not decodable": frame_message(format="jpeg", pixels=RIGHT_SIZE[:200].replace(b"\xff\xdb", b"\xff\xd9")),
    "png in disguise": frame_message(format="jpeg", pixels=cv2.imencode(".png", picture(0))[1].tobytes()),
    "flat shape": frame_message(shape=(0, 64, 3)),
    "shape of text": frame_message(shape=("a", 64, 3)),
    "huge pts": frame_message(pts=2**63),
    "negative sequence": frame_message(sequence=-1),
    "meta": frame_message(meta=["x"]),
    "too many regions": frame_message([region()] * 2000),
    "half a region": frame_message([region()[:4]]),
    "box of text": frame_message([region(box=["a", 0, 0, 0])]),
    "box of nan": frame_message([region(box=[float("nan"), 0, 0, 0])]),
    "track": frame_message([region(track=["x"])]),
    "label": frame_message([region(label=5)]),
    "long label": frame_message([region(label="x" * 65)]),
    "scores": frame_message([region(scores={"happy": "very"})]),
    "long name of a score": frame_message([region(raw={"x" * 65: 0.5})]),
    "too many scores": frame_message([region(scores={str(n): 0.0 for n in range(65)})]),
    "patch": frame_message([region(patch=[48, 48, b"short"])]),
    "huge patch": frame_message([region(patch=[1, 1000, b"x" * 1000])]),
}


def test_garbage_from_a_sender_is_counted_and_the_next_frame_shown():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as evil:
        evil.linger = 0
        port = evil.bind_to_random_port("tcp://127.0.0.1")
        with Far(f"tcp://127.0.0.1:{port}") as far:
            identity, _ = evil.recv_multipart()
            evil.send_multipart([identity, Info("door", ["door"], SHAPE, True, "", False).pack()])
            for parts in WRONG_FRAMES.values():
                evil.send_multipart([identity, *parts])
            evil.send_multipart([identity, *frame_message(number=len(WRONG_FRAMES), pts=77)])
            patiently(lambda: far.got)
            assert far.harness is not None
            far.harness.tick()
    assert far.node.garbage == len(WRONG_FRAMES)
    assert [b.pts for b in far.got] == [77]
    assert np.array_equal(far.got[0].frame, picture(0))
    assert [level for level, _ in far.harness.logs] == ["warning"]
    assert sum(far.harness.metrics["garbage"]) == len(WRONG_FRAMES)


def test_who_speaks_another_version_is_told_at_the_start():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
        other.linger = 0
        port = other.bind_to_random_port("tcp://127.0.0.1")
        with Far(f"tcp://127.0.0.1:{port}", timeout="500ms") as far:
            identity, _ = other.recv_multipart()
            other.send_multipart([identity, wire.pack([2, "info", {}])])
            patiently(lambda: far.error)
    assert str(far.error).endswith("what answers there is no 'send' of this version (version 2, here is 1)")


def test_receivers_are_bounded(monkeypatch):
    monkeypatch.setattr("nodes.send._MAX_PEERS", 3)
    with sending() as h, zmq.Context() as context:
        h.push(picture(0))
        peers = [context.socket(zmq.DEALER) for _ in range(6)]
        for peer in peers:
            peer.linger = 0
            peer.connect(sender(h).endpoint)
            peer.send(Ask("door", False, False, 0, 4).pack())
        patiently(lambda: any("more than 3 receivers" in text for _, text in h.logs), h.tick)
        h.push(picture(1))
        assert len(sender(h)._peers) == 3
        for peer in peers:
            peer.close()


# Pixels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "quality"), [((48, 64, 3), 90), ((17, 333, 3), 1), ((480, 20, 3), 100)])
def test_the_size_that_a_jpeg_states(shape, quality):
    assert jpeg_size(memoryview(encode(picture(0, shape), "jpeg", quality))) == shape[:2]


@pytest.mark.parametrize("data", [BOMB, OTHER_SIZE, b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00" * 9])
def test_what_states_another_size_is_not_even_decoded(monkeypatch, data):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    into = picture(3).copy()
    with pytest.raises(BadMessage):
        decode(memoryview(data), "jpeg", into)
    assert np.array_equal(into, picture(3))


def test_messages_are_read_as_they_were_written():
    info = Info("door", ["door", "desk"], SHAPE, False, "away", True)
    assert unpack(info.pack()) == info
    wish = Ask("door", True, False, 7, 64)
    assert Ask.unpack(wish.pack()) == wish
