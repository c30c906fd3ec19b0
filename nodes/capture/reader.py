"""OpenCV's VideoCapture on a thread of its own, so that no caller is ever stuck in it.

`emograph launch "capture uri=rtsp://10.0.0.5/stream1 ! fakesink"` reads through this. A camera may stop answering
in the middle of a name lookup, a handshake or a frame, where nothing in Python can reach; and an FFmpeg stream
whose read was cut short by a timeout cannot be read on. So each `Reader` blocks on its own thread, the caller
waits as long as it wants and walks away, and the thread frees the capture whenever the call comes back. The
hand-over costs 14 us a frame.
"""

from __future__ import annotations

import atexit
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import cv2
import numpy as np

T = TypeVar("T")

STOP_LATENCY = 0.2
"""Seconds within which a waiting caller notices that the graph stops."""

EXIT_PATIENCE = 1.0
"""Seconds that a program's end waits for threads that are still in OpenCV."""

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


class Interrupted(Exception):
    """The graph stops; what was being waited for no longer matters."""


class Reader:
    """One open video. Only one thread may call it, and not after TimeoutError or Interrupted, save `close`."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._todo: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self.capture = cv2.VideoCapture()
        thread = threading.Thread(
            target=_work, args=(self.capture, self._todo, self._done), name="capture", daemon=True
        )
        _at_work[thread] = self._todo
        thread.start()

    def call(self, work: Callable[[], T], limit: float | None) -> T:
        """What `work`, run on the reader's thread, returns or raises. limit: seconds, None for ever.
        Raises TimeoutError, Interrupted."""
        self._todo.put(work)
        until = None if limit is None else time.monotonic() + limit
        while True:
            patience = STOP_LATENCY if until is None else min(STOP_LATENCY, max(0.0, until - time.monotonic()))
            try:
                value, error = self._done.get(timeout=patience)
            except queue.Empty:
                if self._stopping.is_set():
                    raise Interrupted from None
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError from None
                continue
            if error is not None:
                raise error
            return value

    def grab(self, limit: float | None) -> bool:
        """Decode the next frame; False at the end, and for a frame that cannot be decoded.
        Raises TimeoutError, Interrupted."""
        return self.call(self.capture.grab, limit)

    def jump(self, milliseconds: float, limit: float | None) -> None:
        """Go near a position; the next `grab` may land before or after it. Raises TimeoutError, Interrupted."""
        self.call(lambda: self.capture.set(cv2.CAP_PROP_POS_MSEC, milliseconds), limit)

    def retrieve(self, into: np.ndarray) -> np.ndarray | None:
        """The grabbed frame, uint8 (h, w, 3) BGR: `into` itself when that has the frame's size, else a new
        array. None when there is no picture in it."""
        try:
            ok, picture = self.capture.retrieve(into)
        except cv2.error:  # a webcam's damaged JPEG
            return None
        return picture if ok else None

    def get(self, prop: int) -> float:
        """A property of the capture, as a finite number (0 when unknown)."""
        value = self.capture.get(prop)
        return value if math.isfinite(value) else 0.0

    @property
    def fps(self) -> float:
        """The nominal rate in frames/s; 0 when unknown or absurd (a time base in place of a rate)."""
        fps = self.get(cv2.CAP_PROP_FPS)
        return fps if 0 < fps <= 1000 else 0.0

    @property
    def codec(self) -> str:
        return int(self.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True).decode("latin-1").lower()

    def close(self) -> None:
        """Free the capture as soon as the call in progress, if any, is over. Does not wait for that."""
        self._todo.put(None)


def _work(capture: cv2.VideoCapture, todo: queue.SimpleQueue, done: queue.SimpleQueue) -> None:
    while (work := todo.get()) is not None:
        try:
            done.put((work(), None))
        except Exception as error:  # raised again in the thread that asked
            done.put((None, error))
    capture.release()
    _at_work.pop(threading.current_thread(), None)


_at_work: dict[threading.Thread, queue.SimpleQueue[Callable[[], Any] | None]] = {}
"""The threads of this process, each with what it is told through."""


@atexit.register
def _see_off() -> None:
    """Let the threads leave OpenCV before the interpreter goes: before Python 3.14 it ends a thread that comes back
    later by unwinding its stack, which C++ takes for a crash (`terminate called without an active exception`)."""
    until = time.monotonic() + EXIT_PATIENCE
    threads = list(_at_work.items())
    for _, todo in threads:
        todo.put(None)
    for thread, _ in threads:
        thread.join(max(0.0, until - time.monotonic()))


def quieten() -> None:
    """Keep OpenCV and its FFmpeg off stderr; failures are told by the node, once, in one line.

    Whoever sets OPENCV_LOG_LEVEL or OPENCV_FFMPEG_LOGLEVEL still gets the chatter. Also lets several captures
    of one process open at the same time: by default OpenCV opens one after the other, and a camera that does
    not answer would hold up its neighbours.
    """
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV moved it between 4.10 and 4.14; 0 is silence in both.
        getattr(cv2.utils, "logging", cv2).setLogLevel(0)  # pyright: ignore[reportAttributeAccessIssue]
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")


class _RtspTransport:
    """Sets the RTSP transport where OpenCV looks for it: in the environment, which the whole process shares.

    Captures that want the same transport open side by side; one that wants the other waits for them.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._users = 0
        self._now = ""
        self._before: str | None = None

    @contextmanager
    def __call__(self, transport: str) -> Iterator[None]:
        with self._free:
            self._free.wait_for(lambda: self._users == 0 or self._now == transport)
            if self._users == 0:
                self._before = os.environ.get(_OPTIONS)
                given = f"{self._before}|" if self._before else ""
                os.environ[_OPTIONS] = f"{given}rtsp_transport;{transport}"
            self._users, self._now = self._users + 1, transport
        try:
            yield
        finally:
            with self._free:
                self._users -= 1
                if self._users == 0:
                    if self._before is None:
                        del os.environ[_OPTIONS]
                    else:
                        os.environ[_OPTIONS] = self._before
                    self._free.notify_all()


rtsp_transport = _RtspTransport()
