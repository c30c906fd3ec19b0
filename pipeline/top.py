"""The command `emograph top`: a running graph's figures in the terminal, from its snapshots.

    emograph top                     the one graph that runs here
    emograph top lobby.yaml          or its name, its process id, an address (launch --monitor)
    emograph top --once --json       one snapshot for a script

On a terminal a full screen that follows its size, until `q`, Ctrl-C or the end of the run; piped, the same tables
again and again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipeline import status
from pipeline.console import out, print_table
from pipeline.errors import UserError, printable
from pipeline.jsonlines import dumps
from pipeline.monitor import Watch, locate

FIRST_TIMEOUT = 5.0
"""Seconds to wait for the first snapshot of a run that is there."""
SILENCE_TIMEOUT = 10.0
"""Seconds without a snapshot after which a run counts as gone."""
PLAIN_INTERVAL = 2.0
"""Seconds between two tables when piped."""
_SILENT = 2.0


def top(what: str | None, *, once: bool = False, as_json: bool = False) -> None:
    """Show a run until it ends. Raises UserError when there is none, or when it falls silent."""
    endpoint = locate(what)
    with Watch(endpoint) as viewer:
        first = viewer.receive(FIRST_TIMEOUT)
        if first is None:
            raise UserError(f"no snapshot from {endpoint} within {FIRST_TIMEOUT:.0f} s: is a graph running there?")
        if once:
            _print_json(first) if as_json else _print_tables(first)
            return
        if as_json:
            last = _each(viewer, first, _print_json)
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            last = _Screen(viewer).run(first)
        else:
            last = _each(viewer, first, _Repeated())
    if last is not None:
        _say_end(last, tables=not as_json)


def _say_end(last: dict[str, Any], tables: bool) -> None:
    if tables and sys.stdout.isatty():
        _print(status.camera_table(last))
    why = f": {printable(last['errors'][0])}" if last["errors"] else ""
    text = f"{printable(last['graph'])} has ended after {status.duration(last['uptime_s'])}{why}"
    print(text, file=sys.stderr, flush=True)


def _follow(viewer: Watch, first: dict[str, Any], step: float) -> Iterator[tuple[dict[str, Any], float]]:
    """(newest snapshot, seconds since it came), every `step` seconds or earlier; the last one says ENDED."""
    newest, came = first, time.monotonic()
    while True:
        silence = time.monotonic() - came
        yield newest, silence
        if newest["state"] == "ENDED":
            return
        path = viewer.endpoint.removeprefix("ipc://")
        if silence > _SILENT and path.startswith("/") and not os.path.exists(path):
            raise UserError(f"{newest['graph']} is gone: it was killed")
        if silence > SILENCE_TIMEOUT:
            raise UserError(f"{newest['graph']}: nothing from {viewer.endpoint} for {SILENCE_TIMEOUT:.0f} s")
        snapshot = viewer.receive(step)
        if snapshot is not None:
            newest, came = snapshot, time.monotonic()


# Piped ----------------------------------------------------------------------------------------------------


def _each(viewer: Watch, first: dict[str, Any], write: Any) -> dict[str, Any] | None:
    shown = None
    with contextlib.suppress(KeyboardInterrupt):
        for snapshot, _ in _follow(viewer, first, 1.0):
            if snapshot is not shown:
                write(snapshot)
            shown = snapshot
        return shown
    return None


def _print_json(snapshot: dict[str, Any]) -> None:
    print(dumps(snapshot), flush=True)


class _Repeated:
    """Writes every snapshot that is due."""

    def __init__(self) -> None:
        self.due = 0.0

    def __call__(self, snapshot: dict[str, Any]) -> None:
        now = time.monotonic()
        if now >= self.due or snapshot["state"] == "ENDED":
            if self.due:
                print()
            self.due = now + PLAIN_INTERVAL
            _print_tables(snapshot)


def _print_tables(snapshot: dict[str, Any]) -> None:
    print(status.headline(snapshot).plain)
    for table in (status.camera_table, status.node_table, status.process_table):
        print()
        _print(table(snapshot))
    sys.stdout.flush()


def _print(table: status.Table) -> None:
    console = out()
    if console.is_terminal:
        for line in table.lines(console.width, len(table.rows) + 1):
            console.print(line)
        return
    print_table(table.head, table.rows, table.numbers)


# On a terminal --------------------------------------------------------------------------------------------


def render(snapshot: dict[str, Any], width: int, height: int, silence: float = 0.0) -> list[Text]:
    """At most `height` lines of `width` cells."""
    right = "q quits" if silence < _SILENT else f"no news for {silence:.0f} s"
    lines = [status.cut(status.pad(status.headline(snapshot), width, right), width)]
    tables = [t(snapshot) for t in (status.camera_table, status.node_table, status.process_table)]
    messages = snapshot["messages"]
    wanted = [len(table.rows) + 2 for table in tables] + [min(len(messages), 12) + 1 if messages else 0]
    *rooms, last = status.allot(wanted, height - len(lines), least=6)
    for table, room in zip(tables, rooms, strict=True):
        if room > 2:
            lines += [Text(), *table.lines(width, room - 1)]
    if last > 1:
        lines += [Text(), *status.message_lines(messages, width, last - 1)]
    return lines[:height]


class _Screen:
    """The alternate screen, and the keyboard while it is shown; both are given back however it ends."""

    def __init__(self, viewer: Watch) -> None:
        self.viewer = viewer
        self.console = Console(highlight=False)
        self.live = Live(console=self.console, screen=True, auto_refresh=False, vertical_overflow="crop")
        self.stdin = sys.stdin.fileno() if sys.stdin.isatty() else None
        self.modes: list[Any] | None = None

    def run(self, first: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the last snapshot when the run has ended, None when the person has seen enough."""
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
        signal.signal(signal.SIGTSTP, self._suspend)
        try:
            self._enter()
            drawn: Any = None
            for snapshot, silence in _follow(self.viewer, first, 0.1):
                size = self.console.size
                if drawn != (snapshot["time"], size, int(silence)):
                    drawn = (snapshot["time"], size, int(silence))
                    lines = render(snapshot, size.width, size.height, silence)
                    self.live.update(Group(*lines), refresh=True)
                if self._quit():
                    return None
                first = snapshot
            return first
        except KeyboardInterrupt:
            return None
        finally:
            self._leave()

    def _enter(self) -> None:
        if self.stdin is not None:
            self.modes = termios.tcgetattr(self.stdin)
            tty.setcbreak(self.stdin)  # keys come one by one; Ctrl-C stays what it is
        self.live.start()

    def _leave(self) -> None:
        with contextlib.suppress(OSError):  # the terminal itself may be gone
            self.live.stop()
        if self.stdin is not None and self.modes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.stdin, termios.TCSADRAIN, self.modes)

    def _suspend(self, signum: int, frame: object) -> None:
        """Ctrl-Z: give the screen back, sleep, and take it again."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()

    def _quit(self) -> bool:
        if self.stdin is None or not select.select([self.stdin], [], [], 0)[0]:
            return False
        keys = os.read(self.stdin, 100)
        return not keys or b"q" in keys or b"Q" in keys
