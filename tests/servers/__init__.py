"""Starts the cameras of this folder, each in a process of its own on loopback, for tests with a real peer."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from pipeline.buffer import Buffer
from pipeline.harness import Harness

FOLDER = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
PATIENCE = 30.0
"""Seconds after which a test stops waiting for what should have happened; no test asserts a time."""


def why_no_rtsp() -> str:
    """Why the RTSP server cannot run here; empty when it can."""
    wanted = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    try:
        found = subprocess.run([SYSTEM_PYTHON, "-c", wanted], capture_output=True, check=False).returncode == 0
    except OSError:
        found = False
    return "" if found else "needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good"


class Server:
    """`with Server("http_server.py") as camera: camera.port`. `stop` and `start` keep the port."""

    def __init__(self, script: str, *options: str) -> None:
        self.port = 0
        self._command = [SYSTEM_PYTHON if script.startswith("rtsp") else sys.executable, str(FOLDER / script)]
        self._options = options

    def start(self, *options: str) -> None:
        """Raises RuntimeError when the server does not come up."""
        command = [*self._command, str(self.port), *self._options, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("ready"):
            raise RuntimeError(f"{command} did not come up")
        self.port = int(line.split()[1])

    def stop(self) -> None:
        """Gone without a word to its clients, as after a power cut."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Playing:
    """A source read on a thread of its own, as the engine reads a live one: `buffers` grows until it ends."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.buffers: list[Buffer] = []
        self.error: BaseException | None = None
        harness.node.clock = time.monotonic_ns  # frames come in real time here
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def _read_on(self) -> None:
        try:
            while got := self.harness.pull(1):
                self.buffers += got
        except BaseException as error:
            self.error = error

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something; fails when it does not come."""
        patience = time.monotonic() + PATIENCE
        while not happened():
            assert self.error is None, f"fill raised {self.error!r}"
            assert time.monotonic() < patience, f"waited in vain; statuses: {self.harness.statuses}"
            time.sleep(0.01)

    def frames(self, more: int) -> None:
        """Wait for so many more frames."""
        count = len(self.buffers) + more
        self.until(lambda: len(self.buffers) >= count)

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def __enter__(self) -> Playing:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.harness.node.stopping.set()
        self._thread.join(PATIENCE)
        self.harness.close()
        assert self.ended(), "fill did not return after stop"
