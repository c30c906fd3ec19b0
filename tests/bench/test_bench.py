"""The benchmarks run and count what they say they count. How fast anything is, no test asks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import detect, transport
from bench.graphs import measure
from bench.nodes import register
from bench.peers.meter import Meter, touch
from bench.record import Result, Settings, cell, markdown, middle, percentile
from pipeline.errors import UserError
from tests.support.command import emograph
from tests.support.graphs import VIDEOS


def test_the_command_lists_and_names_what_it_has():
    listed = emograph("bench")
    assert listed.returncode == 0
    assert "transport" in listed.stdout
    wrong = emograph("bench", "trnsport")
    assert wrong.returncode == 1
    assert wrong.stderr.strip() == "emograph: error: no benchmark is called 'trnsport'; did you mean 'transport'?"
    nobody = emograph("bench", "transport", "--only", "pyzqm")
    assert nobody.returncode == 1
    assert nobody.stderr.strip() == "emograph: error: nothing in transport is called 'pyzqm'; did you mean 'pyzmq'?"


def test_a_result_says_where_and_how_it_was_measured(tmp_path: Path):
    result = Result("transport", skipped=["dora-rs: pip install it"], notes=["a note"])
    result.add("speed", contestant="emograph", **{"frames/s": 12345.6, "ratio": 2.0})
    result.add("speed", contestant="other", **{"frames/s": float("nan")})
    page = result.write(Settings(runs=2), tmp_path)
    text = page.read_text()
    assert "| emograph | 12,346 | 2 |" in text
    assert "Not measured: dora-rs" in text
    data = json.loads(page.with_suffix(".json").read_text())
    assert data["runs"] == 2
    assert set(data["machine"]) == {"processor", "cores", "memory", "system", "python", "gpu"}
    assert data["commit"]
    assert data["versions"]["pyzmq"]
    assert markdown(data) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1.23456, "1.23"), (0.000012345, "1.23e-05"), (54321.9, "54,322"), (7, "7"), ("x", "x")],
)
def test_cells(value: object, text: str):
    assert cell(value) == text


def test_medians_and_percentiles():
    assert middle([3.0, 1.0, 2.0]) == 2.0
    assert percentile(list(range(100)), 95) == 95
    assert np.isnan(percentile([], 50))


def test_touch_reads_every_page_of_a_frame():
    frame = np.zeros((1080, 1920, 3), np.uint8)
    for page in range(-(-frame.size // 4096)):
        frame.reshape(-1)[page * 4096] = 1
    assert touch(frame) == -(-frame.size // 4096)


def test_the_meter_counts_after_the_warm_up_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Over(Exception):
        pass

    def pause() -> None:
        raise Over

    now = 100.0
    monkeypatch.setattr("bench.peers.meter.time.monotonic", lambda: now)
    monkeypatch.setattr("bench.peers.meter.signal.pause", pause)
    marks = tmp_path / "marks"
    meter = Meter(str(marks), 2.0)
    frames = 0
    with contextlib.suppress(Over):
        while True:
            frames += 1
            meter.frame([0, 2_000_000, 5_000_000, 6_000_000])
            now += 0.1
    begin, end = (json.loads(line) for line in marks.read_text().splitlines())
    assert begin["begin"] >= 101
    assert end["frames"] in (20, 21)
    assert frames > end["frames"] + 8
    assert (end["p50_ms"], end["p99_ms"]) == (2.0, 2.0)


def test_a_graph_is_measured_in_its_steady_state():
    register()
    graph = "frames name=a width=64 height=48 fps=50 ! hop name=h ! pages name=s"
    found = measure(graph, "live", seconds=1.0, warm_up=0.5, trace=True)
    assert found.frames + sum(found.dropped.values()) == pytest.approx(50 * found.seconds, rel=0.3)
    assert set(found.cpu) == {"", "spawner", "a", "h", "s"}
    assert found.cpu_seconds > 0
    assert found.pss > 10e6
    assert [entry[0] for entry in found.traces[0]] == ["a", "h", "s"]


def test_a_graph_that_ends_too_early_is_an_error():
    register()
    with pytest.raises(UserError, match="ended before"):
        measure("frames name=a width=64 height=48 num_buffers=3 ! pages name=s", "lossless", 1.0, 0.5)


def test_transport_runs_against_a_real_peer_and_says_what_is_missing():
    result = transport.run(Settings(runs=1, seconds=0.5, only=("emograph", "pyzmq")))
    throughput, latency = result.tables.values()
    assert [row["contestant"] for row in throughput] == ["emograph", "pyzmq"]
    assert all(row["frames/s"] > 0 for row in throughput)
    assert all(0 < row["p50 ms per link"] <= row["p99 ms per link"] for row in latency)
    bare = Settings(runs=1, seconds=0.5, only=("imagezmq",), python=bare_python())
    assert transport.run(bare).skipped == ["imagezmq: pip install 'emograph[bench]'"]


def bare_python() -> str:
    """An interpreter without packages."""
    for candidate in ("/usr/bin/python3", sys.executable):
        found = subprocess.run([candidate, "-c", "import imagezmq"], capture_output=True, check=False)
        if found.returncode:
            return candidate
    pytest.fail("every Python here has imagezmq")


def test_no_clips_is_one_line(tmp_path: Path):
    told = emograph("bench", "detect", "--videos", str(tmp_path))
    assert told.returncode == 1
    assert told.stderr.startswith("emograph: error: no clips in")


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"the test videos are not here ({VIDEOS})")
def test_detection_finds_what_the_plain_cascade_finds_without_its_false_alarms():
    clips = [detect._read(VIDEOS / name) for name in ("thanks.mkv", "walking.mp4")]
    result = Result("detect")
    detect._accuracy(clips, result)
    rows = {row["clip"]: row for row in result.tables["who is found"]}
    assert rows["all"]["found"] >= 0.95 * rows["all"]["faces of the plain cascade"]
    assert rows["all"]["faces of the plain cascade"] > 140
    assert rows["all"]["false alarms"] <= rows["all"]["false alarms of the plain cascade"]
