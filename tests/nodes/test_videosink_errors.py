"""videosink: what is said when a file cannot be written, and what is left of it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from nodes.videosink import VideoSink
from pipeline import GraphError, Harness, UserError
from tests.nodes.recordings import MS, clip, count_with_opencv, read, similar, uneven, write


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({"location": "{tmp}/out"}, "no suffix; known: .mkv, .mov, .mp4, .webm"),
        ({"location": "{tmp}/out.mp3"}, "unknown suffix '.mp3'; did you mean '.mp4'?"),
        ({"location": "{tmp}/out.webm", "codec": "h264"}, "a .webm file holds no h264; it holds vp9"),
        ({"location": "{tmp}/out.mp4", "codec": "mpeg4", "bitrate": 500}, "mpeg4 goes by quality, not by bitrate"),
        ({"location": "{tmp}/{{cam}}.mp4"}, "names {cam}; only {camera} and {time} are known"),
        ({"location": "{tmp}/{{camera}}.mp4", "mosaic": True}, "one file for all cameras"),
        ({"location": "{tmp}/folder.mp4"}, "is a folder"),
        ({"location": "{tmp}/pipe.mp4"}, "pipe.mp4 is no ordinary file"),
        ({"location": "{tmp}/null.mp4"}, "null.mp4 is no ordinary file"),
        ({"location": "{tmp}/" + 300 * "x" + ".mp4"}, "xxx.mp4: File name too long"),
        ({"location": "{tmp}/there.mp4", "overwrite": False}, "there.mp4 is there already, and overwrite is false"),
        ({"location": "{tmp}/there.mp4/out.mp4"}, "cannot create the folder"),
        ({"location": "/proc/nowhere/out.mp4"}, "cannot create the folder /proc/nowhere: No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_start(tmp_path: Path, props: dict, message: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "there.mp4").write_bytes(b"x")
    (tmp_path / "null.mp4").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.mp4")
    props = {**props, "location": props["location"].format(tmp=tmp_path)}
    with pytest.raises(UserError) as error:
        Harness(VideoSink(**props))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({}, "needs the property 'location'"),
        ({"location": ""}, "'location' of videosink is ''"),
        ({"location": "a.mp4", "codec": "h263"}, "'codec' of videosink is 'h263'"),
        ({"location": "a.mp4", "quality": 0}, "'quality' of videosink is 0"),
        ({"location": "a.mp4", "fps": 1e-9}, "'fps' of videosink is 1e-09: the slowest rate is 0.001 frames/s"),
    ],
)
def test_wrong_properties(props: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        VideoSink(**props)


def test_an_encoder_that_is_not_there_is_replaced_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.videosink.video_file.available", lambda codec: codec != "h264")
    path = tmp_path / "out.mp4"
    with pytest.raises(UserError, match="this FFmpeg has no encoder for h264"):
        Harness(VideoSink(location=str(path), codec="h264"))
    write(VideoSink(location=str(path)), clip(3), uneven(3))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_is_one_line_and_does_not_hang(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with Harness(VideoSink(location=str(path))) as h:
        path.symlink_to("/dev/full")  # only now: no device is taken from the start
        buffers = [h.buffer(clip(1)[0], pts=n * 40 * MS) for n in range(200)]
        with pytest.raises(UserError, match=f"cannot write {path}: No space left on device"):
            h.push_all(buffers)
        h.mark("eos")
    assert h.logs == [("info", f"writing {path}")], "and nothing claims that it was written"


def test_an_encoder_that_takes_no_such_picture_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), codec="h265")) as h:
        buffers = [h.buffer(np.zeros((1, 1, 3), np.uint8), pts=n * 40 * MS) for n in range(2)]
        with pytest.raises(UserError, match=f"^cannot write {path}: Invalid argument$"):
            h.push_all(buffers)
    assert not path.exists()


WRITER = """
import itertools, resource, sys, time
sys.path.insert(0, {root!r})
from nodes.videosink import VideoSink
from pipeline import Harness, UserError
from tests.nodes.recordings import MS, clip
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
frames = clip(40)
try:
    with Harness(VideoSink(location={path!r}, quality=95)) as h:
        for n in itertools.count():
            h.push(frames[n % 40], pts=n * 40 * MS)
            print(n + 1, flush=True)
            time.sleep(0.001)
except UserError as error:
    sys.exit(str(error))
"""


def writer(path: Path, limit: int = 0) -> subprocess.Popen[str]:
    """A process that writes frames 40 ms apart for ever and says how many."""
    root = str(Path(__file__).parents[2])
    code = WRITER.format(root=root, path=str(path), limit=limit)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_a_killed_process_leaves_can_be_played(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    process = writer(path)
    assert process.stdout
    count = 0
    while count < 70:
        count = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    count = int((rest.split() or [count])[-1])
    seen, times, _ = read(path)
    assert len(seen) == count_with_opencv(path)
    assert count - 20 <= len(seen) <= count + 1, "at most the last half second or so is lost"
    assert times == pytest.approx([n * 0.04 for n in range(len(times))], abs=1e-3)
    assert similar(seen[50], clip(40)[10])


def test_a_file_that_grows_too_large_is_one_line_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    _, said = writer(path, limit=60_000).communicate(timeout=60)
    assert said.strip() == f"cannot write {path}: File too large"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 60_000
    assert count_with_opencv(path) > 10


def test_two_writers_of_one_file_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path))) as one, Harness(VideoSink(location=str(path))) as other:
        one.push(clip(1)[0])
        with pytest.raises(UserError, match="is being written by another node"):
            other.push(clip(1)[0])
    assert len(read(path)[0]) == 1
    write(VideoSink(location=str(path)), clip(2), [0, 40 * MS])
    assert len(read(path)[0]) == 2, "free again"
