"""The standard streams of a command: always there, and never a reason for a traceback.

A program may be started with one of them closed, or with an encoding that knows few letters; and whoever reads its
output may stop. Imported first of all by the command, so nothing heavy is imported here.
"""

from __future__ import annotations

import io
import os
import select
import sys


def mend_streams() -> None:
    """Give a closed stdin, stdout or stderr /dev/null, and letters an encoding lacks as \\xNN. First of all calls.

    Else the next file or socket that is opened gets the number of the closed one, and everybody writes into it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence() -> None:
    """Write no more to stdout and stderr: whoever read them has gone, and Python flushes them once more at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())
    os.close(null)


class Unbuffered:
    """The file behind a descriptor, as a text stream without a lock: one write for each flush.

    A thread that hangs in it does not keep the interpreter from ending, as one in `sys.stdout` would.
    """

    def __init__(self, fd: int, encoding: str = "utf-8") -> None:
        self.encoding = encoding
        self._fd = fd
        self._waiting: list[str] = []

    def write(self, text: str) -> int:
        self._waiting.append(text)
        return len(text)

    def flush(self) -> None:
        data = "".join(self._waiting).encode(self.encoding, errors="backslashreplace")
        self._waiting.clear()
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # whoever shares the terminal made it so
                poller = select.poll()
                poller.register(self._fd, select.POLLOUT)
                poller.poll()

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd
