"""capture against a real HTTP camera (tests/servers/http_server.py), in a process of its own on loopback."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from nodes.capture import Capture
from nodes.capture.uri import parse
from nodes.capture.why import has_end
from pipeline.errors import UserError
from pipeline.harness import Harness
from pipeline.node import VideoInfo
from tests.nodes.films import assert_rising, film, grey, number
from tests.servers import Playing, Server


@pytest.fixture
def camera() -> Iterator[Server]:
    with Server("http_server.py") as server:
        yield server


def harness(server: Server, path: str, login: str = "", **properties: object) -> Harness:
    uri = f"http://{login}127.0.0.1:{server.port}/{path}"
    return Harness(Capture("door", uri=uri, **properties), clock=time.monotonic())


def test_motion_jpeg(camera: Server) -> None:
    h = harness(camera, "stream")
    with Playing(h) as playing:
        playing.frames(20)
    assert h.node.live
    assert h.info is not None
    assert (h.info.height, h.info.width, h.info.fps) == (120, 160, 0)  # FFmpeg's 25 is made up
    levels = [round(float(b.frame.mean()) / 8) for b in playing.buffers]
    assert levels[:20] == list(range(20))
    assert_rising([b.pts for b in playing.buffers])
    assert h.statuses == []


def test_fps_limit_of_a_live_stream(camera: Server) -> None:
    h = harness(camera, "stream", fps=5)
    with Playing(h) as playing:
        playing.frames(4)
    slots = [b.pts // 200_000_000 for b in playing.buffers[:4]]
    assert slots == sorted(set(slots))  # at most one in each fifth of a second


def test_damaged_parts_are_passed_over(camera: Server) -> None:
    h = harness(camera, "damaged")
    with Playing(h) as playing:
        playing.frames(12)
    levels = [round(float(b.frame.mean()) / 8) for b in playing.buffers]
    assert levels[:12] == [n for n in range(15) if n % 5 != 4]
    assert h.statuses == []


def test_server_restarted_in_the_middle(camera: Server, capfd: pytest.CaptureFixture[str]) -> None:
    h = harness(camera, "stream")
    with Playing(h) as playing:
        playing.frames(5)
        camera.stop()
        playing.until(lambda: h.statuses != [])
        camera.start("--width", "80", "--height", "60")
        playing.until(lambda: h.statuses[-1:] == [(True, "")])
        playing.frames(5)
    assert h.statuses[0] == (False, "the stream ended")
    assert playing.buffers[-1].frame.shape == (120, 160, 3)
    assert_rising([b.pts for b in playing.buffers])
    assert capfd.readouterr() == ("", "")


def test_frozen_camera_is_left_and_reached_again(camera: Server) -> None:
    h = harness(camera, "frozen", timeout="500ms")
    with Playing(h) as playing:
        playing.until(lambda: h.statuses[-1:] == [(True, "")])
        playing.frames(5)
    assert h.statuses[0] == (False, "no frame for 0.5 s")
    assert len(playing.buffers) >= 25


def test_stop_while_a_frame_is_awaited(camera: Server) -> None:
    h = harness(camera, "frozen", timeout="1h")
    with Playing(h) as playing:
        playing.until(lambda: len(playing.buffers) == 20)
    assert playing.ended()
    assert h.statuses == []


def test_stop_while_the_camera_is_away(camera: Server) -> None:
    h = harness(camera, "stream", timeout="1h")
    with Playing(h) as playing:
        playing.frames(1)
        camera.stop()
        playing.until(lambda: h.statuses != [])
    assert playing.ended()
    camera.start()  # for the fixture to stop


def test_each_reason_of_an_absence_is_told_once(camera: Server) -> None:
    h = harness(camera, "stream")
    gone, silent = (False, "the stream ended"), (False, f"nothing listens on 127.0.0.1:{camera.port}")
    with Playing(h) as playing:
        for _ in range(2):
            told = len(h.statuses)
            playing.frames(3)
            camera.stop()
            playing.until(lambda: sum("still away" in text for _, text in h.logs) >= 2)
            h.logs.clear()
            camera.start()
            playing.until(lambda: h.statuses[-1:] == [(True, "")])
            assert h.statuses[told:] == [gone, silent, (True, "")]


def test_camera_that_is_away_when_its_process_is_started_again(camera: Server) -> None:
    """Its neighbours are not kept waiting, and its frames have the size that they had."""
    camera.stop()
    node = Capture("door", uri=f"http://127.0.0.1:{camera.port}/stream")
    node.restarted, node.live, node.shape_before = True, True, (60, 60, 3)
    h = Harness(node, lossless=True)
    assert h.info == VideoInfo(60, 60, 3, 0.0)
    with Playing(h) as playing:
        playing.until(lambda: h.statuses != [])
        camera.start()
        playing.frames(3)
    assert h.statuses == [(False, f"nothing listens on 127.0.0.1:{camera.port}"), (True, "")]
    assert {b.frame.shape for b in playing.buffers} == {(60, 60, 3)}
    assert playing.buffers[2].frame[30].any()
    assert not playing.buffers[2].frame[:5].any()  # it is of another shape now: with borders


def test_camera_that_shall_not_come_back_is_waited_for_when_its_process_is_started_again(camera: Server) -> None:
    camera.stop()
    node = Capture("door", uri=f"http://127.0.0.1:{camera.port}/stream", reconnect=False)
    node.restarted, node.live, node.shape_before = True, True, (60, 60, 3)
    with pytest.raises(UserError, match="nothing listens on"):
        Harness(node, lossless=True)
    camera.start()  # for the fixture to stop


def test_camera_that_is_away_at_the_start_joins(camera: Server, capfd: pytest.CaptureFixture[str]) -> None:
    camera.stop()
    h = harness(camera, "secret", "user:password@", required=False, width=80, height=60)
    assert h.info == VideoInfo(60, 80, 3, 0.0)
    with Playing(h) as playing:
        playing.until(lambda: h.statuses != [])
        camera.start()
        playing.frames(5)
    assert h.statuses == [(False, f"nothing listens on 127.0.0.1:{camera.port}"), (True, "")]
    assert {b.frame.shape for b in playing.buffers} == {(60, 80, 3)}
    assert [round(float(b.frame.mean()) / 8) for b in playing.buffers[:5]] == list(range(5))
    assert playing.buffers[0].pts == 0
    assert_rising([b.pts for b in playing.buffers])
    assert "password" not in str(h.logs)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (
            "secret",
            "wants a user and password (401), and gives no video for those given: are they right, and the path?",
        ),
        ("nothing-here", "has nothing at this path (404)"),
    ],
)
def test_what_somebody_may_mend_at_the_camera_is_waited_for(camera: Server, path: str, reason: str) -> None:
    camera.stop()
    h = harness(camera, path, "user:wrongword@", required=False, width=80, height=60)
    with Playing(h) as playing:
        playing.until(lambda: h.statuses != [])
        camera.start()  # it was off, and there is something else
        playing.until(lambda: len(h.statuses) == 2)
    where = f"127.0.0.1:{camera.port}"
    assert h.statuses == [(False, f"nothing listens on {where}"), (False, f"{where} {reason}")]
    assert playing.error is None
    assert "wrongword" not in str(h.logs)


def test_a_recording_where_a_camera_should_be_is_not_waited_for(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 20, movflags="faststart")
    with Server("http_server.py", "--folder", str(tmp_path)) as server:
        recording = (
            rf"'http://\*\*\*@127.0.0.1:{server.port}/a.mp4' is a recording, and 'required: false' is for cameras"
        )
        options = {"required": False, "width": 64, "height": 48}
        with (
            harness(server, "a.mp4", "user:word@", **options) as h,
            pytest.raises(UserError, match=f"^door: {recording}$"),
        ):
            h.pull(1)
        server.stop()
        h = harness(server, "a.mp4", "user:word@", **options)
        with Playing(h) as playing:  # it has been waited for already: the others run
            playing.until(lambda: h.statuses != [])
            server.start()
            playing.until(lambda: len(h.statuses) == 2)
    assert re.fullmatch(recording, h.statuses[1][1])
    assert (playing.buffers, playing.error) == ([], None)


def test_video_file_over_http_is_a_recording(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 20, movflags="faststart")
    with Server("http_server.py", "--folder", str(tmp_path)) as server:
        with harness(server, "a.mp4", loop=True, start="100ms") as h:
            assert not h.node.live
            assert h.node.paced
            buffers = h.pull(20)
        assert [number(b.frame) for b in buffers] == [*range(3, 20), *range(3, 6)]
        assert_rising([b.pts for b in buffers])
        with harness(server, "a.mp4") as h:
            assert len(h.pull(99)) == 20
        (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:1000])
        with pytest.raises(UserError, match=r"^door: '.*/b.mp4'"):
            harness(server, "b.mp4")


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "mpeg2video"), ("a.mpg", "mpeg2video"), ("a.gif", "gif")])
def test_a_file_that_does_not_count_its_frames_is_a_recording_too(tmp_path: Path, name: str, codec: str) -> None:
    if codec == "gif":
        picture = Image.fromarray(grey(1))
        picture.save(tmp_path / name, save_all=True, append_images=[Image.fromarray(grey(n)) for n in range(2, 21)])
    else:
        film(tmp_path / name, 20, codec=codec)
    with Server("http_server.py", "--folder", str(tmp_path)) as server, harness(server, name, end="10s") as h:
        assert not h.node.live
        assert len(h.pull(99)) == 20


@pytest.fixture
def answer() -> Iterator[tuple[int, dict[str, str]]]:
    """(port, headers to answer with) of a server on which everything is at /video; what it is asked with comes in."""
    headers: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            moved = self.path != "/video"
            headers["asked"] = headers.get("asked", "") + (self.headers["Authorization"] or "-")  # before the answer
            self.send_response(302 if moved else int(headers.get("status", 200)))
            for name, value in {"Location": "/video"}.items() if moved else headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server.server_port, headers
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("headers", "end"),
    [
        ({"Content-Length": "5000", "Content-Type": "video/mp2t"}, True),
        ({"Content-Length": "5000"}, True),
        ({"Content-Length": "1", "Content-Range": "bytes 0-0/5000", "status": "206"}, True),
        ({"Content-Length": "1", "Content-Range": "bytes 0-0/*", "status": "206"}, False),
        ({"Content-Type": "video/mp2t"}, False),
        ({"Content-Length": "999999999", "Content-Type": "multipart/x-mixed-replace; boundary=b"}, False),
        ({"Content-Length": "200", "Content-Type": "application/vnd.apple.mpegurl"}, False),  # of the list
        ({"Content-Length": "none"}, False),
        ({"Content-Length": "0", "status": "404"}, False),
    ],
)
def test_what_has_an_end(answer: tuple[int, dict[str, str]], headers: dict[str, str], end: bool) -> None:
    port, answers = answer
    answers.update(headers)
    assert has_end(parse(f"http://127.0.0.1:{port}/video")) == end
    assert has_end(parse(f"http://127.0.0.1:{port}/elsewhere?x=1")) == end


def test_who_is_asked_for_the_end_gets_the_password_once(answer: tuple[int, dict[str, str]]) -> None:
    port, answers = answer
    answers["Content-Length"] = "5000"
    assert has_end(parse(f"http://user:p%40ss@127.0.0.1:{port}/elsewhere"))
    assert answers["asked"] == "Basic " + base64.b64encode(b"user:p@ss").decode() + "-"


def test_nobody_to_ask_has_no_end() -> None:
    assert not has_end(parse("http://127.0.0.1:1/video"))


def test_a_server_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video " * 1000)
    (tmp_path / "a.txt").write_bytes(b"some text\n" * 1000)
    (tmp_path / "login.html").write_text("<html><body><form>Password:</form></body></html>")
    with Server("http_server.py", "--folder", str(tmp_path)) as server:
        with pytest.raises(UserError, match="sends a web page there, and no video: .* does it need a login"):
            harness(server, "login.html")
        with pytest.raises(UserError, match="finds no video in it .*needs a server that knows ranges"):
            harness(server, "a.mp4")
        film(tmp_path / "late.mp4", 9000, codec="mjpeg")  # its index stands at the end, beyond what FFmpeg keeps
        with pytest.raises(UserError, match="needs a server that knows ranges"):
            harness(server, "late.mp4")
        with pytest.raises(UserError, match="finds no video in it"):
            harness(server, "a.txt")  # FFmpeg would draw it
        with pytest.raises(UserError, match=r"has nothing at this path \(404\)"):
            harness(server, "vidéo 1.mp4?x=é")
        with pytest.raises(UserError, match="answers, but does not speak TLS as it should"):
            Capture("door", uri=f"https://127.0.0.1:{server.port}/a.mp4", timeout=2).open()
        with pytest.raises(UserError, match="answers, but does not speak RTSP"):
            Capture("door", uri=f"rtsp://127.0.0.1:{server.port}/cam", timeout=5).open()


def test_video_file_that_stops_coming_is_an_error(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 40, codec="mjpeg", movflags="faststart")
    silent = r"^door: '.*a.mp4\?half' sent nothing for 0.5 s, after \d+ frames$"
    with (
        Server("http_server.py", "--folder", str(tmp_path)) as server,
        harness(server, "a.mp4?half", timeout=0.5) as h,
        pytest.raises(UserError, match=silent),
    ):
        h.pull(99)


def test_password(camera: Server, capfd: pytest.CaptureFixture[str]) -> None:
    with harness(camera, "secret", "user:password@") as h:
        assert len(h.pull(3)) == 3
    with pytest.raises(UserError) as error:
        harness(camera, "secret", "user:wrongword@")
    where = f"127.0.0.1:{camera.port}"
    refused = (
        f"{where} wants a user and password (401), and gives no video for those given: are they right, and the path?"
    )
    assert str(error.value) == f"door: 'http://***@{where}/secret': {refused}"
    with pytest.raises(UserError, match=r"has nothing at this path \(404\)"):
        harness(camera, "nothing-here")
    assert capfd.readouterr() == ("", "")
