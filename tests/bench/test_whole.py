"""The benchmarks of whole graphs and of training, in small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from bench import e2e, startup, train
from bench.record import Settings
from pipeline.errors import UserError
from tests.support.graphs import VIDEOS
from trainer.recipe import Recipe


def test_training_is_measured_against_the_usual_loop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "PICTURES", {"cpu": 256})
    monkeypatch.setattr(train, "WIDTHS", (4,))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(3)))
    result = train.run(Settings(runs=1, only=("emograph fp32",)))
    [rows] = result.tables.values()
    assert [row["contestant"] for row in rows] == [train.PEER, "emograph fp32"]
    assert [row["workers"] for row in rows] == [2, None]  # a core is left to the loop
    assert rows[0]["times_peer"] == 1
    assert rows[1]["times_peer"] == pytest.approx(rows[1]["images/s"] / rows[0]["images/s"])
    assert rows[1]["epoch, minutes"] == pytest.approx(train.EPOCH / rows[1]["images/s"] / 60)


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (16, 15)])
def test_the_usual_loop_has_a_worker_for_each_core_but_one(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert train._workers() == workers


def test_training_is_measured_on_the_device_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked: list[tuple[object, str, torch.device]] = []

    class Apart:
        def __init__(self, way: object, recipe: Recipe, *given: object) -> None:
            device = given[-1]
            assert isinstance(device, torch.device)
            asked.append((way, recipe.precision, device))
            self.remarks = ["not compiled"] if recipe.precision == "bf16" else []

        def epoch(self) -> train.Epoch:
            return 1.0, self.remarks.pop() if self.remarks else ""

        def end(self) -> None: ...

    monkeypatch.setattr(train, "_Apart", Apart)
    monkeypatch.setattr(train, "computes_in_bf16", lambda *_: True)
    result = train.run(Settings(runs=1, device="cuda:1"))
    place = torch.device("cuda:1")
    wanted = [(train._usual, "auto", place), (train._ours, "fp32", place), (train._ours, "bf16", place)]
    assert asked == wanted * len(train.WIDTHS)
    told = [note for note in result.notes if note.endswith("emograph bf16: not compiled.")]
    assert [note.partition(",")[0] for note in told] == [f"Width {width}" for width in train.WIDTHS]


def test_a_process_that_trains_and_dies_is_noticed():
    apart = train._Apart(os._exit, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="died"):
        apart.epoch()
    apart.end()


def test_startup_counts_from_the_command():
    frame, event = startup._start("testsrc ! haardetect ! publish endpoint={}")
    assert 0 < frame < event


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"the test videos are not here ({VIDEOS})")
@pytest.mark.parametrize("place", [e2e.APART, e2e.TOGETHER])
def test_live_cameras_are_watched_from_outside(monkeypatch: pytest.MonkeyPatch, place: str):
    monkeypatch.setattr(e2e, "WARM_UP", 1.0)
    found = e2e._live([VIDEOS / "thanks.mkv"], cameras=2, fps=5, seconds=4.0, place=place)
    assert {"camera0", "camera1"} < found.cpu.keys()
    assert ({"faces.0", "faces.1"} < found.cpu.keys()) == (place == e2e.APART)
    row = e2e._live_row(found, 2)
    assert found.frames + sum(found.dropped.values()) == pytest.approx(2 * 5 * found.seconds, rel=0.3)
    assert len(found.latencies) > 0
    assert 0 < row["p50 ms"] <= row["p95 ms"]
    assert row["memory MB per camera"] == row["memory MB"] / 2 > 0


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"the test videos are not here ({VIDEOS})")
def test_the_plain_loop_calls_the_nodes_in_a_worker_per_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(e2e, "WARM_UP", 0.5)
    assert e2e._plain_loop([VIDEOS / "thanks.mkv"], seconds=2.0) > 0


def test_a_worker_of_the_plain_loop_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(e2e, "WARM_UP", 1.0)
    with pytest.raises(UserError, match="a worker of the plain loop died"):
        e2e._plain_loop([tmp_path / "none.mp4"], seconds=1.0)
