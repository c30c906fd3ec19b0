"""What tests ask of the host: a free port, memory in use, and patience."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def patiently(condition: Callable[[], Any], meanwhile: Callable[[], Any] = lambda: time.sleep(0.002)) -> None:
    """Do `meanwhile` until `condition`; what takes half a minute never comes."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        meanwhile()
