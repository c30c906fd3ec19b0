"""table: what is in the rows, that no frame is missing, what a crash leaves, and what is said when it cannot be written."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from nodes import table as module
from nodes.preprocess import LABELS
from nodes.table import COLUMNS, Table
from pipeline import GraphError, Harness, Region, UserError
from pipeline.graph import attach, expand
from pipeline.load import load

HEADER = [*COLUMNS, *LABELS, *(f"raw_{label}" for label in LABELS)]
MS = 1_000_000


def face(label: str = "happy", track: int | None = 1, p: float = 0.7654321, **more: Any) -> Region:
    rest = (1 - p) / 6
    scores = {name: p if name == label else rest for name in LABELS}
    raw = dict.fromkeys(LABELS, 0.0) | {label: 1.0}
    return Region((1.234, 2, 30.5, 40), 9.5, track, label, scores, raw, **more)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def frames(path: Path) -> list[tuple[str, int]]:
    """Camera and number of each row's frame."""
    return [(row["camera"], int(row["frame"])) for row in rows(path)]


# What is in it ---------------------------------------------------------------------------------------------


def test_a_row_for_each_face_and_one_for_a_frame_without(tmp_path: Path):
    path = tmp_path / "new" / "out.csv"
    with Harness(Table(location=str(path)), streams=("door",), clock=0.000_001_5) as h:
        h.push(pts=0)
        h.push(pts=33_366_667, regions=[face(), face("sad", None, attrs={"held": True, "reused": True})])
    assert path.read_text().splitlines()[0] == ",".join(HEADER)
    nobody, first, second = rows(path)
    assert [nobody.pop(name) for name in COLUMNS[:5]] == ["door", "0", "", "0.0", "2023-11-14T22:13:20.000001Z"]
    assert set(nobody.values()) == {""}
    assert [first[name] for name in COLUMNS] == [
        "door", "1", "", "0.033367", "2023-11-14T22:13:20.000001Z", "1", "1.23", "2.0", "30.5", "40.0", "0", "0", "happy", "0.765432",
    ]  # fmt: skip
    assert (first["happy"], first["sad"], first["raw_happy"], first["raw_sad"]) == (
        "0.765432",
        "0.039095",
        "1.0",
        "0.0",
    )
    assert [second[name] for name in ("frame", "track", "held", "reused", "label")] == ["1", "", "1", "1", "sad"]
    assert h.logs == [("info", f"writing {path}"), ("info", f"wrote {path}: 2 faces in 2 frames")]


def test_json_lines_have_the_same_keys_and_real_types(tmp_path: Path):
    path = tmp_path / "out.JSONL"
    with Harness(Table(location=str(path))) as h:
        h.push(pts=0)
        h.push(
            pts=40 * MS, regions=[face(attrs={"held": True, "reused": True}), face(track=np.int64(2), p=float("nan"))]
        )  # type: ignore[arg-type]
    nobody, first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert list(nobody) == list(first) == HEADER
    assert {nobody[name] for name in ("track", "held", "reused", "happy")} == {None}
    assert [first[name] for name in ("time", "track", "held", "reused", "happy")] == [0.04, 1, True, True, 0.765432]
    assert [second[name] for name in ("track", "held", "reused", "happy")] == [2, False, False, None]  # JSON has no NaN


@pytest.mark.parametrize(
    ("suffix", "read"), [("csv", pandas.read_csv), ("jsonl", lambda p: pandas.read_json(p, lines=True))]
)
def test_pandas_reads_it(tmp_path: Path, suffix: str, read: Any):
    path = tmp_path / f"out.{suffix}"
    with Harness(Table(location=str(path)), streams=("door", "desk")) as h:
        for n in range(10):
            h.push(stream="door", pts=n * 100 * MS, regions=[face("happy" if n % 2 else "sad")] if n else [])
            h.push(stream="desk", pts=n * 100 * MS)
    found = read(path)
    assert list(found.columns) == HEADER
    assert len(found) == found.groupby(["camera", "frame"]).ngroups == 20
    faces = found[found.label.notna()]
    assert faces.groupby("label").happy.mean().round(3).to_dict() == {"happy": 0.765, "sad": 0.039}
    assert (faces[list(LABELS)].sum(axis=1) - 1).abs().max() < 1e-5
    assert faces.held.sum() == faces.reused.sum() == 0
    assert pandas.to_datetime(faces.wall).dt.tz is not None


def test_pictures_of_a_folder_are_named(tmp_path: Path):
    path = tmp_path / "out.csv"
    with Harness(Table(location=str(path))) as h:
        h.push(meta={"picture": 'me, "you".jpg'}, regions=[face(), face()])
        h.push(meta={"picture": "nobody.png"})
        h.push(meta={"picture": ["not a name"]})
    assert [row["picture"] for row in rows(path)] == ['me, "you".jpg', 'me, "you".jpg', "nobody.png", ""]


def test_frames_without_a_face_can_be_left_out(tmp_path: Path):
    path = tmp_path / "out.csv"
    with Harness(Table(location=str(path), empty_frames=False)) as h:
        for n in range(4):
            h.push(regions=[face()] if n == 2 else [])
    assert frames(path) == [("camera", 2)]
    assert h.logs[-1][1].endswith("1 face in 4 frames")


def test_a_face_that_nothing_classified_has_its_box(tmp_path: Path):
    path = tmp_path / "out.csv"
    with Harness(Table(location=str(path))) as h:
        h.push(regions=[Region((1, 2, 3, 4), track=7), face()])
    unread, read = rows(path)
    assert (unread["track"], unread["x"], unread["label"], unread["score"], unread["happy"]) == ("7", "1.0", "", "", "")
    assert read["label"] == "happy"


def test_the_score_of_uncertain_is_the_highest_there_is(tmp_path: Path):
    path = tmp_path / "out.csv"
    region = face(p=0.3)
    region.label = "uncertain"
    with Harness(Table(location=str(path))) as h:
        h.push(regions=[region])
    assert (rows(path)[0]["label"], rows(path)[0]["score"]) == ("uncertain", "0.3")


# Labels ----------------------------------------------------------------------------------------------------


def test_other_labels_are_a_setting(tmp_path: Path):
    path = tmp_path / "out.csv"
    odd = {'a "quoted", label': 0.25, "tense": 0.75}
    with Harness(Table(location=str(path), labels=list(odd))) as h:
        h.push()
        h.push(regions=[Region((0, 0, 1, 1), label='a "quoted", label', scores=odd)])
    assert rows(path)[1]['a "quoted", label'] == rows(path)[1]["score"] == "0.25"
    assert rows(path)[1]["raw_tense"] == ""
    assert Table(location="x.csv", labels="calm,tense").props.labels == ["calm", "tense"]  # in a launch string


def test_labels_without_a_column_end_the_graph_with_the_cure(tmp_path: Path):
    with Harness(Table(name="t", location=str(tmp_path / "out.csv"))) as h:
        h.push()
        with pytest.raises(UserError) as error:
            h.push(regions=[Region((0, 0, 1, 1), label="calm", scores={"calm": 0.5, "happy": 0.5})])
    assert str(error.value) == (
        "t: a face of camera has a probability of 'calm', which has no column; set labels: [calm, happy]"
    )


def test_a_stray_label_later_on_is_told_once_and_ends_nothing(tmp_path: Path):
    path = tmp_path / "out.csv"
    with Harness(Table(location=str(path))) as h:
        for label in ("happy", "calm", "calm"):
            h.push(regions=[Region((0, 0, 1, 1), label=label, scores={label: 0.5})])
    assert [row["label"] for row in rows(path)] == ["happy", "calm", "calm"]
    assert [level for level, _ in h.logs].count("error") == 1


@pytest.mark.parametrize("labels", [["track"], ["happy", "happy"], ["happy", "raw_happy"], [""], ["a\nb"]])
def test_labels_that_cannot_be_columns(labels: list[str]):
    with pytest.raises(GraphError, match="labels"):
        Table(location="x.csv", labels=labels)


# Files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "files"),
    [
        ("out.csv", {"out.csv": ["door", "desk", "door"]}),
        ("{camera}.csv", {"door.csv": ["door", "door"], "desk.csv": ["desk"]}),
        ("new/{camera}/a.CSV", {"new/door/a.CSV": ["door", "door"], "new/desk/a.CSV": ["desk"]}),
    ],
)
def test_one_file_for_all_cameras_or_one_for_each(tmp_path: Path, location: str, files: dict[str, list[str]]):
    with Harness(Table(location=str(tmp_path / location)), streams=("door", "desk")) as h:
        assert not [p for p in tmp_path.rglob("*") if p.is_file()], "no file before the first frame"
        for stream in ("door", "desk", "door"):
            h.push(stream=stream)
    found = {
        str(p.relative_to(tmp_path)): [row["camera"] for row in rows(p)] for p in tmp_path.rglob("*") if p.is_file()
    }
    assert found == files


def test_a_frame_is_in_the_file_when_it_was_consumed(tmp_path: Path):
    """Before it counts as delivered: a process that is killed now loses none."""
    path = tmp_path / "out.csv"
    with Harness(Table(location=str(path))) as h:
        for n in range(3):
            h.push(regions=[face()])
            assert frames(path) == [("camera", k) for k in range(n + 1)]


def test_it_is_complete_when_its_last_camera_has_ended(tmp_path: Path):
    path = tmp_path / "out.csv"
    with Harness(Table(location=str(path)), streams=("door", "desk")) as h:
        h.push(stream="door")
        h.mark("eos", stream="door")
        assert len(h.logs) == 1
        h.mark("eos", stream="desk")
        assert h.logs[-1] == ("info", f"wrote {path}: 0 faces in 1 frame")
        h.push(stream="desk")  # its source was started again
    assert frames(path) == [("door", 0), ("desk", 0)]


def test_a_stream_without_a_frame_has_a_table_without_a_row(tmp_path: Path):
    with Harness(Table(location=str(tmp_path / "{camera}.csv")), streams=("door", "desk")) as h:
        h.mark("eos", stream="door")
    assert [path.name for path in tmp_path.iterdir()] == ["door.csv"]  # nobody said that desk had none
    assert pandas.read_csv(tmp_path / "door.csv").columns.tolist() == HEADER


def test_a_table_of_an_earlier_run_is_replaced_by_the_first_frame_and_not_before(tmp_path: Path):
    path = tmp_path / "out.csv"
    path.write_text("x\n" * 100_000)
    Harness(Table(location=str(path))).close()
    assert path.stat().st_size == 200_000
    with Harness(Table(location=str(path))) as h:
        h.push()
    assert frames(path) == [("camera", 0)]


# After a crash ---------------------------------------------------------------------------------------------


def successor(path: Path, monitor: str = "", **properties: Any) -> Harness:
    """The node in the process that takes over; its first frame is number 100."""
    node = Table(location=str(path), **properties)
    node.restarted, node.monitor = True, monitor
    harness = Harness(node)
    harness._sequence["camera"] = 100
    return harness


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("cut", [0, 1, 5, 150])
def test_the_successor_goes_on_behind_the_last_whole_line(tmp_path: Path, suffix: str, cut: int, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 16)
    path = tmp_path / f"out.{suffix}"
    with Harness(Table(location=str(path), overwrite=False)) as h:
        for _ in range(3):
            h.push(regions=[face()])
    whole = path.read_bytes()
    os.truncate(path, len(whole) - cut)
    with successor(path, overwrite=False) as h:
        for _ in range(2):
            h.push(regions=[face()])
    if suffix == "csv":
        numbers = [n for _, n in frames(path)]
        assert path.read_text().count("camera,frame") == 1
    else:
        numbers = [json.loads(line)["frame"] for line in path.read_text().splitlines()]
    assert numbers == [*range(3 if not cut else 2), 100, 101]
    assert [text for level, text in h.logs if level == "warning"] == (
        [f"{path} ended in half a line, which is cut off"] if cut else []
    )
    assert h.logs[0] == ("info", f"going on with {path}")
    assert h.logs[-1] == ("info", f"added to {path}: 2 faces in 2 frames")


@pytest.mark.parametrize("there", ["", "camera,fra"])
def test_the_successor_of_one_that_did_not_get_to_the_header(tmp_path: Path, there: str):
    path = tmp_path / "out.csv"
    path.write_text(there)
    with successor(path) as h:
        h.push()
    assert frames(path) == [("camera", 100)]


def test_a_successor_adds_nothing_to_the_table_of_an_earlier_run(tmp_path: Path):
    """Its predecessor may have died before its first frame; what is there is then an earlier run's, to be replaced."""
    path, monitor = tmp_path / "out.csv", f"ipc://{tmp_path}/run/monitor"
    (tmp_path / "run").mkdir()
    with Harness(Table(location=str(path))) as h:
        h.push()
    for expected in ([100], [100, 100]):
        with successor(path, monitor) as h:
            h.push()
        assert [n for _, n in frames(path)] == expected


# Errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({"location": "{tmp}/out"}, "no suffix; known: .csv, .jsonl"),
        ({"location": "{tmp}/out.json"}, "unknown suffix '.json'; did you mean '.jsonl'?"),
        ({"location": "{tmp}/out.xlsx"}, "unknown suffix '.xlsx'; known: .csv, .jsonl"),
        ({"location": "{tmp}/{{cam}}.csv"}, "names {cam}; only {camera} is known"),
        ({"location": "{tmp}/folder.csv"}, "is a folder"),
        ({"location": "{tmp}/null.csv"}, "null.csv is no ordinary file"),
        ({"location": "{tmp}/there.csv", "overwrite": False}, "there.csv is there already, and overwrite is false"),
        ({"location": "{tmp}/there.csv/out.csv"}, "cannot create the folder"),
        ({"location": "/proc/nowhere/out.csv"}, "cannot create the folder /proc/nowhere: No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_start(tmp_path: Path, props: dict, message: str):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "there.csv").write_text("x")
    (tmp_path / "null.csv").symlink_to("/dev/null")
    props = {**props, "location": props["location"].format(tmp=tmp_path)}
    with pytest.raises(UserError) as error:
        Harness(Table(**props))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Harness]:
    with Harness(Table(location=str(tmp_path / "out.csv"))) as harness:
        (tmp_path / "out.csv").symlink_to("/dev/full")  # only now: no device is taken from the start
        yield harness


def test_a_full_disk_is_one_line(full: Harness, tmp_path: Path):
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/out.csv: No space left on device$"):
        full.push()
    assert full.logs == [], "nothing claims that it was written"


LIMITED = """
import resource, sys
from nodes.table import Table
from pipeline import Harness, UserError
from tests.nodes.test_table import face
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    with Harness(Table(location=sys.argv[1])) as h:
        while True:
            h.push(regions=[face(), face()])
except UserError as error:
    sys.exit(f"{error} {h.logs}")
"""


def test_a_disk_that_fills_up_leaves_whole_frames(tmp_path: Path):
    path, root = tmp_path / "out.csv", Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == f"cannot write {path}: File too large [('info', 'writing {path}')]"
    numbers = [n for _, n in frames(path)]
    assert numbers == [n for n in range(len(numbers) // 2) for _ in range(2)]
    assert len(numbers) >= 4
    assert path.read_bytes().endswith(b"\n")


def test_two_writers_of_one_file_are_an_error(tmp_path: Path):
    path = tmp_path / "out.csv"
    with Harness(Table(location=str(path))) as one, Harness(Table(location=str(path))) as other:
        one.push()
        with pytest.raises(UserError, match="is being written by another node"):
            other.push()
    assert frames(path) == [("camera", 0)]


# In a graph ------------------------------------------------------------------------------------------------

FACES = "testsrc name=a ! haardetect ! emotion name=m"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("testsrc ! haardetect ! table location=x.csv", r"meta=emotions \(no node upstream adds 'emotions'\)"),
        (f"{FACES} ! table name=t location=x.txt", "t: location x.txt has unknown suffix '.txt'; known: .csv, .jsonl"),
        (
            f"{FACES} ! table location=x.csv  m. ! table name=u location=./x.csv",
            "u: it would write to 'x.csv', which table0",
        ),
        (
            f"{FACES} ! table location={{camera}}.csv  m. ! table name=u location=a.csv",
            "u: it would write to 'a.csv', which",
        ),
        (f"{FACES} ! table location=x.csv empty_frame=no", "did you mean 'empty_frames'"),
    ],
)
def test_what_a_check_finds(graph: str, message: str):
    with pytest.raises(GraphError, match=message):
        expand(load(graph))


def test_it_looks_at_no_pixels():
    plan = expand(load(f"{FACES} ! table location=x.csv"))
    alone = expand(load("testsrc name=a ! haardetect ! emotion ! fakesink"))
    assert Table.sink is not None
    assert Table.sink.access == "none"
    assert plan.planes == alone.planes


def test_the_option_puts_it_behind_what_classifies_beside_those_that_are_there():
    spec = load(f"{FACES} ! fakesink")
    attach(spec, "table", {"location": "out.csv"})
    assert [(link.source, link.target) for link in spec.links][-1] == ("m", "table")
    spec = load(f"{FACES} ! table name=table location=a.csv empty_frames=false  m. ! fakesink process=table2")
    for location in ("b.csv", "c.csv"):
        attach(spec, "table", {"location": location})
    assert {node.name: node.properties for node in spec.nodes.values() if node.type == "table"} == {
        "table": {"location": "a.csv", "empty_frames": False},
        "table3": {"location": "b.csv"},
        "table4": {"location": "c.csv"},
    }
    assert expand(spec).processes.keys() >= {"table", "table2", "table3", "table4"}


def test_the_option_names_itself_where_its_file_is_taken():
    spec = load(f"{FACES} ! table name=mine location=a.csv")
    attach(spec, "table", {"location": "a.csv"})
    with pytest.raises(GraphError, match=r"^--table: table: it would write to 'a.csv', which mine writes$"):
        expand(spec)


def test_the_page_explains_every_column():
    page = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()
    section = re.split(r"^## ", page, flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith("The table")]
    assert [name for name in (*COLUMNS, "raw_") if f"`{name}" not in text] == []


def test_the_option_takes_each_camera_once_where_several_nodes_classify_it():
    spec = load(
        "testsrc name=a ! haardetect name=d ! emotion name=m ! fakesink  d. ! emotion name=k ! fakesink"
        "  testsrc name=b ! haardetect ! emotion name=l ! fakesink"
    )
    attach(spec, "table", {"location": "out.csv"})
    links = [(link.source, link.target) for link in spec.links if link.target == "table"]
    assert links in ([("m", "table"), ("l", "table")], [("k", "table"), ("l", "table")])
    assert expand(spec).nodes["table"].streams == ["a", "b"]


def test_two_ways_to_one_file_that_is_not_there_yet(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    graph = (
        f"testsrc ! haardetect ! emotion name=m ! table location={tmp_path}/real/x.csv"
        f"  m. ! table name=u location={tmp_path}/link/x.csv"
    )
    with pytest.raises(GraphError, match=r"u: it would write to '.*link/x.csv', which table0 writes"):
        expand(load(graph))


def test_the_graph_file_is_not_written_over(tmp_path: Path):
    file = tmp_path / "g.yaml"
    file.write_text(
        "nodes:\n  a: {type: testsrc}\n  d: {type: haardetect}\n  m: {type: emotion}\n"
        f"  t: {{type: table, location: {tmp_path}/out.csv}}\nlinks: [a ! d ! m ! t]\n"
    )
    (tmp_path / "out.csv").symlink_to(file)
    with pytest.raises(GraphError, match=r"t: it would write to '.*out.csv', which is the graph file"):
        expand(load(str(file)))
