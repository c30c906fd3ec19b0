"""The report: right figures, complete times, nothing that a name could smuggle in, nothing that needs a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from nodes.report import Report
from nodes.report.page import Facts, clock, render
from nodes.report.timeline import LEFT, WIDTH, axis, lanes
from nodes.report.tracks import BINS, Camera, Track
from pipeline import GraphError, Harness, Region, UserError
from pipeline.graph import attach, expand
from pipeline.load import load

FRAME = np.zeros((48, 64, 3), np.uint8)


def face(label: str | None = "happy", track: int | None = 1, patch: np.ndarray | None = None) -> Region:
    scores = {"happy": 0.1, "sad": 0.1, "neutral": 0.1} | ({label: 0.8} if label else {})
    return Region((1, 2, 30, 30), track=track, label=label, scores=scores if label else None, patch=patch)


def seen(*labels: str | None, fps: float = 10, track: int | None = 1, name: str = "door") -> Camera:
    camera = Camera(name)
    for number, label in enumerate(labels):
        camera.add(number / fps, [face(label, track)])
    return camera


def page(*cameras: Camera, account: dict[str, Any] | None = None, restarted: bool = False) -> str:
    return render(Facts(list(cameras), 10**18, True, restarted, account))


def cells(html: str) -> list[list[str]]:
    """The rows of all tables, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", "", c).strip() for c in re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL)] for row in rows
    ]


# What is counted ------------------------------------------------------------------------------------------------


def test_shares_are_of_frames_and_exact():
    html = page(seen(*["happy"] * 6, *["sad"] * 3, "neutral"))
    head, track, everything = cells(html)[:3]
    assert head == ["track", "from", "to", "frames", "", "happy", "sad", "neutral"]
    assert track == ["#1", "0:00.0", "0:00.9", "10", "", "60 %", "30 %", "10 %"]
    assert everything[-3:] == ["60 %", "30 %", "10 %"]


def test_long_tracks_keep_their_shares_in_bounded_memory():
    camera = Camera("door")
    for number in range(40_000):  # more than an hour at 10 frames/s
        camera.add(number / 10, [face("happy" if number % 4 else "sad")])
    track = camera.tracks[1]
    assert len(track.bins) <= BINS
    assert track.labels == {"happy": 30_000, "sad": 10_000}
    assert sum(b.frames for b in track.bins.values()) == 40_000
    assert sum(b.labels["sad"] for b in track.bins.values()) == 10_000
    assert (track.first, track.last) == (0, 3999.9)


def test_a_crowd_is_counted_in_bounded_memory():
    camera = Camera("door")
    for second in range(3000):  # one visitor a second, each for three frames; one who stays
        label = "happy" if second % 3 else "sad"
        for part in range(3):
            camera.add(second + part / 3, [face(label, track=second + 2), face("neutral", track=1)])
    assert len(camera.tracks) <= 240
    assert camera.others + len(camera.tracks) == 3001
    assert camera.labels == {"happy": 6000, "sad": 3000, "neutral": 9000}
    assert camera.tracks[1].frames == 9000
    text = page(camera)
    assert "2941 shorter tracks are part of" in text
    assert ", 3001 tracks.</p>" in text


def test_the_timeline_has_every_stretch_at_its_time():
    camera = seen(*["happy"] * 40, *["sad"] * 60)
    [lane] = lanes(list(camera.tracks.values()), camera, ["happy", "sad", "neutral"], lambda n: n, lambda n: n)
    assert [s.label for s in lane.segments] == ["happy", "sad"]
    assert lane.segments[0].end == lane.segments[1].begin == pytest.approx(4.0, abs=0.11)
    assert lane.segments[0].x == LEFT
    assert lane.segments[1].x + lane.segments[1].width == pytest.approx(LEFT + WIDTH, abs=2)
    assert lane.segments[0].text == "happy"
    assert {label for _, label, _ in lane.bands} == {"happy", "sad", "neutral"}


def test_the_last_of_single_pictures_is_as_wide_as_the_others():
    camera = Camera("photos")
    for number in range(8):
        camera.add(number, [face("happy", track=number + 1)])
    found = [s for lane in lanes(list(camera.tracks.values()), camera, ["happy"], str, str) for s in lane.segments]
    assert len(found) == 8
    assert found[0].width > 3
    assert [s.width for s in found] == pytest.approx([found[0].width] * 8, abs=0.2)
    assert found[-1].x + found[-1].width <= LEFT + WIDTH
    assert page(camera).count("1 frame<") == 8


def test_a_face_that_was_away_leaves_a_gap():
    camera = Camera("door")
    for at in (0.0, 0.1, 0.2, 9.8, 9.9):
        camera.add(at, [face()])
    [lane] = lanes(list(camera.tracks.values()), camera, ["happy"], lambda n: n, lambda n: n)
    first, second = lane.segments
    assert first.end < 0.5
    assert second.begin == pytest.approx(9.8, abs=0.11)


@pytest.mark.parametrize("length", [0, 0.5, 9, 59, 61, 3600, 86400, 10**6])
def test_the_axis_has_marks_for_any_length(length: float):
    camera = Camera("door", first=5, last=5 + length)
    marks = axis(camera)
    assert 1 <= len(marks) <= 12
    assert all(LEFT <= x <= LEFT + WIDTH + 0.1 for x, _ in marks)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (7.46, "0:07.5"), (59.96, "1:00.0"), (3723.04, "1:02:03.0")]
)
def test_times_are_readable(seconds: float, text: str):
    assert clock(seconds) == text


# The page ---------------------------------------------------------------------------------------------------------


def account(**changes: Any) -> dict[str, Any]:
    node = {"type": "capture", "process": "door", "settings": {"uri": "rtsp://***@host/", "fps": 10}}
    return {
        "graph": "lobby", "mode": "lossless", "latency_budget_ms": 250.0, "uptime_s": 12.0,
        "cameras": {"door": {"captured": 12, "delivered": 9, "in_flight": 1,
                             "dropped": [{"node": "draw", "reason": "late", "count": 2}]}},
        "nodes": {"door": node}, "processes": {"door": {"restarts": 3}},
        "messages": [{"time": 10**18, "level": "warning", "node": "door", "text": "down: no answer"},
                     {"time": 10**18, "level": "info", "node": "door", "text": "an info"}], **changes,
    }  # fmt: skip


def test_ledger_settings_and_warnings():
    html = page(seen("happy"), account=account())
    assert ["door", "12", "9", "2", "1", "late 2 (draw)"] in cells(html)
    assert ["door", "capture", "uri: rtsp://***@host/, fps: 10", "3"] in cells(html)
    assert "down: no answer" in html
    assert "an info" not in html


EVIL = "<script>alert(1)</script>\"'&"


def test_no_name_becomes_markup():
    camera = Camera(EVIL)
    camera.add(0, [Region((0, 0, 1, 1), track=1, label=EVIL, scores={EVIL: 1.0, "</title>": 0.5})])
    node = {"type": EVIL, "process": "p", "settings": {EVIL: EVIL}}
    evil = account(
        graph=EVIL, nodes={EVIL: node}, processes={"p": {"restarts": 0}},
        cameras={EVIL: {**account()["cameras"]["door"], "dropped": [{"node": EVIL, "reason": EVIL, "count": 1}]}},
        messages=[{"time": 0, "level": "error", "node": EVIL, "text": EVIL}],
    )  # fmt: skip
    html = page(camera, account=evil)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("</title>") == html.count("<title>")


def test_the_page_stands_alone_and_is_well_formed():
    html = page(seen("happy", "sad", None), Camera("empty"), account=account())
    assert not re.search(r"https?:|src=\"(?!data:)|href=|@import|<script|url\(", html)
    assert "default-src 'none'" in html
    body = html[html.index("<body>") : html.index("</body>") + 7]
    ElementTree.fromstring(body.replace("&nbsp;", " "))
    assert "0 frames, no face." in html


def test_faces_without_track_or_label():
    html = page(seen(None, "happy", track=None))
    rows = cells(html)
    assert rows[1][0] == "no track"
    assert rows[1][3] == "2"
    assert "<svg" not in html  # no track, no lane


def test_only_the_longest_tracks_are_listed():
    camera = Camera("door")
    for number in range(70):
        camera.add(number, [face(track=number)])
    html = page(camera)
    assert "10 shorter tracks are part of" in html


# The node ---------------------------------------------------------------------------------------------------------


def run(path: Path, regions: list[Region], **properties: Any) -> str:
    with Harness(Report(location=str(path), **properties), streams=("door", "desk")) as harness:
        for number in range(5):
            harness.push(FRAME, stream="door", regions=regions, pts=number * 10**9)
        assert not path.exists()
    return path.read_text()


def test_it_writes_when_it_closes(tmp_path: Path):
    html = run(tmp_path / "new" / "out.html", [face()])
    assert "<h2>door</h2>" in html
    assert "<h2>desk</h2>" in html
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.html"]


def test_a_live_axis_is_by_this_hosts_clock(tmp_path: Path):
    with Harness(Report(location=str(tmp_path / "out.html")), streams=("door", "desk")) as harness:
        for _ in range(6):
            harness.clock += 1
            for camera, ahead in (("door", 0), ("desk", -3600)):
                buffer = harness.buffer(FRAME, stream=camera, regions=[face()])
                buffer.wall += ahead * 10**9
                harness.push_all([buffer])
    html = (tmp_path / "out.html").read_text()
    assert html.count("6 frames from 0:01.0 to 0:06.0 after the start") == 2


def test_pictures_of_faces_only_if_asked(tmp_path: Path):
    patch = np.full((48, 48), 77, np.uint8)
    assert "data:image" not in run(tmp_path / "a.html", [face(patch=patch)])
    html = run(tmp_path / "b.html", [face(patch=patch)], thumbnails=True)
    assert html.count("data:image/png;base64,") == 1
    assert "data:image" not in run(tmp_path / "c.html", [face()], thumbnails=True)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/out.html", "cannot create the folder .*/file: File exists"),
        ("folder", "location .*/folder is a folder"),
        (300 * "x" + ".html", "cannot write .*x.html: File name too long"),
    ],
)
def test_what_is_no_place_for_a_report_is_told_before_the_start(tmp_path: Path, place: str, message: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=message):
        Harness(Report(location=str(tmp_path / place)))


def test_a_track_keeps_the_clearest_picture():
    track = Track(1)
    dull, clear = np.zeros((4, 4), np.uint8), np.full((4, 4), 9, np.uint8)
    track.add(0, Region((0, 0, 1, 1), label="sad", scores={"sad": 0.5}, patch=dull), True)
    track.add(1, Region((0, 0, 1, 1), label="sad", scores={"sad": 0.9}, patch=clear), True)
    track.add(2, Region((0, 0, 1, 1), label="sad", scores={"sad": 0.6}, patch=dull), True)
    assert track.patch is not None
    assert track.patch.max() == 9


# --report: where it is put ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "links"),
    [
        ("testsrc ! haardetect ! emotion name=m ! fakesink", ["m"]),
        ("testsrc ! haardetect ! emotion name=m ! overlay ! videosink location=x.mp4  m. ! publish", ["m"]),
        ("receive name=r endpoint=tcp://127.0.0.1:1 ! fakesink", ["r"]),
        ("testsrc ! haardetect ! emotion name=a ! emotion name=b ! fakesink", ["a"]),
        ("testsrc ! haardetect ! emotion name=a ! fakesink  testsrc ! haardetect ! emotion name=b ! fakesink", ["a", "b"]),
        ("testsrc ! haardetect name=f ! emotion name=a ! fakesink  f. ! emotion name=b ! fakesink", ["a"]),
        ("testsrc ! haardetect ! emotion name=m", ["m"]),
        ("testsrc ! haardetect ! emotion ! overlay name=o", ["o"]),
        ("testsrc ! haardetect ! emotion name=m ! publish  m. ! overlay name=o", ["o"]),
        ("testsrc ! haardetect ! emotion name=a  testsrc ! haardetect ! emotion name=b ! fakesink", ["a", "b"]),
        ("testsrc ! haardetect name=f ! emotion name=a ! fakesink  f. ! emotion name=b", ["b"]),
    ],
)  # fmt: skip
def test_it_is_put_behind_what_classifies(graph: str, links: list[str]):
    spec = load(graph)
    attach(spec, "report", {"location": "out.html"})
    assert [link.source for link in spec.links if link.target == "report"] == links
    plan = expand(spec)
    assert plan.nodes["report"].streams == plan.sources
    assert plan.nodes["report"].properties == {"location": "out.html"}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("testsrc ! haardetect ! emotion  testsrc ! haardetect name=d", "d: its src pad is not linked"),
        ("testsrc ! haardetect ! emotion name=m ! overlay  m. ! overlay", "overlay1: its src pad is not linked"),
        ("testsrc ! haardetect ! emotion ! fakesink  emotion name=e", "e: its sink pad is not linked"),
    ],
)
def test_it_is_the_link_of_one_node_that_has_none(graph: str, message: str):
    spec = load(graph)
    attach(spec, "report", {"location": "out.html"})
    with pytest.raises(GraphError, match=message):
        expand(spec)


def test_a_report_that_is_there_stays():
    spec = load("testsrc ! haardetect ! emotion ! report name=mine location=a.html thumbnails=true")
    attach(spec, "report", {"location": "b.html"})
    assert spec.nodes["mine"].properties == {"location": "a.html", "thumbnails": True}
    assert spec.nodes["report"].properties == {"location": "b.html"}


def test_a_graph_without_expressions_has_no_report():
    with pytest.raises(GraphError, match="no node of this graph adds emotions"):
        attach(load("testsrc ! haardetect ! fakesink"), "report", {"location": "x.html"})


def test_a_name_that_is_taken():
    spec = load("testsrc name=report ! haardetect ! emotion ! fakesink")
    attach(spec, "report", {"location": "x.html"})
    assert spec.nodes["report2"].type == "report"
