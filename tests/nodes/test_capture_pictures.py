"""capture of a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from nodes.capture.container import is_cut
from nodes.capture.timeline import SECOND
from tests.nodes.captures import album, harness, write
from tests.nodes.films import grey, number


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
