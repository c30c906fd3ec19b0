"""What benchmarks make of what they measured: each measurement replaced by one whose figures are known."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import classify, detect, e2e, peers, reuse, startup, transport
from bench.classify_worker import PEER
from bench.graphs import Measured
from bench.peers import MissingPeer
from bench.record import Result, Row, Settings
from nodes.emotion.node import Emotion
from nodes.haardetect import HaarDetect
from pipeline import Buffer, UserError
from tests.nodes.films import film


def rows(result: Result, title: str) -> dict[str, Row]:
    """The rows of the table whose title begins so, by what stands in their first column."""
    [table] = [table for name, table in result.tables.items() if name.startswith(title)]
    return {next(iter(row.values())): row for row in table}


# detect -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips of five frames each."""
    for name in "ab":
        film(tmp_path / f"{name}.mp4", 5)
    return tmp_path


def test_detection_rates_are_frames_by_seconds_and_ratios_by_cores(clips: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(*_: Any) -> float:
        raise MissingPeer("get it")

    seconds = iter([1.0, 9.0, 2.0])  # of which the median is 2
    ways: dict[str, tuple[detect.Way, int]] = {
        "plain cascade, one core": (lambda *_: 20.0, 1),
        "plain cascade, both cores": (lambda *_: 10.0, 2),
        "haardetect, one camera": (lambda *_: next(seconds), 1),
        detect.TWO: (lambda *_: 0.5, 2),
        detect.GSTREAMER: (missing, 2),
    }
    monkeypatch.setattr(detect, "WAYS", ways)
    result = detect.run(Settings(videos=clips, runs=3))
    found = rows(result, "speed")
    assert {name: (row["cores"], row["frames/s"], row["x plain, same cores"]) for name, row in found.items()} == {
        "plain cascade, one core": (1, 0.5, 1.0),
        "plain cascade, both cores": (2, 1.0, 1.0),
        "haardetect, one camera": (1, 5.0, 10.0),
        detect.TWO: (2, 20.0, 20.0),
    }
    assert result.skipped == [f"{detect.GSTREAMER}: get it"]
    assert (
        rows(detect.run(Settings(videos=clips, runs=1, only=(detect.TWO,))), "speed")[detect.TWO]["x plain, same cores"]
        is None
    )


def test_two_cameras_are_timed_side_by_side_and_leave_nobody_behind(clips: Path):
    alone = detect._time_haardetect([detect._decode(path) for path in sorted(clips.iterdir())])
    assert 0 < detect._time_two(clips) < 1000 * alone
    with pytest.raises(UserError, match="a process that detects beside another one died"):
        detect._time_two(clips / "nowhere")


def test_clips_that_do_not_fit_into_memory_are_one_line(clips: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(detect.psutil, "virtual_memory", lambda: SimpleNamespace(available=300_000))
    with pytest.raises(UserError, match=r"would take 0.0 GB of memory, and 0.0 GB are free: give shorter clips"):
        detect.run(Settings(videos=clips))
    detect._check_memory(sorted(clips.iterdir()), copies=1)  # 2 x 5 frames of 64 x 48 x 3 bytes are 92 kB


def test_who_is_found_is_counted_against_the_sure_faces(monkeypatch: pytest.MonkeyPatch):
    sure, doubtful, elsewhere = [10, 10, 20, 20], [100, 10, 20, 20], [10, 100, 20, 20]
    frames = [np.zeros((200, 200, 3), np.uint8)] * 3
    plain = [np.array([sure, doubtful]), np.array([sure]), np.empty((0, 4))]
    clip = detect.Clip("a", 2.0, frames, plain, [np.array([20, 5]), np.array([20]), np.empty(0)])
    own = [np.array([sure]), np.array([elsewhere]), np.array([sure])]
    monkeypatch.setattr(detect, "_detect", lambda clip: own)
    result = Result("detect")
    detect._accuracy([clip], result)
    found = rows(result, "who is found")["all"]
    assert (found["faces of the plain cascade"], found["found"], found["share"]) == (2, 1, "50.0%")
    assert (found["false alarms"], found["false alarms of the plain cascade"]) == (1, 1)


# transport --------------------------------------------------------------------------------------------------


def test_transport_rows_are_medians_and_ratios_say_who_is_better(monkeypatch: pytest.MonkeyPatch):
    rates = iter([100.0, 300.0, 200.0] * 2)

    def ours(cameras: int, fps: float) -> Row:
        return {"fps": next(rates), "cpu_us": 5.0, "p50_ms": 0.1, "p99_ms": 0.5}

    def slow(cameras: int, fps: float) -> Row:
        return {"fps": 50.0, "cpu_us": 50.0, "p50_ms": 1.0, "p99_ms": 4.0}

    def breaks(cameras: int, fps: float) -> Row:
        if fps:
            raise MissingPeer("it did not come to an end: no word")
        return slow(cameras, fps)

    monkeypatch.setattr(transport, "_ways", lambda *_: {"emograph": ours, "queue": slow, "dora-rs": breaks})
    result = transport.run(Settings(runs=3))
    speed, latency = rows(result, "throughput"), rows(result, "latency")
    assert speed["emograph"] == {
        "contestant": "emograph", "frames/s": 200.0, "CPU us per frame and link": 5.0, "emograph is better by": "1 x",
    }  # fmt: skip
    assert (speed["queue"]["emograph is better by"], speed["dora-rs"]["frames/s"]) == ("4 x", 50.0)
    assert (latency["queue"]["p99 ms per link"], latency["queue"]["emograph is better by"]) == (4.0, "8 x")
    assert latency.keys() == {"emograph", "queue"}
    assert result.skipped == ["dora-rs, latency at 4 x 30 frames/s: it did not come to an end: no word"]


def test_our_way_is_counted_by_frame_and_link(monkeypatch: pytest.MonkeyPatch):
    ms = 1_000_000
    trace = [["a", 0, 1 * ms], ["h", 3 * ms, 4 * ms], ["s", 5 * ms, 9 * ms]]  # links of 2 and 1 ms
    found = Measured(seconds=2.0, frames=600, cpu={"": 0.6, "a": 1.2}, traces=[trace])
    monkeypatch.setattr(transport, "measure", lambda *_, **__: found)
    row = transport._emograph(Settings(), cameras=4, fps=30)
    assert row == {"fps": 300.0, "cpu_us": pytest.approx(1000.0), "p50_ms": 1.0, "p99_ms": 2.0}


def test_a_peer_is_counted_between_its_two_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    script = tmp_path / "peer.py"
    script.write_text("""
import json, sys, time
marks = sys.argv[1]
def mark(what):
    with open(marks, "a") as file:
        file.write(json.dumps(what) + "\\n")
mark({"begin": 0})
time.sleep(.3)
mark({"frames": 300, "seconds": 2.0, "p50_ms": 1.5, "p99_ms": 2.5})
time.sleep(60)
""")
    monkeypatch.setattr(transport, "PEERS", tmp_path)
    cpu = iter([1.0, 1.9])
    monkeypatch.setattr(transport, "_cpu", lambda _: next(cpu))
    row = transport._peer(Settings(seconds=1.0), ["peer.py"], 1, 0)
    assert row == {"fps": 150.0, "cpu_us": pytest.approx(1000.0), "p50_ms": 1.5, "p99_ms": 2.5}
    script.write_text("raise SystemExit('no such thing')")
    with pytest.raises(MissingPeer, match="it did not come to an end: no such thing"):
        transport._peer(Settings(seconds=1.0), ["peer.py"], 1, 0)


def test_dora_is_missing_where_its_command_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "_has", lambda *_: True)
    monkeypatch.setattr(transport, "find_dora", lambda _: None)
    result = Result("transport")
    assert transport._ways(Settings(only=("dora-rs",)), result) == {}
    assert result.skipped == ["dora-rs: pip install dora-rs dora-rs-cli"]


# e2e --------------------------------------------------------------------------------------------------------


def test_efficiency_is_by_the_plain_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    clips = [film(tmp_path / "it's ${HOME}.mp4", 3)]
    played: list[dict[str, Path]] = []

    def measure(text: str, mode: str, seconds: float, warm_up: float, *, clips: dict[str, Path]) -> Measured:
        played.append(clips)
        return Measured(seconds=2.0, frames=100 if "replicas: 2" in text else 60)

    monkeypatch.setattr(e2e, "measure", measure)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(e2e, "_plain_loop", lambda *_: 40.0)
    monkeypatch.setattr(e2e, "ask_fer", lambda *_: "Using TensorFlow\n8.0\n")
    result = Result("e2e")
    e2e._efficiency(clips, Settings(runs=3), result)
    found = {name: (row["frames/s"], row["x plain loop"]) for name, row in rows(result, "efficiency").items()}
    assert found == {
        "plain loop, 2 workers": (40.0, 1.0),
        "emograph, 2 classifiers": (50.0, 1.25),
        f"the same, {e2e.WITH_CAMERAS}": (50.0, 1.25),
        "emograph, one classifier": (30.0, 0.75),
        "fer (package), one process": (8.0, 0.2),
    }
    assert played[0] == {"camera0": clips[0], "camera1": clips[0]}


def test_a_worker_of_the_plain_loop_finds_and_classifies_each_frame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Enough(Exception):
        pass

    done: list[tuple[str, str, int]] = []

    def transform(node: HaarDetect, buffer: Buffer) -> Buffer:
        done.append(("faces", buffer.stream, buffer.sequence))
        return buffer

    def transform_batch(node: Emotion, buffers: list[Buffer]) -> list[Buffer | None]:
        done.append(("mood", buffers[0].stream, buffers[0].sequence))
        if len(done) == 10:
            raise Enough
        return [*buffers]

    monkeypatch.setattr(HaarDetect, "transform", transform)
    monkeypatch.setattr(Emotion, "transform_batch", transform_batch)
    count = e2e.CONTEXT.Value("q", 0)
    clips = [film(tmp_path / "a.mp4", 2), film(tmp_path / "b.mp4", 9)]
    with pytest.raises(Enough):
        e2e._worker(clips, e2e.CONTEXT.Barrier(1), count)
    taken = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]  # `a` has two frames, and begins anew
    assert done == [(node, *frame) for frame in taken for node in ("faces", "mood")]
    assert count.value == 4


def test_a_live_row_is_by_second_frame_and_camera():
    found = Measured(
        seconds=10.0, frames=400, delivered={"a": 300, "b": 100}, dropped={("a", "late"): 3, ("b", "late"): 4},
        cpu={"": 1.0, "a": 7.0}, pss=600_000_000, latencies=[0.01 * n for n in range(1, 101)],
    )  # fmt: skip
    assert e2e._live_row(found, 2) == pytest.approx({
        "frames/s": 40.0, "dropped": 7, "p50 ms": 500.0, "p95 ms": 950.0, "cores in use": 0.8,
        "CPU ms per frame": 20.0, "memory MB": 600.0, "memory MB per camera": 300.0,
    })  # fmt: skip
    assert e2e._lost_row(found, 30) == {"lost by a camera: least": "0%", "most": "67%"}
    assert e2e._lost_row(Measured(seconds=1.0, delivered={"a": 31}), 30)["most"] == "0%"


def test_titles_name_the_clips_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    film(tmp_path / "small.mp4", 3)
    clip = film(tmp_path / "large.MP4", 3, height=720, width=1280)
    seen: list[list[Path]] = []

    def live(clips: list[Path], cameras: int, fps: int, *_: Any) -> Measured:
        seen.append(clips)
        return Measured(seconds=1.0, frames=1, delivered={"a": 1}, cpu={"": 1.0}, latencies=[0.1])

    monkeypatch.setattr(e2e, "_live", live)
    result = e2e.run(Settings(videos=tmp_path, runs=1, only=("live", "overload")))
    assert len(result.tables) >= 4
    assert all("1280x720, 15 frames/s each" in title for title in result.tables)
    assert seen[0] == [clip]


# classify, reuse, startup -----------------------------------------------------------------------------------


def test_faces_a_second_are_of_the_median_call_and_ratios_of_the_best_batches():
    found = {
        PEER: {"seconds": {"1": [0.02, 0.01, 0.03], "8": [0.1]}},  # 50/s and 80/s
        "openvino": {"seconds": {"1": [0.01], "8": [0.05]}},  # 100/s and 160/s
    }
    result = Result("classify")
    classify._speed(result, "resnet9", found, 95)
    speed = rows(result, "Faces/s")
    assert speed["openvino"] == {"contestant": "openvino", "1": 100.0, "8": 160.0, "times_peer": 2.0}
    assert (speed[PEER]["1"], speed[PEER]["times_peer"]) == (50.0, 1.0)
    assert rows(result, "Latency")[PEER] == {"contestant": PEER, "1": "20 / 30", "8": "100 / 100"}


def test_answers_are_compared_with_the_peers_and_the_labels(tmp_path: Path):
    truth = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    other = np.array([[0.9, 0.1], [0.55, 0.45], [0.6, 0.4], [0.3, 0.7]])
    for name, said in ((PEER, truth), ("openvino", other)):
        np.save(classify._answers_file(tmp_path, "resnet9", name), said)
    result = Result("classify")
    classify._answers(result, "resnet9", [PEER, "openvino"], tmp_path, np.array([0, 1, 1, 1]))
    row = rows(result, "Answers")["openvino"]
    assert (row["largest difference"], row["labels changed"], row["of"]) == ("3.5e-01", 1, 4)
    assert (rows(result, "Answers")[PEER]["PublicTest accuracy"], row["PublicTest accuracy"]) == ("75.00%", "50.00%")


def test_reuse_counts_what_is_asked_and_what_differs():
    grey, white = np.full((48, 48), 100, np.uint8), np.full((48, 48), 250, np.uint8)
    sure, other = np.eye(7, dtype=np.float32)[0], np.eye(7, dtype=np.float32)[1]
    ms = 1_000_000
    still = [(n * 40 * ms, grey, sure) for n in range(4)]  # looks the same: asked once within 500 ms
    changes = [(n * 40 * ms, white if n % 2 else grey, sure) for n in range(4)]  # looks another each time
    row = reuse._compare([still, changes], 0.5, 4)
    assert (row["faces classified"], row["mean difference"], row["labels that differ"]) == ("62%", "0.000", "0.0%")
    says_else = [(n * 40 * ms, grey, other if n else sure) for n in range(4)]  # of which only the first is heard
    row = reuse._compare([says_else], 0.5, 4)
    assert row["faces classified"] == "25%"
    assert float(row["mean difference"]) > 0.05


def test_a_start_is_measured_after_one_that_warms_the_caches(monkeypatch: pytest.MonkeyPatch):
    times = iter([(9.0, 9.5), (1.0, 2.0), (3.0, 4.0), (2.0, 3.0)])
    monkeypatch.setattr(startup, "_start", lambda _: next(times))
    result = startup.run(Settings(runs=3, only=("one camera",)))
    assert rows(result, "seconds")["one camera"] == {
        "graph": "one camera", "first frame": 2.0, "first event": 3.0, "slowest": 4.0,
    }  # fmt: skip


# Peers in other Pythons -------------------------------------------------------------------------------------


def test_a_peer_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_script: Callable):
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    python = write_script
    assert peers.ask_fer(*python("print(3.5)")) == "3.5\n"
    assert peers.ask_fer(*python("import sys; print(len(sys.stdin.read()))"), given=[b"ab", b"c"]) == "3\n"
    with pytest.raises(MissingPeer, match="^fer: RuntimeError: weights file is damaged$"):
        peers.ask_fer(*python("raise RuntimeError('weights file is damaged')"))
    with pytest.raises(MissingPeer, match="^fer: in an environment of its own .*, pip install fer"):
        peers.ask_fer(*python("import no_such_package"))
    with pytest.raises(MissingPeer, match="No such file"):
        peers.ask_fer(str(tmp_path / "nowhere"), "script.py")


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    def write(code: str) -> tuple[str, str]:
        (tmp_path / "script.py").write_text(code)
        return sys.executable, "script.py"

    return write
