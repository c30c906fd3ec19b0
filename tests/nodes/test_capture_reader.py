"""The thread that a video is read on: a program may end while it is in the middle of OpenCV."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUSY = """
import sys, threading, time
import cv2, numpy as np
from nodes.capture import reader
from nodes.capture.reader import Reader

reader.EXIT_PATIENCE = 60  # however busy the machine is
grey = np.zeros((1000, 1000), np.uint8)

def blur():
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        cv2.GaussianBlur(grey, (31, 31), 5)

try:
    Reader(threading.Event()).call(blur, 0.05)
except TimeoutError:
    print("walked away")
"""


@pytest.mark.parametrize("idle", ["", "Reader(threading.Event())\n"], ids=["busy", "busy and idle"])
def test_a_program_ends_well_while_a_thread_is_in_opencv(idle: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", BUSY + idle], capture_output=True, text=True, check=False, cwd=root, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "walked away\n", "")
