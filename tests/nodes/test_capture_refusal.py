"""What capture refuses, in one line: files that are no videos, properties that do not go together."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.capture import Capture
from pipeline.errors import GraphError, UserError
from pipeline.graph import expand
from pipeline.launchstring import parse_launch
from tests.nodes.captures import OPTIONAL, album, halve, harness, write
from tests.nodes.films import film

REFUSED = {
    "missing": (lambda t: t / "x.mp4", "no such file '{}'"),
    "no home": (lambda t: "~no-one/x.mp4", "no such file '{}'"),
    "empty": (lambda t: write(t / "x.mp4", b""), "'{}' is not a video that can be decoded"),
    "text": (lambda t: write(t / "x.mp4", b"some text\n" * 9999), "'{}' is not a video that can be decoded"),
    "terminal art": (lambda t: write(t / "x.txt", b"some text\n" * 9999), "'{}' is not a video that can be decoded"),
    "noise": (lambda t: write(t / "x.mkv", bytes(range(256)) * 99), "'{}' is not a video that can be decoded"),
    "no index": (lambda t: halve(film(t / "x.mp4", 30)), "'{}' is not a video that can be decoded"),
    "no frame": (lambda t: halve(film(t / "x.mkv", 30, codec="mjpeg"), 0.05), "'{}'"),
    "no pictures": (lambda t: album(t / "x", []), "no pictures in the folder '{}'"),
    "bad pictures": (lambda t: write(album(t / "x", []) / "a.png", b"no").parent, "'{}' holds no frame that can be"),
    "device": (lambda t: "/dev/null", "'{}' is neither a file nor a folder"),
    "no camera": (lambda t: "/dev/video99", "no camera at '{}'"),
    "not a camera": (lambda t: "v4l2:///dev/null", "'/dev/null' is not a camera"),
    "scheme": (lambda t: "rtps://h/x", "cannot read 'rtps://' in '{}'; did you mean 'rtsps'?"),
    "other scheme": (
        lambda t: "ftp://h/x",
        "cannot read 'ftp://' in '{}'; known: file, http, https, rtsp, rtsps, v4l2",
    ),
    "relayed": (lambda t: "srt://h/x", "cannot read 'srt://' in '{}'; a relay such as MediaMTX or go2rtc offers it as"),
    "no host": (lambda t: "rtsp:///x", "'{}' names no host"),
    "bad port": (lambda t: "http://u:word@h:12345678/", "'http://***@h:12345678/' is not a valid address"),
    "other host": (lambda t: "file://elsewhere/x.mp4", "'{}' names the host 'elsewhere'"),
    "refused": (lambda t: "rtsp://u:word@127.0.0.1:1/x", "'rtsp://***@127.0.0.1:1/x': nothing listens on 127.0.0.1:1"),
    "no name": (lambda t: "http://u:word@no.invalid/x", "'http://***@no.invalid/x': the name no.invalid cannot be"),
}


@pytest.mark.parametrize("login", ["viewer:top@hush/w?x#1", "viewer:top/hush", "viewer:top?hush", "viewer:top#hush"])
def test_a_login_that_is_not_percent_encoded_is_told_to_be(login: str) -> None:
    with pytest.raises(UserError) as error:
        harness(f"rtsp://{login}@127.0.0.1:1/stream1")
    assert str(error.value).startswith("door: 'rtsp://***@127.0.0.1:1/stream1'")
    assert str(error.value).endswith("; @ / ? # and % in a login must be percent-encoded: %40 %2F %3F %23 %25")
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.txt"], ""),
        (["a.txt", "b2.mp4"], "; there is 1 video in it, and a graph reads one, such as '{}/b2.mp4'"),
        (["b10.MKV", "b2.mp4", "c.mov"], "; there are 3 videos in it, and a graph reads one, such as '{}/b2.mp4'"),
    ],
)
def test_videos_in_a_folder_without_pictures_are_told_of(tmp_path: Path, names: list[str], told: str) -> None:
    for name in names:
        write(tmp_path / name, b"no matter")
    with pytest.raises(UserError) as error:
        harness(tmp_path)
    assert str(error.value).partition(" .webp)")[2].removesuffix(
        " (README.md has a loop over a folder)"
    ) == told.format(tmp_path)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, message = REFUSED[case]
    uri = make(tmp_path)
    with pytest.raises(UserError) as error:
        harness(uri)
    assert str(error.value).startswith("door: " + message.format(uri))
    assert "\n" not in str(error.value)
    assert "word" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_process_that_opened_nothing_else_is_quiet(tmp_path: Path) -> None:
    """A process of its own: here the tests have quietened OpenCV already."""
    path = write(tmp_path / "x.mp4", b"")
    code = (
        "from nodes.capture import Capture\n"
        "from pipeline.errors import UserError\n"
        "try:\n"
        f"    Capture('door', uri={str(path)!r}).open()\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False, cwd=root)
    assert done.stderr == ""
    assert done.stdout.startswith(f"door: '{path}' is not a video that can be decoded")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything; become nobody for a while."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_permission_denied(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 3)
    path.chmod(0)
    with nobody(), pytest.raises(UserError, match=r"^door: permission denied: '.*a.mp4'$"):
        harness(path)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({}, "door: capture needs the property 'uri'"),
        ({"uri": ""}, "door: property 'uri' of capture is ''"),
        (
            {"uri": "a", "start": "2s", "end": "1s"},
            "door: property 'end' of capture is '1s': it must lie after 'start'",
        ),
        ({"uri": "a", "rtsp_transport": "smoke"}, "door: property 'rtsp_transport' of capture is 'smoke'"),
        ({"uri": "a", "fps": 0}, "door: property 'fps' of capture is 0"),
        ({"uri": "a", "fps": 1e-9}, "door: property 'fps' of capture is 1e-09"),
        ({"uri": "a", "timeout": 0}, "door: property 'timeout' of capture is 0"),
        ({"uri": "a", "size": 640}, "door: unknown property 'size' of capture"),
        ({"uri": "rtsp://u:word@h/x", "loop": True}, "door: 'rtsp://***@h/x' is live: it has no 'start' and 'end'"),
        ({"uri": 0, "end": 1}, "door: '/dev/video0' is live: it has no 'start' and 'end', and cannot 'loop'"),
        ({"uri": 0, "required": False}, "door: 'required: false' needs 'width' and 'height'"),
        ({"uri": 0, "required": False, "width": 64}, "door: 'required: false' needs 'width' and 'height'"),
        ({"uri": 0, "required": False, "height": 48}, "door: 'required: false' needs 'width' and 'height'"),
        ({"uri": 0, **OPTIONAL, "reconnect": False}, "door: 'required: false' waits for the camera, and 'reconnect"),
        ({"uri": 0, **OPTIONAL, "loop": True}, "door: 'required: false' is for cameras, and they have no 'start'"),
        ({"uri": 0, **OPTIONAL, "start": 1}, "door: 'required: false' is for cameras, and they have no 'start'"),
        ({"uri": 0, **OPTIONAL, "end": 1}, "door: 'required: false' is for cameras, and they have no 'start'"),
        ({"uri": "a.mp4", **OPTIONAL}, "door: 'required: false' is for cameras, and 'a.mp4' is a file or a folder"),
        ({"uri": "rtsp:u:word@h", **OPTIONAL}, "door: 'required: false' is for cameras, and 'rtsp:***@h' is a file"),
    ],
)
def test_properties_are_checked(properties: dict, message: str) -> None:
    with pytest.raises(GraphError) as error:
        Capture("door", **properties)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("uri", ["rtps://u:word@h/x", "rtsp:///x", "http://u:word@h:12345678/"])
def test_an_address_that_never_can_be_right_is_found_by_the_check(uri: str) -> None:
    graph = f"capture name=door uri={uri} required=false width=64 height=48 ! fakesink"
    with pytest.raises(GraphError, match="door: ") as error:
        expand(parse_launch(graph))
    assert "word" not in str(error.value)
