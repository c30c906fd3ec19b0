"""A clock to poll for: it becomes readable at an exact time, where a poll's own timeout counts whole milliseconds."""

from __future__ import annotations

import ctypes
import os

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Spec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Alarm:
    """A Linux timerfd on the clock of `time.monotonic_ns` (Python has it from 3.13 on only).

    `fd` is readable from the time of `set` on until `clear`. OSError when the process is out of descriptors.
    """

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(error := ctypes.get_errno(), os.strerror(error))
        self._at: int | None = None

    def set(self, at: int) -> None:
        """Ring at a time in monotonic ns; one that is over rings at once."""
        if at != self._at:
            self._at = at
            seconds, ns = divmod(max(at, 1), 1_000_000_000)
            _libc.timerfd_settime(self.fd, _ABSOLUTE, ctypes.byref(_Spec(0, 0, seconds, ns)), None)

    def clear(self) -> None:
        """Be silent until the next `set`."""
        if self._at is not None:
            self._at = None
            _libc.timerfd_settime(self.fd, 0, ctypes.byref(_Spec()), None)

    def close(self) -> None:
        os.close(self.fd)
