"""`send` and `receive` among peers that speak something else: counted, and nobody else is held up."""

from __future__ import annotations

import socket
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from nodes.remotelink import VERSION, Ask, Header, Info, pack_header, unpack
from nodes.remotepixels import decode, encode, jpeg_size
from pipeline import wire
from pipeline.buffer import BadMessage
from tests.nodes.remotes import SHAPE, Far, face, picture, sender, sending
from tests.support.host import patiently

pytestmark = pytest.mark.usefixtures("impatient")


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
            evil.send_multipart([identity, *frame_message(number=len(WRONG_FRAMES) + 1, pts=2**62 - 2)])
            evil.send_multipart([identity, *frame_message(number=len(WRONG_FRAMES) + 2, pts=99)])
            patiently(lambda: len(far.got) > 1)
            assert far.harness is not None
            far.harness.tick()
    assert far.node.garbage == len(WRONG_FRAMES) + 1
    assert [b.pts for b in far.got] == [77, 99]
    assert np.array_equal(far.got[0].frame, picture(0))
    assert [level for level, _ in far.harness.logs] == ["warning"]
    assert sum(far.harness.metrics["garbage"]) == len(WRONG_FRAMES) + 1


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


# Pixels -----------------------------------------------------------------------------------------------------


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


def test_a_receiver_that_only_claims_to_read_is_not_sent_for_ever(monkeypatch: pytest.MonkeyPatch):
    """What it acknowledges and never read would pile up in the socket."""
    shape = (480, 640, 3)
    with sending(format="raw") as h, zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.rcvhwm = 1
        peer.setsockopt(zmq.RCVBUF, 4096)
        peer.connect(sender(h).endpoint)
        peer.send(wire.pack(ask(window=64)))
        patiently(lambda: sender(h)._peers, h.tick)
        for number in range(400):
            peer.send(wire.pack(ask(window=64, ack=2**60)))
            h.push(picture(number, shape))
        patiently(lambda: h.push(picture(0, shape)) or h.metrics.get("replaced"), h.tick)
        assert next(iter(sender(h)._peers.values())).sent < 250  # of 400, some of them in the kernel's buffers


def test_receivers_that_fell_silent_make_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.send._MAX_PEERS", 2)
    monkeypatch.setattr("nodes.send._SILENT_AFTER", 0.3)
    with sending() as h, zmq.Context() as context:
        strangers = [context.socket(zmq.DEALER) for _ in range(2)]
        for stranger in strangers:
            stranger.linger = 0
            stranger.connect(sender(h).endpoint)
            stranger.send(wire.pack(ask()))
        patiently(lambda: len(sender(h)._peers) == 2, h.tick)
        with Far(sender(h).endpoint) as far:
            patiently(lambda: far.got, lambda: h.push(picture(1)))
            strangers[1].send(wire.pack(ask()))  # it comes back in the place of the other one
            patiently(lambda: len(sender(h)._peers) == 2, h.tick)
        for stranger in strangers:
            stranger.close()


def test_a_receiver_has_no_more_than_was_sent_to_it():
    with sending() as h, zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.connect(sender(h).endpoint)
        peer.send(Ask("door", False, False, 0, 1).pack())
        patiently(lambda: sender(h)._peers, h.tick)
        peer.send(Ask("door", False, False, 50, 2).pack())
        (known,) = sender(h)._peers.values()
        patiently(lambda: known.window == 2, h.tick)
        for number in range(6):
            h.push(picture(0), pts=number)
        got = 0
        while peer.poll(200):
            peer.recv_multipart()
            got += 1
    assert got == 2
    assert len(h.metrics["replaced"]) == 3
