"""The programs of docs/examples, run as their first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from nodes.preprocess import LABELS, UNCERTAIN
from nodes.testsrc import TestSrc
from nodes.videosink import VideoSink
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
    cv2.imwrite(str(tmp_path / "whole.jpg"), frame)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-2000])
    (tmp_path / "empty.png").touch()
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    odd.write_bytes((tmp_path / "two.png").read_bytes())
    names = [tmp_path / name for name in ("two.png", "none.png", "cut.jpg", "empty.png", "missing.png")]
    done = example("pictures.py", *map(str, [*names, "README.md", odd]))
    assert done.returncode == 0, done.stderr
    first, second, *told, third, fourth = done.stdout.splitlines()
    assert told == [
        f"{tmp_path}/none.png: no face",
        *(f"{name}: no picture, or cut short" for name in [*names[2:], "README.md"]),
    ]
    assert [third, fourth] == [line.replace("two.png", r"caf\xe9.png") for line in (first, second)]
    for line in (first, second):
        found = re.fullmatch(rf"{tmp_path}/two.png: \d+,\d+ (\d+)x\1 (\w+) (\d\.\d\d)", line)
        assert found, line
        assert found[2] in (*LABELS, UNCERTAIN)
        assert (found[2] == UNCERTAIN) == (float(found[3]) < 0.4)
        assert 1 / 7 <= float(found[3]) <= 1


def test_a_recording_as_a_table_in_a_program_of_ones_own(tmp_path: Path):
    recording = tmp_path / "a talk.mp4"
    with (
        Harness(TestSrc(faces=1, num_buffers=40, fps=20)) as source,
        Harness(VideoSink(location=str(recording))) as film,
    ):
        for buffer in source.pull(40):
            film.push(buffer.frame, pts=buffer.pts)
    done = example("recording.py", str(recording), "5")
    assert done.returncode == 0, done.stderr
    head, *rows = (line.split() for line in done.stdout.splitlines())
    assert head == ["frame", "time", "track", "label", "score", "happy", "sad", "angry"]
    assert [float(row[2]) for row in rows] == pytest.approx([n / 5 for n in range(10)], abs=0.01)
    assert {row[4] for row in rows if row[4] != "NaN"} <= {*LABELS, UNCERTAIN}
    done = example("recording.py", "nowhere.mp4")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"emograph: error: video: no such file '{ROOT / 'nowhere.mp4'}'"
