"""fakesink: counts, and takes as long and reads as much as it is asked to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nodes.fakesink import PAGE, FakeSink
from pipeline import Harness
from pipeline.caps import Pad, mismatch, pad

FRAME = np.zeros((4, 4, 3), np.uint8)


def test_counts_by_camera() -> None:
    with Harness(FakeSink(), streams=("door", "desk")) as h:
        for stream in ("door", "desk", "door"):
            h.push(FRAME, stream=stream)
        assert h.node.counts == {"door": 2, "desk": 1}


@pytest.mark.parametrize("offered", [pad("video/raw", format="BGR"), Pad("audio/raw"), pad("video/raw", adds="x")])
def test_takes_whatever_comes(offered) -> None:
    assert mismatch(offered, frozenset(), FakeSink.sink) is None


def test_delay_is_spent_on_each_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    with Harness(FakeSink(delay="250ms")) as h:
        waits: list[float] = []
        monkeypatch.setattr(h.node.stopping, "wait", waits.append)
        h.push(FRAME)
        h.push(FRAME)
    assert waits == [0.25, 0.25]


def test_a_stop_ends_the_delay() -> None:
    with Harness(FakeSink(delay="1h")) as h:
        h.node.stopping.set()
        h.push(FRAME)
        assert h.node.counts["camera"] == 1


@pytest.mark.parametrize("read", [False, True])
def test_reads_every_page_only_if_asked(tmp_path: Path, read: bool) -> None:
    file = tmp_path / "pixels"
    file.write_bytes(bytes(PAGE * 300))
    frame = np.memmap(file, np.uint8, mode="r", shape=(100, PAGE, 3))
    with Harness(FakeSink(read=read)) as h:
        h.push(frame)
    maps = Path("/proc/self/smaps").read_text()
    resident = re.search(rf"{re.escape(str(file))}\n.*?Rss:\s+(\d+) kB", maps, re.DOTALL)
    assert resident
    assert int(resident[1]) * 1024 == (frame.nbytes if read else 0)
