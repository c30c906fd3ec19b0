"""The thread that reads a live source, so that its process may be at work on older frames meanwhile.

The main thread hands it empty buffers and takes full ones; what wakes it is the source's eventfd. Whoever holds a
buffer alone writes to it.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable

from pipeline.buffer import Buffer

Item = Buffer | BaseException | None
"""What comes of an empty buffer: the buffer with a frame in it, what went wrong, or None at the end of the stream."""


class LiveReader:
    """Fills buffers until it is stopped, or the stream ends. All methods are for the main thread.

    fill: fills a buffer; False at the end of the stream. empty: an empty buffer in the place of one that was filled.
    wake: eventfd to write to when there is something to take. skips: when a frame comes before the one before it was
    taken, it takes its place, and is counted: a camera that is not read on would show the past.
    """

    def __init__(
        self, name: str, fill: Callable[[Buffer], bool], empty: Callable[[Buffer], Buffer], wake: int, skips: bool
    ) -> None:
        self._fill, self._empty, self._wake, self._skips = fill, empty, wake, skips
        self._todo: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._done: deque[Item] = deque()
        self._missed = 0
        """Frames that gave way to the newest in `_done`, and were not told of yet."""
        self._handing_over = threading.Lock()
        self._held = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"read {name}", daemon=True)

    @staticmethod
    def slots(skips: bool) -> int:
        """How many slots it holds at the most: the one being filled, and the full one that may be given up for it."""
        return 2 if skips else 1

    @property
    def hungry(self) -> bool:
        """Whether it could do with another empty buffer."""
        return self._held < self.slots(self._skips)

    @property
    def ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._done)

    def start(self) -> None:
        self._thread.start()

    def supply(self, buffer: Buffer) -> None:
        """Give it an empty buffer."""
        self._held += 1
        self._todo.put(buffer)

    def take(self) -> tuple[Item, int]:
        """What is ready, and how many frames before it were given up for it."""
        self._held -= 1
        with self._handing_over:
            item, missed = self._done.popleft(), 0
            if isinstance(item, Buffer):
                missed, self._missed = self._missed, 0
        return item, missed

    def stop(self, patience: float) -> bool:
        """End the thread; False if it has not ended within `patience` seconds: it is stuck in a camera's driver."""
        self._stopping = True
        self._todo.put(None)
        self._thread.join(timeout=patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        spare: Buffer | None = None
        while (buffer := self._todo.get() if spare is None else spare) is not None and not self._stopping:
            item: Item = buffer
            try:
                if not self._fill(buffer):
                    item = None
            except BaseException as error:
                item = error
            spare = self._hand_over(item)
            os.eventfd_write(self._wake, 1)
            if not isinstance(item, Buffer):
                return

    def _hand_over(self, item: Item) -> Buffer | None:
        """Leave an item for the main thread; returns the buffer to fill next, where the last one was given up."""
        with self._handing_over:
            older = self._done[-1] if self._done else None
            if not (self._skips and isinstance(item, Buffer) and isinstance(older, Buffer)):
                self._done.append(item)
                return None
            self._done[-1] = item
            self._missed += 1
        return self._empty(older)
