"""capture, recordings: every frame once, its time, where it starts and ends, its size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from nodes.capture.reader import Reader
from nodes.capture.timeline import SECOND
from pipeline.errors import UserError
from tests.nodes.captures import SHARED, count_by_av, harness
from tests.nodes.films import assert_rising, film, grey, number


def read_by_opencv(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(frame)


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
    assert [b.pts for b in buffers] == [n * SECOND // 10 for n in expected]  # their places in the recording
    assert h.logs == []
    with harness(path, start=start, end=end, loop=True) as h:
        twice = h.pull(2 * len(expected))
    assert [number(b.frame) for b in twice] == [n % 48 for n in expected] * 2
    assert [b.pts for b in twice] == [(expected[0] + n) * SECOND // 10 for n in range(2 * len(expected))]


def test_start_does_not_move_the_rate(tmp_path: Path) -> None:
    """At most so many frames a second, counted from the first, wherever that is."""
    with harness(film(tmp_path / "a.mp4", 80, fps=10), start="1.9s", fps=1) as h:
        assert [b.pts for b in h.pull(4)] == [n * SECOND // 10 for n in (19, 29, 39, 49)]


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


@pytest.mark.parametrize("wanted", [{}, {"width": 128}])
def test_what_is_masked_is_black_in_every_frame(tmp_path: Path, wanted: dict[str, int]) -> None:
    with harness(film(tmp_path / "a.mp4", 6), mask=[[0, 0, 0.25, 0.5], [0.75, 0.75, 0.25, 0.25]], **wanted) as h:
        buffers = h.pull(10)
    assert len(buffers) == 6
    for buffer in buffers[1:]:
        height, width = buffer.shape[:2]
        black = (buffer.frame == 0).all(axis=2)
        expected = np.zeros((height, width), bool)
        expected[: height // 2, : width // 4] = expected[height * 3 // 4 :, width * 3 // 4 :] = True
        assert np.array_equal(black, expected)


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


def test_a_loop_over_nothing_ends(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no frame at or after 'start' \(9 s\)$"):
        harness(film(tmp_path / "a.mp4", 5), start=9, loop=True)
