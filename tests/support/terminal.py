"""A terminal as a person sees it: a command behind a real pseudo-terminal, its screen read by a terminal emulator."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyte

from tests.support.command import wait_until
from tests.support.graphs import ROOT


class Terminal:
    """An `emograph` command in a terminal of its own. raw: all bytes that it wrote."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str], columns: int, rows: int) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=1)
        self.raw = b""
        self.taking = threading.Event()
        """Cleared: the terminal takes nothing any more, as after Ctrl-S."""
        self.taking.set()
        self._lock = threading.Lock()
        self._stream = pyte.ByteStream(self.screen)
        self.fd, side = pty.openpty()
        self.resize(columns, rows)
        self.modes = termios.tcgetattr(self.fd)
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        self.process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, cwd=ROOT, start_new_session=True,
            env={**env, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C here is for it
        )  # fmt: skip
        os.close(side)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while True:
                self.taking.wait()
                data = os.read(self.fd, 65536)
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with self._lock:
            self.screen.resize(rows, columns)

    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    def text(self) -> str:
        return "\n".join(self.lines())

    def scrolled(self) -> str:
        """What has left the screen at its top."""
        with self._lock:
            return "\n".join("".join(line[x].data for x in sorted(line)).rstrip() for line in self.screen.history.top)

    def wait_for(self, condition: Callable[[str], object] | str) -> str:
        """The screen's text, as soon as it contains a text or a condition holds for it."""
        holds = (lambda text: condition in text) if isinstance(condition, str) else condition
        try:
            wait_until(lambda: holds(self.text()), f"{condition!r} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen is:\n{self.text()}") from None
        return self.text()

    def send(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def ended(self) -> int:
        """The exit code, and everything is on the screen."""
        self.taking.set()
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@contextmanager
def terminal(*arguments: str, env: dict[str, str], columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    found = Terminal(arguments, env, columns, rows)
    try:
        yield found
    finally:
        found.taking.set()
        if found.process.poll() is None:
            found.process.send_signal(signal.SIGKILL)
            found.process.wait()
        os.close(found.fd)
