"""capture of a folder of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nodes.capture.container import is_cut
from nodes.capture.timeline import SECOND
from pipeline.errors import UserError
from tests.nodes.captures import album, harness, write
from tests.nodes.films import film, number


def test_folder_in_natural_order(tmp_path: Path) -> None:
    folder = album(tmp_path / "day", ["shot1.png", "Shot2.JPG", "shot10.bmp", "shot11.webp"])
    (folder / "notes.txt").write_text("not a picture by its name")
    with harness(folder, loop=True) as h:
        buffers = h.pull(6)
    assert [number(b.frame) for b in buffers] == [0, 1, 2, 3, 0, 1]
    assert [b.pts for b in buffers] == [n * SECOND // 25 for n in range(6)]
    with harness(folder, fps=2, start="500ms", end="1.5s") as h:
        assert [(number(b.frame), b.pts) for b in h.pull(9)] == [(1, SECOND // 2), (2, SECOND)]
        assert h.info is not None
        assert h.info.fps == 2


def test_pictures_of_kinds_that_are_not_read_are_told(tmp_path: Path) -> None:
    """A telephone's, in between: they would be missing without a word."""
    folder = album(tmp_path / "day", ["1.png", "2.png"])
    for name in ("a.HEIC", "b.gif", "c.heic", "notes.txt"):
        (folder / name).write_bytes(b"?")
    with harness(folder, loop=True) as h:
        assert len(h.pull(5)) == 5
    assert h.logs == [("warning", "3 files are pictures of kinds not read here: .gif .heic")]
    (folder / "a.HEIC").unlink()
    (folder / "b.gif").unlink()
    with harness(folder) as h:
        assert len(h.pull(5)) == 2
    assert h.logs == [("warning", "1 file is a picture of a kind not read here: .heic")]


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


def pictures(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """Pictures (name -> height, width) of noise, each another, of 100 to 200 everywhere."""
    folder.mkdir()
    noise = np.random.default_rng(2)
    for name, size in sizes.items():
        cv2.imwrite(str(folder / name), noise.integers(100, 200, (*size, 3), np.uint8))
    return folder


def frames(folder: Path, **properties: object) -> dict[str, np.ndarray]:
    """The name of each picture, and its frame, written into a slot that was used before."""
    with harness(folder, **properties) as h:
        assert h.info is not None
        slot = np.full((h.info.height, h.info.width, 3), 255, np.uint8)
        found = {}
        while h.node.fill(buffer := h.buffer(slot.copy())):
            assert buffer.shape == buffer.frame.shape
            found[buffer.meta["picture"]] = buffer.frame
    return found


SIZES = {"0.png": (24, 32), "1.png": (60, 16), "2.bmp": (48, 64), "3.png": (24, 32)}


def test_each_picture_keeps_its_size(tmp_path: Path) -> None:
    """So a place in the frame is the same place in the picture, and a small one costs no more than it must."""
    folder = pictures(tmp_path / "day", SIZES)
    found = frames(folder)
    assert list(found) == list(SIZES)
    for name, frame in found.items():
        np.testing.assert_array_equal(frame, cv2.imread(str(folder / name)))


def test_pictures_of_many_sizes_are_scaled_alike(tmp_path: Path) -> None:
    found = frames(pictures(tmp_path / "day", SIZES), width=32)
    assert {name: frame.shape[:2] for name, frame in found.items()} == {
        name: (height / 2, width / 2) for name, (height, width) in SIZES.items()
    }
    assert all(frame.min() >= 100 for frame in found.values())


def test_with_width_and_height_all_frames_have_that_size(tmp_path: Path) -> None:
    found = frames(pictures(tmp_path / "day", SIZES), width=128, height=96)
    assert {frame.shape for frame in found.values()} == {(96, 128, 3)}
    assert found["2.bmp"].min() >= 100
    assert found["1.png"][:, 52:76].min() >= 100
    assert not found["1.png"][:, :51].any()
    assert not found["1.png"][:, 77:].any()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_room_is_made_for_a_picture_that_is_turned_upright(tmp_path: Path, suffix: str) -> None:
    folder = pictures(tmp_path / "day", {"0.png": (24, 32)})
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (64, 48), "white").save(folder / f"1.{suffix}", exif=turned)
    with harness(folder) as h:
        assert h.info is not None
        assert (h.info.height, h.info.width) == (64, 48)
    found = frames(folder)[f"1.{suffix}"]
    assert found.shape == (64, 48, 3)
    assert found.min() > 250


def test_a_picture_that_is_replaced_by_a_larger_one_is_shrunk_to_the_room(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "day", {"0.png": (24, 32), "1.png": (40, 64)})
    with harness(folder) as h:
        cv2.imwrite(str(folder / "1.png"), np.full((160, 128, 3), 200, np.uint8))
        _, frame = (buffer.frame for buffer in h.pull(2))
    assert frame.shape == (40, 32, 3)
    assert (frame == 200).all()


def test_a_broken_picture_takes_no_room_but_by_its_header(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "day", {"0.png": (24, 32)})
    write(folder / "1.png", b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    write(folder / "2.jpg", b"")
    assert [frame.shape for frame in frames(folder).values()] == [(24, 32, 3)]


def test_a_name_that_is_not_utf_8_can_be_told(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "day", {"0.png": (24, 32)})
    os.rename(folder / "0.png", os.fsencode(folder) + b"/caf\xe9.png")
    assert list(frames(folder)) == [r"caf\xe9.png"]


def test_only_pictures_of_a_folder_have_a_name(tmp_path: Path) -> None:
    with harness(film(tmp_path / "clip.mp4", 3)) as h:
        assert [buffer.meta for buffer in h.pull(3)] == [{}, {}, {}]


def test_a_single_picture_is_a_folder_of_one(tmp_path: Path) -> None:
    """With its name, its own size and turned upright; FFmpeg, which reads it too, knows none of that."""
    folder = pictures(tmp_path / "day", SIZES)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (64, 48), "white").save(folder / "4.JPG", exif=turned)
    assert {name: frame.shape[:2] for name, frame in frames(folder / "4.JPG").items()} == {"4.JPG": (64, 48)}
    found = frames(folder / "1.png")
    np.testing.assert_array_equal(found.pop("1.png"), cv2.imread(str(folder / "1.png")))
    assert not found
    with harness(folder / "1.png", loop=True, fps=2) as h:
        assert [buffer.pts for buffer in h.pull(3)] == [0, SECOND // 2, SECOND]
    write(folder / "1.png", b"\x89PNG")
    with pytest.raises(UserError, match="day/1.png' holds no frame that can be decoded: it is damaged, or cut short"):
        harness(folder / "1.png")
