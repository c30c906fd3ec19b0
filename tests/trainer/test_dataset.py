from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from trainer.checks import find_defects
from trainer.dataset import PRIVATE, PUBLIC, TRAINING, FaceSet, load
from trainer.ferplus import VOTES, agreement, load_votes
from trainer.info import describe

Writer = Callable[[FaceSet], Path]
BLANK = " ".join(["7"] * 2304)


def test_the_csv_comes_back_as_written(faces: FaceSet, write_csv: Writer) -> None:
    read = load(write_csv(faces))
    assert np.array_equal(read.images, faces.images)
    assert np.array_equal(read.labels, faces.labels)
    assert read.splits.tolist() == faces.splits.tolist()
    assert read.digest() == faces.digest()


def test_columns_in_another_order_are_the_same_data(faces: FaceSet, write_csv: Writer) -> None:
    path = write_csv(faces.take(np.arange(5)))
    pd.read_csv(path)[["Usage", "pixels", "emotion"]].rename(columns={"pixels": " pixels"}).to_csv(path, index=False)
    assert load(path).digest() == faces.take(np.arange(5)).digest()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"7,{BLANK},Training", "line 4: emotion '7'"),
        (f"x,{BLANK},Training", "line 4: emotion 'x'"),
        ("3,1 2 3,Training", "line 4: 3 pixels instead of 2304"),
        (f"3,{BLANK[:-1]}256,Training", r"line 4: a pixel value lies outside 0\.\.255"),
        (f"3,{BLANK[:-1]}-1,Training", "line 4: a pixel value lies outside"),
        (f"3,{BLANK[:-1]}1.5,Training", "line 4: a pixel is not a whole number"),
        (f"3,{BLANK},Trainign", "line 4: unknown Usage 'Trainign'"),
        ("3,1 2 3 4", "line 4: the row is cut off"),
        ("3", "line 4: the row is cut off"),
        (f"3,{BLANK},Training,more", "not a FER2013 csv"),
    ],
)
def test_a_broken_row_is_named_by_its_line(faces: FaceSet, write_csv: Writer, row: str, message: str) -> None:
    path = write_csv(faces.take(np.arange(2)))
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "not a FER2013 csv"), ("a,b\n1,2\n", "no column emotion, pixels, Usage"), ("\x00\xff", "FER2013")],
)
def test_a_file_that_is_something_else(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "other.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        load(path)


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data at"):
        load(tmp_path / "fer2013.csv")
    with pytest.raises(UserError, match="no pictures"):
        load(tmp_path)


def test_rows_of_other_splits_are_not_even_decoded(faces: FaceSet, write_csv: Writer) -> None:
    path = write_csv(faces.take(np.arange(200, 220)))
    path.write_text(path.read_text() + f"99,not pixels,{PRIVATE}\n")
    assert len(load(path, [TRAINING, PUBLIC])) == 20
    with pytest.raises(UserError, match="line 22"):
        load(path)


def test_a_split_that_is_empty_or_unknown(faces: FaceSet, write_csv: Writer) -> None:
    path = write_csv(faces.take(np.arange(3)))
    with pytest.raises(UserError, match="no PublicTest rows"):
        load(path).split(PUBLIC)
    with pytest.raises(UserError, match="did you mean 'PublicTest'"):
        load(path, ["PublicTests"])


def test_image_folders(faces: FaceSet, tmp_path: Path) -> None:
    """Kaggle's `test` folder mixes two splits; the file names tell them apart."""
    for place in ("train/happy/Training_1.png", "test/sad/PublicTest_2.png", "test/sad/PrivateTest_3.png"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), faces.images[int(path.stem[-1])])
    read = load(tmp_path, [TRAINING, PUBLIC])
    assert read.splits.tolist() == [PUBLIC, TRAINING]
    assert read.labels.tolist() == [4, 3]
    assert np.array_equal(read.images, faces.images[[2, 1]])
    assert load(tmp_path, [PRIVATE]).labels.tolist() == [4]


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        ("train/hapy/1.png", (48, 48), "did you mean 'happy'"),
        ("train/happy/1.png", (50, 48), "48 x 50 pixels instead of 48 x 48"),
        ("train/happy/1.png", None, "cannot be read as a picture"),
    ],
)
def test_a_broken_picture_folder(tmp_path: Path, place: str, shape: tuple | None, message: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"?" if shape is None else cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes())
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.fixture
def defective(faces: FaceSet) -> FaceSet:
    """Rows 0, 1: copies with two labels; 2: blank; 3: also in PublicTest (4); 5: sound."""
    images = faces.images[[0, 0, 2, 3, 3, 5]].copy()
    images[2] = 9
    splits = np.array([TRAINING] * 4 + [PUBLIC] + [TRAINING])
    return FaceSet(Path("x"), images, np.array([0, 1, 2, 3, 3, 5]), splits, np.arange(6))


def test_defects_are_found(defective: FaceSet) -> None:
    defects = find_defects(defective)
    assert np.flatnonzero(defects.blank).tolist() == [2]
    assert np.flatnonzero(defects.copies).tolist() == [1]
    assert np.flatnonzero(defects.leaked).tolist() == [3]
    assert defects.contradictions == 1


def test_info_counts_them(defective: FaceSet) -> None:
    description = describe(defective)
    assert description["counts"][TRAINING]["angry"] == 1
    assert description["counts"][PUBLIC]["happy"] == 1
    assert description["blank"] == [2]
    assert description["leaked_into"] == {PUBLIC: 1}


def test_votes_become_shares_in_the_order_of_the_rows(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "ferplus.csv"
    some = faces.take(np.array([3, 6]))  # happy, neutral
    table = pd.DataFrame(0, index=range(2), columns=["row", *VOTES])
    table["row"] = [6, 3]
    table.loc[0, "neutral"], table.loc[1, "happiness"], table.loc[1, "surprise"] = 8, 6, 2
    table.to_csv(path, index=False)
    shares = load_votes(path, some)
    assert shares[0, VOTES.index("happiness")] == 0.75
    assert shares[1, VOTES.index("neutral")] == 1
    with pytest.raises(UserError, match="no table of FER"):
        load_votes(path, faces)


def test_votes_of_other_rows_are_refused(faces: FaceSet, tmp_path: Path) -> None:
    table = pd.DataFrame(0, index=range(len(faces)), columns=["row", *VOTES])
    table["row"], table["contempt"] = range(len(faces)), 10
    table.to_csv(tmp_path / "v.csv", index=False)
    with pytest.raises(UserError, match="contradict the labels"):
        load_votes(tmp_path / "v.csv", faces)


def test_the_real_votes_agree_with_the_real_labels_as_published(fer2013: Path) -> None:
    labels = np.array([int(c) for c in (fer2013 / "labels.txt").read_text().strip()])
    count = len(labels)
    rows = FaceSet(fer2013, np.zeros((count, 1, 1), np.uint8), labels, np.full(count, TRAINING), np.arange(count))
    assert agreement(load_votes(fer2013 / "ferplus.csv", rows), labels) == pytest.approx(0.626, abs=0.01)
