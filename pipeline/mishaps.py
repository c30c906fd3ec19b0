"""Exceptions that a node did not mean: what they say of themselves, and that it is not said without end."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Container
from typing import ClassVar

DROPPED = "the frame is dropped"
TOLD = 3
"""Of one node; what follows is counted where it costs a frame, and not told."""


def told(error: BaseException, leave_out: Container[str] = ()) -> str:
    """What went wrong and where, in one line: `ValueError: no such mode (/a/plugin.py:12)`.

    leave_out: files that are no place to look for the mistake; nor are those of Python's import.
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    stack = traceback.extract_tb(error.__traceback__)
    stack = [at for at in stack if at.filename not in leave_out and not at.filename.startswith("<frozen ")]
    return f"{text} ({stack[-1].filename}:{stack[-1].lineno})" if stack else text


class Mishaps:
    """Those of one node."""

    tracebacks: ClassVar[bool] = False
    """Whether those that are told are printed in full, to stderr: with `--debug`."""

    def __init__(self, node: str, log: Callable[[str, str, str], None]) -> None:
        self._node, self._log = node, log
        self._count = 0

    def tell(self, error: Exception, so: str) -> None:
        """What went wrong and where, as an error on the bus. so: what comes of it."""
        self._count += 1
        if self._count <= TOLD:
            self._log("error", self._node, f"{told(error)}; {so}")
            if self.tracebacks:
                traceback.print_exception(error)
