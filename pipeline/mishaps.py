"""Exceptions that a node did not mean: what they say of themselves, and that it is not said without end."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Container
from functools import cache
from pathlib import Path
from typing import ClassVar

DROPPED = "the frame is dropped"
TOLD = 3
"""Of one node; what follows is counted where it costs a frame, and not told."""


def told(error: BaseException, leave_out: Container[str] = ()) -> str:
    """What went wrong and where, in one line: `ValueError: no such mode (/a/plugin.py:12)`.

    The place is the last one in code that somebody works on: a mistake that shows itself in pydantic, json or the
    engine is made in the node that calls them. Where there is none, it is the very last one.

    leave_out: files that are no place to look for the mistake; nor are those of Python's import.
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    stack = traceback.extract_tb(error.__traceback__)
    stack = [at for at in stack if at.filename not in leave_out and not at.filename.startswith("<frozen ")]
    stack = [at for at in stack if not at.filename.startswith(_not_worked_on())] or stack
    return f"{text} ({stack[-1].filename}:{stack[-1].lineno})" if stack else text


@cache
def _not_worked_on() -> tuple[str, ...]:
    """Where the files of the engine, of Python and of installed packages begin."""
    installed = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple(f"{folder}/" for folder in (Path(__file__).parent, *installed))


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
