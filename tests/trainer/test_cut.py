"""`emograph data cut`: pictures of any size become the pictures that `emograph train` takes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import nodes
from nodes.preprocess import LABELS
from pipeline.errors import UserError
from tests.trainer.test_commands import call
from trainer import cli
from trainer.cut import LIST, NO_FACE, cut_faces
from trainer.dataset import load
from trainer.folders import PUBLIC, TRAINING

MEANS = cv2.imread(str(Path(nodes.__file__).parent / "testsrc_faces.png"), cv2.IMREAD_GRAYSCALE)


def face(label: str, side: int) -> np.ndarray:
    """The synthetic camera's face of a class, uint8 (side, side)."""
    at = LABELS.index(label) * 48
    return cv2.resize(MEANS[:48, at : at + 48], (side, side), interpolation=cv2.INTER_CUBIC)


def write(path: Path, *faces: tuple[str, int, int]) -> Path:
    """A colour picture of 640x480 with faces (class, left, side)."""
    picture = np.full((480, 640), 128, np.uint8)
    for label, left, side in faces:
        picture[100 : 100 + side, left : left + side] = face(label, side)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    write(root / "train" / "happy" / "one.png", ("happy", 200, 200))
    write(root / "train" / "happy" / "one.jpg", ("happy", 100, 160))
    write(root / "train" / "sad" / "two.png", ("happy", 40, 120), ("sad", 300, 260))
    write(root / "train" / "sad" / "wall.png")
    write(root / "val" / "neutral" / "three.bmp", ("neutral", 200, 200))
    (root / "val" / "neutral" / "broken.png").write_bytes(b"\x89PNG and nothing else")
    return root


def test_faces_become_a_data_set_and_every_picture_is_accounted_for(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    told = call(cli.data, "cut", photos, out)
    table = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line.split()}
    assert table["happy"] == ["2", "2", "0", "0", "0"]
    assert table["sad"] == ["2", "1", "1", "1", "0"]
    assert table["all"] == ["6", "4", "1", "1", "1"]

    faces = load(out)
    assert sorted(zip(faces.splits, faces.labels, strict=True)) == sorted(
        [(TRAINING, LABELS.index("happy"))] * 2 + [(TRAINING, LABELS.index("sad")), (PUBLIC, LABELS.index("neutral"))]
    )
    for image, label in zip(faces.images, faces.labels, strict=True):
        likeness = [np.corrcoef(image.ravel(), face(name, 48).ravel())[0, 1] for name in LABELS]
        assert int(np.argmax(likeness)) == label  # of two faces the larger one, and cut where it is

    with open(out / LIST, newline="") as file:
        rows = {row["picture"]: row for row in csv.DictReader(file)}
    assert len(rows) == 6
    assert {rows[f"train/happy/one.{kind}"]["cut"] for kind in ("jpg", "png")} == {
        "train/happy/one.png",
        "train/happy/one.png.png",
    }
    assert rows["train/sad/two.png"]["faces"] == "2"
    assert rows["train/sad/wall.png"] == {"picture": "train/sad/wall.png", "faces": "0", "cut": "", "problem": NO_FACE}
    assert rows["val/neutral/broken.png"]["problem"].startswith("unreadable: ")


def test_as_json(photos: Path, tmp_path: Path) -> None:
    told = json.loads(call(cli.data, "cut", photos, tmp_path / "faces", "--json"))
    assert told == {"pictures": 6, "cut": 4, "list": str(tmp_path / "faces" / LIST)}


def test_what_cannot_be_done_is_said(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is no folder of pictures"):
        cut_faces(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match="has no pictures where FER2013 keeps them"):
        cut_faces(photos / "train", tmp_path / "out")
    with pytest.raises(UserError, match="photos is there already: give a folder that is new or empty"):
        cut_faces(photos / "train", photos)
    with pytest.raises(UserError, match="photos lies in .*photos, whose pictures it would be mixed with"):
        cut_faces(photos, photos)
    for picture in photos.rglob("*.*"):
        picture.unlink()
    write(photos / "train" / "sad" / "wall.png")
    with pytest.raises(UserError, match=r"no face was found in any of the 1 files of [^,]*photos$"):
        cut_faces(photos, tmp_path / "out")
    (photos / "train" / "happy" / "broken.png").write_bytes(b"?")
    with pytest.raises(UserError, match=r"of the 2 files of .*, the first of them is unreadable: .*/broken.png cannot"):
        cut_faces(photos, tmp_path / "out")
    with pytest.raises(UserError, match="out lies in .*photos, whose pictures it would be mixed with"):
        cut_faces(photos, photos / "train" / "out")
    with pytest.raises(UserError, match="cannot read .*: File name too long"):
        cut_faces(tmp_path / ("x" * 300), tmp_path / "out")
    with pytest.raises(UserError, match="cannot read .*: File name too long"):
        cut_faces(photos, tmp_path / ("x" * 300))
    assert sorted(tmp_path.iterdir()) == [photos]
    write(photos / "train" / "happy" / "one.png", ("happy", 200, 200))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*/file/out/.partial: Not a directory|cannot read .*/file/out: "):
        cut_faces(photos, tmp_path / "file" / "out")


def test_a_run_that_ends_early_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    """Half a data set would look like a whole one; and the same command must work again."""
    out = tmp_path / "faces"

    def interrupt(done: int, _of: int) -> None:
        if done == 3:
            assert [path.name for path in out.iterdir()] == [".partial"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_faces(photos, out, interrupt)
    assert not out.exists()
    (out / ".partial" / "train" / "happy").mkdir(parents=True)  # of a run that was killed
    assert sum(cut.written is not None for cut in cut_faces(photos, out)) == 4
    assert sorted(path.name for path in out.iterdir()) == [LIST, "train", "val"]


def test_each_file_is_accounted_for(photos: Path, tmp_path: Path) -> None:
    long = "x" * (255 - len(".jpg")) + ".jpg"
    (photos / "train" / "sad" / "phone.HEIC").write_bytes(b"?")
    write(photos / "train" / "happy" / "anna" / "deep.jpg", ("happy", 200, 200)).rename(photos / "train/happy" / long)
    write(photos / "train" / "happy" / "anna" / "deep.jpg", ("happy", 200, 200))
    cv2.imwrite(str(photos / "train" / "happy" / "thin.png"), np.zeros((1, 5000), np.uint8))
    cut = {one.file.path.name: one for one in cut_faces(photos, tmp_path / "faces")}
    assert len(cut) == 10
    assert cut["phone.HEIC"].problem == "unreadable: its name is not one of a picture"
    assert cut["thin.png"].problem == NO_FACE
    assert cut[long].written == Path("train/happy") / long.replace(".jpg", ".png")
    assert cut["deep.jpg"].written == Path("train/happy/anna/deep.png")
    assert len(load(tmp_path / "faces")) == 6


def test_a_name_that_grows_too_long_is_that_picture_s_problem(photos: Path, tmp_path: Path) -> None:
    """one.jpg and one.png become one.png and one.png.png, which the file system may not take."""
    for suffix in ("jpg", "png"):
        write(photos / "train" / "happy" / f"one.{suffix}", ("happy", 200, 200)).rename(
            photos / "train" / "happy" / ("x" * 251 + f".{suffix}")
        )
    problems = [one.problem for one in cut_faces(photos, tmp_path / "faces") if one.file.path.name.startswith("x")]
    assert problems == ["", "unreadable: its name is too long"]


def test_train_says_where_such_pictures_come_from(photos: Path) -> None:
    (photos / "val" / "neutral" / "broken.png").unlink()
    with pytest.raises(UserError, match="is 640 x 480 pixels instead of 48 x 48; `emograph data cut` makes"):
        load(photos)
