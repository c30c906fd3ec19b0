"""A snapshot in rows: what is left out where there is little room, and what never reaches a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import status
from pipeline.status import Column, Table, allot
from pipeline.top import render

METRIC = {"mean": 1.0, "p50": 80.4, "p95": 120.0, "max": 130.0, "per_s": 10.0}


def snapshot(cameras: int = 2, **camera: Any) -> dict[str, Any]:
    one = {
        "captured": 100, "delivered": 90, "in_flight": 2, "capture_fps": 15.0, "fps": 14.5, "latency_ms": METRIC,
        "dropped": [{"node": "door", "reason": "window full", "count": 7}, {"node": "draw", "reason": "late", "count": 1}],
        "up": True, "since": 1, "reason": "", "ended": False, **camera,
    }  # fmt: skip
    node = {
        "type": "emotion", "kind": "batch", "process": "mood", "base": "mood", "settings": {}, "streams": [], "links": [],
        "in": 1, "out": 1, "dropped": {"late": 3}, "in_fps": 30.0, "fps": 29.0, "busy": 0.27,
        "metrics": {"work_ms": METRIC, "wait_ms": METRIC, "batch_items": METRIC},
    }  # fmt: skip
    process = {"nodes": ["mood"], "pid": 17, "state": "PLAYING", "restarts": 0, "cpu": 0.25, "rss_mb": 344.0}
    message = {"time": 10**18, "level": "warning", "node": "mood", "text": "hello"}
    return {
        "v": 1, "graph": "demo", "mode": "live", "latency_budget_ms": 500.0, "pid": 1, "time": 63 * 10**9, "uptime_s": 3723.5,
        "state": "PLAYING", "cameras": {f"cam{i}": one for i in range(cameras)}, "nodes": {"mood": node},
        "processes": {"mood": process, "both": {**process, "nodes": ["draw", "film"], "pid": None}},
        "messages": [message] * 20, "errors": [], "garbage": 2,
    }  # fmt: skip


def row(table: Table, index: int = 0) -> dict[str, str]:
    return dict(zip(table.head, table.rows[index], strict=True))


def test_headline():
    assert status.headline(snapshot()).plain == "demo  PLAYING  1:02:03  live  budget 500 ms  process 1  garbage 2"


@pytest.mark.parametrize(
    ("camera", "state", "why"),
    [
        ({}, "up", "window full 7 (door), late 1 (draw)"),
        ({"up": False, "since": 10**9, "reason": "no answer"}, "down 0:01:02", "no answer; window full 7 (door), late 1 (draw)"),
        ({"up": False, "since": 0, "reason": "starting"}, "starting", "window full 7 (door), late 1 (draw)"),
        ({"ended": True, "dropped": []}, "ended", ""),
    ],
)  # fmt: skip
def test_a_camera(camera: dict[str, Any], state: str, why: str):
    found = row(status.camera_table(snapshot(**camera)))
    assert (found["state"], found["why"]) == (state, why)
    assert found["dropped"] == ("0" if camera.get("ended") else "8")
    assert (found["latency p50"], found["p95"], found["fps"]) == ("80 ms", "120 ms", "14.5")


def test_a_node_and_a_process():
    assert list(row(status.node_table(snapshot())).values()) == [
        "mood", "emotion", "30.0", "29.0", "80.4 ms", "120.0 ms", "27%", "80.4 ms", "1.0", "late 3",
    ]  # fmt: skip
    table = status.process_table(snapshot())
    assert list(row(table).values()) == ["mood", "PLAYING", "0", "25%", "344 MB", "17", ""]
    assert list(row(table, 1).values())[-2:] == ["-", "draw, film"]


def test_nothing_of_a_snapshot_commands_the_terminal():
    bad = snapshot()
    evil = "\x1b[2Jx\r\n\x07\u202e"
    bad |= {"graph": evil, "messages": [{"time": 1, "level": evil, "node": evil, "text": evil}]}
    bad["cameras"] = {evil: {**bad["cameras"]["cam0"], "up": False, "since": 1, "reason": evil}}
    bad["nodes"] = {evil: {**bad["nodes"]["mood"], "type": evil, "dropped": {evil: 1}}}
    bad["processes"] = {evil: {**bad["processes"]["both"], "state": evil}}
    for line in render(bad, 300, 60):
        assert all(c.isprintable() for c in line.plain), line.plain
        assert line.plain.count("[2Jx") == 0 or "?[2Jx" in line.plain


@pytest.mark.parametrize("width", [1, 5, 20, 40, 80, 132, 300])
@pytest.mark.parametrize("height", [1, 2, 3, 8, 24, 100])
def test_what_is_drawn_fits(width: int, height: int):
    lines = render(snapshot(30), width, height)
    assert 0 < len(lines) <= height
    assert all(line.cell_len <= width for line in lines)


def test_wide_characters_count_twice():
    table = Table([Column("name", left=True), Column("n")])
    table.add("", "日本語", "1")
    assert [line.plain for line in table.lines(80, 9)] == ["name    n", "日本語  1"]


def test_narrow_tables_lose_the_less_important_columns_and_rows():
    table = Table([Column("name", left=True), Column("a", 2), Column("b", 1), Column("why", 3, left=True)])
    for index in range(5):
        table.add("", f"n{index}", "1", "2", "a long story")
    assert table.lines(80, 9)[1].plain == "n0    1  2  a long story"
    assert table.lines(22, 9)[0].plain == "name  a  b"
    assert table.lines(9, 9)[0].plain == "name  b"
    assert [line.plain for line in table.lines(80, 4)][2:] == ["n1    1  2  a long story", "… 3 more"]


def test_room_is_given_to_the_first_but_all_get_some():
    assert allot([30, 30, 30], 100, least=4) == [30, 30, 30]
    assert allot([30, 30, 30], 40, least=4) == [30, 6, 4]
    assert allot([30, 30, 30], 9, least=4) == [5, 4, 0]
    assert allot([3, 0, 30], 9, least=4) == [3, 0, 6]
    assert allot([], 9) == []
