"""The XPUB socket for whoever comes: what it tells of them, and that none of them can fill it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from pipeline import audience as module
from pipeline.audience import MAX_REQUEST, Audience
from tests.support.host import patiently

ANY = "tcp://127.0.0.1:*"


@pytest.fixture
def audience() -> Iterator[Audience]:
    found = Audience(ANY, hwm=10)
    yield found
    found.close()


@pytest.fixture
def peer(audience: Audience) -> Iterator[zmq.Socket]:
    """A peer that may say anything, connected."""
    with zmq.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.linger = 0
        socket.sndhwm = 0
        socket.connect(audience.endpoint)
        socket.send(b"\x01here")
        patiently(lambda: b"here" in audience.take()[0])
        yield socket


def gather(audience: Audience, count: int) -> tuple[set[bytes], int]:
    """What came, until it is so much."""
    prefixes: set[bytes] = set()
    garbage = 0

    def enough() -> bool:
        nonlocal garbage
        new, strange = audience.take()
        prefixes.update(new)
        garbage += strange
        return len(prefixes) + garbage >= count

    patiently(enough)
    return prefixes, garbage


def test_prefixes_are_told_and_what_is_none_is_counted(audience: Audience, peer: zmq.Socket):
    for message in (b"\x01a", b"hello", b"\x01b", b"", b"\x00never", b"\x00b", b"\x01c"):
        peer.send(message)
    peer.send_multipart([b"\x01d", b"more"])
    peer.send(b"\x01e")
    # libzmq takes the first part of a message for a subscription, whatever follows.
    assert gather(audience, 8) == ({b"a", b"b", b"c", b"d", b"e"}, 3)
    assert audience.take() == (set(), 0)


def test_what_is_sent_comes_to_those_who_asked_for_it(audience: Audience, peer: zmq.Socket):
    audience.send([b"elsewhere", b"1"])
    audience.send([b"here/x", b"2"])
    assert peer.poll(5000)
    assert peer.recv_multipart() == [b"here/x", b"2"]


def test_a_peer_that_says_too_much_at_once_is_put_out(audience: Audience, peer: zmq.Socket):
    monitor = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    peer.send(b"\x01" + bytes(MAX_REQUEST))
    assert monitor.poll(10_000)
    peer.disable_monitor()
    assert audience.thrown_out == 0


@pytest.mark.parametrize("what", ["prefixes", "one prefix", "noise"])
def test_a_flood_throws_all_out_and_they_may_come_again(
    audience: Audience, peer: zmq.Socket, monkeypatch: pytest.MonkeyPatch, what: str
):
    monkeypatch.setattr(module, "MAX_PREFIXES", 100 if what == "prefixes" else 1 << 40)
    monkeypatch.setattr(module, "MAX_UNBROKEN", 1 << 40 if what == "prefixes" else 100)
    monkeypatch.setattr(module, "_TURN", 60.0)
    endpoint = audience.endpoint
    with zmq.Context() as context, context.socket(zmq.SUB) as honest:
        honest.subscribe(b"honest")
        honest.connect(endpoint)
        patiently(lambda: b"honest" in audience.take()[0])
        for number in range(500):
            peer.send({"prefixes": b"\x01%d" % number, "one prefix": b"\x01same", "noise": b"noise"}[what])
        patiently(lambda: audience.take() and audience.thrown_out)
        peer.close()
        assert audience.endpoint == endpoint
        # It connects again in the background, and says what it wants at the next call.
        patiently(lambda: b"honest" in audience.take()[0], lambda: honest.poll(2))
        audience.send([b"honest", b"again"])
        assert honest.poll(5000)


def test_prefixes_that_are_given_up_do_not_count(audience: Audience, peer: zmq.Socket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_PREFIXES", 20)
    for number in range(200):
        peer.send(b"\x01%d" % number)
        peer.send(b"\x00%d" % number)
    assert len(gather(audience, 200)[0]) == 200
    assert audience.thrown_out == 0


def test_an_address_that_is_lost_in_between_is_taken_again_when_it_is_free(
    audience: Audience, peer: zmq.Socket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MAX_UNBROKEN", 0)
    peer.send(b"\x01more")
    bind = Audience._bind
    tries: list[bool] = []

    def taken(self: Audience) -> None:
        tries.append(True)
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(Audience, "_bind", taken)
    patiently(lambda: audience.take() and tries)
    audience.send([b"here", b"to nobody"])
    assert audience.take() == (set(), 0)
    assert len(tries) > 1
    monkeypatch.setattr(Audience, "_bind", bind)
    monkeypatch.setattr(module, "MAX_UNBROKEN", 100)
    patiently(lambda: b"here" in audience.take()[0], lambda: peer.poll(2))


def test_an_address_that_cannot_be_had(audience: Audience, tmp_path: Path):
    with pytest.raises(OSError, match="Address already in use"):
        Audience(audience.endpoint, hwm=10)
    with pytest.raises(ValueError, match="nowhere"):
        Audience("nowhere", hwm=10)
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(OSError, match="File exists"):
        Audience(f"ipc://{tmp_path}/file", hwm=10)
    assert (tmp_path / "file").read_text() == "keep me"
    first = Audience(f"ipc://{tmp_path}/socket", hwm=10)
    with pytest.raises(OSError, match="Address already in use"):
        Audience(f"ipc://{tmp_path}/socket", hwm=10)
    first.close()
    first.close()
    assert first.take() == (set(), 0)
    assert not (tmp_path / "socket").exists()
