"""picturesink: which frames become pictures, how their files are called, and what is said when one cannot be written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from nodes.picturesink import LONGEST, PictureSink, name_for
from pipeline import GraphError, Harness, Region, UserError
from pipeline.graph import expand
from pipeline.launchstring import parse_launch
from tests.nodes.captures import album
from tests.support.graphs import ROOT, run_graph

MS = 1_000_000
FRAME = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
FACE = Region((1, 2, 30, 40))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def test_each_frame_of_a_camera_is_a_jpeg_with_its_number(tmp_path: Path):
    out = tmp_path / "new" / "out"
    with Harness(PictureSink(location=str(out)), streams=("door",)) as h:
        for n in range(3):
            h.push(np.full((48, 64, 3), 40 * n, np.uint8), pts=n * 100 * MS)
    assert names(out) == ["door-000000.jpg", "door-000001.jpg", "door-000002.jpg"]
    for n, name in enumerate(names(out)):
        assert (out / name).read_bytes()[:3] == b"\xff\xd8\xff"
        assert np.abs(cv2.imread(str(out / name)).astype(int) - 40 * n).max() <= 2
    assert h.logs == [("info", f"wrote 3 pictures to {out}")]


def test_a_picture_keeps_its_name_and_its_format(tmp_path: Path):
    with Harness(PictureSink(location=str(tmp_path))) as h:
        for name in ("a.png", "B.JPG", "c.webp", "d.tif"):
            h.push(FRAME, meta={"picture": name})
    assert names(tmp_path) == ["B.JPG", "a.png", "c.webp", "d.tif.jpg"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png")), FRAME)
    starts = {name: (tmp_path / name).read_bytes()[:12] for name in names(tmp_path)}
    assert starts["B.JPG"][:3] == starts["d.tif.jpg"][:3] == b"\xff\xd8\xff"
    assert (starts["c.webp"][:4], starts["c.webp"][8:]) == (b"RIFF", b"WEBP")


@pytest.mark.parametrize(
    ("format", "picture", "name"),
    [
        ("png", None, "door-000007.png"),
        ("webp", None, "door-000007.webp"),
        ("png", "a.png", "a.png"),
        ("png", "a.jpg", "a.jpg.png"),
        ("jpeg", "a.JPEG", "a.JPEG"),
        ("auto", "noon", "noon.jpg"),
        ("auto", "../../etc/a.png", "a.png"),  # names come over the network, too
        ("auto", "/etc/", "door-000007.jpg"),
        ("auto", "..", "door-000007.jpg"),
        ("auto", "a\0.png", "a.png"),
        ("auto", "é" * LONGEST + ".png", "door-000007.jpg"),
        ("auto", ["a.png"], "door-000007.jpg"),
    ],
)
def test_names(tmp_path: Path, format: str, picture: object, name: str):
    with Harness(PictureSink(location=str(tmp_path)), streams=("door",)) as h:
        buffer = h.buffer(FRAME, meta={"picture": picture})
        buffer.sequence = 7
    assert name_for(buffer, format) == name


def test_quality_is_that_of_the_encoder(tmp_path: Path):
    sizes = {}
    for quality in (10, 95):
        with Harness(PictureSink(location=str(tmp_path), quality=quality)) as h:
            for name in ("a.jpg", "a.webp"):
                h.push(FRAME, meta={"picture": name})
        sizes[quality] = [(tmp_path / name).stat().st_size for name in ("a.jpg", "a.webp")]
    assert all(2 * low < high for low, high in zip(sizes[10], sizes[95], strict=True))


def test_an_interval_is_each_cameras_own(tmp_path: Path):
    with Harness(PictureSink(location=str(tmp_path), interval="1s"), streams=("door", "desk")) as h:
        for n in range(26):
            h.push(FRAME, stream="door", pts=n * 100 * MS)
            h.push(FRAME, stream="desk", pts=n * 250 * MS)
    assert names(tmp_path) == [
        *(f"desk/desk-{n:06d}.jpg" for n in range(0, 26, 4)),
        *(f"door/door-{n:06d}.jpg" for n in range(0, 26, 10)),
    ]


def test_times_that_step_back_begin_anew(tmp_path: Path):
    """A camera of another host that was started again: else there would be no picture until the old time is reached."""
    with Harness(PictureSink(location=str(tmp_path), interval="2s")) as h:
        for second in (0, 1, 2, 3, 100, 5, 6, 7, 8):
            h.push(FRAME, pts=second * 1000 * MS)
    assert [int(name[7:13]) for name in names(tmp_path)] == [0, 2, 4, 5, 7]


def test_only_frames_with_a_face_and_the_interval_begins_with_one(tmp_path: Path):
    with Harness(PictureSink(location=str(tmp_path), interval="1s", faces_only=True)) as h:
        for n in range(14):
            h.push(FRAME, pts=n * 100 * MS, regions=[FACE] if n in (3, 4, 13) else [])
    assert names(tmp_path) == ["camera-000003.jpg", "camera-000013.jpg"]


def test_the_cameras_name_may_stand_in_the_location(tmp_path: Path):
    with Harness(PictureSink(location=f"{tmp_path}/{{camera}}/today"), streams=("door", "desk")) as h:
        h.push(FRAME, stream="door")
        h.push(FRAME, stream="desk")
        h.mark("eos", "door")
        assert h.logs == [("info", f"wrote 1 picture to {tmp_path}/door/today")]
    assert names(tmp_path) == ["desk/today/desk-000000.jpg", "door/today/door-000000.jpg"]
    assert len(h.logs) == 2


def test_what_cannot_be_is_said_before_the_start(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x")
    for location, message in (
        ("{tmp}/{{camera}}.jpg", "reads like a file; give the folder that the pictures go into"),
        ("{tmp}/out.jpg", "reads like a file; give the folder that the pictures go into"),
        ("{tmp}/file", "cannot create the folder .*/file: File exists"),
        ("{tmp}/file/out", "cannot create the folder .*/file/out: Not a directory"),
        ("/proc/out", "cannot create the folder /proc/out: No such file or directory"),
        ("/proc", "cannot write to the folder /proc: "),
        ("{tmp}/{{name}}", r"names \{name\}; only \{camera\} is known"),
        ("\0", "cannot create the folder \0: .*embedded null"),
    ):
        with pytest.raises(UserError, match=message):
            Harness(PictureSink(location=location.format(tmp=tmp_path)))
    with pytest.raises(UserError, match="is not empty, and overwrite is false"):
        Harness(PictureSink(location=str(tmp_path), overwrite=False))
    assert names(tmp_path) == []
    with pytest.raises(GraphError, match="'quality' of picturesink is 0"):
        PictureSink(location="out", quality=0)


def test_a_folder_with_the_suffix_of_a_picture_may_be_one(tmp_path: Path):
    (tmp_path / "day.jpg").mkdir()
    with Harness(PictureSink(location=f"{tmp_path}/day.jpg", overwrite=False)) as h:
        h.push(FRAME)
    assert names(tmp_path / "day.jpg") == ["camera-000000.jpg"]


def test_pictures_that_are_read_are_not_written_over(tmp_path: Path):
    folder = album(tmp_path / "day", ["a.png", "b.png"])
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for uri in (folder, folder / "a.png"):
        graph = f"capture name=day uri={uri} ! picturesink name=out location={tmp_path}/x/../day"
        with pytest.raises(GraphError, match="out: it would write to '.*', which day reads"):
            expand(parse_launch(graph))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(folder / "a.png")
    with Harness(PictureSink(location=f"{tmp_path}/out")) as h:
        h.push(FRAME, meta={"picture": "a.png"})
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / "a.png")), FRAME)


def test_a_picture_is_whole_or_not_there(tmp_path: Path):
    with Harness(PictureSink(location=str(tmp_path))) as h:
        h.push(FRAME)
        (tmp_path / "camera-000001.jpg").mkdir()  # nothing can be written there
        with pytest.raises(UserError, match=r"cannot write .*/camera-000001\.jpg: Is a directory"):
            h.push(FRAME)
        with pytest.raises(UserError, match=r"jpg: jpeg holds no picture of 66000x1$"):
            h.push(np.zeros((1, 66000, 3), np.uint8))
    assert names(tmp_path) == ["camera-000000.jpg", "camera-000001.jpg"]
    assert h.logs == [("info", f"wrote 1 picture to {tmp_path}")]


def test_the_graph_for_photographs_marks_each_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """configs/graphs/photos.yaml, whole: as many rows as pictures, and each picture beside its row."""
    monkeypatch.chdir(tmp_path)
    folder = album(tmp_path / "photos", ["a.png", "b.jpg", "c.bmp"])
    run = run_graph(str(ROOT / "configs" / "graphs" / "photos.yaml"))
    assert run.error is None
    assert run.ledgers["photos"].delivered == 3
    assert names(tmp_path / "out") == ["photos.csv", "photos/a.png", "photos/b.jpg", "photos/c.bmp.jpg"]
    np.testing.assert_array_equal(cv2.imread("out/photos/a.png"), cv2.imread(str(folder / "a.png")))
    rows = (tmp_path / "out" / "photos.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows[1:]] == ["a.png", "b.jpg", "c.bmp"]
