"""What buffers tell of their way, and the file that it is written to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline import trace as trace_module
from pipeline.graph import expand
from pipeline.load import load
from pipeline.trace import TraceFile
from tests.support.command import emograph, environment
from tests.support.graphs import ROOT, run_graph

pytestmark = pytest.mark.usefixtures("engine_nodes")


def test_every_buffer_brings_its_trace_home(tmp_path: Path):
    run = run_graph("numbers name=a num_buffers=20 fps=100 ! work name=w ! gather name=g ! nothing name=n", trace=True)
    delivered = run.ledgers["a"].delivered
    assert delivered > 0
    for _, _, trace in run.traces:
        times = [t for _, start, end, _ in trace for t in (start, end)]
        assert times == sorted(times)
    file = TraceFile(tmp_path / "trace.json", run.supervisor.plan)
    file.add(run.traces)
    file.write()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    assert {s["cat"] for s in slices} == {"a", "w", "g", "n"}
    assert sum(s["cat"] == "n" for s in slices) == delivered
    rows = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert rows == {"a", "w", "g", "n"}
    assert any(e["ph"] == "C" and e["args"]["items"] > 0 for e in events)


def test_a_tee_does_not_double_what_was_before_it(tmp_path: Path):
    run = run_graph(
        "numbers name=a num_buffers=10 ! work name=w ! nothing name=n  w. ! odd ! nothing name=o", trace=True
    )
    file = TraceFile(tmp_path / "trace.json", run.supervisor.plan)
    file.add(run.traces)
    assert file.write() == ""
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [event["name"] for event in events if event["ph"] == "X"]
    assert len(slices) == len(set(slices))
    assert {name for name in slices if name.startswith(("n ", "w "))} <= {f"{n} a#{i}" for n in "nw" for i in range(10)}
    assert sum(name.startswith("w ") for name in slices) >= sum(name.startswith("n ") for name in slices) > 0


def test_a_trace_of_a_long_run_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trace_module, "_REMEMBERED", 1000)
    plan = expand(load("numbers name=a ! gather name=g ! nothing name=n"))
    (tmp_path / "trace.json").write_text("an older one")
    file = TraceFile(tmp_path / "trace.json", plan)
    process = psutil.Process()

    def minutes(begin: int, count: int) -> int:
        for number in range(begin, begin + count):
            at = number * 10**7
            trace = [["a", at, at + 10, 1], ["g", at // 2, at // 2 + 5, 2], ["n", at + 20, at + 30, 1]]
            file.add([(number, ("", "delivered"), trace)] * 2)  # a tee tells of everything twice
        return process.memory_info().rss

    before = minutes(0, 5000)
    assert minutes(5000, 50_000) - before < 10e6  # 150,000 slices, 25 MB as text
    assert (tmp_path / "trace.json").read_text() == "an older one"
    assert os.listdir(tmp_path) == ["trace.json"]
    assert file.write() == ""
    slices = [e for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert len(slices) == 3 * 55_000


@pytest.mark.parametrize("before", [None, "an older one"])
def test_a_trace_for_which_there_is_no_room_is_told_and_leaves_nothing(tmp_path: Path, before: str | None):
    """Here of a process that may write files of 30 kB."""
    path = tmp_path / "t.json"
    if before is not None:
        path.write_text(before)
    code = f"""
import resource, signal
from pathlib import Path
from pipeline.graph import expand
from pipeline.load import load
from pipeline.trace import TraceFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = TraceFile(Path({str(path)!r}), expand(load("testsrc name=a ! fakesink name=n")))
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
for number in range(300):
    at = number * 10**7
    file.add([(number, ("", "delivered"), [["a", at, at + 10, 1], ["n", at + 20, at + 30, 1]])])
print(file.write())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == f"cannot write the trace {path}: File too large\n", done.stderr
    assert (path.read_text() if path.exists() else None) == before


def test_a_trace_has_microseconds_and_batches_that_end(tmp_path: Path):
    trace = tmp_path / "trace.json"
    graph = "numbers name=a num_buffers=20 fps=50 ! work name=w delay=20ms ! gather name=g delay=5ms ! nothing"
    arguments = ("--set", "mode=lossless", "--trace", str(trace))
    done = emograph("launch", graph, *arguments, env=environment(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    events = json.loads(trace.read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X" and event["cat"] == "w"]
    assert len(slices) == 20
    assert all(20_000 <= event["dur"] < 5_000_000 for event in slices)
    batches = sorted((event["ts"], event["args"]["items"]) for event in events if event["ph"] == "C")
    assert [items > 0 for _, items in batches] == [True, False] * (len(batches) // 2)
    assert sum(items for _, items in batches) == 20
