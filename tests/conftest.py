"""Every test has a socket folder of its own, and none leaves a process, socket or segment behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.command import WORKER_MODULES
from tests.support.graphs import register_engine_nodes

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests that use onnxruntime by itself, too
# Tests that run in the background are started deaf to Ctrl-C and to the end of the terminal, and would hand that on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that runs keep their sockets in; it must be empty again after the test."""
    base = Path(tempfile.mkdtemp(prefix="eg-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    segments = set(os.listdir("/dev/shm"))
    yield base
    left = [str(p) for p in base.glob("emograph/*")]
    shutil.rmtree(base)
    assert not left, f"left in the socket folder: {left}"
    workers = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if _is_worker(p, str(base))]
    assert not workers, f"still running: {workers}"
    new = {name for name in set(os.listdir("/dev/shm")) - segments if "emograph" in name}
    assert not new, f"left in /dev/shm: {new}"


def _is_worker(process: psutil.Process, base: str) -> bool:
    try:
        command = set(process.info["cmdline"] or ())
        return bool(WORKER_MODULES & command) and process.environ().get("XDG_RUNTIME_DIR") == base
    except psutil.Error:
        return False


@pytest.fixture
def engine_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tests/support/enginenodes.py known to this process and its workers."""
    register_engine_nodes(monkeypatch)
