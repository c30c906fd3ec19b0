"""`webview` with real HTTP and WebSocket clients: pictures, events, figures. What viewers cannot do to it is in
test_webview_limits.py."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
import time
from pathlib import Path
from urllib.parse import quote

import cv2
import msgpack
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed

from nodes.webview import WebView, figures
from nodes.webview.pictures import Pictures
from pipeline import Buffer, Harness, Region, UserError
from pipeline.events import decode
from tests.support.command import wait_until
from tests.support.page import (
    a_snapshot,
    ended,
    face,
    frame,
    get,
    listen,
    meanwhile,
    numb,
    pictures,
    supervisor,
    viewing,
)

STATIC = Path(figures.__file__).parent / "static"


# The page and its start ------------------------------------------------------------------------------------


def test_the_page_is_all_here():
    """Every file that a file of the page names is served by the node itself, and none is elsewhere."""
    with viewing() as (_, url):
        waiting, seen = ["/"], set()
        while waiting:
            path = waiting.pop()
            seen.add(path)
            status, _, text = get(url, path)
            assert status == 200, path
            assert "/vendor/" in path or not re.search(r"https?://(?!www\.w3\.org/)", text), path
            found = re.findall(r'(?:src|href)="(/static/[^"]+)"', text)
            found += [f"/static/js/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)]
            waiting += [name for name in found if name not in seen]
    assert {f"/static/{p.relative_to(STATIC)}" for p in STATIC.rglob("*.js")} <= seen


def test_a_port_that_is_taken_is_one_line():
    with viewing() as (_, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            Harness(WebView("page", port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "no..host"])
def test_an_address_that_is_not_here_is_one_line(host: str):
    with pytest.raises(UserError, match=f"cannot listen on {host}:0: "):
        Harness(WebView("page", port=0, host=host, token="long enough"))


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(UserError, match="needs more packages: pip install uvicorn$"):
        Harness(WebView("page", port=0))


def test_it_says_where_the_page_is():
    with viewing() as (h, url):
        assert ("info", f"the page is at {url}") in h.logs
    with viewing(token="long enough") as (h, url):
        assert ("info", f"the page is at {url} (it asks for the token)") in h.logs


@pytest.mark.parametrize("path", ["/events", "/ws/live", "/ws/video"])
def test_it_ends_with_open_viewers(path: str):
    with viewing() as (h, url), listen(url, path) as viewer, numb(url) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\n")  # and does not go on
        h.push(frame(), stream="door", regions=[face()])
        h.close()
        assert not h.node._server.alive
        assert ended(viewer) == 1001


# Pictures --------------------------------------------------------------------------------------------------


def test_one_picture_per_frame_however_many_viewers():
    with viewing(width=64) as (h, url):
        got: list[dict[int, bytes]] = [{} for _ in range(6)]

        def view(seen: dict[int, bytes], size: str) -> None:
            with listen(url, "/ws/video") as viewer:
                viewer.send(json.dumps({"watch": {"door": size}}))
                while len(seen) < 12:
                    viewer.send('{"ready": 1}')
                    for picture, jpeg in pictures(viewer.recv(30)):
                        seen[picture["number"]] = jpeg

        # A frame no wider than a tile is the same picture at both sizes.
        threads = [threading.Thread(target=view, args=(seen, ("tile", "full")[n % 2])) for n, seen in enumerate(got)]
        for thread in threads:
            thread.start()
        pushed = 0
        while any(thread.is_alive() for thread in threads):
            h.push(frame(pushed % 250), stream="door")
            pushed += 1
            time.sleep(0.02)
        assert h.node._pictures.encoded <= pushed
        assert sum(len(seen) for seen in got) > h.node._pictures.encoded
        numbers = set.intersection(*(set(seen) for seen in got))
        assert numbers
        assert all(len({seen[n] for seen in got}) == 1 for n in numbers)


def test_nothing_is_encoded_for_nobody():
    with viewing() as (h, url):
        with listen(url, "/ws/live"), listen(url, "/ws/video") as viewer:
            viewer.send('{"ready": 1}')  # watches nothing
            for _ in range(20):
                h.push(frame(), stream="door")
        assert h.node._pictures.encoded == 0


def test_a_tile_is_small_and_one_alone_is_full_size():
    with viewing(width=64) as (h, url), meanwhile(lambda: h.push(frame(height=120, width=160), stream="door")):
        sizes = {}
        for size in ("tile", "full"):
            with listen(url, "/ws/video") as viewer:
                viewer.send(json.dumps({"watch": {"door": size}, "ready": 1}))
                [(picture, jpeg)] = pictures(viewer.recv(20))
                assert picture["size"] == size
                start = jpeg.index(b"\xff\xc0")  # the JPEG's frame header: height, width
                sizes[size] = int.from_bytes(jpeg[start + 7 : start + 9]), int.from_bytes(jpeg[start + 5 : start + 7])
    assert sizes == {"tile": (64, 48), "full": (160, 120)}


def test_who_opens_the_page_late_sees_the_last_picture():
    with viewing() as (h, url):
        h.push(frame(), stream="door")
        h.mark("status", "door", up=False, reason="unplugged")
        with listen(url, "/ws/video") as viewer:
            viewer.send('{"watch": {"door": "tile", "desk": "tile"}, "ready": 1}')
            assert [p["camera"] for p, _ in pictures(viewer.recv(20))] == ["door"]


def test_a_picture_of_when_somebody_last_looked_is_not_the_present(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.webview.pictures.KEEP_INTERVAL", 0.0)
    encoded = threading.Event()
    shown = Pictures(width=64, quality=80, on_picture=encoded.set)
    try:
        shown.want([("door", "tile")])
        shown.offer("door", frame(), wall=0)
        assert encoded.wait(20)
        assert shown.newest("door", "tile") is not None
        encoded.clear()
        shown.offer("door", frame(), wall=7200 * 10**9)  # nobody looks: it is kept, not encoded
        shown.want([("door", "tile")])
        seen = shown.newest("door", "tile")
        assert seen is None or seen.number == 2
        assert encoded.wait(20)
        seen = shown.newest("door", "tile")
        assert seen is not None
        assert seen.number == 2
    finally:
        shown.close()


def test_a_tile_does_not_take_the_place_of_a_picture_in_full_size(monkeypatch: pytest.MonkeyPatch):
    """It is kept between two of them, and newer than the last."""
    monkeypatch.setattr("nodes.webview.pictures.KEEP_INTERVAL", 0.0)
    shown = Pictures(width=32, quality=80, on_picture=lambda: None)
    try:
        for wall in range(5):
            shown.offer("door", frame(), wall)  # nobody is ready yet
            shown.want([("door", "full")])
            if wall:
                time.sleep(0.05)
            else:
                wait_until(lambda: shown.encoded == 1, "what is kept, for want of anything else")
            assert shown.encoded == 1 + wall
            shown.offer("door", frame(), wall)
            wait_until(lambda wall=wall: shown.encoded == 2 + wall, "the picture")
        seen = shown.newest("door", "full")
        assert seen is not None
        assert cv2.imdecode(np.frombuffer(seen.jpeg, np.uint8), cv2.IMREAD_COLOR).shape == frame().shape
    finally:
        shown.close()


# Events ----------------------------------------------------------------------------------------------------


def test_events_are_those_of_the_protocol():
    with viewing() as (h, url):
        h.push(frame(), stream="door", regions=[face("happy")])
        with listen(url, "/events") as events:
            first = [json.loads(events.recv(20)) for _ in range(3)]
            assert [(e["kind"], e["snapshot"]) for e in first] == [
                ("status", True),
                ("change", True),
                ("observation", True),
            ]
            h.push(frame(), stream="desk", regions=[face("sad", track=7)])
            news = [json.loads(events.recv(20)) for _ in range(3)]
            assert [(e["kind"], e["snapshot"], e["camera"]) for e in news] == [
                ("status", False, "desk"), ("change", False, "desk"), ("observation", False, "desk"),
            ]  # fmt: skip
            assert news[1]["label"] == "sad"
    for event in [*first, *news]:
        assert event.pop("time").endswith("Z")
        topic = f"emotion/{event['camera']}/{event['kind']}".encode()
        assert decode([topic, msgpack.packb(event)])[0].fields["sequence"] == event["sequence"]


def test_events_can_be_narrowed_down():
    with viewing() as (h, url), listen(url, "/events?camera=desk&kind=change&kind=status") as events:
        for _ in range(3):
            h.push(frame(), stream="door", regions=[face()])
            h.push(frame(), stream="desk", regions=[face()])
        h.mark("eos", "desk")
        told = [json.loads(events.recv(20)) for _ in range(4)]
    assert [(e["camera"], e["what"]) for e in told] == [
        ("desk", "up"), ("desk", "appeared"), ("desk", "left"), ("desk", "ended"),
    ]  # fmt: skip


@pytest.mark.parametrize("query", ["camera=nobody", "kind=mood"])
def test_events_of_what_is_not_there_are_refused(query: str):
    with viewing() as (_, url), listen(url, f"/events?{query}") as events:
        with pytest.raises(ConnectionClosed) as end:
            events.recv(20)
        assert end.value.rcvd
        assert query.partition("=")[2] in end.value.rcvd.reason


def test_a_reason_is_cut_to_what_fits():
    with viewing() as (h, url):
        for name in ("é", "😀"):
            with listen(url, f"/events?camera={quote(name * 100)}") as events:
                assert ended(events) == 1008
                assert events.close_reason
                assert events.close_reason.startswith("unknown: " + name)
        assert [text for level, text in h.logs if level != "info"] == []


def test_no_credentials_are_told():
    with viewing() as (h, url), listen(url, "/events") as events:
        h.mark("status", "door", up=False, reason="rtsp://bob:s3cret@10.0.0.5/1?pwd=s3cret: refused")
        text = events.recv(20)
    assert "refused" in text
    assert "s3cret" not in text


# The page's figures and faces ------------------------------------------------------------------------------


def told(viewer, kind: str, test=lambda message: True) -> dict:
    """The next message of a kind on /ws/live that passes a test."""
    while True:
        message = json.loads(viewer.recv(20))
        if message["type"] == kind and test(message):
            return message


def captured_before(h: Harness, seconds: float, camera: str, regions: list[Region], ahead: float = 0) -> Buffer:
    """A frame from some time ago, of a camera whose host's clock is ahead."""
    buffer = h.buffer(frame(), stream=camera, regions=regions)
    buffer.captured -= int(seconds * 1e9)
    buffer.wall += int((ahead - seconds) * 1e9)
    return buffer


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_another_hosts_clock_spoils_no_timeline(ahead: float):
    with viewing() as (h, url):
        for age in range(5, 0, -1):
            h.push_all([captured_before(h, age, "door", [face()]), captured_before(h, age, "desk", [face()], ahead)])
        with listen(url, "/ws/live") as viewer:
            now = told(viewer, "hello")["time"]
            entries = told(viewer, "samples")["entries"]
        assert [entry[1] for entry in entries] == 5 * ["door", "desk"]
        assert all(now - 60_000 < entry[3] <= now for entry in entries)


def test_the_page_is_told_who_is_in_view_and_was():
    with viewing() as (h, url):
        begin = time.time_ns() // 1_000_000
        for age in range(5, 0, -1):
            h.push_all([captured_before(h, age, "door", [face("happy", track=3)])])
        with listen(url, "/ws/live") as viewer:
            hello = told(viewer, "hello")
            assert begin <= hello["time"] <= time.time_ns() // 1_000_000
            assert hello["cameras"] == ["door", "desk"]
            assert hello["colours"]["happy"] == "#ffee55"
            samples = told(viewer, "samples")
            assert samples["labels"] == ["angry", "happy", "neutral"]
            assert [entry[2:3] + entry[4:] for entry in samples["entries"]] == 5 * [[3, "happy", [0.05, 0.75, 0.2]]]
            [seen] = told(viewer, "faces")["cameras"]["door"]["faces"]
            assert (seen["track"], seen["label"], seen["score"]) == (3, "happy", 0.75)
            h.push(frame(), stream="door", regions=[face("angry", track=3)])
            assert told(viewer, "samples")["entries"][0][4] == "angry"
            h.mark("status", "door", up=False, reason="unplugged")
            told(viewer, "faces", lambda message: not message["cameras"])


def test_the_page_is_told_of_the_run(tmp_path: Path):
    snapshots = iter([a_snapshot()] + [a_snapshot(state="STOPPING")] * 10_000)
    with (
        supervisor(tmp_path, lambda: next(snapshots)) as address,
        viewing(monitor=address) as (_, url),
        listen(url, "/ws/live") as viewer,
    ):
        message = told(viewer, "snapshot", lambda m: m["snapshot"] and m["snapshot"]["state"] == "STOPPING")
    assert message["viewers"] == 1
    assert message["drawing"]["place"].keys() == {"door", "faces", "page"}
    assert [link[:2] for link in message["drawing"]["links"]] == [["door", "faces"], ["faces", "page"]]


# For machines ----------------------------------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads(tmp_path: Path):
    with supervisor(tmp_path, a_snapshot) as address, viewing(("door",), address) as (h, url):
        h.push(frame(), stream="door", regions=[face("happy"), face("happy", 2), face(None, 3)])
        wait_until(lambda: get(url, "/healthz")[0] == 200, "a snapshot")
        _, headers, text = get(url, "/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    expected = {
        ("emograph_frames_captured_total", "door"): 12,
        ("emograph_frames_delivered_total", "door"): 9,
        ("emograph_frames_dropped_total", "door", "faces", "late"): 2,
        ("emograph_frames_in_flight", "door"): 1,
        ("emograph_camera_up", "door"): 1,
        ("emograph_frame_latency_seconds", "door", "0.5"): 0.08,
        ("emograph_node_latency_seconds", "faces", "0.95"): 0.04,
        ("emograph_node_buffers_dropped_total", "faces", "late"): 2,
        ("emograph_process_up", "faces"): 1,
        ("emograph_process_restarts_total", "faces"): 0,
        ("emograph_faces_in_view", "door", "happy"): 2,
        ("emograph_faces_in_view", "door", "none"): 1,
        ("emograph_faces_in_view", "door", "angry"): 0,
        ("emograph_faces_in_view", "door", "uncertain"): 0,
        ("emograph_webview_pictures_total",): 0,
        ("emograph_healthy",): 1,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snapshot = a_snapshot()
    with supervisor(tmp_path, lambda: snapshot) as address, viewing(("door",), address) as (_, url):
        wait_until(lambda: get(url, "/healthz")[0] == 200, "a snapshot")
        away = {"up": False, "since": 5, "reason": "unplugged"}
        snapshot["cameras"] = {"door": {**snapshot["cameras"]["door"], **away}}
        wait_until(lambda: "unplugged" in get(url, "/healthz")[2], "the camera's state")
        assert get(url, "/healthz")[0] == 200  # the graph does what it can
        snapshot["processes"] = {
            **snapshot["processes"],
            "faces": {**snapshot["processes"]["faces"], "state": "RESTARTING"},
        }
        wait_until(lambda: get(url, "/healthz")[0] == 503, "the process' state")
        assert json.loads(get(url, "/healthz")[2])["problems"] == ["faces is RESTARTING"]
    monkeypatch.setattr(figures, "STALE_AFTER", 0.2)
    with viewing(("door",)) as (h, url):
        assert json.loads(get(url, "/healthz")[2])["problems"] == ["no figures of the run yet"]
        h.node._server.hub.see(a_snapshot())
        time.sleep(0.3)
        assert get(url, "/healthz")[0] == 503
