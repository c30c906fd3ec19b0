"""Both ends of a remote link for tests: a `send` in a harness, and a `receive` on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from nodes.receive import Receive
from nodes.send import Send
from pipeline import Buffer, Harness, Region, UserError
from tests.support.host import patiently

ANY_PORT = "tcp://127.0.0.1:*"


SHAPE = (48, 64, 3)


def picture(number: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A smooth picture (JPEG keeps it) that tells its number."""
    ramp = np.linspace(0, 100, shape[1])[None, :, None] + np.linspace(0, 100, shape[0])[:, None, None]
    return np.broadcast_to(ramp + number % 50, shape).astype(np.uint8)


def face(track: int = 1) -> Region:
    patch = np.random.default_rng(track).integers(0, 255, (48, 48), np.uint8)
    scores = {"happy": 0.75, "sad": 0.25}
    return Region((1.5, 2, 30, 40), 4.5, track, "happy", scores, {"happy": 1.0}, patch, {"held": True})


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
