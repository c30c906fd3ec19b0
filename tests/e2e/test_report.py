"""`emograph launch --report`: every frame is in it, however the run ends, and a path that cannot be is told first."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.support.command import emograph, started, wait_until

GRAPH = "testsrc name=door faces=1 duration={duration} ! haardetect ! emotion ! fakesink"


def test_every_frame_of_a_lossless_run_is_in_the_report(tmp_path: Path):
    out = tmp_path / "out.html"
    done = emograph("launch", GRAPH.format(duration="2s"), "--set", "mode=lossless", "--json", "--report", str(out))
    assert done.returncode == 0, done.stderr
    captured = json.loads(done.stdout)["cameras"]["door"]["captured"]
    html = out.read_text()
    assert f"{captured} frames from 0:00.0" in html
    assert f"<tr><td>door</td><td>{captured}</td><td>{captured}</td><td>0</td><td>0</td>" in html
    assert re.search(r"<td class=\"left\">haardetect</td>", html)
    assert "data:image" not in html
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_ctrl_c_gives_the_report_of_what_was_seen(tmp_path: Path):
    out = tmp_path / "out.html"
    with started("launch", GRAPH.format(duration="60s"), "-q", "--report", str(out), "--report-thumbnails") as launcher:
        wait_until(lambda: "resnet9" in launcher.stderr.readline(), "the network")
        time.sleep(2)
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    assert f"report: {out}" in stderr
    html = out.read_text()
    assert re.search(r"[1-9]\d* frames from", html)
    assert "data:image/png" in html


def test_a_report_that_was_not_written_is_not_claimed(tmp_path: Path):
    """Ctrl-C before the graph plays: what stands there is of an earlier run."""
    out = tmp_path / "out.html"
    out.write_text("old")
    with started("launch", GRAPH.format(duration="60s"), "-q", "--report", str(out)) as launcher:
        assert "processes, mode" in launcher.stderr.readline()
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    assert out.read_text() == "old"
    assert "report:" not in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--report", "/proc/nowhere/out.html"), "cannot create the folder /proc/nowhere"),
        (("--report", "/proc/out.html"), "cannot write to the folder /proc: No such file"),
        (("--report", "/tmp"), "location /tmp is a folder"),
        (("--report-thumbnails",), "--report-thumbnails: there is no --report for them"),
        (("--report", "/dev/null"), "location /dev/null is no ordinary file"),
    ],
)
def test_a_report_that_cannot_be_is_one_line_before_the_start(arguments: tuple[str, ...], message: str):
    done = emograph("launch", GRAPH.format(duration="1s"), *arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "captured" not in done.stdout  # nothing ran
    assert "Traceback" not in done.stderr


def test_a_graph_that_classifies_nothing_has_no_report():
    done = emograph("launch", "testsrc ! haardetect ! fakesink", "--report", "x.html")
    assert done.returncode == 1
    assert done.stderr == "emograph: error: --report: no node of this graph adds emotions\n"
