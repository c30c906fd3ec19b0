"""capture of a webcam, over a stand-in device, and of cameras that do not answer: nothing hangs."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from nodes.capture import Capture, connect
from nodes.capture.timeline import SECOND
from pipeline.errors import UserError
from pipeline.harness import Harness
from pipeline.node import VideoInfo
from tests.nodes.captures import OPTIONAL, harness
from tests.nodes.films import assert_rising, grey
from tests.servers import PATIENCE, Playing


class Device:
    """What OpenCV shows of a webcam; `present`, `size` and `broken` are turned by the test."""

    def __init__(self) -> None:
        self.present, self.size, self.broken = True, (48, 64), False
        self.stamp = 0.0
        self.asked: dict[int, float] = {}
        self.taken = 0

    def capture(self) -> StandIn:
        return StandIn(self)


class StandIn:
    def __init__(self, device: Device) -> None:
        self._device = device

    def open(self, address: str, backend: int) -> bool:
        assert backend == cv2.CAP_V4L2
        return self._device.present

    def set(self, prop: int, value: float) -> bool:
        self._device.asked[prop] = value
        return True

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_POS_MSEC: self._device.stamp}.get(prop, 0.0)

    def grab(self) -> bool:
        threading.Event().wait(0.002)
        self._device.taken += self._device.present
        return self._device.present

    def retrieve(self, into: np.ndarray) -> tuple[bool, np.ndarray | None]:
        if self._device.broken and self._device.taken % 3:
            raise cv2.error("imdecode")
        return True, grey(self._device.taken, *self._device.size)

    def release(self) -> None:
        pass


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    device = Device()
    monkeypatch.setattr(cv2, "VideoCapture", device.capture)
    monkeypatch.setattr(connect.fcntl, "ioctl", lambda *_: 0)
    (tmp_path / "video0").touch()
    return device


def test_webcam_is_asked_for_size_and_rate(device: Device, tmp_path: Path) -> None:
    with harness(f"v4l2://{tmp_path}/video0", width=640, height=480, fps=15) as h:
        assert h.node.live
        assert not h.node.paced
        assert len(h.pull(1)) == 1
    wanted = {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480, cv2.CAP_PROP_FPS: 15}
    assert device.asked == wanted
    assert h.info is not None
    assert (h.info.height, h.info.width, h.info.fps) == (480, 640, 15)


def test_webcam_unplugged_and_back_in_another_mode(device: Device, tmp_path: Path) -> None:
    h = harness(f"v4l2://{tmp_path}/video0", lossless=False)
    with Playing(h) as playing:
        playing.frames(5)
        device.present = False
        playing.until(lambda: h.statuses[:1] == [(False, "the stream ended")])
        device.size, device.present = (96, 96), True
        playing.until(lambda: h.statuses[-1:] == [(True, "")])
        playing.frames(5)
    assert playing.buffers[-1].frame.shape == (48, 64, 3)
    assert playing.buffers[-1].frame[:, 32].all()
    assert not playing.buffers[-1].frame[:, :8].any()
    assert_rising([b.pts for b in playing.buffers])


def test_attempts_to_reconnect_get_rarer(device: Device, tmp_path: Path) -> None:
    waits: list[float] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            if len(waits) == 7:
                device.present = True
            if len(waits) == 9:
                self.set()
            return self.is_set()

    node = Capture("door", uri=f"v4l2://{tmp_path}/video0")
    node.stopping = Impatient()
    with Harness(node) as h:
        assert len(h.pull(2)) == 2
        device.present, device.stamp = False, 700.0  # the clock of the camera starts anew
        h.clock += 1
        assert [b.pts for b in h.pull(1)] == [SECOND]
        device.present = False
        assert h.pull(1) == []
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 0.5, 1]


def test_webcam_that_is_plugged_in_later(device: Device, tmp_path: Path) -> None:
    """Tried at once, then ever more rarely; each reason is told once, whatever their turns."""
    place, waits = tmp_path / "video0", []
    place.unlink()
    device.present = False

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            match len(waits):
                case 1 | 3:
                    place.unlink(missing_ok=True)
                case 2 | 4:
                    place.touch()
                case 5:
                    device.present = True
                case 7:
                    self.set()
            return self.is_set()

    node = Capture("door", uri=f"v4l2://{place}", required=False, width=32, height=32)
    node.stopping = Impatient()
    with Harness(node, lossless=True) as h:
        assert h.info == VideoInfo(32, 32, 3, 0.0)
        assert h.node.live
        assert waits == []  # nothing has been tried, so nothing has been waited for
        first = h.pull(1)[0]
        assert waits == [0, 0.5, 1, 2, 4]
        assert first.pts == 0
        assert first.frame.all()  # stretched, as when it is there from the start
        missing, mute = h.statuses[:2]
        assert missing == (False, f"no camera at '{place}'")
        assert mute == (False, "gives no picture: another program uses it, or it is not a capture device")
        assert h.statuses[2:] == [(True, "")]
        h.clock, device.stamp = h.clock + 0.05, 40.0
        assert h.pull(1)[0].pts == pytest.approx(40e6, rel=0.001)  # its own times, not those of arrival
        device.present = False
        assert h.pull(1) == []
    assert waits[5:] == [0.5, 1]
    mute = "gives no picture: another program uses it, or it is not a capture device"
    assert h.statuses[3:] == [(False, "the stream ended"), (False, mute)]  # told again: it is another absence
    assert {level for level, _ in h.logs} == {"debug"}  # the engine warns of each status, once


def test_webcam_that_is_there_is_not_down_at_first(device: Device, tmp_path: Path) -> None:
    h = harness(f"v4l2://{tmp_path}/video0", lossless=False, fps=15, **OPTIONAL)
    assert h.info == VideoInfo(48, 64, 3, 15.0)
    with Playing(h) as playing:
        playing.frames(3)
        device.present = False
        playing.until(lambda: h.statuses[:1] == [(False, "the stream ended")])
        device.size, device.present = (96, 96), True
        playing.until(lambda: h.statuses[-1:] == [(True, "")])
        playing.frames(3)
    assert not playing.buffers[-1].frame[:, :8].any()  # another shape than at first: with borders
    assert_rising([b.pts for b in playing.buffers])


def test_webcam_whose_pictures_cannot_be_decoded_at_first(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h = harness(f"v4l2://{tmp_path}/video0", **OPTIONAL)
    with Playing(h) as playing, monkeypatch.context() as patch:
        patch.setattr(StandIn, "retrieve", lambda self, into: (False, None))
        playing.until(lambda: h.statuses == [(False, "its frames cannot be decoded")])
        patch.undo()
        playing.frames(2)
    assert h.statuses[1:] == [(True, "")]


@pytest.mark.parametrize(
    ("uri", "message"),
    [("v4l2:///dev/null", "door: '/dev/null' is not a camera"), ("v4l2:///dev", "door: '/dev': Is a directory")],
)
def test_a_device_that_is_no_camera_is_not_waited_for(uri: str, message: str) -> None:
    with harness(uri, **OPTIONAL) as h, pytest.raises(UserError) as error:
        h.pull(1)
    assert str(error.value) == message


def test_webcam_that_shall_not_come_back_ends(device: Device, tmp_path: Path) -> None:
    h = harness(f"v4l2://{tmp_path}/video0", reconnect=False)
    with Playing(h) as playing:
        playing.frames(2)
        device.present = False
        playing.until(playing.ended)
    assert h.statuses == [(False, "the stream ended")]


def test_webcam_with_damaged_pictures_goes_on(device: Device, tmp_path: Path) -> None:
    h = harness(f"v4l2://{tmp_path}/video0")
    device.broken = True
    with Playing(h) as playing:
        playing.frames(10)
    assert h.statuses == []


@pytest.mark.parametrize("properties", [{"loop": True}, {"start": 1}, {"end": 1}], ids=str)
def test_camera_has_no_start_and_end(device: Device, tmp_path: Path, properties: dict) -> None:
    with pytest.raises(UserError, match="is live: it has no 'start' and 'end', and cannot 'loop'"):
        harness(f"v4l2://{tmp_path}/video0", **properties)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EACCES, r"permission denied: '.*' \(is the user in the group 'video'\?\)"),
        (errno.EBUSY, "'.*' is busy: another program uses it"),
        (errno.EIO, "'.*': Input/output error"),
    ],
)
def test_webcam_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, code: int, message: str) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(connect.os, "open", refuse)
        with pytest.raises(UserError, match=f"^door: {message}$"):
            harness("/dev/video0")


def test_webcam_without_picture(device: Device, tmp_path: Path) -> None:
    device.present = False
    with pytest.raises(UserError, match="gives no picture: another program uses it"):
        harness(f"v4l2://{tmp_path}/video0")


# Nothing hangs ----------------------------------------------------------------------------------------


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_camera_that_does_not_answer(deaf: int, scheme: str) -> None:
    with pytest.raises(UserError, match=r"^door: '.*://\*\*\*@127.*' gave no video within 0.3 s$"):
        harness(f"{scheme}://u:word@127.0.0.1:{deaf}/x", timeout="300ms")


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_camera_that_does_not_answer_and_need_not(deaf: int, scheme: str) -> None:
    h = harness(f"{scheme}://u:word@127.0.0.1:{deaf}/x", timeout="300ms", **OPTIONAL)
    with Playing(h) as playing:
        playing.until(lambda: sum("camera still away" in text for _, text in h.logs) > 1)
    assert h.statuses == [(False, "gave no video within 0.3 s")]
    assert "word" not in str(h.logs)


def test_stop_while_a_camera_that_has_never_come_is_awaited(deaf: int) -> None:
    h = harness(f"rtsp://127.0.0.1:{deaf}/x", timeout="1h", **OPTIONAL)
    with Playing(h) as playing:
        pass
    assert playing.ended()
    assert (h.statuses, playing.error) == ([], None)


def test_stop_while_opening(deaf: int) -> None:
    node = Capture("door", uri=f"rtsp://127.0.0.1:{deaf}/x", timeout="1h")
    errors: list[BaseException] = []

    def run() -> None:
        try:
            Harness(node)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    node.stopping.set()
    thread.join(PATIENCE)
    assert [str(e) for e in errors] == ["door: stopped while opening"]


def test_the_silence_of_the_graph_is_not_the_cameras(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    grab, fails = StandIn.grab, []
    monkeypatch.setattr(StandIn, "grab", lambda self: not fails.pop() if fails else grab(self))
    with harness(f"v4l2://{tmp_path}/video0", timeout=1) as h:
        assert len(h.pull(1)) == 1
        h.node._frames._heard -= 3600
        fails.append(True)
        assert len(h.pull(2)) == 2
    assert h.statuses == []
