"""The lines of `launch` where nobody reads them in time."""

from __future__ import annotations

import fcntl
import os
import re
import sys
import threading
import time

import pytest

from pipeline import lines as lines_module
from pipeline.lines import Lines


def test_what_is_not_read_in_time_is_counted(monkeypatch: pytest.MonkeyPatch):
    """The run is not held up; the oldest lines go, and what is there says how many went before it."""
    monkeypatch.setattr(lines_module, "KEPT", 20)
    monkeypatch.setattr(lines_module, "PATIENCE", 60)
    taken, given = os.pipe()
    fcntl.fcntl(given, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(given, "w") as stream, os.fdopen(taken, "rb") as reader:
        monkeypatch.setattr(sys, "stderr", stream)
        lines = Lines(time.monotonic(), False)
        for number in range(500):
            lines.message("info", "a", f"message {number} " + "." * 40)
        read: list[bytes] = []
        reading = threading.Thread(target=lambda: read.append(reader.read()))
        reading.start()
        lines.close()
        stream.close()
        reading.join(60)
    text = read[0].decode()
    numbers = [int(number) for number in re.findall(r"message (\d+) ", text)]
    missing = [int(count) for count in re.findall(r"^(\d+) lines are missing here", text, re.MULTILINE)]
    assert missing
    assert len(numbers) + sum(missing) == 500
    assert numbers == sorted(numbers)
    assert numbers[-20:] == list(range(480, 500))
