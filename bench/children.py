"""Processes that a benchmark starts: they end with it, however it ends, and Ctrl-C is for the benchmark alone.

    with started(_worker, [(clips, ready), (clips, ready)]) as workers: ...

All are spawned, not forked: what the benchmark has loaded is not in them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")


@contextmanager
def started(target: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterator[list[SpawnProcess]]:
    """A process for each of `arguments`, killed at the end."""
    processes = [CONTEXT.Process(target=target, args=given, daemon=True) for given in arguments]
    try:
        with deaf_to_ctrl_c():
            for process in processes:
                process.start()
        yield processes
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """What is started within never gets Ctrl-C, which a terminal sends to all: each would print a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def orphaned() -> bool:
    """Whether the benchmark that started this process is gone, killed: what works on and on asks now and then."""
    parent = multiprocessing.parent_process()
    return parent is not None and os.getppid() != parent.pid
