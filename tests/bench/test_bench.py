"""The benchmarks run and count what they say they count. How fast anything is, no test asks."""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import typer
from typer.testing import CliRunner

from bench import accuracy, clips, detect, e2e, reuse, train, transport
from bench.classify_worker import PEER
from bench.cli import BENCHMARKS, bench
from bench.graphs import cpu_of, measure
from bench.nodes import register
from bench.peers.meter import Meter, first_moment, touch
from bench.record import Result, Settings, cell, markdown, middle, percentile, usual_environment, versions
from pipeline.errors import UserError
from tests.support.command import emograph, wait_until
from tests.support.graphs import VIDEOS
from tests.trainer.test_commands import call


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
    assert set(data["machine"]) == {"processor", "instructions", "cores", "memory", "system", "python", "gpu"}
    assert data["commit"]
    assert data["versions"]["pyzmq"]
    assert markdown(data) == text


def test_a_result_says_the_whole_command_but_no_folder_of_this_machine():
    settings = Settings(
        runs=5, seconds=0.5, only=("cuda bf16", "x"), videos=Path("/a/clips"), data=Path("/a/b/fer2013.csv"),
        device="cuda:1", python="/a/peers/bin/python3.11",
    )  # fmt: skip
    assert settings.command("classify") == (
        "emograph bench classify --runs 5 --seconds 0.5 --only 'cuda bf16' --only x --videos clips "
        "--data fer2013.csv --device cuda:1 --python python3.11"
    )
    assert Result("classify").as_dict(settings)["command"] == settings.command("classify")
    assert Settings().command("classify") == "emograph bench classify"


def test_results_of_another_device_or_of_a_part_have_files_of_their_own(tmp_path: Path):
    for settings in (Settings(), Settings(device="cuda:1"), Settings(only=("torch bf16",)), Settings(device="cuda")):
        result = Result("classify")
        result.add("t", contestant=settings.device, nothing=float("nan"))
        page = result.write(settings, tmp_path)
        assert f"| {settings.device} |" in page.read_text()
        assert json.loads(page.with_suffix(".json").read_text())["tables"]["t"][0]["nothing"] is None
    stems = {path.stem[len("2026-11-25-") :] for path in tmp_path.iterdir()}
    assert stems == {"classify", "classify-cuda-1", "classify-only-torch-bf16", "classify-cuda"}
    assert len(list(tmp_path.iterdir())) == 8


def test_a_result_of_another_machine_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for processor in ("Intel(R) Xeon(R)", "AMD EPYC", "Intel(R) Xeon(R)", "AMD EPYC"):
        monkeypatch.setattr("bench.record.machine", lambda processor=processor: {"processor": processor})
        result = Result("classify")
        result.add("t", contestant=processor)
        page = result.write(Settings(), tmp_path)
        assert f"| {processor} |" in page.read_text()
    assert {path.stem[len("2026-11-25-") :] for path in tmp_path.iterdir()} == {"classify", "classify-amd-epyc"}


def test_what_is_started_for_its_start_keeps_its_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "module.py").touch()
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    subprocess.run([sys.executable, "-c", "import module"], check=True, cwd=tmp_path, env=usual_environment())
    assert list(tmp_path.glob("__pycache__/module.*.pyc"))


def test_the_peers_python_is_asked_for_the_peers_versions(tmp_path: Path):
    package = tmp_path / "fer-22.5.1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: fer\nVersion: 22.5.1\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = versions(str(python))
    assert found["peers' fer"] == "22.5.1"
    assert found["peers' Python"] == platform.python_version()
    assert found["torch"]
    assert "fer" not in versions()
    assert not any(name.startswith("peers'") for name in versions() | versions("/nonexistent"))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    return tmp_path


def test_a_clip_that_cannot_be_read_is_one_line(broken: Path):
    for benchmark in (detect, e2e):
        with pytest.raises(UserError, match="a.mp4 has no frame that can be read"):
            benchmark.run(Settings(videos=broken))
    result = Result("classify")
    reuse.measure(result, Settings(videos=broken), "resnet9-s")
    assert "a.mp4 has no frame" in result.skipped[0]


def test_clips_without_faces_are_said(tmp_path: Path):
    video = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
    for grey in range(5):
        video.write(np.full((120, 160, 3), grey, np.uint8))
    video.release()
    result = Result("classify")
    reuse.measure(result, Settings(videos=tmp_path), "resnet9-s")
    assert not result.tables
    assert "no faces are found" in result.skipped[0]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """`emograph bench startup` in a moment; the settings that it was run with."""
    ran: list[Settings] = []

    def run(settings: Settings) -> Result:
        ran.append(settings)
        result = Result("startup")
        result.add("t", contestant="a", seconds=float("nan"))
        return result

    monkeypatch.setattr("bench.startup.run", run)
    return ran


def test_names_are_checked_before_anything_is_measured(stub: list[Settings]):
    with pytest.raises(UserError, match="nothing in startup is called 'one camra'; did you mean 'one camera'"):
        call(bench, "startup", "--only", "one camra")
    with pytest.raises(UserError, match="there is no Python at /nonexistent"):
        call(bench, "startup", "--python", "/nonexistent")
    assert not stub
    call(bench, "startup", "--only", "one camera")
    assert stub[0].only == ("one camera",)


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_benchmark_names_its_contestants(name: str, device: str):
    names = importlib.import_module(f"bench.{name}").contestants(Settings(device=device))
    assert len(names) == len(set(names)) > 1
    peers = {"classify": PEER, "train": train.PEER, "accuracy": accuracy.PEER}
    assert name not in peers or peers[name] in names


def test_json_is_all_that_stands_on_stdout(stub: list[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(Result, "write", lambda *_: tmp_path / "page.md")
    app = typer.Typer()
    app.command()(bench)
    told = CliRunner().invoke(app, ["startup", "--json", "--save"], catch_exceptions=False)
    assert json.loads(told.stdout, parse_constant=pytest.fail)["tables"]["t"][0]["seconds"] is None
    assert told.stderr == f"written to {tmp_path / 'page.md'}\n"
    assert "written to" in call(bench, "startup", "--save")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1.23456, "1.23"), (0.000012345, "1.23e-05"), (54321.9, "54,322"), (7, "7"), ("x", "x")],
)
def test_cells(value: object, text: str):
    assert cell(value) == text


def test_medians_and_percentiles():
    assert middle([3.0, 1.0, 2.0]) == 2.0
    assert percentile(list(range(1, 101)), 95) == 95
    assert percentile([2.0, 1.0], 50) == 1.0
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([1.0, 2.0], 100) == 2.0
    assert np.isnan(percentile([], 50))


def test_touch_reads_every_page_of_a_frame():
    frame = np.zeros((1080, 1920, 3), np.uint8)
    for page in range(-(-frame.size // 4096)):
        frame.reshape(-1)[page * 4096] = 1
    assert touch(frame) == -(-frame.size // 4096)


def test_sources_of_the_peers_begin_evenly_spread(monkeypatch: pytest.MonkeyPatch):
    """As ours do: whoever sends at the same moment waits for the others."""
    begins = []
    for index, now in enumerate((100.0, 100.013, 100.2, 99.9)):
        monkeypatch.setattr("bench.peers.meter.time.monotonic", lambda now=now: now)
        begins.append(first_moment(25, index, 4))
        assert now <= begins[-1] < now + 0.04 + 1e-9
    assert [round(begin % 0.04, 6) % 0.04 for begin in begins] == pytest.approx([0.0, 0.01, 0.02, 0.03])
    assert first_moment(0, 3, 4) == 99.9


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
    assert min(seconds for name, seconds in found.cpu.items() if name != "spawner") > 0
    assert found.pss > 10e6
    assert [entry[0] for entry in found.traces[0]] == ["a", "h", "s"]


def test_cpu_time_of_another_process_is_told_finer_than_in_ticks():
    work = "import sys, time\nwhile time.process_time() < .1: pass\nprint(time.process_time(), flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = float(process.stdout.readline())
        assert told <= cpu_of(process.pid) < told + 0.1
        assert cpu_of(process.pid) != round(cpu_of(process.pid), 2)
    assert cpu_of(process.pid) == 0


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
    assert transport.run(bare).skipped == ["imagezmq: pip install imagezmq"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_benchmark_that_is_ended_takes_its_processes_along(number: signal.Signals):
    command = [sys.executable, "-m", "pipeline.cli", "bench", "transport", "--only", "pyzmq", "--seconds", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:

        def family() -> list[psutil.Process]:
            return psutil.Process(process.pid).children(recursive=True)

        wait_until(lambda: len(family()) >= 5, "the peer's processes")
        left = family()
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert "Traceback" not in told
    assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}.get(number, 128 + number)
    wait_until(lambda: not any(other.is_running() for other in left), "the end of the peer's processes")


def test_what_cannot_be_is_told_before_anything_is_measured(stub: list[Settings], monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="--device cuda: only classify and train run on another device than the CPU"):
        call(bench, "startup", "--device", "cuda")
    monkeypatch.setattr("bench.cli.RESULTS", Path("/proc/nowhere"))
    with pytest.raises(UserError, match="cannot create the folder /proc/nowhere"):
        call(bench, "startup", "--save")
    with pytest.raises(
        UserError, match=r"nothing in startup is called 'x'; known: .* \| one camera, no classifier \| "
    ):
        call(bench, "startup", "--only", "x")
    assert not stub
    monkeypatch.setitem(sys.modules, "bench.transport", None)
    with pytest.raises(UserError, match="this benchmark needs bench.transport: uv sync --extra bench"):
        call(bench, "transport")


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


def test_clips_that_nobody_named_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Settings, "videos", tmp_path)
    with pytest.raises(UserError, match="name a folder of them, --videos DIR"):
        clips.find_clips(Settings.videos)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"the test videos are not here ({VIDEOS})")
def test_detection_finds_what_the_plain_cascade_finds_without_its_false_alarms():
    clips = [detect._decode(VIDEOS / name) for name in ("thanks.mkv", "walking.mp4")]
    for clip in clips:
        detect._judge(clip)
    result = Result("detect")
    detect._accuracy(clips, result)
    rows = {row["clip"]: row for row in result.tables["who is found"]}
    assert rows["all"]["found"] >= 0.95 * rows["all"]["faces of the plain cascade"]
    assert rows["all"]["faces of the plain cascade"] > 140
    assert rows["all"]["false alarms"] <= rows["all"]["false alarms of the plain cascade"]
