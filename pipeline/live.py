"""What a terminal shows while `emograph launch` runs: a few lines that stand still, warnings in the scrollback above.

The terminal is written to by a thread of its own. The supervisor's tick only leaves the newest snapshot there, so a
terminal that does not take our lines (Ctrl-S, a dead ssh connection) never holds up the run. The cursor is not hidden
and no mode of the terminal is changed: whatever way this process ends, there is nothing to restore.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipeline import status
from pipeline.console import message_line
from pipeline.events import Event
from pipeline.events_cli import event_line
from pipeline.streams import Unbuffered
from pipeline.supervisor import Supervisor

INTERVAL = 0.5
"""Seconds between two drawings; the figures do not change faster."""
SOON = 0.25
"""Seconds until an event is shown."""
EVENTS = 5
MESSAGES = 3
KEPT = 1000
"""Lines for the scrollback that wait for a terminal that does not take them; the oldest go."""
PATIENCE = 1.0
"""Seconds that the end waits for such a terminal."""


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:
        return False  # a killed launcher could not bring it back


class LiveStatus:
    """Follows a run on the terminal that stderr is."""

    def __init__(self, started: float, media_time: bool) -> None:
        """See `Lines`."""
        self.started = started
        self._media_time = media_time
        self._events: deque[Event] = deque(maxlen=EVENTS)
        self._above: deque[Text] = deque(maxlen=KEPT)
        self._newest: dict[str, Any] | None = None
        self._due = 0.0
        self._drawn_at = 0.0
        self._closing = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    # Called by the supervisor: these never wait for the terminal ------------------------------------------

    def message(self, level: str, node: str, text: str) -> None:
        """Warnings and errors stay in the scrollback; the rest is in the snapshots."""
        if level in ("warning", "error"):
            with self._news:
                self._above.append(message_line(level, node, text, self.started))
            self._due = 0.0

    def event(self, event: Event) -> None:
        with self._news:
            self._events.append(event)
        self._due = min(self._due, self._drawn_at + SOON)

    def tick(self, supervisor: Supervisor) -> None:
        now = time.monotonic()
        if now < max(self._due, self._drawn_at + SOON):
            return
        self._due, self._drawn_at = now + INTERVAL, now
        snapshot = supervisor.monitor.snapshot()
        with self._news:
            self._newest = snapshot
            self._news.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw, name="status", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Take the status away; what it said last is in the ledger."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    # The thread -------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        terminal = Unbuffered(sys.stderr.fileno())
        console = _Console(file=terminal, force_terminal=True, highlight=False)  # type: ignore[arg-type]
        live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False,
            vertical_overflow="crop",
        )  # fmt: skip
        try:
            live.start()
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._newest is not None or self._closing)
                    snapshot, self._newest = self._newest, None
                    above = list(self._above)
                    self._above.clear()
                    events, closing = list(self._events), self._closing
                for line in above:
                    console.print(line, soft_wrap=True)
                if closing:
                    break
                if snapshot is not None:
                    width, height = console.size
                    lines = render(snapshot, events, width, height, self._media_time)
                    live.update(Group(*lines), refresh=True)
            live.stop()
        except OSError:
            pass  # the terminal is gone; the run is not told by it, but by SIGHUP


def render(
    snapshot: dict[str, Any], events: list[Event], width: int, height: int, media_time: bool = False
) -> list[Text]:
    """At most `height` - 2 lines of `width` cells, so that some of the scrollback stays in sight."""
    room = max(1, height - 2)
    lines = [status.cut(status.headline(snapshot), width)]
    waiting = _waiting(snapshot)
    if waiting:
        lines.append(status.cut(Text(waiting, "cyan"), width))
    table = status.camera_table(snapshot)
    infos = [m for m in snapshot["messages"] if m["level"] == "info"][-MESSAGES:]
    wanted = [len(table.rows) + 1, len(events) + 1 if events else 0, len(infos) + 1 if infos else 0]
    cameras, seen, said = status.allot(wanted, room - len(lines), least=6)
    lines += table.lines(width, cameras) if cameras else []
    if seen:
        shown = [status.cut(event_line(event, media_time), width) for event in events[1 - seen :]]
        lines += [Text("events", "bold dim"), *shown]
    if said:
        lines += [Text("messages", "bold dim"), *status.message_lines(infos, width, said - 1)]
    return lines[:room]


def _waiting(snapshot: dict[str, Any]) -> str:
    """Which processes the graph waits for."""
    if snapshot["state"] == "STARTING":
        late = [name for name, p in snapshot["processes"].items() if p["state"] not in ("READY", "PLAYING")]
        return f"starting: {', '.join(late)}" if late else ""
    back = [name for name, p in snapshot["processes"].items() if p["state"] == "RESTARTING"]
    return f"restarting: {', '.join(back)}" if back else ""
