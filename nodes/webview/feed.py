"""What happens in the graph, from the node's thread to the server's: events for subscribers, history for the page."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from nodes.narrator import Event, Narrator
from nodes.webview.history import History, Sample
from pipeline.buffer import Buffer, Mark
from pipeline.jsonlines import json_line

QUEUE = 1000
"""Events that wait for a slow subscriber before it loses the oldest; `sequence` shows it."""


class Told:
    """An event and its JSON text, made once for all subscribers, and only if there are any."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self._text = ""

    @property
    def text(self) -> str:
        self._text = self._text or json_line(self.event)
        return self._text


class Subscriber:
    """One who listens. wake: called, from any thread, when the queue is no longer empty."""

    def __init__(self, cameras: Collection[str], kinds: Collection[str], wake: Callable[[], None]) -> None:
        """cameras, kinds: the wanted ones; empty for all."""
        self.queue: deque[Told] = deque(maxlen=QUEUE)
        self._cameras, self._kinds, self._wake = cameras, kinds, wake

    def wants(self, camera: str, kind: str) -> bool:
        return (not self._cameras or camera in self._cameras) and (not self._kinds or kind in self._kinds)

    def offer(self, told: Told) -> None:
        if self.wants(told.event["camera"], told.event["kind"]):
            self.queue.append(told)
            if len(self.queue) == 1:
                self._wake()


class Feed:
    """Takes frames and marks on the node's thread; the rest is called on the server's."""

    def __init__(self, narrator: Callable[[Callable[[Event], None]], Narrator], seconds: float) -> None:
        """narrator: makes the one that tells to the callable it is given. seconds: of history."""
        self.history = History(seconds)
        self._lock = threading.Lock()
        self._subscribers: set[Subscriber] = set()
        self._narrator = narrator(self._take)

    # The node's thread ---------------------------------------------------------------------------------

    def frame(self, buffer: Buffer) -> None:
        with self._lock:
            self._narrator.frame(buffer)

    def mark(self, mark: Mark) -> None:
        with self._lock:
            self._narrator.mark(mark)

    def tick(self) -> None:
        with self._lock:
            self._narrator.tick()

    def _take(self, event: Event) -> None:
        self.history.see(event)
        if self._subscribers:
            told = Told(event)
            for subscriber in self._subscribers:
                subscriber.offer(told)

    # The server's thread -------------------------------------------------------------------------------

    def subscribe(self, cameras: Collection[str], kinds: Collection[str], wake: Callable[[], None]) -> Subscriber:
        """From now on; the queue begins with how things stand."""
        subscriber = Subscriber(cameras, kinds, wake)
        with self._lock:  # no event comes between the snapshot and the first event
            for event in self._narrator.snapshot(subscriber.wants):
                subscriber.offer(Told(event))
            self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers.discard(subscriber)

    def in_view(self) -> tuple[int, list[str], dict[str, Any]]:
        """(count of what it has seen, the labels in their order, camera -> who is in view)."""
        with self._lock:
            return self.history.changed, list(self.history.labels), dict(self.history.faces)

    def samples(self, position: int) -> tuple[list[Sample], int]:
        """See History.since."""
        with self._lock:
            return self.history.since(position)
