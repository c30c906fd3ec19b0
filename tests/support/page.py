"""The `webview` node for tests: served by a Harness, asked over real HTTP and WebSockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import zmq
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as ws_connect

from nodes.webview import WebView
from pipeline import Harness, Region, wire

SCORES = {"angry": 0.05, "happy": 0.75, "neutral": 0.2}


def face(label: str | None = "happy", track: int | None = 1, scores: dict[str, float] | None = None) -> Region:
    return Region((10, 20, 30, 40), 0.5, track, label, scores or dict(SCORES), raw=dict(SCORES))


def frame(level: int = 90, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


@contextmanager
def viewing(
    streams: tuple[str, ...] = ("door", "desk"), monitor: str = "", **properties: Any
) -> Iterator[tuple[Harness, str]]:
    """(the node's harness, the page's address)."""
    node = WebView("page", **{"port": 0, **properties})
    node.monitor = monitor
    with Harness(node, streams=streams) as harness:
        yield harness, node.url


def get(url: str, path: str = "/", method: str = "GET", body: str | None = None, **headers: str) -> Any:
    """(status, headers with names in lower case, body as text); redirects are not followed."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, names, answer.read().decode()
    finally:
        connection.close()


@contextmanager
def listen(url: str, path: str, **options: Any) -> Iterator[ClientConnection]:
    """A WebSocket on the page."""
    # The environment's proxy is not for this machine's own page.
    options = {"proxy": None, "open_timeout": 20, "close_timeout": 5, **options}
    with ws_connect(url.replace("http", "ws").rstrip("/") + path, **options) as connection:
        yield connection


def ended(viewer: ClientConnection) -> int | None:
    """The code with which the other side closed, after all that it still said; None without a closing handshake."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            viewer.recv(20)
    return viewer.close_code


def numb(url: str) -> socket.socket:
    """A connection that can hold next to nothing that was not read yet."""
    at = urlsplit(url)
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect((at.hostname, at.port))
    return peer


def pictures(message: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """What one message of /ws/video holds."""
    length = int.from_bytes(message[:4])
    index, rest = json.loads(message[4 : 4 + length]), message[4 + length :]
    found = []
    for picture in index:
        found.append((picture, rest[: picture["bytes"]]))
        rest = rest[picture["bytes"] :]
    assert not rest
    return found


@contextmanager
def meanwhile(action: Callable[[], Any], interval: float = 0.02) -> Iterator[None]:
    """Do something again and again, on another thread, as a graph would."""
    end = threading.Event()

    def work() -> None:
        while not end.wait(interval):
            action()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextmanager
def supervisor(folder: Path, snapshot: Callable[[], dict[str, Any]]) -> Iterator[str]:
    """Publishes snapshots as a supervisor does; gives the address."""
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        address = f"ipc://{folder}/m"
        socket.bind(address)
        with meanwhile(lambda: socket.send(wire.pack(snapshot())), 0.05):
            yield address


def a_snapshot(**about: Any) -> dict[str, Any]:
    """Of a run of one camera, `door`, with a detector in a process of its own."""
    figures = {"in": 9, "out": 9, "dropped": {}, "in_fps": 15.0, "fps": 15.0, "busy": 0.1, "metrics": {}}
    work = {"mean": 20.0, "p50": 20.0, "p95": 40.0, "max": 50.0, "per_s": 15.0}

    def node(name: str, type_: str, kind: str, links: list[str], **more: Any) -> dict[str, Any]:
        place = {
            "type": type_,
            "kind": kind,
            "process": name,
            "base": name,
            "settings": {},
            "streams": ["door"],
            "links": links,
        }
        return {**place, **figures, **more}

    def process(name: str) -> dict[str, Any]:
        return {"nodes": [name], "pid": 1, "state": "PLAYING", "restarts": 0, "cpu": 0.1, "rss_mb": 30.0}

    dropped = [{"node": "faces", "reason": "late", "count": 2}]
    return {
        "v": 1, "graph": "test", "mode": "live", "latency_budget_ms": 250.0, "pid": 1, "time": time.time_ns(),
        "state": "PLAYING", "uptime_s": 3.0,
        "cameras": {
            "door": {
                "captured": 12, "delivered": 9, "dropped": dropped, "in_flight": 1, "capture_fps": 15.0, "fps": 14.5,
                "latency_ms": {**work, "p50": 80.0}, "up": True, "since": 0, "reason": "", "ended": False,
            }
        },
        "nodes": {
            "door": node("door", "testsrc", "source", ["faces"]),
            "faces": node("faces", "haardetect", "transform", ["page"], dropped={"late": 2}, metrics={"work_ms": work}),
            "page": node("page", "webview", "sink", []),
        },
        "processes": {name: process(name) for name in ("door", "faces", "page")},
        "messages": [], "errors": [], "garbage": 0, **about,
    }  # fmt: skip
