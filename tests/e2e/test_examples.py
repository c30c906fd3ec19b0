"""The programs of docs/examples, run as their first lines say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2

from nodes.preprocess import LABELS, UNCERTAIN
from nodes.testsrc import TestSrc
from pipeline import Harness
from tests.support.graphs import ROOT


def example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs/examples" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def test_pictures_in_a_program_of_ones_own(tmp_path: Path):
    with Harness(TestSrc(faces=2, num_buffers=10)) as source:
        frame = source.pull(10)[-1].frame
    cv2.imwrite(str(tmp_path / "two.png"), frame)
    cv2.imwrite(str(tmp_path / "none.png"), frame[:60, :60] * 0)
    done = example("pictures.py", str(tmp_path / "two.png"), str(tmp_path / "none.png"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        found = re.fullmatch(rf"{tmp_path}/two.png: \d+,\d+ (\d+)x\1 (\w+) (\d\.\d\d)", line)
        assert found, line
        assert found[2] in (*LABELS, UNCERTAIN)
        assert (found[2] == UNCERTAIN) == (float(found[3]) < 0.4)
        assert 1 / 7 <= float(found[3]) <= 1
    done = example("pictures.py", "README.md")
    assert (done.returncode, done.stderr) == (1, "README.md: no picture\n")
