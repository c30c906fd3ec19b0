"""videosink: what is in the files, and when they can be played."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from nodes.videosink import VideoSink
from nodes.videosink.segments import next_free
from pipeline import Harness
from tests.nodes.recordings import MS, SECOND, clip, count_with_opencv, read, similar, uneven, write

# One camera -------------------------------------------------------------------------------------------------


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


# Files ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("before", [1, 3])
def test_after_a_gap_that_no_file_can_tell_of_another_begins(tmp_path: Path, name: str, before: int) -> None:
    """A camera that was away over night."""
    frames = clip(before + 2)
    pts = [n * 40 * MS for n in range(before)] + [10 * 3600 * SECOND + n * 40 * MS for n in range(2)]
    h = write(VideoSink(location=str(tmp_path / name)), frames, pts)
    assert [text for _, text in h.logs if text.startswith("writing")] == [
        f"writing {tmp_path / name}",
        f"writing {tmp_path / name.replace('out', 'out-2')}",
    ]
    first, second = read(tmp_path / name), read(tmp_path / name.replace("out", "out-2"))
    assert (len(first[0]), len(second[0])) == (before, 2)
    assert second[1] == pytest.approx([0, 0.04], abs=2e-3)
    assert all(similar(*pair) for pair in zip(frames, first[0] + second[0], strict=True))


def test_a_gap_of_an_hour_is_one_in_the_file(tmp_path: Path) -> None:
    pts = [0, 40 * MS, 3600 * SECOND]
    write(VideoSink(location=str(tmp_path / "out.mp4")), clip(3), pts)
    assert read(tmp_path / "out.mp4")[1] == pytest.approx([0, 0.04, 3600], abs=1e-3)
