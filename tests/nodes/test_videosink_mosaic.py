"""videosink with layout=mosaic: all cameras in one file, live by the clock and lossless by PTS."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nodes.mosaic import DIMMED
from nodes.videosink import VideoSink
from nodes.videosink.wall import LiveWall, Shelf
from pipeline import GraphError, Harness, UserError
from pipeline.graph import expand
from pipeline.load import load
from tests.nodes.recordings import MS, SECOND, read


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
        ("testsrc ! videosink name=v location={{cam}}.mp4", "names {cam}; only {camera} and {time} are known"),
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


def test_a_live_mosaic_has_the_size_of_a_camera_that_was_down_at_first(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b")) as h:
        for stream in "ab":
            h.mark("status", stream=stream, up=False, reason="dead")
        h.tick()
        for _ in range(3):
            h.clock += 0.1
            h.push(plain(200), stream="a")
    seen, _, _ = read(path)
    assert [levels(s, 2) for s in seen] == [[200, 0]] * 3
    assert [s.shape for s in seen] == [(96, 256, 3)] * 3


def test_a_lossless_mosaic_takes_in_a_camera_that_comes_later(tmp_path: Path) -> None:
    """Its frames are shown beside those that the others have then, and nobody waits until it has caught up."""
    path = tmp_path / "out.mp4"
    with Harness(VideoSink(location=str(path), mosaic=True, fps=10), streams=("a", "b"), lossless=True) as h:
        h.mark("status", stream="a", up=False, reason="away")
        for n in range(6):
            h.push(plain(200), stream="b", pts=n * 100 * MS)
        for n in range(6, 10):
            h.push(plain(100 + 10 * (n - 6)), stream="a", pts=1042 * MS + (n - 6) * 100 * MS)
            h.push(plain(200), stream="b", pts=n * 100 * MS)
    seen, times, _ = read(path)
    assert times == pytest.approx([n / 10 for n in range(10)], abs=1e-4)
    assert [levels(s, 2)[0] for s in seen[5:]] == [100, 110, 120, 130, 130]


@pytest.mark.parametrize("gap", [60, 3600 * 6], ids=["a minute", "six hours"])
def test_a_lossless_mosaic_shows_of_a_gap_its_first_second(tmp_path: Path, gap: int) -> None:
    """A gap of hours is not encoded picture by picture; one that no file can tell of begins another file."""
    with Harness(VideoSink(location=str(tmp_path / "out.mp4"), mosaic=True, fps=10), lossless=True) as h:
        for pts in (0, 100 * MS, gap * SECOND, gap * SECOND + 100 * MS):
            h.push(plain(200 if pts < SECOND else 100), pts=pts)
    files = [read(path) for path in sorted(tmp_path.iterdir(), key=lambda path: (len(path.name), path.name))]
    before, after = [n / 10 for n in range(12)], [0, 0.1]
    if gap > 3600:
        assert [times for _, times, _ in files] == [pytest.approx(before, abs=1e-4), pytest.approx(after, abs=1e-4)]
    else:
        assert files[0][1] == pytest.approx([*before, *(gap + time for time in after)], abs=1e-4)
    pictures = [levels(picture, 1)[0] for seen, _, _ in files for picture in seen]
    assert pictures == [200] * 12 + [100] * 2


def test_a_camera_that_is_back_is_no_longer_dimmed():
    wall = LiveWall(("a", "b"), fps=10)
    for stream, value in (("a", 100), ("b", 200)):
        wall.push(stream, plain(value), 0, 0)
    wall.mute("b", "unplugged")
    assert len(list(wall.due(0))) == 1
    ((picture, _),) = wall.due(100 * MS)
    assert picture[40, 200].max() < 150
    wall.push("b", plain(200), 0, 150 * MS)
    for tick in (2, 3, 4):  # between two frames of a slow camera, too
        ((picture, _),) = wall.due(tick * 100 * MS)
        assert picture[40, 200].tolist() == [200] * 3
