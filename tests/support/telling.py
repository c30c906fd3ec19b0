"""Events as they go over the wire, and a publisher of them that is none of ours."""

from __future__ import annotations

from typing import Any

import msgpack
import zmq

from pipeline.events import encode

TIME = 1_700_000_000_123_456_789


FACE = {
    "box": [10.0, 20.0, 30.0, 40.0], "track": 7, "label": "happy", "score": 0.75,
    "probabilities": {"happy": 0.75, "sad": 0.25}, "raw": {"happy": 1.0, "sad": 0.0}, "detection": 3.5,
}  # fmt: skip


SMALL = {**FACE, "box": [0.0, 0.0, 5.0, 5.0], "track": None, "label": "sad", "score": 0.9}


TRACK = {
    "track": 7, "label": "happy", "previous": "sad", "score": 0.75, "probabilities": {"happy": 0.75, "sad": 0.25},
    "box": [10.0, 20.0, 30.0, 40.0], "since_ns": TIME - 10**9, "since_pts_ns": 0, "duration_ns": 2_500_000_000,
}  # fmt: skip


ABOUT = {
    "observation": {"frame": 3, "width": 640, "height": 480, "regions": [SMALL, FACE]},
    "change": {"what": "changed", **TRACK},
    "status": {"what": "down", "reason": "unplugged", "since_ns": TIME},
}


def fields(kind: str = "change", camera: str = "door", sequence: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "version": 1, "kind": kind, "camera": camera, "run": "r1", "sequence": sequence, "snapshot": False,
        "time_ns": TIME, "pts_ns": 40_000_000, "latency_ns": 30_000_000, **ABOUT[kind], **more,
    }  # fmt: skip


def without(name: str, kind: str = "change") -> dict[str, Any]:
    return {key: value for key, value in fields(kind).items() if key != name}


def frames(payload: Any, topic: bytes = b"emotion/door/change") -> list[bytes]:
    return [topic, msgpack.packb(payload)]  # type: ignore[list-item]


class Foreign:
    """A publisher of somebody else's: says what it is told to say, on a port of its own."""

    def __init__(self, endpoint: str = "tcp://127.0.0.1:*") -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.socket.linger = 0
        self.socket.bind(endpoint)
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def asked(self, timeout: float = 20.0) -> bytes | None:
        """The next (un)subscription that reaches it."""
        return self.socket.recv() if self.socket.poll(timeout * 1000) else None

    def say(self, *payloads: dict[str, Any]) -> None:
        for payload in payloads:
            self.socket.send_multipart(encode(payload))

    def close(self) -> None:
        self.socket.close()
        self.context.term()
