"""capture against a real RTSP server (GStreamer's, tests/servers/rtsp_server.py), stopped and started again."""

from __future__ import annotations

import os
import time
from itertools import pairwise

import numpy as np
import pytest

from nodes.capture import Capture
from pipeline.errors import UserError
from pipeline.harness import Harness
from pipeline.node import VideoInfo
from tests.nodes.films import assert_rising
from tests.servers import Playing, Server, why_no_rtsp

pytestmark = pytest.mark.skipif(bool(why_no_rtsp()), reason=why_no_rtsp())


def harness(server: Server, login: str = "", **properties: object) -> Harness:
    node = Capture("door", uri=f"rtsp://{login}127.0.0.1:{server.port}/cam", **properties)
    return Harness(node, clock=time.monotonic())


@pytest.mark.parametrize(("codec", "transport"), [("h264", "tcp"), ("mjpeg", "udp")])
def test_frames_with_the_cameras_own_times(codec: str, transport: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    with Server("rtsp_server.py", "--codec", codec, "--fps", "25") as server:
        h = harness(server, rtsp_transport=transport)
        with Playing(h) as playing:
            playing.frames(40)
    assert h.info is not None
    assert (h.info.height, h.info.width) == (120, 160)
    assert h.info.fps == pytest.approx(25)
    assert h.node.live
    frames = [b.frame for b in playing.buffers]
    assert any((a != b).any() for a, b in pairwise(frames))  # the ball moves
    pts = [b.pts for b in playing.buffers]
    assert_rising(pts)
    assert np.median(np.diff(pts[20:])) == pytest.approx(40e6, rel=0.05)
    assert capfd.readouterr() == ("", "")
    assert {k: v for k, v in os.environ.items() if "RTSP" in v or "CAPTURE" in k} == {
        k: v for k, v in before.items() if "RTSP" in v or "CAPTURE" in k
    }


def test_server_stopped_and_started_again(capfd: pytest.CaptureFixture[str]) -> None:
    with Server("rtsp_server.py") as server:
        h = harness(server)
        with Playing(h) as playing:
            playing.frames(10)
            server.stop()
            playing.until(lambda: h.statuses != [])
            known = len(playing.buffers)
            server.start("--width", "80", "--height", "80")
            playing.until(lambda: h.statuses[-1:] == [(True, "")])
            playing.frames(10)
    assert h.statuses[0][1]
    assert len(playing.buffers) >= known + 10
    assert {b.frame.shape for b in playing.buffers} == {(120, 160, 3)}  # the first size, with borders
    assert not playing.buffers[-1].frame[:, :10].any()
    assert_rising([b.pts for b in playing.buffers])
    assert capfd.readouterr() == ("", "")


def test_server_that_starts_later(capfd: pytest.CaptureFixture[str]) -> None:
    with Server("rtsp_server.py", "--codec", "h264", "--fps", "25") as server:
        server.stop()
        h = harness(server, "user:s3cret@", required=False, width=80, height=80)
        assert h.info == VideoInfo(80, 80, 3, 0.0)
        with Playing(h) as playing:
            playing.until(lambda: h.statuses != [])
            server.start()
            playing.frames(10)
    assert h.statuses == [(False, f"nothing listens on 127.0.0.1:{server.port}"), (True, "")]
    assert {b.frame.shape for b in playing.buffers} == {(80, 80, 3)}
    assert playing.buffers[0].pts == 0
    assert_rising([b.pts for b in playing.buffers])
    assert "s3cret" not in str(h.logs)
    assert capfd.readouterr() == ("", "")


def test_stream_that_ends_and_begins_anew() -> None:
    with Server("rtsp_server.py", "--frames", "15") as server:
        h = harness(server)
        with Playing(h) as playing:
            playing.until(lambda: (True, "") in h.statuses)
    assert_rising([b.pts for b in playing.buffers])


def test_lost_camera_that_shall_not_come_back_ends() -> None:
    with Server("rtsp_server.py") as server:
        h = harness(server, reconnect=False)
        with Playing(h) as playing:
            playing.frames(5)
            server.stop()
            playing.until(playing.ended)
        server.start()
    assert [up for up, _ in h.statuses] == [False]


def test_password(capfd: pytest.CaptureFixture[str]) -> None:
    with Server("rtsp_server.py", "--login", "user:password") as server:
        with harness(server, "user:password@") as h:
            assert len(h.pull(3)) == 3
        with pytest.raises(UserError) as error:
            harness(server, "user:wrongword@")
    where = f"127.0.0.1:{server.port}"
    refused = (
        f"{where} wants a user and password (401), and gives no video for those given: are they right, and the path?"
    )
    assert str(error.value) == f"door: 'rtsp://***@{where}/cam': {refused}"
    assert "wrongword" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_password_that_was_changed_meanwhile() -> None:
    with Server("rtsp_server.py", "--login", "user:password") as server:
        h = harness(server, "user:password@")
        with Playing(h) as playing:
            playing.frames(3)
            server.stop()
            server.start("--login", "user:other")
            playing.until(lambda: any("wants a user and password (401)" in reason for _, reason in h.statuses))
    assert "user:password" not in str(h.statuses)


def test_two_transports_side_by_side() -> None:
    """Each server offers one transport only; the setting of one capture must not reach its neighbour."""
    with Server("rtsp_server.py", "--transport", "tcp") as one, Server("rtsp_server.py", "--transport", "udp") as two:
        a, b = harness(one, rtsp_transport="tcp"), harness(two, rtsp_transport="udp")
        with Playing(a) as left, Playing(b) as right:
            left.frames(5)
            right.frames(5)
        with pytest.raises(UserError, match="it does not come over tcp: try rtsp_transport: udp"):
            harness(two, rtsp_transport="tcp")
        with pytest.raises(UserError, match="it does not come over udp: try rtsp_transport: tcp"):
            harness(one, rtsp_transport="udp")
