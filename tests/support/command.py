"""Runs the `emograph` command as a user does: a process of its own, its output and exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.graphs import ROOT

ENGINE_NODES = ("Numbers", "Work", "Invert", "Odd", "Gather", "Record", "Nothing", "Picky", "Trouble", "Away")


def environment(folder: Path) -> dict[str, str]:
    """The environment in which the small engine nodes are an installed package (its metadata lies in `folder`)."""
    info = folder / "engine_nodes-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: engine-nodes\nVersion: 1\n")
    lines = [f"{n.lower()} = tests.support.enginenodes:{n}" for n in ENGINE_NODES]
    (info / "entry_points.txt").write_text("\n".join(["[emograph.nodes]", *lines]) + "\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


WORKER_MODULES = {"pipeline.forkserver", "pipeline.worker"}
"""What stands in the command line of a worker: it is forked, or started by itself."""


def emograph(*arguments: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False, cwd=cwd)


@contextmanager
def started(*arguments: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that runs on; killed at the end if need be."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, env=env, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def workers(launcher: int) -> dict[str, psutil.Process]:
    """Worker processes of a launcher, by the name of their node or group."""
    found = {}
    for child in psutil.Process(launcher).children(recursive=True):
        if WORKER_MODULES & set(child.cmdline()):
            found[Path(f"/proc/{child.pid}/comm").read_text().strip().removeprefix("emograph:")] = child
    found.pop("spawne", None)  # the kernel keeps 15 characters of "emograph:spawner"
    return found


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for something that must come; the limit only keeps a failed test from hanging."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)
