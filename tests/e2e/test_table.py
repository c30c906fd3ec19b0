"""`table` in whole graphs: as many frames as the ledger delivered, the same figures as the events, also after a kill."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import cv2
import pandas
import pytest

from nodes.preprocess import LABELS
from nodes.testsrc import TestSrc
from pipeline.harness import Harness
from pipeline.supervisor import Supervisor
from tests.support.command import emograph, started, wait_until
from tests.support.graphs import run_graph
from tests.support.host import free_endpoint

GRAPH = """
mode: lossless
nodes:
  door: {{type: testsrc, faces: 1, num_buffers: 40}}
  desk: {{type: testsrc, faces: 2, num_buffers: 25}}
  nobody: {{type: testsrc, faces: 0, num_buffers: 10}}
  faces: {{type: haardetect, replicas: 2}}
  mood: {{type: emotion}}
  events: {{type: publish, endpoint: '{endpoint}'}}
links:
  - [door, desk, nobody] ! faces ! mood ! events
"""


def read(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path, dtype={"track": "Int64"})


def test_table_ledger_and_events_tell_the_same(tmp_path: Path):
    endpoint, out = free_endpoint(), tmp_path / "out.csv"
    graph = tmp_path / "graph.yaml"
    graph.write_text(GRAPH.format(endpoint=endpoint))
    with started("events", endpoint, "--json", "--kind", "observation", "--until-ended") as subscriber:
        wait_until(lambda: "is the graph running" in subscriber.stderr.readline(), "the subscriber")
        done = emograph("launch", str(graph), "--json", "--table", str(out))
        lines, said = subscriber.communicate(timeout=60)  # it ends by itself
    assert done.returncode == 0, done.stderr
    assert (subscriber.returncode, said) == (0, "")
    table = read(out)
    frames = {camera: group.frame.drop_duplicates().tolist() for camera, group in table.groupby("camera")}
    ledger = {name: camera["delivered"] for name, camera in json.loads(done.stdout)["cameras"].items()}
    assert ledger == {"door": 40, "desk": 25, "nobody": 10}
    assert frames == {camera: list(range(count)) for camera, count in ledger.items()}
    told = [json.loads(line) for line in lines.splitlines()]
    assert len(told) == 75
    for event in told:
        rows = table[(table.camera == event["camera"]) & (table.frame == event["frame"])]
        faces = rows[rows.label.notna()]
        assert len(rows) == max(1, len(event["regions"]))
        assert [*faces.track] == [region["track"] for region in event["regions"]]
        assert rows.time.tolist() == pytest.approx([event["pts_ns"] / 1e9] * len(rows), abs=1e-6)
        assert set(rows.wall) == {event["time"]}
        for (_, row), region in zip(faces.iterrows(), event["regions"], strict=True):
            assert (row.label, row.held) == (region["label"], region["held"])
            assert row[["x", "y", "width", "height"]].tolist() == pytest.approx(region["box"], abs=0.006)
            assert row[list(LABELS)].to_dict() == pytest.approx(region["probabilities"], abs=1e-6)
            assert {n: row[f"raw_{n}"] for n in LABELS} == pytest.approx(region["raw"], abs=1e-6)
    assert table[table.camera == "nobody"].label.isna().all()
    assert table[table.camera == "desk"].groupby("frame").size().max() == 2


def test_a_killed_process_loses_no_frame_that_was_delivered(tmp_path: Path):
    out, killed = tmp_path / "out.csv", []
    out.write_text("a table of\nan earlier run\n")

    def kill(supervisor: Supervisor) -> None:
        process = supervisor.processes["t"]
        if not killed and supervisor.figures["t"].done >= 5 and process.child is not None:
            killed.append(process.child.pid)
            os.kill(process.child.pid, signal.SIGKILL)

    run = run_graph(
        f"testsrc name=a num_buffers=120 faces=1 ! haardetect ! emotion ! table name=t location={out}",
        ["mode=lossless"],
        kill,
    )
    assert run.error is None
    assert killed
    assert run.said(f"going on with {out}")
    ledger, frames = run.ledgers["a"], read(out).frame.tolist()
    assert frames == sorted(set(frames)), "a frame came twice or out of order"
    # One that was written, but not yet reported, when the process died counts as lost.
    assert ledger.delivered <= len(frames) <= 120
    assert ledger.delivered + ledger.dropped.get(("t", "lost"), 0) == 120


def test_ctrl_c_leaves_a_whole_table(tmp_path: Path):
    graph = "testsrc name=door ! haardetect ! emotion name=m ! fakesink"
    with started("launch", graph, "-q", "--table", str(tmp_path / "{camera}.jsonl")) as launcher:
        wait_until(lambda: "writing" in launcher.stderr.readline(), "the first row")
        launcher.send_signal(signal.SIGINT)
        _, stderr = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, stderr
    rows = [json.loads(line) for line in (tmp_path / "door.jsonl").read_text().splitlines()]
    assert rows
    assert f"wrote {tmp_path}/door.jsonl: " in stderr


def test_the_table_is_the_sink_of_a_graph_that_has_none(tmp_path: Path):
    out = tmp_path / "x.csv"
    graph = "testsrc name=door faces=1 num_buffers=5 ! haardetect ! emotion"
    done = emograph("launch", graph, "--table", str(out), "--set", "mode=lossless")
    assert done.returncode == 0, done.stderr
    assert read(out).frame.tolist() == [0, 1, 2, 3, 4]


def test_each_table_that_is_asked_for_is_written(tmp_path: Path):
    paths = [tmp_path / name for name in ("own.csv", "x.csv", "y.jsonl")]
    graph = f"testsrc name=door faces=1 num_buffers=5 ! haardetect ! emotion ! table location={paths[0]}"
    options = [part for path in paths[1:] for part in ("--table", str(path))]
    done = emograph("launch", graph, *options, "--set", "mode=lossless")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("table: ")] == [
        f"table: {path}" for path in paths[1:]
    ]
    assert paths[0].read_text() == paths[1].read_text()
    assert len(paths[2].read_text().splitlines()) == 5


FACES = "testsrc name=a num_buffers=9 ! haardetect ! emotion name=m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((f"{FACES} ! fakesink", "--table", "/proc/nowhere/out.csv"), "cannot create the folder /proc/nowhere"),
        ((f"{FACES} ! fakesink", "--table", "out.xlsx"), "table: location out.xlsx has unknown suffix '.xlsx'"),
        ((f"{FACES} ! fakesink", "--table", "{room}.csv"), "only {camera} is known"),
        (("testsrc ! haardetect ! fakesink", "--table", "x.csv"), "--table: no node of this graph adds emotions"),
        (
            (
                "testsrc name=a ! haardetect name=f ! emotion ! fakesink  testsrc name=b ! f.  a. ! haardetect ! emotion",
                "--table",
                "x.csv",
            ),
            "no place for it that each frame passes once, those of b too; put a node of type table into the graph",
        ),
        (
            (f"{FACES} ! table location=a.csv  m. ! table location=a.csv",),
            "it would write to 'a.csv', which table0 writes",
        ),
    ],
)
def test_a_table_that_cannot_be_is_one_line_before_the_start(arguments: tuple[str, ...], message: str):
    done = emograph("launch", *arguments)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "captured" not in done.stdout  # nothing ran
    assert "Traceback" not in done.stderr


def test_photographs_of_many_sizes_have_their_faces_by_name_and_in_their_own_pixels(tmp_path: Path):
    """Names that are no UTF-8, and files that are no pictures, are told and passed over."""
    folder, out, truths = tmp_path / "party", tmp_path / "party.csv", {}
    folder.mkdir()
    for number, (name, width, height) in enumerate(
        [("small.png", 320, 240), ("wide.png", 640, 360), ("é.png", 400, 480)]
    ):
        with Harness(TestSrc(width=width, height=height, min_face=0.3, max_face=0.4, seed=number), lossless=True) as h:
            (buffer,) = h.pull(1)
        cv2.imwrite(str(folder / name), buffer.frame)
        truths[name] = buffer.meta["truth"][0]["box"]
    whole = (folder / "wide.png").read_bytes()
    (folder / "a broken one.png").write_bytes(whole[:5000])
    Path(os.fsdecode(os.fsencode(folder) + b"/broken \xff.png")).write_bytes(whole[:5000])
    sets = (f"photos.uri={folder}", f"scores.location={out}", "mood.weights=resnet9-s")
    done = emograph("launch", "configs/graphs/photos.yaml", *(part for s in sets for part in ("--set", s)))
    assert done.returncode == 0, done.stderr
    for name in ("a broken one.png", "broken ?.png"):
        assert f"warning  photos: '{folder}/{name}' is not a picture that can be decoded; skipped" in done.stderr
    table = read(out)
    assert table.picture.tolist() == sorted(truths)
    assert table.label.notna().all()
    for _, row in table.iterrows():
        x, y, width, height = truths[row.picture]
        assert abs(row.x + row.width / 2 - x - width / 2) < width / 6
        assert abs(row.y + row.height / 2 - y - height / 2) < height / 6
