"""capture of what is cut or damaged: it gives what is there, and says what is missing."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from nodes.capture.container import is_whole
from nodes.capture.mp4 import shown_share
from pipeline.errors import UserError
from tests.nodes.captures import SHARED, count_by_av, halve, harness, write
from tests.nodes.films import film, grey, number


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
