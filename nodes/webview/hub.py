"""What the server's thread knows: the newest of everything, as text that is made once for all viewers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.websockets import WebSocket

from nodes.lettering import Colour
from nodes.overlay.look import COLOURS
from nodes.webview.feed import Feed
from nodes.webview.figures import Snapshot
from nodes.webview.pictures import Pictures
from pipeline.diagram import layout
from pipeline.jsonlines import finite

BOX, GAP = (176, 92), (56, 20)
"""Of the graph's picture on the page: a node's box with its figures, and what lies between two, pixels."""


class Signal:
    """Wakes all who wait for the next time. Take `event` before looking, wait for it after: nothing is missed."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def fire(self) -> None:
        self.event.set()
        self.event = asyncio.Event()


class Hub:
    """See the module. All of it belongs to the server's thread."""

    def __init__(
        self,
        streams: Sequence[str],
        feed: Feed,
        pictures: Pictures,
        *,
        fps: float,
        max_viewers: int,
        log: Callable[[str, str], None],
    ) -> None:
        self.streams = tuple(streams)
        self.feed = feed
        self.pictures = pictures
        self.fps = fps
        self.max_viewers = max_viewers
        self.garbage = 0
        self.viewers: set[WebSocket] = set()
        """Open WebSockets of any kind."""
        self.pages: set[WebSocket] = set()
        """Open pages: those on `/ws/live`."""
        self.closing = asyncio.Event()
        self.tick = Signal()
        self.picture = Signal()
        self.snapshot: Snapshot | None = None
        self.snapshot_number = 0
        self._snapshot_at = 0.0
        self._log = log
        self._texts: dict[str, tuple[int, str]] = {}
        self._samples: tuple[int, str, int] = (-1, "", 0)

    # What comes in -------------------------------------------------------------------------------------

    def see(self, snapshot: Snapshot) -> None:
        """A snapshot of the run has come."""
        self.snapshot = snapshot
        self.snapshot_number += 1
        self._snapshot_at = time.monotonic()

    @property
    def snapshot_age(self) -> float:
        """Seconds since the newest snapshot came."""
        return time.monotonic() - self._snapshot_at

    def count_garbage(self, what: str) -> None:
        self.garbage += 1
        if self.garbage == 1:
            self._log("warning", f"a viewer sent what the page never sends ({what}); its connection was ended")

    # What goes out -------------------------------------------------------------------------------------

    def hello(self) -> str:
        """The first message on `/ws/live`. time: UTC ms, as a viewer's clock may be another."""
        now = time.time_ns() // 1_000_000
        return _text("hello", time=now, cameras=self.streams, window=self.feed.history.seconds, colours=_colours())

    def snapshot_text(self) -> str:
        return self._once("snapshot", self.snapshot_number, self._snapshot)

    def _snapshot(self) -> str:
        snapshot = self.snapshot
        if snapshot is None:
            return _text("snapshot", snapshot=None)
        drawing = layout({name: node["links"] for name, node in snapshot["nodes"].items()}, BOX, GAP)
        picture = {
            "width": drawing.width,
            "height": drawing.height,
            "box": drawing.box,
            "place": drawing.place,
            "links": [[a, b, path] for (a, b), path in drawing.links.items()],
        }
        return _text("snapshot", snapshot=snapshot, drawing=picture, viewers=len(self.pages))

    def faces_text(self) -> tuple[int, str]:
        """(count of changes, the message): who is in view of each camera."""
        changed, labels, faces = self.feed.in_view()
        return changed, self._once("faces", changed, lambda: _text("faces", labels=labels, cameras=faces))

    def samples_text(self, position: int) -> tuple[str, int]:
        """The samples from `position` on as a message, and the position behind them; empty when there are none."""
        asked, text, after = self._samples
        entries, now = self.feed.samples(position)
        if not entries:
            return "", now
        if (asked, after) != (position, now):
            text = _text("samples", labels=self.feed.history.labels, entries=entries)
            self._samples = position, text, now
        return text, now

    def _once(self, what: str, number: int, make: Callable[[], str]) -> str:
        """The text of this number, made for the first who asks."""
        known = self._texts.get(what)
        if known is None or known[0] != number:
            known = self._texts[what] = number, make()
        return known[1]


def _text(kind: str, **fields: Any) -> str:
    return json.dumps(finite({"type": kind, **fields}), separators=(",", ":"), allow_nan=False, default=repr)


def _colours() -> dict[str, str]:
    def hexadecimal(colour: Colour) -> str:
        blue, green, red = colour
        return f"#{red:02x}{green:02x}{blue:02x}"

    return {label: hexadecimal(colour) for label, colour in COLOURS.items()}
