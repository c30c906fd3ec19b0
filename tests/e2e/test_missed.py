"""A recording that is written down in `mode: live` without all of its frames: a line says so, and what reads them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.graph import expand
from pipeline.launch import missed
from pipeline.load import load
from pipeline.ring import Ledger
from tests.nodes.films import film
from tests.support.command import emograph, environment

TALK = "capture name=a uri=clips/talk.mkv"
FULL = {("a", "window full"): 2, ("d", "late"): 3}


@pytest.mark.parametrize(
    ("graph", "dropped", "told"),
    [
        (f"{TALK} ! videosink location=x.mp4", FULL, "talk.mkv was played in real time, and 5 of its frames came"),
        (
            f"{TALK} ! picturesink location=x",
            {("a", "window full"): 1},
            "talk.mkv was played in real time, and 1 of its",
        ),
        (f"{TALK} ! haardetect name=d ! emotion ! table location=x.csv", FULL, "talk.mkv was played"),
        (f"{TALK} ! videosink location=x.mp4", {}, ""),
        (f"{TALK} ! videosink location=x.mp4", {("d", "lost"): 3, ("d", "error"): 2}, ""),
        (f"{TALK} ! fakesink", FULL, ""),
        ("capture name=a uri=/dev/video0 ! videosink location=x.mp4", FULL, ""),
        ("capture name=a uri=rtsp://10.0.0.5/x ! videosink location=x.mp4", FULL, ""),
        ("testsrc name=a ! videosink location=x.mp4", FULL, ""),
        (
            f"{TALK} ! videosink name=v location=x.mp4 mosaic=true  capture uri=b.mkv name=b ! v."
            "  capture name=c uri=c.mkv ! v.",
            FULL,
            "2 recordings were played in real time, and 6 of their frames came too late;",
        ),
    ],
)
def test_who_is_told_what(graph: str, dropped: dict[tuple[str, str], int], told: str):
    for mode, expected in (("live", told), ("lossless", "")):
        plan = expand(load(graph, [f"mode={mode}"]))
        ledgers = {camera: Ledger() for camera in plan.sources}
        ledgers["a"].dropped.update(dropped)
        if "b" in ledgers:
            ledgers["b"].dropped["b", "late"] = 1
        line = missed(plan, ledgers)
        assert line.startswith(expected)
        assert bool(line) == bool(expected)
        assert not line or line.endswith("; --set mode=lossless reads every frame")


def test_the_launcher_says_it_below_the_ledger(tmp_path: Path):
    talk = film(tmp_path / "talk.mkv", 30)
    graph = f"capture name=door window=1 uri={talk} ! gather delay=0.3 ! videosink location={tmp_path}/x.mp4"
    env = environment(tmp_path / "site")
    done = emograph("launch", graph, env=env)
    assert done.returncode == 0, done.stderr
    ledger = re.search(r"^door +30 +\d+ +(\d+) ", done.stdout, re.MULTILINE)
    assert ledger, done.stdout
    said = f"talk.mkv was played in real time, and {ledger[1]} of its frames came too late; --set mode=lossless reads"
    assert said in done.stderr
    every = emograph("launch", graph.replace("delay=0.3", ""), "--set", "mode=lossless", env=env)
    assert (every.returncode, "in real time" in every.stderr) == (0, False), every.stderr
