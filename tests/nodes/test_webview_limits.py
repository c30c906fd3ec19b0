"""What viewers of `webview` cannot do to it, nor to each other: say garbage, say nothing, read nothing, be too many."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from nodes.webview import limits
from tests.support.command import wait_until
from tests.support.page import ended, face, frame, get, listen, meanwhile, numb, pictures, viewing


def test_a_viewer_that_takes_nothing_holds_up_nobody():
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)  # does not compress
    watch = '{"watch": {"door": "full"}, "ready": 1}'
    with (
        viewing(quality=100) as (h, url),
        numb(url) as deaf,
        listen(url, "/ws/video", sock=deaf, max_queue=1) as stuck,
        listen(url, "/ws/video") as viewer,
        meanwhile(lambda: h.push(noise, stream="door")),
    ):
        stuck.send(watch)
        numbers = []
        for _ in range(20):
            stuck.send('{"ready": 1}')  # and takes none
            viewer.send(watch)
            numbers += [picture["number"] for picture, _ in pictures(viewer.recv(30))]
        assert numbers == sorted(set(numbers))
        h.close()
        assert not h.node._server.alive


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/ws/video", "hello"),
        ("/ws/video", b"\x00\xff"),
        ("/ws/video", "[]"),
        ("/ws/video", "{}"),
        ("/ws/video", '{"watch": 5}'),
        ("/ws/video", '{"watch": {"nobody": "tile"}}'),
        ("/ws/video", '{"watch": {"door": "huge"}}'),
        ("/ws/video", '{"watch": {"door": ["tile"]}}'),
        ("/ws/video", "[" * 10_000),
        ("/ws/video", '{"ready": 1, "x": "%s"}' % ("x" * 100_000)),
        ("/ws/live", "{}"),
        ("/events", '{"ready": 1}'),
    ],
)
def test_garbage_ends_its_connection_and_nothing_else(path: str, message: str | bytes):
    with viewing() as (h, url):
        with listen(url, "/ws/video") as viewer, listen(url, path) as rogue:
            rogue.send(message)
            assert ended(rogue) in (1008, 1009)
            with meanwhile(lambda: h.push(frame(), stream="door")):
                viewer.send('{"watch": {"door": "tile"}, "ready": 1}')
                assert pictures(viewer.recv(20))
        assert [text for level, text in h.logs if level != "info"][1:] == []


def is_let_in(url: str, path: str) -> bool:
    try:
        with listen(url, path):
            return True
    except InvalidStatus:
        return False


def test_more_viewers_than_allowed_are_sent_away():
    with viewing(max_viewers=2) as (_, url), listen(url, "/ws/live"), listen(url, "/ws/video") as second:
        with pytest.raises(InvalidStatus), listen(url, "/events"):
            pass
        second.close()
        wait_until(lambda: is_let_in(url, "/events"), "room again")


UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_who_does_not_finish_a_request_is_sent_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT", 0.5)
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n"
    upgrade = UPGRADE % (b"/events?" + 9000 * b"x")
    key = {"Authorization": "Bearer open sesame"}
    with viewing(token="open sesame") as (h, url), listen(url, "/ws/live", additional_headers=key) as viewer:
        with numb(url) as nothing, numb(url) as some, numb(url) as most, numb(url) as much:
            some.sendall(b"GET / HTTP/1.1\r\nX-a:")
            most.sendall(head + b"token=")
            much.sendall(upgrade)
            for peer in (nothing, some, most, much):
                peer.settimeout(20)
                assert peer.recv(1) == b""
        # Whoever has asked is let be, however often it asks.
        at = urlsplit(url)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=20)
        for _ in range(10):
            connection.request("GET", "/healthz", headers=key)
            connection.getresponse().read()
            kept = connection.sock
            time.sleep(0.1)
        assert connection.sock is kept
        connection.close()
        assert viewer.recv(20)
        assert [text for level, text in h.logs if level != "info"] == []


def is_open(peer: socket.socket) -> bool:
    """Of one that nothing was said to."""
    peer.setblocking(False)
    try:
        return peer.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_many_who_ask_for_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "REQUEST_TIMEOUT", 1000)
    with viewing(max_viewers=2) as (h, url), listen(url, "/ws/live") as viewer, contextlib.ExitStack() as idlers:
        peers = [idlers.enter_context(numb(url)) for _ in range(200)]
        for peer in peers:
            with contextlib.suppress(ConnectionError):  # its room may have been given to another
                peer.sendall(b"GET / HTTP/1.1\r\nX-a:")
        assert get(url)[0] == 200
        assert viewer.recv(20)
        assert len([text for level, text in h.logs if level == "warning" and "connections at once" in text]) == 1
        wait_until(lambda: 0 < sum(map(is_open, peers)) <= 2 + limits.SPARE, "the longest to be ended")


def test_many_who_do_not_read_keep_nobody_out(monkeypatch: pytest.MonkeyPatch):
    """They need no token for it."""
    monkeypatch.setattr(limits, "READ_TIMEOUT", 1000)
    monkeypatch.setattr("nodes.webview.server.SPARE", 10)
    asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
    with viewing(token="open sesame", max_viewers=1) as (h, url), contextlib.ExitStack() as peers:
        for _ in range(11):
            peer = peers.enter_context(numb(url))
            peer.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    peer.sendall(asked)

        def is_answered() -> bool:
            with contextlib.suppress(ConnectionError):
                return get(url, Authorization="Bearer open sesame")[0] == 200
            return False  # some are answered still, and read what the system's buffers hold

        wait_until(is_answered, "room for others")
        assert all(is_answered() for _ in range(3))
        assert len([text for level, text in h.logs if level == "warning" and "connections at once" in text]) == 1


def test_a_viewer_who_reads_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "READ_TIMEOUT", 1.0)
    with viewing(max_viewers=1) as (h, url), numb(url) as viewer:
        viewer.sendall(UPGRADE % b"/events")
        wait_until(lambda: not is_let_in(url, "/events"), "the viewer to be in")

        def is_gone() -> bool:
            for _ in range(20):  # more than the system's buffers and ours hold
                h.push(frame(), stream="door", regions=[face("happy")] * 64)
            return is_let_in(url, "/events")

        wait_until(is_gone, "room again")
