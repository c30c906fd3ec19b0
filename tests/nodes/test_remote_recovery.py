"""`send` and `receive` when an end goes away, comes back, or is another one."""

from __future__ import annotations

import time

import pytest
import zmq

from nodes import receive as receive_module
from nodes.receive import Receive
from nodes.remotelink import Ask
from pipeline import GraphError, Harness
from tests.nodes.remotes import SHAPE, Far, connect, picture, sender, sending
from tests.support.command import emograph
from tests.support.host import free_port, patiently

pytestmark = pytest.mark.usefixtures("impatient")


def test_a_graph_whose_sender_waits_for_a_receiver_can_be_stopped():
    """In processes of their own: the wait is inside the node's call, where the worker's loop does not get its turn.

    A large frame takes the node longer than such a turn, so that the end comes before the mark that follows the frames.
    """
    ended = emograph(
        "launch", "testsrc name=door width=1920 height=1080 ! send name=out endpoint=tcp://127.0.0.1:*",
        "--set", "mode=lossless", "--duration", "2s", "--plain",
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


def test_a_sender_that_is_off_at_the_start_joins_later():
    port = f"tcp://127.0.0.1:{free_port()}"
    height, width, _ = SHAPE
    with Far(port, timeout="300ms", required=False, width=width, height=height) as far:
        patiently(lambda: far.statuses)
        with sending(endpoint=port, format="raw") as h:
            patiently(lambda: len(far.got) > 2, lambda: h.push(picture(0)))
    assert far.statuses[:2] == [(False, f"{port} does not answer for 0.3 s"), (True, "")]
    assert (far.got[0].frame == picture(0)).all()


def test_a_sender_whose_frames_have_another_size_than_expected_is_down():
    with sending() as h, Far(sender(h).endpoint, required=False, width=64, height=64) as far:
        patiently(lambda: far.statuses, lambda: h.push(picture(0)))
    assert far.statuses[0] == (False, "its frames are 64x48, and 'width' and 'height' say 64x64")
    assert far.got == []


def test_a_receiver_that_takes_over_waits_for_nobody():
    """Its process was killed while the sender was off: the other cameras of the graph go on."""
    port = f"tcp://127.0.0.1:{free_port()}"
    far = Far(port, timeout="300ms")
    far.node.restarted, far.node.shape_before = True, SHAPE
    with far:
        patiently(lambda: far.statuses)
        with sending(endpoint=port) as h:
            patiently(lambda: len(far.got) > 2, lambda: h.push(picture(0)))
    assert far.error is None
    assert far.statuses[:2] == [(False, f"{port} does not answer for 0.3 s"), (True, "")]


def test_a_receiver_that_takes_over_goes_on_with_the_times_of_the_one_before():
    """That one had gone on counting when the sender began anew."""
    port, hour = f"tcp://127.0.0.1:{free_port()}", 3600 * 10**9
    far = Far(port)
    far.node.restarted, far.node.shape_before = True, SHAPE
    far.node.last_before = hour, time.monotonic_ns()
    with far, sending(endpoint=port) as h:
        patiently(lambda: len(far.got) > 2, lambda: h.push(picture(0), pts=len(far.got)))
    assert hour < far.got[0].pts < 2 * hour


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"required": False, "width": 64}, "'required: false' needs 'width' and 'height'"),
        ({"width": 64, "height": 48}, "'width' and 'height' go with 'required: false'"),
    ],
)
def test_a_size_goes_with_a_sender_that_is_not_waited_for(properties, message):
    with pytest.raises(GraphError, match=message):
        Receive(endpoint="tcp://127.0.0.1:5570", **properties)


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


@pytest.mark.parametrize("first", ["the end", "the receiver"])
def test_a_stream_that_ends_while_the_graph_of_its_receiver_starts(first: str):
    """By the time that it plays there is nobody left to ask."""
    with sending() as h:
        if first == "the end":
            h.push(picture(0))
            h.mark("eos")
        with Far(sender(h).endpoint, timeout="4s") as far:
            far.go.clear()
            if first == "the receiver":
                h.push(picture(0))
            patiently(lambda: far.harness, h.tick)
            if first == "the receiver":
                h.mark("eos")
            h.close()
            far.go.set()
            patiently(lambda: far.ended)
    assert far.statuses == []


def test_a_silent_camera_is_down_though_its_sender_is_there():
    with sending() as h, Far(sender(h).endpoint) as far:
        connect(h, far)
        patiently(lambda: far.got, lambda: h.push(picture(0)))
        object.__setattr__(far.node.props, "timeout", 0.3)
        patiently(lambda: far.statuses, h.tick)
        patiently(lambda: len(far.statuses) == 2, lambda: h.push(picture(0)))
    assert far.statuses == [(False, f"{sender(h).endpoint} sends no frame for 0.3 s"), (True, "")]


def test_a_camera_that_is_just_back_has_its_timeout_anew():
    """Its sender says that it is up before its first frame, and the silence until then was told already."""
    with sending() as h, Far(sender(h).endpoint) as far:
        connect(h, far)
        patiently(lambda: far.got, lambda: h.push(picture(0)))
        object.__setattr__(far.node.props, "timeout", 2.0)
        h.mark("status", up=False, reason="unplugged")
        end = time.monotonic() + 2.5
        patiently(lambda: time.monotonic() > end, h.tick)
        h.mark("status", up=True)
        patiently(lambda: len(far.statuses) == 2, h.tick)
        end = time.monotonic() + 0.5
        patiently(lambda: time.monotonic() > end, h.tick)
        assert far.statuses == [(False, "unplugged"), (True, "")]
        patiently(lambda: len(far.statuses) == 3, h.tick)  # but no longer than that
        assert far.statuses[2][1].endswith("sends no frame for 2 s")


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
