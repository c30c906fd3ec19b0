"""The newest picture of each camera as JPEG, encoded once per frame however many viewers there are.

    node's thread:    pictures.offer("door", buffer.frame, buffer.wall)
    server's thread:  pictures.want("door", TILE); ... pictures.newest("door", TILE)
    a thread of its own encodes.

Nothing is encoded that nobody waits for: a viewer says that it is ready for the next frame (`want`), the next frame
that comes is copied (a tile: scaled down, straight out of shared memory) and encoded, and whoever is ready by then
gets it. So the work follows the fastest viewer, never the number of viewers. Once a second a tile is kept even if
nobody looks, so that who opens the page after a camera went down sees its last picture.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np

TILE, FULL = "tile", "full"
SIZES = (TILE, FULL)
KEEP_INTERVAL = 1.0
"""Seconds between two tiles that are kept (not encoded) while nobody looks."""

STALE_NS = 3_000_000_000
"""A picture that is so much older than what is kept by now."""


class Picture(NamedTuple):
    """A JPEG. number: counts the camera's frames; wall: capture time, UTC ns."""

    camera: str
    size: str
    number: int
    wall: int
    jpeg: bytes


class _Raw(NamedTuple):
    """A copied frame, uint8 (height, width, 3) BGR, that waits to be encoded."""

    number: int
    wall: int
    pixels: np.ndarray


Key = tuple[str, str]


class Pictures:
    """See the module. `on_picture` is called on the encoder's thread after each new picture."""

    def __init__(self, width: int, quality: int, on_picture: Callable[[], None]) -> None:
        """width: of a tile in pixels (a smaller frame stays as it is). quality: of the JPEGs, 1-100."""
        self.encoded = 0
        """Pictures encoded so far."""
        self._width = width
        self._quality = quality
        self._on_picture = on_picture
        self._turn = threading.Condition()
        self._wanted: set[Key] = set()
        self._queue: dict[Key, _Raw] = {}
        self._kept: dict[str, _Raw] = {}
        self._kept_at: dict[str, float] = {}
        self._count: dict[str, int] = {}
        self._small: set[str] = set()
        """Cameras whose frames are no wider than a tile: one picture serves both sizes."""
        self._done: dict[Key, Picture] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._encode_all, name="jpeg", daemon=True)
        self._thread.start()

    def offer(self, camera: str, frame: np.ndarray, wall: int) -> None:
        """A frame has come: uint8 (height, width, 3) BGR, copied in here if anybody wants it."""
        number = self._count[camera] = self._count.get(camera, 0) + 1
        now = time.monotonic()
        small = frame.shape[1] <= self._width
        with self._turn:
            if small != (camera in self._small):
                (self._small.add if small else self._small.discard)(camera)
            sizes = [size for size in SIZES if (camera, size) in self._wanted]
            if small and sizes:
                sizes = [TILE]
            self._wanted -= {(camera, size) for size in SIZES}
        copies = {size: _Raw(number, wall, self._copy(frame, size)) for size in sizes}
        if TILE in copies:
            self._kept_at[camera] = now
        elif now - self._kept_at.get(camera, -1e9) >= KEEP_INTERVAL:
            self._kept_at[camera] = now
            kept = _Raw(number, wall, self._copy(frame, TILE))
            with self._turn:
                self._kept[camera] = kept
        if copies:
            with self._turn:
                self._queue.update({(camera, size): raw for size, raw in copies.items()})
                self._turn.notify()

    def want(self, keys: Iterable[Key]) -> None:
        """Somebody is ready for the next picture of each (camera, size); what is kept already comes at once."""
        with self._turn:
            for camera, size in keys:
                key = self._key(camera, size)
                self._wanted.add(key)
                kept = self._kept.get(camera)
                done = self._done.get(key)
                if kept and done and kept.wall - done.wall > STALE_NS:
                    del self._done[key]  # of when somebody last looked: not to be shown as the present
                    done = None
                # A tile stands for the full size until there is one, not between two of them.
                newer = done is None or (kept is not None and done.number < kept.number and key[1] == TILE)
                if kept and newer and key not in self._queue:
                    self._queue[key] = kept
            if self._queue:
                self._turn.notify()

    def newest(self, camera: str, size: str) -> Picture | None:
        """The newest encoded picture; None before the first."""
        with self._turn:
            return self._done.get(self._key(camera, size))

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._turn.notify()
        self._thread.join(2)

    def _key(self, camera: str, size: str) -> Key:
        return camera, TILE if camera in self._small else size

    def _copy(self, frame: np.ndarray, size: str) -> np.ndarray:
        height, width = frame.shape[:2]
        if size == FULL or width <= self._width:
            return frame.copy()
        scaled = max(1, round(height * self._width / width))
        return cv2.resize(frame, (self._width, scaled), interpolation=cv2.INTER_AREA)

    def _encode_all(self) -> None:
        while True:
            with self._turn:
                while not self._queue and not self._closed:
                    self._turn.wait()
                if self._closed:
                    return
                key = next(iter(self._queue))
                raw = self._queue.pop(key)
            fine, data = cv2.imencode(".jpg", raw.pixels, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
            if not fine:
                continue
            with self._turn:
                self._done[key] = Picture(*key, raw.number, raw.wall, data.tobytes())
                self.encoded += 1
            self._on_picture()
