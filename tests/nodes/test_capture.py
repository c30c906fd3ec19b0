"""capture: recordings frame by frame, web cams over a stand-in device, what it refuses, how it shows a URI."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml

from nodes.capture import Capture, connect, redact
from nodes.capture.container import is_cut, is_whole
from nodes.capture.mp4 import shown_share
from nodes.capture.reader import Reader
from nodes.capture.timeline import SECOND, LiveTimeline, RateLimit, RecordedTimeline
from nodes.capture.uri import parse
from pipeline.errors import GraphError, UserError
from pipeline.graph import expand
from pipeline.harness import Harness
from pipeline.node import VideoInfo
from pipeline.spec import parse_launch
from tests.nodes.films import assert_rising, film, grey, number
from tests.servers import PATIENCE, Playing

SHARED = sorted((Path(__file__).parents[3] / "shared" / "videos").glob("*.m[kp][v4]"))


def count_by_av(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def read_by_opencv(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(frame)


def harness(uri: Path | str | int, lossless: bool = True, **properties: object) -> Harness:
    value = uri if isinstance(uri, int) else str(uri)
    return Harness(Capture("door", uri=value, **properties), lossless=lossless)


# Every frame once --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.avi", "mjpeg"),
        ("a.ts", "mpeg2video"),
        ("a.webm", "libvpx"),
        ("raw.h264", "libx264"),  # no times in it at all
    ],
)
def test_every_frame_once_in_order(tmp_path: Path, name: str, codec: str) -> None:
    path = film(tmp_path / name, 40, codec=codec)
    with harness(path) as h:
        buffers = h.pull(100)
    assert h.info is not None
    assert (h.info.height, h.info.width, h.info.channels) == (48, 64, 3)
    assert len(buffers) == count_by_av(path) == 40
    assert [number(b.frame) for b in buffers] == list(range(40))
    for buffer, plain in zip(buffers, read_by_opencv(path), strict=True):
        assert np.array_equal(buffer.frame, plain)
    assert buffers[0].pts == 0
    assert_rising([b.pts for b in buffers])
    assert h.logs == []


@pytest.mark.parametrize("path", SHARED, ids=lambda p: p.name)
def test_real_videos_frame_by_frame(path: Path) -> None:
    with av.open(str(path)) as container:
        times = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    with harness(path) as h:
        buffers = h.pull(1000)
    plain = read_by_opencv(path)
    assert len(buffers) == len(times) == len(plain)
    assert all(np.array_equal(b.frame, p) for b, p in zip(buffers, plain, strict=True))
    assert [b.pts / SECOND for b in buffers] == pytest.approx([t - times[0] for t in times], abs=1e-6)
    assert h.logs == []


def test_real_videos_are_there() -> None:
    if not SHARED:
        pytest.skip("no ../shared/videos here: the real videos were not tested")


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    path, ticks = tmp_path / "a.mkv", [0, 40, 50, 300, 301, 1000]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(grey(index), format="bgr24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with harness(path) as h:
        assert [b.pts // 1_000_000 for b in h.pull(9)] == ticks


def test_decodes_into_the_slot_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[bool] = []

    def spy(self: Reader, into: np.ndarray) -> np.ndarray | None:
        picture = retrieve(self, into)
        used.append(picture is into)
        return picture

    retrieve = Reader.retrieve
    with harness(film(tmp_path / "a.mp4", 5)) as h:
        monkeypatch.setattr(Reader, "retrieve", spy)
        h.pull(5)
    assert used == [True] * 4  # the first frame was decoded by open()


@pytest.mark.parametrize("properties", [{}, {"fps": 10}, {"loop": True}, {"start": "500ms"}], ids=str)
@pytest.mark.parametrize("done", [1, 7, 11])
def test_seek_goes_on_exactly(tmp_path: Path, properties: dict, done: int) -> None:
    path = film(tmp_path / "a.mp4", 36)
    with harness(path, **properties) as h:
        whole = h.pull(50)[: done + 5]
    with harness(path, **properties) as h:
        h.node.seek(done)
        rest = h.pull(len(whole) - done)
    assert [(b.pts, number(b.frame)) for b in rest] == [(b.pts, number(b.frame)) for b in whole[done:]]


def test_seek_past_the_end_is_the_end(tmp_path: Path) -> None:
    with harness(film(tmp_path / "a.mp4", 5)) as h:
        h.node.seek(9)
        assert h.pull(1) == []


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (10, [0, 3, 6, 9, 12]),
        (15, [0, 2, 4, 6, 8]),
        (30, [0, 1, 2, 3, 4]),
        (60, [0, 1, 2, 3, 4]),
        (20, [0, 2, 3, 5, 6]),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])  # Matroska rounds its times to ms
def test_fps_limit_picks_by_time(tmp_path: Path, fps: int, expected: list[int], name: str) -> None:
    with harness(film(tmp_path / name, 30), fps=fps) as h:
        buffers = h.pull(99)
    assert [number(b.frame) for b in buffers][:5] == expected
    assert len(buffers) == min(30, fps)
    assert h.info is not None
    assert h.info.fps == pytest.approx(min(30, fps))


def test_loop_goes_on_with_rising_times(tmp_path: Path) -> None:
    with harness(film(tmp_path / "a.mp4", 10), loop=True) as h:
        buffers = h.pull(35)
    assert [number(b.frame) for b in buffers] == [n % 10 for n in range(35)]
    steps = np.diff([b.pts for b in buffers]) / SECOND
    assert steps == pytest.approx(np.full(34, 1 / 30), abs=1e-6)  # no gap and no overlap at the seams


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [("1s", None, range(10, 80)), (0, "500ms", range(5)), ("6s", "6.5s", range(60, 65)), ("7.9s", "1m", [79])],
)
def test_start_and_end(tmp_path: Path, start: str, end: str | None, expected: range) -> None:
    path = film(tmp_path / "a.mp4", 80, fps=10)
    with harness(path, start=start, end=end) as h:
        buffers = h.pull(99)
    assert [number(b.frame) for b in buffers] == [n % 48 for n in expected]
    assert [b.pts for b in buffers] == [n * SECOND // 10 for n in range(len(expected))]
    assert h.logs == []
    with harness(path, start=start, end=end, loop=True) as h:
        numbers = [number(b.frame) for b in h.pull(2 * len(expected))]
    assert numbers == [n % 48 for n in expected] * 2


def test_start_is_exact_even_when_the_container_jumps_too_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jump = Reader.jump
    monkeypatch.setattr(Reader, "jump", lambda self, ms, limit: jump(self, ms + 3000, limit))
    with harness(film(tmp_path / "a.mp4", 80, fps=10, codec="mpeg4"), start="5s") as h:
        assert [number(b.frame) for b in h.pull(3)] == [2, 3, 4]


def test_start_behind_the_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^door: '.*a.mp4' has no frame at or after 'start' \(9 s\)$"):
        harness(film(tmp_path / "a.mp4", 5), start=9)


@pytest.mark.parametrize(
    ("wanted", "size"),
    [({"width": 32}, (24, 32)), ({"height": 96}, (96, 128)), ({"width": 40, "height": 40}, (40, 40))],
)
def test_size(tmp_path: Path, wanted: dict[str, int], size: tuple[int, int]) -> None:
    with harness(film(tmp_path / "a.mp4", 5), **wanted) as h:
        buffers = h.pull(9)
    assert h.info is not None
    assert (h.info.height, h.info.width) == size
    assert [b.frame.shape[:2] for b in buffers] == [size] * 5
    assert [number(b.frame) for b in buffers] == list(range(5))


def test_turned_video_is_upright(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 3)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # a quarter turn, as phones write it
    quarter = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30], ">i4").tobytes()
    data[matrix : matrix + 36] = quarter
    path.write_bytes(data)
    with harness(path) as h:
        buffers = h.pull(9)
    assert h.info is not None
    assert (h.info.height, h.info.width) == (64, 48)
    assert [number(b.frame) for b in buffers] == [0, 1, 2]


@pytest.mark.parametrize(("lossless", "paced"), [(True, False), (False, True)])
def test_recordings_are_paced_in_live_mode_only(tmp_path: Path, lossless: bool, paced: bool) -> None:
    with harness(film(tmp_path / "a.mp4", 3), lossless=lossless) as h:
        assert (h.node.live, h.node.paced) == (False, paced)


# Pictures ----------------------------------------------------------------------------------------------


def album(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), grey(index))
    return folder


def test_folder_in_natural_order(tmp_path: Path) -> None:
    folder = album(tmp_path / "day", ["shot1.png", "Shot2.JPG", "shot10.bmp", "shot11.webp"])
    (folder / "notes.txt").write_text("not a picture by its name")
    with harness(folder, loop=True) as h:
        buffers = h.pull(6)
    assert [number(b.frame) for b in buffers] == [0, 1, 2, 3, 0, 1]
    assert [b.pts for b in buffers] == [n * SECOND // 25 for n in range(6)]
    with harness(folder, fps=2, start="500ms", end="1.5s") as h:
        assert [(number(b.frame), b.pts) for b in h.pull(9)] == [(1, 0), (2, SECOND // 2)]
        assert h.info is not None
        assert h.info.fps == 2


NOISE = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)


def test_folder_leaves_out_what_it_cannot_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = album(tmp_path / "day", ["0.jpg", "1.jpg", "2.png", "3.png"])
    for name in (
        "1.jpg",
        "2.png",
    ):  # cut in their last pixels: libjpeg would fill up with grey, libpng complain on stderr
        cv2.imwrite(str(folder / name), NOISE)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-20])
    with harness(folder, loop=True) as h:
        buffers = h.pull(4)
    assert [number(b.frame) for b in buffers] == [0, 3, 0, 3]
    assert [b.pts for b in buffers[:2]] == [0, 3 * SECOND // 25]
    bad = [f"'{folder / name}' is not a picture that can be decoded; skipped" for name in ("1.jpg", "2.png")]
    assert h.logs == [("warning", text) for text in bad]  # once, not in every round
    assert capfd.readouterr().err == ""


ENCODED = {
    "jpeg": cv2.imencode(".jpg", NOISE)[1].tobytes(),
    "progressive jpeg": cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "jpeg in intervals": cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes(),
    "png": cv2.imencode(".png", NOISE)[1].tobytes(),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_a_picture_is_cut_where_its_end_is_not_there(kind: str) -> None:
    data = ENCODED[kind]
    if kind.endswith("jpeg"):  # with a thumbnail, which has an end of its own
        thumbnail = b"Exif\0\0" + ENCODED["jpeg"][:1000] + b"\xff\xd9"
        data = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    assert not is_cut(data)
    assert not any(is_cut(data + trailer) for trailer in (b"\0" * 100, b"\xff\xda" * 99, b"\0\0\0\x18ftypmp42"))
    assert all(is_cut(data[:length]) for length in range(8, len(data), 13))
    assert all(is_cut(data[:-lacking]) for lacking in (1, 2, 3))


def test_what_follows_the_end_of_a_picture_plays_no_part(tmp_path: Path) -> None:
    """A motion photo has a film there, some cameras have zeros."""
    folder = album(tmp_path / "day", ["0.jpg", "1.png"])
    for path in folder.iterdir():
        write(path, path.read_bytes() + b"\0" * 100 + b"\xff\xda\xff\xd8" * 1000)
    with harness(folder) as h:
        assert [number(b.frame) for b in h.pull(9)] == [0, 1]
    assert h.logs == []


def test_mixed_sizes_keep_their_aspect(tmp_path: Path) -> None:
    folder = album(tmp_path / "day", ["0.png"])
    cv2.imwrite(str(folder / "1.png"), np.full((48, 16, 3), 200, np.uint8))
    cv2.imwrite(str(folder / "2.png"), np.full((24, 32, 3), 100, np.uint8))
    cv2.imwrite(str(folder / "3.png"), grey(3))
    with harness(folder) as h:
        frames = []
        while h.node.fill(buffer := h.buffer(np.full((48, 64, 3), 255, np.uint8))):  # a slot that was used before
            frames.append(buffer.frame)
    assert {f.shape for f in frames} == {(48, 64, 3)}
    assert (frames[1][:, 24:40] == 200).all()
    assert not frames[1][:, :24].any()
    assert not frames[1][:, 40:].any()
    assert (frames[2] == 100).all()
    assert number(frames[3]) == 3


# Damage and refusal ------------------------------------------------------------------------------------


def halve(path: Path, share: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize(("name", "options"), [("a.mkv", {}), ("a.mp4", {"movflags": "faststart"})])
def test_cut_video_gives_what_it_has_and_says_so(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = halve(film(tmp_path / name, 60, codec="mjpeg", **options))
    with harness(path) as h:
        buffers = h.pull(99)
    assert [number(b.frame) for b in buffers] == list(range(len(buffers)))
    assert 20 <= len(buffers) <= 40
    promise = f"'{path}' ended after {len(buffers)} frames, but its header promises 60: cut short?"
    assert h.logs == [("error", promise)]


def with_long_sound(path: Path, seconds: float, **options: str) -> Path:
    """A second of video, and sound that goes on."""
    with av.open(str(path), "w", options=options) as out:
        video, sound = out.add_stream("mjpeg", rate=30), out.add_stream("pcm_s16le", rate=8000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        for index in range(30):
            out.mux(video.encode(av.VideoFrame.from_ndarray(grey(index), format="bgr24")))
        for index in range(round(seconds * 8)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.int16), format="s16", layout="mono")
            silence.rate, silence.pts = 8000, index * 1000
            out.mux(sound.encode(silence))
        out.mux(video.encode())
        out.mux(sound.encode())
    return path


def test_sound_that_outlasts_the_picture_is_no_damage(tmp_path: Path) -> None:
    with harness(with_long_sound(tmp_path / "a.mkv", 3.0)) as h:
        assert len(h.pull(99)) == 30
    assert h.logs == []
    with harness(halve(with_long_sound(tmp_path / "b.mkv", 3.0), 0.4)) as h:
        assert len(h.pull(99)) < 30
    assert [level for level, _ in h.logs] == ["error"]


def edited(path: Path, first: int, count: int, codec: str = "libx264") -> Path:
    """60 frames at 30 frames/s, of which the edit list shows `count` from `first` on."""
    data = bytearray(film(path, 60, codec=codec).read_bytes())
    at = data.index(b"elst") + 12  # what is shown in ms, and from when on in 1/15360 s
    delay = int.from_bytes(data[at + 4 : at + 8], "big")
    data[at : at + 8] = (count * 1000 // 30).to_bytes(4, "big") + (delay + first * 512).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def test_what_an_edit_list_leaves_out_is_no_damage(tmp_path: Path) -> None:
    path = edited(tmp_path / "a.mp4", first=20, count=30)
    assert shown_share(path) == pytest.approx(0.5, abs=0.03)
    with harness(path) as h:
        numbers = [number(b.frame) for b in h.pull(99)]
    assert numbers == [n % 48 for n in range(20, 20 + len(numbers))]
    assert len(numbers) == count_by_av(path) == pytest.approx(30, abs=1)
    assert h.logs == []


def test_frames_that_are_lost_in_the_middle_of_an_mp4_are_told(tmp_path: Path) -> None:
    path = edited(tmp_path / "a.mp4", first=0, count=30, codec="mjpeg")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xd8\xff"]
    data[starts[8] : starts[40]] = bytes(starts[40] - starts[8])
    path.write_bytes(data)
    with harness(path) as h:
        assert len(h.pull(99)) == 8
    assert [level for level, _ in h.logs] == ["error"]


@pytest.mark.parametrize("damage", [b"", b"none of it", b"\0\0\0\x10ftyp", b"\0\0\0\x01moov", b"\0\0\0\x03ftyp"])
def test_what_has_no_edit_list_is_shown_in_full(tmp_path: Path, damage: bytes) -> None:
    assert shown_share(write(tmp_path / "a.mp4", damage)) == 1
    assert shown_share(tmp_path / "nosuch.mp4") == 1
    whole = edited(tmp_path / "b.mp4", first=0, count=30)
    index = whole.read_bytes().index(b"moov")
    for length in range(index, len(whole.read_bytes()), 7):
        assert 0 < shown_share(write(tmp_path / "a.mp4", whole.read_bytes()[:length])) <= 1


def test_a_matroska_file_that_was_never_closed_is_a_warning_at_most(tmp_path: Path) -> None:
    path = with_long_sound(tmp_path / "a.mkv", 3.0)
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("18538067")) + 4
    data[at : at + 8] = bytes.fromhex("01ffffffffffffff")  # the size that says "unknown"
    path.write_bytes(data)
    with harness(path) as h:
        assert len(h.pull(99)) == 30
    assert [level for level, _ in h.logs] == ["warning"]


@pytest.mark.parametrize(
    "head", [b"", b"no EBML at all", bytes.fromhex("1a45dfa3"), bytes.fromhex("1a45dfa381"), b"\0" * 9]
)
def test_what_is_no_matroska_says_nothing_of_its_end(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(head)
    assert is_whole(path) is None
    assert is_whole(tmp_path / "nosuch.mkv") is None


@pytest.mark.parametrize("path", SHARED, ids=lambda p: p.name)
def test_cut_real_videos(tmp_path: Path, path: Path) -> None:
    cut = tmp_path / path.name
    cut.write_bytes(path.read_bytes())
    halve(cut)
    if cut.suffix == ".mp4":  # its index is at the end
        with pytest.raises(UserError, match="is not a video that can be decoded"):
            harness(cut)
        return
    with harness(cut) as h:
        buffers = h.pull(1000)
    assert len(buffers) == count_by_av(cut) > 0
    assert [level for level, _ in h.logs] == ["error"]
    assert f"ended after {len(buffers)} frames, but its header promises" in h.logs[0][1]


def test_cut_where_end_was_asked_is_no_warning(tmp_path: Path) -> None:
    with harness(film(tmp_path / "a.mkv", 60), end="1s") as h:
        assert len(h.pull(99)) == 30
    assert h.logs == []


def test_damaged_frame_is_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = film(tmp_path / "a.avi", 30, codec="mjpeg")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xd8\xff"]
    data[starts[10] : starts[11] - 16] = bytes(starts[11] - 16 - starts[10])
    path.write_bytes(data)
    with harness(path) as h:
        assert [number(b.frame) for b in h.pull(99)] == [n for n in range(30) if n != 10]
    assert capfd.readouterr().err == ""


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


REFUSED = {
    "missing": (lambda t: t / "x.mp4", "no such file '{}'"),
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
    "no host": (lambda t: "rtsp:///x", "'{}' names no host"),
    "bad port": (lambda t: "http://u:word@h:12345678/", "'http://***@h:12345678/' is not a valid address"),
    "other host": (lambda t: "file://elsewhere/x.mp4", "'{}' names the host 'elsewhere'"),
    "refused": (lambda t: "rtsp://u:word@127.0.0.1:1/x", "'rtsp://***@127.0.0.1:1/x': nothing listens on 127.0.0.1:1"),
    "no name": (lambda t: "http://u:word@no.invalid/x", "'http://***@no.invalid/x': the name no.invalid cannot be"),
}


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


OPTIONAL = {"required": False, "width": 64, "height": 48}


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


# URIs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "kind", "address"),
    [
        ("0", "camera", "/dev/video0"),
        ("/dev/video2", "camera", "/dev/video2"),
        ("v4l2:///dev/video1", "camera", "/dev/video1"),
        ("/dev/v4l/by-id/usb-cam", "camera", "/dev/v4l/by-id/usb-cam"),
        ("clips/a.mp4", "path", "clips/a.mp4"),
        ("a:b.mp4", "path", "a:b.mp4"),
        ("file:///tmp/my%20clip.mp4", "path", "/tmp/my clip.mp4"),
        ("file://localhost/tmp/a.mp4", "path", "/tmp/a.mp4"),
        ("rtsp://u:p@10.0.0.5/stream1", "rtsp", "rtsp://u:p@10.0.0.5/stream1"),
        ("RTSPS://cam:9000/x", "rtsp", "RTSPS://cam:9000/x"),
        ("https://cam/video.mjpg?x=1", "http", "https://cam/video.mjpg?x=1"),
    ],
)
def test_kinds_of_uri(uri: str, kind: str, address: str) -> None:
    place = parse(uri)
    assert (place.kind, place.address) == (kind, address)


def test_a_number_is_a_webcam() -> None:
    assert Capture("door", uri=0).props.uri == "0"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("clips/a.mp4", "clips/a.mp4"),
        ("rtsp://cam:554/s?channel=1", "rtsp://cam:554/s?channel=1"),
        ("rtsp://user:word@cam/s", "rtsp://***@cam/s"),
        ("rtsp://user:w@rd/w?rd word@cam/s", "rtsp://***@cam/s"),
        ("rtsp://word@cam/s", "rtsp://***@cam/s"),
        ("rtsp:user:word@cam/s", "rtsp:***@cam/s"),
        ("http://cam/v?usr=word&pwd=word&n=1", "http://cam/v?usr=***&pwd=***&n=1"),
        ("http://cam/v?Access_Token=word", "http://cam/v?Access_Token=***"),
        ("rtsp://cam/user=word_password=word_channel=1", "rtsp://cam/user=***_password=***_channel=1"),
    ],
)
def test_redact(uri: str, shown: str) -> None:
    assert redact(uri) == shown


def test_nothing_shows_the_password() -> None:
    uri = "rtsp://user:word@cam/s"
    node = Capture("door", uri=uri)
    assert "word" not in repr(node.props) + repr(parse(uri)) + str(node.props)


def test_the_examples_in_the_docs_are_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cameras.md").read_text()
    nodes = yaml.safe_load(page.split("```yaml")[1].split("```")[0])["nodes"]
    kinds = set()
    for name, properties in nodes.items():
        assert properties.pop("type") == "capture"
        kinds.add(parse(Capture(name, **properties).props.uri).kind)
    assert kinds == {"camera", "path", "rtsp", "http"}


# Times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "stamps", "passed"),
    [
        (None, [0, 1, 1, 2], [0, 1, 1, 2]),
        (1, [0, 400, 999, 1000, 1500, 3000], [0, 1000, 3000]),
        (10, [0, 33, 67, 100, 133, 167, 200], [0, 100, 200]),
        (2, [700, 900, 1100], [700, 1100]),
    ],
)
def test_rate_limit(fps: float | None, stamps: list[int], passed: list[int]) -> None:
    limit = RateLimit(fps, 0)
    assert [s for s in stamps if limit.wants(s * 1_000_000)] == passed


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([0, 0, 0], [0, 40, 80]),  # a raw stream has none
        ([80, 120, 121], [80, 120, 121]),
        ([0, 17, 33, 33, 50, 67], [0, 17, 33, 41, 50, 67]),  # faster than its nominal 25 frames/s, one given twice
        ([0, 17, 33, 0, 50, 67], [0, 17, 33, 49, 50, 67]),  # one that is missing
        ([0, 17, 34, 17, 51, 68], [0, 17, 34, 42.5, 51, 68]),  # one that steps back
        ([0, 0, 17, 33, 50, 67], [0, 40, 48.5, 56.5, 65, 67]),
        ([0, 40, 40, 40, 1000], [0, 40, 60, 80, 1000]),
        ([0, 5000, 5000, 5001, 5100], [0, 5000, 5020, 5020.5, 5100]),  # a pause is no frame rate
        ([360, 400, 40, 80, 120], [360, 400, 440, 480, 520]),  # two that were joined
    ],
)
def test_a_recordings_times_are_its_stamps_wherever_they_rise(stamps: list[float], times: list[float]) -> None:
    timeline = RecordedTimeline(40_000_000)
    assert [timeline.at(round(stamp * 1_000_000)) / 1e6 for stamp in stamps] == times


def test_one_stamp_given_twice_does_not_delay_the_rest(tmp_path: Path) -> None:
    path, ticks = tmp_path / "a.mkv", [round(n * 1000 / 60) for n in range(60)]
    ticks[20] = ticks[19]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)  # the header's rate; the stamps say 60
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packets = [
            packet
            for index in range(60)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey(index), format="bgr24"))
        ]
        for packet, tick in zip(packets + stream.encode(), ticks, strict=True):
            packet.pts = packet.dts = tick
            packet.time_base = Fraction(1, 1000)
            out.mux(packet)
    with harness(path) as h:
        pts = [b.pts // 1_000_000 for b in h.pull(99)]
    assert_rising(pts)
    assert pts[:20] + pts[21:] == ticks[:20] + ticks[21:]


def ms(timeline: LiveTimeline, now: float, stamp: float | None) -> float:
    return timeline.pts(round(now * 1e6), None if stamp is None else round(stamp * 1e6)) / 1e6


def test_live_times_are_the_cameras_own() -> None:
    """Jitter of the network does not show, nor does the burst that a camera sends first."""
    timeline = LiveTimeline()
    for index in range(30):
        ms(timeline, 5000, 900 + 40 * index)
    late = [0, 25, 3, 17, 0, 30]
    times = [ms(timeline, 5040 + 40 * i + late[i % 6], 2100 + 40 * i) for i in range(60)]
    assert np.diff(times[1:]) == pytest.approx(np.full(58, 40), abs=0.2)


@pytest.mark.parametrize("stamps", [[0, 40, 0, 40, 80], [0, 40, 900_000, 900_040, 900_080], [None] * 5])
def test_live_times_rise_with_the_clock_whatever_the_stamps(stamps: list[float | None]) -> None:
    timeline = LiveTimeline()
    times = [ms(timeline, 7000 + 3000 * i, stamp) for i, stamp in enumerate(stamps)]
    assert times == [0, 3000, 6000, 9000, 12000]
    timeline.reconnected()
    assert ms(timeline, 27000, 0) == 20000
    assert ms(timeline, 27000, 0) > 20000  # never the same twice


def test_live_times_after_a_short_absence() -> None:
    timeline = LiveTimeline()
    assert ms(timeline, 7000, 100) == 0
    timeline.reconnected()
    assert ms(timeline, 8000, 700) == 1000  # not 600: the stamps have another origin now


def test_live_times_follow_a_slow_camera_clock() -> None:
    timeline = LiveTimeline()
    for index in range(20000):  # 1 ms in 10 s, at 25 frames/s
        last = ms(timeline, 40.004 * index, 40 * index)
    assert 40.004 * 19999 - last < 10


# A webcam, over a stand-in device ----------------------------------------------------------------------


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
        playing.until(lambda: h.statuses == [(False, "the stream ended")])
        device.size, device.present = (96, 96), True
        playing.until(lambda: len(h.statuses) == 2)
        playing.frames(5)
    assert h.statuses[1:] == [(True, "")]
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
    assert h.statuses[3:] == [(False, "the stream ended")]
    assert {level for level, _ in h.logs} == {"debug"}  # the engine warns of each status, once


def test_webcam_that_is_there_is_not_down_at_first(device: Device, tmp_path: Path) -> None:
    h = harness(f"v4l2://{tmp_path}/video0", lossless=False, fps=15, **OPTIONAL)
    assert h.info == VideoInfo(48, 64, 3, 15.0)
    with Playing(h) as playing:
        playing.frames(3)
        device.present = False
        playing.until(lambda: h.statuses == [(False, "the stream ended")])
        device.size, device.present = (96, 96), True
        playing.until(lambda: len(h.statuses) == 2)
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


# Nothing hangs -----------------------------------------------------------------------------------------


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
