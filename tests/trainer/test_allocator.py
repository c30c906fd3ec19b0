"""What malloc does with freed memory, counted in page faults of a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.graphs import ROOT

FAULTS = """
import resource, sys
from trainer.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    b"1" * (64 << 20)  # as large as a layer's activations

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    """Of the second of two steps that need the same memory."""
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True, cwd=ROOT)
    return int(done.stdout)


def test_the_memory_of_a_step_serves_the_next_one():
    if faults("leave") < 1000:
        pytest.skip("this C library keeps freed memory by itself, or uses huge pages")
    assert faults("keep") < 100
