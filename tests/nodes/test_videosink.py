"""videosink: what is in the files, when they can be played, and what is said when they cannot be written."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from nodes.mosaic import DIMMED
from nodes.videosink import VideoSink, next_free
from nodes.videosink.wall import Shelf
from pipeline import GraphError, Harness, UserError
from pipeline.graph import expand
from pipeline.spec import load

MS = 1_000_000
SECOND = 1000 * MS


def clip(count: int = 40, height: int = 120, width: int = 160) -> list[np.ndarray]:
    """Frames that can be told from each other: a disc moves over a ground that changes its colour."""
    frames = []
    for n in range(count):
        frame = np.full((height, width, 3), (40 + 5 * n, 90, 240 - 5 * n), np.uint8)
        cv2.circle(frame, (7 * n % width, height // 2), height // 6, (20, 230, 240), cv2.FILLED)
        frames.append(frame)
    return frames


def uneven(count: int = 40, start: int = 7 * SECOND) -> list[int]:
    """PTS of a camera whose rate changes, from somewhere, in ns."""
    return [start + n * 80 * MS + (n % 3) * 10 * MS + n // 10 * 500 * MS for n in range(count)]


def read(path: Path) -> tuple[list[np.ndarray], list[float], float]:
    """(frames, their times in s, duration in s) by PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        assert stream.time_base is not None
        times = [float(f.pts * stream.time_base) for f in decoded if f.pts is not None]
        return [f.to_ndarray(format="bgr24") for f in decoded], times, (container.duration or 0) / av.time_base


def count_with_opencv(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def similar(one: np.ndarray, other: np.ndarray, psnr: float = 28) -> bool:
    return cv2.PSNR(one, other) >= psnr


def write(sink: VideoSink, frames: list[np.ndarray], pts: list[int], **options) -> Harness:
    """A closed harness, everything pushed as one camera's."""
    with Harness(sink, **options) as h:
        for frame, time in zip(frames, pts, strict=True):
            h.push(frame, pts=time)
        h.mark("eos")
    return h


# One camera ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "written"),
    [
        ("out.mp4", "auto", "h264"),
        ("out.mov", "auto", "h264"),
        ("out.mkv", "auto", "h264"),
        ("out.webm", "auto", "vp9"),
        ("out.mp4", "h265", "hevc"),
        ("out.mp4", "mpeg4", "mpeg4"),
        ("out.mkv", "vp9", "vp9"),
        ("out.mov", "mjpeg", "mjpeg"),
        ("OUT.MP4", "mjpeg", "mjpeg"),
    ],
)
def test_every_frame_is_in_the_file_once_at_its_own_time(tmp_path: Path, name: str, codec: str, written: str) -> None:
    path = tmp_path / name
    frames, pts = clip(), uneven()
    h = write(VideoSink(location=str(path), codec=codec), frames, pts)
    seen, times, duration = read(path)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name.removeprefix("lib") in (written, f"{written}dav1d")
    assert len(seen) == count_with_opencv(path) == len(frames)
    assert all(similar(a, b) for a, b in zip(seen, frames, strict=True))
    assert not any(similar(a, b) for a, b in zip(seen, frames[1:], strict=False)), "the test could tell"
    resolution = 1e-3 if path.suffix in (".mkv", ".webm") else 1e-4
    assert times == pytest.approx([(p - pts[0]) / SECOND for p in pts], abs=resolution)
    last = (pts[-1] - pts[-2]) / SECOND
    assert duration == pytest.approx((pts[-1] - pts[0]) / SECOND + last, abs=2 * resolution), "the last frame lasts too"
    assert h.logs[-1] == ("info", f"wrote {path}: 40 frames, {duration:.2f} s")


def test_a_finished_mp4_is_an_ordinary_one(tmp_path: Path) -> None:
    """One index of all frames, not the fragments that it was written in: for players that seek, and old ones."""
    path = tmp_path / "out.mp4"
    write(VideoSink(location=str(path)), clip(), uneven())
    content, position, boxes = path.read_bytes(), 0, []
    while position < len(content):
        boxes.append(content[position + 4 : position + 8])
        position += int.from_bytes(content[position : position + 4])
    assert boxes.count(b"moov") == boxes.count(b"mdat") == 1
    assert b"moof" not in boxes


@pytest.mark.parametrize("size", [(121, 161), (2, 2), (1, 1), (17, 64)])
def test_any_size_can_be_written(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "out.mp4"
    height, width = size
    frames = [np.full((height, width, 3), 100 + 10 * n, np.uint8) for n in range(3)]
    write(VideoSink(location=str(path)), frames, [0, 40 * MS, 80 * MS])
    seen, _, _ = read(path)
    assert seen[0].shape == (height + height % 2, width + width % 2, 3), "odd sizes are padded, nothing is cut off"
    assert all(similar(a[:height, :width], b) for a, b in zip(seen, frames, strict=True))


@pytest.mark.parametrize(
    ("pts", "times"),
    [
        ([0, 100, 200], [0, 0.1, 0.2]),
        ([5000], [0]),
        ([0, 100, 0, 100], [0, 0.1, 0.2, 0.3]),  # the source began again
        ([0, 0, 0], [0, 0.04, 0.08]),  # a source without times
        ([0, 0, 0, 100], [0, 0.04, 0.08, 0.1]),
        ([0, 100, 100, 300], [0, 0.1, 0.1 + 1 / 60_000, 0.3]),  # what comes too soon moves nothing behind it
        ([0, 100, 100.001, 100.002, 200, 300], [0, 0.1, 0.1 + 1 / 60_000, 0.1 + 2 / 60_000, 0.2, 0.3]),
        ([-50, 0], [0, 0.05]),
        ([0, 3_600_000], [0, 3600]),
    ],
)
def test_times_advance_whatever_the_pts(tmp_path: Path, pts: list[float], times: list[float]) -> None:
    path = tmp_path / "out.mp4"
    write(VideoSink(location=str(path)), clip(len(pts)), [round(p * MS) for p in pts])
    assert read(path)[1] == pytest.approx(times, abs=1e-5)


def test_a_fixed_rate_takes_the_place_of_the_pts(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write(VideoSink(location=str(path), fps=10), clip(10), uneven(10))
    _, times, duration = read(path)
    assert times == pytest.approx([n / 10 for n in range(10)], abs=1e-4)
    assert duration == pytest.approx(1.0, abs=1e-3)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == 10


def test_a_camera_that_changes_its_size_goes_on_in_the_first_one(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    wide = np.full((60, 320, 3), 180, np.uint8)
    write(VideoSink(location=str(path)), [*clip(2), wide], [0, 40 * MS, 80 * MS])
    seen, _, _ = read(path)
    assert [s.shape for s in seen] == [(120, 160, 3)] * 3
    assert seen[2][60, 80].mean() == pytest.approx(180, abs=5)
    assert seen[2][20].mean() < 20, "fitted with its own proportions"


def test_quality_and_bitrate_decide_how_large_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [cv2.GaussianBlur(rng.integers(0, 255, (240, 320, 3)).astype(np.uint8), (0, 0), 2) for _ in range(20)]
    size = {}
    for name, props in {"low": {"quality": 10}, "high": {"quality": 95}, "rate": {"bitrate": 300}}.items():
        path = tmp_path / f"{name}.mp4"
        write(VideoSink(location=str(path), **props), frames, [n * 40 * MS for n in range(20)])
        size[name] = path.stat().st_size
    assert size["high"] > 3 * size["low"]
    assert size["rate"] * 8 / 0.8 == pytest.approx(300_000, rel=0.4)


# Files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "streams", "files"),
    [
        ("out.mp4", ("door",), {"out.mp4"}),
        ("out.mp4", ("door", "desk"), {"out-door.mp4", "out-desk.mp4"}),
        ("{camera}.mkv", ("door", "desk"), {"door.mkv", "desk.mkv"}),
        ("new/folder/{camera}/a.mp4", ("door",), {"new/folder/door/a.mp4"}),
        ("a.b.mp4", ("door", "desk"), {"a.b-door.mp4", "a.b-desk.mp4"}),
    ],
)
def test_each_camera_has_its_file(tmp_path: Path, location: str, streams: tuple[str, ...], files: set[str]) -> None:
    with Harness(VideoSink(location=str(tmp_path / location)), streams=streams) as h:
        assert not [p for p in tmp_path.rglob("*") if p.is_file()], "no file before the first frame"
        for n, stream in enumerate(streams):
            for frame in clip(3 + n):
                h.push(frame, stream=stream, pts=h.node.clock())
                h.clock += 0.1
    written = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert {str(p.relative_to(tmp_path)) for p in written} == files
    assert sorted(len(read(p)[0]) for p in written) == [3 + n for n in range(len(streams))]


def test_a_camera_that_ends_has_its_file_completed_while_others_go_on(tmp_path: Path) -> None:
    with Harness(VideoSink(location=str(tmp_path / "out.mp4")), streams=("door", "desk")) as h:
        for n, frame in enumerate(clip(10)):
            h.push(frame, stream="door", pts=n * 40 * MS)
            h.push(frame, stream="desk", pts=n * 40 * MS)
        h.mark("eos", stream="door")
        assert len(read(tmp_path / "out-door.mp4")[0]) == 10
        h.push(clip(1)[0], stream="desk", pts=SECOND)
    assert len(read(tmp_path / "out-desk.mp4")[0]) == 11


def test_nothing_is_written_without_a_frame(tmp_path: Path) -> None:
    for mosaic in (False, True):
        with Harness(VideoSink(location=str(tmp_path / "out.mp4"), mosaic=mosaic)) as h:
            h.mark("eos")
            h.tick()
    assert list(tmp_path.iterdir()) == []


def test_a_longer_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(bytes(1_000_000))
    write(VideoSink(location=str(path)), clip(2), [0, 40 * MS])
    assert len(read(path)[0]) == 2
    assert path.stat().st_size < 100_000


def test_a_restarted_node_keeps_what_its_predecessor_wrote(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write(VideoSink(location=str(path)), clip(5), uneven(5))
    first = path.read_bytes()
    for _ in range(2):
        again = VideoSink(location=str(path), overwrite=False)
        again.restarted = True
        write(again, clip(3), uneven(3))
    assert path.read_bytes() == first
    assert len(read(tmp_path / "out-2.mp4")[0]) == len(read(tmp_path / "out-3.mp4")[0]) == 3
    assert next_free(path) == tmp_path / "out-4.mp4"
    assert next_free(tmp_path / "new.mp4") == tmp_path / "new.mp4"


def test_frames_after_the_end_begin_another_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path))) as h:
        for count in (4, 2):
            for n, frame in enumerate(clip(count)):
                h.push(frame, pts=n * 40 * MS)
            h.mark("eos")
    assert len(read(path)[0]) == 4
    assert len(read(tmp_path / "out-2.mp4")[0]) == 2


# Errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({"location": "{tmp}/out"}, "no suffix; known: .mkv, .mov, .mp4, .webm"),
        ({"location": "{tmp}/out.mp3"}, "unknown suffix '.mp3'; did you mean '.mp4'?"),
        ({"location": "{tmp}/out.webm", "codec": "h264"}, "a .webm file holds no h264; it holds vp9"),
        ({"location": "{tmp}/out.mp4", "codec": "mpeg4", "bitrate": 500}, "mpeg4 goes by quality, not by bitrate"),
        ({"location": "{tmp}/{{cam}}.mp4"}, "names {cam}; only {camera} is known"),
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
from tests.nodes.test_videosink import MS, clip
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


# Mosaic ----------------------------------------------------------------------------------------------------


def plain(value: int, height: int = 96, width: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def levels(picture: np.ndarray, columns: int, height: int = 96, width: int = 128) -> list[int]:
    """The median grey of each cell of a row, to the nearest 10."""
    cells = (picture[:height, n * width : (n + 1) * width] for n in range(columns))
    return [int(round(float(np.median(c)), -1)) for c in cells]


def test_a_live_mosaic_is_a_picture_every_tick_of_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b")) as h:
        h.push(plain(100), stream="a")
        h.push(plain(200), stream="b")  # all are there: it begins
        h.clock += 0.1
        h.tick()  # nothing new
        h.push(plain(150), stream="a")  # too late for that picture
        h.clock += 0.3
        h.push(plain(160), stream="a")  # the recorder was late: two pictures are left out
        h.push(plain(170), stream="a")  # the newest counts
        h.clock += 0.1
        h.tick()
    seen, times, duration = read(path)
    assert times == pytest.approx([0, 0.1, 0.4, 0.5], abs=1e-4)
    assert [levels(s, 2) for s in seen] == [[100, 200], [100, 200], [160, 200], [170, 200]]
    assert duration == pytest.approx(0.6, abs=1e-3)


def test_a_live_mosaic_does_not_wait_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b")) as h:
        for _ in range(15):
            h.push(plain(100), stream="a")
            h.clock += 0.1
    seen, times, _ = read(path)
    assert len(times) == 5, "a second of patience, then five pictures"
    assert levels(seen[0], 2) == [100, 0]
    assert seen[0][:, 128:].max() > 150, "the name of the one that is not there"


def test_a_live_mosaic_shows_who_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b", "c")) as h:
        for stream in "abc":
            h.push(plain(200), stream=stream)
        h.mark("status", stream="a", up=False, reason="unplugged")
        h.mark("eos", stream="b")
        h.mark("status", stream="c", up=True)
        h.clock += 0.1
        h.tick()
        h.push(plain(120), stream="a")  # back again
        h.clock += 0.1
        h.tick()
        h.mark("eos", stream="a")
        h.mark("eos", stream="c")
        h.clock += 0.1
        h.tick()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"], "nothing comes after the end"
    seen, _, _ = read(path)
    dim = round(200 * DIMMED, -1)
    assert seen[0].shape == (192, 256, 3)
    assert levels(seen[0], 2) == [200, 200]
    assert levels(seen[1], 2) == [dim, dim]
    assert seen[1][:96, :128].max() > 150, "its name"
    assert levels(seen[2], 2) == [120, dim]
    assert levels(seen[1][96:, 64:], 1) == [200]


def test_a_live_mosaic_shows_a_last_frame_before_it_dims_it(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b")) as h:
        h.push(plain(100), stream="a")
        h.push(plain(200), stream="b")
        h.clock += 0.05
        h.push(plain(150), stream="a")
        h.mark("eos", stream="a")
        for _ in range(2):
            h.clock += 0.1
            h.tick()
    assert [levels(s, 2) for s in read(path)[0]] == [[100, 200], [150, 200], [round(150 * DIMMED, -1), 200]]


def test_the_size_of_a_live_mosaic_is_the_largest_cameras(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True), streams=("a", "b")) as h:
        h.push(plain(100, 48, 64), stream="a")
        h.push(plain(200), stream="b")
        h.push(plain(250, 960, 1280), stream="b")
    assert [s.shape for s in read(path)[0]] == [(96, 256, 3)] * 2


def lossless_mosaic(path: Path, order: str, **props) -> list[np.ndarray]:
    """Two cameras of 10 and 5 frames/s for a second; `order` says whose frame comes next."""
    sent = {"a": 0, "b": 0}
    rate = {"a": 10, "b": 5}
    with Harness(VideoSink(location=str(path), mosaic=True, **props), streams=("a", "b"), lossless=True) as h:
        for stream in order:
            n = sent[stream]
            sent[stream] += 1
            h.push(plain(100 + 10 * n), stream=stream, pts=SECOND // rate[stream] * n + (stream == "b") * SECOND)
            if sent[stream] == rate[stream]:
                h.mark("eos", stream=stream)
    assert sent == rate
    return read(path)[0]


@pytest.mark.parametrize("order", ["aab" * 5, "a" * 10 + "b" * 5, "b" * 5 + "a" * 10, "baa" * 5])
@pytest.mark.parametrize("memory", [0, 48 << 20])
def test_a_lossless_mosaic_goes_by_pts_whoever_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, memory: int
) -> None:
    monkeypatch.setattr(Shelf, "limit", memory)
    seen = lossless_mosaic(tmp_path / "out.mp4", order, fps=10)
    dim = round(140 * DIMMED, -1)
    expected = [[100 + 10 * n, 100 + 10 * (n // 2)] for n in range(9)] + [[190, dim]]
    assert [levels(s, 2) for s in seen] == expected
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"], "what was put aside is gone"


def test_a_lossless_mosaic_takes_a_slower_rate_from_the_newest_frames(tmp_path: Path) -> None:
    seen = lossless_mosaic(tmp_path / "out.mp4", "aab" * 5, fps=2.5)
    assert [levels(s, 2) for s in seen] == [[100, 100], [140, 120], [180, 140], [190, 50]]


def test_a_lossless_mosaic_goes_on_when_a_source_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), lossless=True) as h:
        for n in range(12):
            h.push(plain(100 + 10 * n), pts=n % 4 * 100 * MS)
    assert [levels(s, 1)[0] for s in read(path)[0]] == [100, 110, 120, 140, 150, 160, 180, 190, 200, 210]


def test_a_lossless_mosaic_does_not_wait_for_a_camera_that_is_down(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b", "c"), lossless=True) as h:
        h.mark("status", stream="c", up=False, reason="no such file")
        for n in range(10):
            h.push(plain(100), stream="a", pts=n * 100 * MS)
            if n < 5:
                h.push(plain(200), stream="b", pts=n * 100 * MS)
        assert not h.logs or h.node._files[""].frames == 4, "waits for b"
        h.mark("status", stream="b", up=False)
        assert h.node._files[""].frames == 9
        h.push(plain(220), stream="b", pts=SECOND)
        h.push(plain(100), stream="a", pts=SECOND)
        for stream in "abc":
            h.mark("eos", stream=stream)
    seen, _, _ = read(path)
    assert [levels(s, 2) for s in seen][3:] == [[100, 200], [100, 200]] + [[100, 70]] * 5 + [[100, 220]]


def test_a_lossless_mosaic_that_is_stopped_early_keeps_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b"), lossless=True) as h:
        for n in range(10):
            h.push(plain(100), stream="a", pts=n * 100 * MS)
    assert len(read(path)[0]) == 10


def test_a_shelf_gives_back_what_it_was_given_and_uses_its_file_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shelf = Shelf(tmp_path)
    shelf.limit = 3 * 100
    kept: list[tuple[np.ndarray, object]] = []
    for n in range(200):
        frame = rng.integers(0, 255, (10, 10 + n % 2, 1)).astype(np.uint8)
        kept.append((frame, shelf.put(frame)))
        if n >= 10:
            frame, item = kept.pop(0)
            assert np.array_equal(shelf.take(item), frame)  # type: ignore[arg-type]
    assert shelf._end <= 14 * 110
    shelf.close()


def test_a_shelf_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115
    shelf = Shelf(tmp_path)
    shelf.limit = 0
    with pytest.raises(UserError, match=r"cannot put frames aside in .*: No space left on device"):
        shelf.put(plain(1))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("capture name=c uri={film} ! videosink name=v location={link}", "which c reads"),
        ("capture name=c uri={film} ! videosink name=v location={hard}", "which c reads"),
        ("capture name=c uri=file://{film} ! videosink name=v location={film}", "which c reads"),
        (
            "testsrc name=a ! videosink name=v location=x.mp4 testsrc name=b ! videosink name=w location=./x.mp4",
            "v writes",
        ),
        (
            "testsrc name=a ! fakesink name=s testsrc name=v-a ! videosink name=v location=x.txt",
            "unknown suffix '.txt'",
        ),
        ("testsrc ! videosink name=v location={{cam}}.mp4", "names {cam}; only {camera} is known"),
        (
            "testsrc ! haardetect ! emotion ! report name=r location={link} capture uri={film} ! fakesink",
            "capture0 reads",
        ),
    ],
)
def test_what_would_spoil_a_file_is_found_before_anything_starts(tmp_path: Path, graph: str, message: str) -> None:
    film, link = tmp_path / "a.mp4", tmp_path / "b.mp4"
    film.write_bytes(b"a recording")
    link.symlink_to(film)
    hard = tmp_path / "c.mp4"
    hard.hardlink_to(film)
    with pytest.raises(GraphError, match=re.escape(message)):
        expand(load(graph.format(film=film, link=link, hard=hard)))
    assert film.read_bytes() == b"a recording"


def test_files_that_are_not_the_same_may_be_read_and_written() -> None:
    plan = expand(
        load("capture uri=a.mp4 name=a ! videosink location=out-{camera}.mp4 name=v capture uri=b.mp4 name=b ! v.")
    )
    assert list(plan.nodes) == ["a", "b", "v"]
