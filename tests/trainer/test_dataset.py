import bz2
import gzip
import io
import lzma
import os
import signal
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from nodes.preprocess import LABELS
from pipeline.errors import UserError
from trainer import table
from trainer.checks import find_defects
from trainer.dataset import FaceSet, load
from trainer.ferplus import VOTES, agreement, load_votes
from trainer.folders import PRIVATE, PUBLIC, TRAINING
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
        (f"7,{BLANK},Training", ":4: emotion '7'"),
        (f"x,{BLANK},Training", ":4: emotion 'x'"),
        ("3,1 2 3,Training", ":4: 3 pixels instead of 2304"),
        (f"3,{BLANK[:-1]}256,Training", ":4: a pixel is '256' instead of a whole number from 0 to 255"),
        (f"3,{BLANK[:-1]}-1,Training", ":4: a pixel is '-1'"),
        (f"3,{BLANK[:-1]}1_0,Training", ":4: a pixel is '1_0'"),
        (f"3,{BLANK[:-1]}1.5,Training", ":4: a pixel is '1.5'"),
        (f"3,{BLANK},Trainign", ":4: unknown Usage 'Trainign'"),
        ("3,1 2 3 4", ":4: . fields? in place of 3: the row is cut off"),
        ("3", ":4: . fields? in place of 3: the row is cut off"),
        (f"3,{BLANK},Training,more", ":4: 4 fields in place of 3"),
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
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "no column emotion, pixels, Usage"),
        ("\x00\xff", "not text in UTF-8"),
        ("emotion,pixels,Usage\n", "has no rows"),
    ],
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


def test_lines_are_counted_as_an_editor_does(faces: FaceSet, write_csv: Writer) -> None:
    """Past blank lines, and past pixels that a quote spreads over several lines."""
    path = write_csv(faces.take(np.arange(2)))
    head, first, second = path.read_text().splitlines()
    emotion, pixels, usage = second.split(",")
    quoted = f'{emotion},"{pixels.replace(" ", chr(10), 3)}",{usage}'
    path.write_text("\n".join([head, "", first, "", "", quoted, f"9,{BLANK},Training", ""]))
    with pytest.raises(UserError, match=":10: emotion '9'"):
        load(path)
    path.write_text(path.read_text().replace("\n9,", "\n6,"))
    assert load(path).rows.tolist() == [0, 1, 2]


def test_a_comma_at_the_end_of_each_row_does_no_harm(faces: FaceSet, write_csv: Writer) -> None:
    path = write_csv(faces.take(np.arange(3)))
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *(row + "," for row in rows)]))
    assert load(path).digest() == faces.take(np.arange(3)).digest()


def test_a_quote_without_its_end_is_named_where_it_begins(faces: FaceSet, write_csv: Writer) -> None:
    path = write_csv(faces.take(np.arange(30)))  # enough to go beyond csv's limit of a field
    whole = path.read_text()
    for text in (whole + '3,"1 2 3,Training\n', whole.replace("\n", f'\n3,"{BLANK},Training\n', 1)):
        path.write_text(text)
        with pytest.raises(UserError, match=r":(2|32): a quote is opened and never closed \(is the file cut off\?\)$"):
            load(path)


def archive(path: Path, text: str, *names: str) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, text)
    elif names:
        with tarfile.open(path, "w:gz") as file:
            for name in names:
                file.addfile(tarfile.TarInfo(name), None)
    else:
        opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[path.suffix]
        with opened(path, "wt") as file:
            file.write(text)


@pytest.mark.parametrize("name", ["f.csv.gz", "f.csv.bz2", "f.csv.xz", "f.zip"])
def test_one_compressed_file_is_read_and_a_broken_one_is_named(
    faces: FaceSet, write_csv: Writer, tmp_path: Path, name: str
) -> None:
    some = faces.take(np.arange(5))
    path = tmp_path / name
    archive(path, write_csv(some).read_text(), *(["fer2013.csv"] if name == "f.zip" else []))
    assert load(path).digest() == some.digest()
    for broken in (path.read_bytes()[:-200], b"emotion,pixels,Usage", b""):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=rf"{name} (cannot be unpacked \(.*\): unpack it|is empty)") as caught:
            load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["f.zip", "fer2013.tar.gz"])
def test_an_archive_of_several_files_must_be_unpacked(tmp_path: Path, name: str) -> None:
    archive(tmp_path / name, "x", "fer2013.csv", "README")
    with pytest.raises(UserError, match=r"is an archive.*: unpack it and give the csv itself"):
        load(tmp_path / name)
    (tmp_path / "f.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(UserError, match="is an archive"):
        load(tmp_path / "f.csv.zst")


def test_a_ctrl_c_while_the_csv_is_read_is_not_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Interrupted(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            signal.raise_signal(signal.SIGINT)
            return super().read(size)

    path = tmp_path / "f.csv"
    path.write_text("emotion\n0\n")
    monkeypatch.setitem(table._COMPRESSED, ".csv", lambda path, *_, **__: Interrupted(path.read_text()))
    with pytest.raises(KeyboardInterrupt):
        list(table.rows(path, ["emotion"]))


def test_rows_of_other_splits_are_not_even_decoded(faces: FaceSet, write_csv: Writer) -> None:
    path = write_csv(faces.take(np.arange(200, 220)))
    path.write_text(path.read_text() + f"99,not pixels,{PRIVATE}\n")
    assert len(load(path, [TRAINING, PUBLIC])) == 20
    with pytest.raises(UserError, match=":22: emotion"):
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


def test_a_folder_without_the_split_that_is_needed_says_which_one_that_is(faces: FaceSet, tmp_path: Path) -> None:
    for place in ("train/happy/1.png", "test/sad/2.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / place), faces.images[0])
    for splits in ([TRAINING, PUBLIC], [PUBLIC]):
        with pytest.raises(
            UserError, match="has no pictures of PublicTest: they belong into a folder `val`; `test` is"
        ):
            load(tmp_path, splits).split(PUBLIC)


def test_a_folder_around_the_csv_points_to_it(faces: FaceSet, write_csv: Writer) -> None:
    path = write_csv(faces.take(np.arange(3)))
    with pytest.raises(UserError, match=f"has no pictures where .*; is it {path} that you mean"):
        load(path.parent)


def test_info_names_blank_pictures(faces: FaceSet, tmp_path: Path) -> None:
    for place, image in (("train/happy/1.png", faces.images[0]), ("train/sad/none.png", np.zeros((48, 48), np.uint8))):
        (tmp_path / place).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / place), image)
    assert describe(load(tmp_path))["blank_files"] == [str(tmp_path / "train/sad/none.png")]


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        ("train/hapy/1.png", (48, 48), "did you mean 'happy'"),
        ("trian/happy/1.png", (48, 48), "trian is not named after a split; did you mean 'train'"),
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


def test_a_picture_whose_name_is_not_utf8(faces: FaceSet, tmp_path: Path) -> None:
    """OpenCV's own reading of files ends the process there."""
    folder = tmp_path / "train" / "sad"
    folder.mkdir(parents=True)
    content = cv2.imencode(".png", faces.images[0])[1].tobytes()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(content)
    assert np.array_equal(load(tmp_path).images, faces.images[:1])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", r"1\.jpg cannot be read as a picture: it is empty"), (None, "has no pictures where")],
)
def test_what_is_no_picture_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "train" / "sad" / "1.jpg"
    path.parent.mkdir(parents=True)
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("settings", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]])
def test_a_jpeg_that_is_cut_off_is_refused(faces: FaceSet, tmp_path: Path, settings: list[int]) -> None:
    """A decoder would fill it with grey. A thumbnail has an end too; behind the end may be anything."""
    path = tmp_path / "train" / "sad" / "1.jpg"
    path.parent.mkdir(parents=True)
    whole = cv2.imencode(".jpg", faces.images[0], settings)[1].tobytes()
    thumbnail = b"\xff\xe1" + (len(whole) + 2).to_bytes(2, "big") + whole
    whole = whole[:2] + thumbnail + whole[2:]
    path.write_bytes(whole + b"\xff\xda and more")
    assert len(load(tmp_path)) == 1
    for end in (-2, -1, -len(whole) // 4):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"1\.jpg is cut off"):
            load(tmp_path)


def test_a_png_that_is_cut_off_is_refused(faces: FaceSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train" / "sad" / "1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(cv2.imencode(".png", faces.images[0])[1].tobytes()[:-20])
    with pytest.raises(UserError, match=r"1\.png is cut off"):
        load(tmp_path)
    assert capfd.readouterr().err == ""  # OpenCV would have its say as well


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
    with pytest.raises(
        UserError, match="no votes for 278 of the 280 faces; the first of them is row 0, counted from 0, of stripes"
    ):
        load_votes(path, faces)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n3,", "\n2,", ":5: row 2 stands there twice, first in line 4"),
        ("\n3,0", "\n3,", ":5: neutral is empty"),
        ("\n3,0", "\n3,x", ":5: neutral is 'x' instead of a whole number"),
        ("\n3,0", "\n3,-1", ":5: neutral is '-1'"),
        ("\n3,0", "\n3.5,0", ":5: row is '3.5'"),
        ("\n3,0,", "\n3,", ":5: 10 fields in place of 11"),
        ("neutral", "happy", "has no column neutral"),
    ],
)
def test_a_mistake_in_the_votes_is_one_line(faces: FaceSet, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "ferplus.csv"
    lines = [",".join(["row", *VOTES]), *(f"{row}{',0' * len(VOTES)}" for row in range(7))]
    text = "\n".join(lines) + "\n"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_votes(path, faces.take(np.arange(7)))


def test_votes_of_other_rows_are_refused(faces: FaceSet, tmp_path: Path) -> None:
    table = pd.DataFrame(0, index=range(len(faces)), columns=["row", *VOTES])
    table["row"], table["contempt"] = range(len(faces)), 10
    table.to_csv(tmp_path / "v.csv", index=False)
    with pytest.raises(UserError, match="contradict the labels"):
        load_votes(tmp_path / "v.csv", faces)


def test_votes_that_are_shifted_from_some_row_on_are_refused_there(fer2013: Path, tmp_path: Path) -> None:
    """Somebody has deleted a row of the csv, far behind: most votes are still those of their faces."""
    labels = np.array([int(c) for c in (fer2013 / "labels.txt").read_text().strip()])
    labels = np.delete(labels, 24_000)
    count = len(labels)
    faces = FaceSet(fer2013, np.zeros((count, 1, 1), np.uint8), labels, np.full(count, TRAINING), np.arange(count))
    with pytest.raises(UserError, match="contradict the labels from about row 24[0-9]{3} on, counted from 0"):
        load_votes(fer2013 / "ferplus.csv", faces)


def test_the_real_votes_agree_with_the_real_labels_as_published(fer2013: Path) -> None:
    labels = np.array([int(c) for c in (fer2013 / "labels.txt").read_text().strip()])
    count = len(labels)
    rows = FaceSet(fer2013, np.zeros((count, 1, 1), np.uint8), labels, np.full(count, TRAINING), np.arange(count))
    assert agreement(load_votes(fer2013 / "ferplus.csv", rows), labels) == pytest.approx(0.626, abs=0.01)


def test_pictures_in_folders_below_a_class_belong_to_it(faces: FaceSet, tmp_path: Path) -> None:
    content = cv2.imencode(".webp", faces.images[0], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    for place in ("train/sad/b.webp", "train/sad/anna/a.WebP", "Valid/happy/c.webp", "train/sad/.hidden/d.webp",
                  "train/sad/note.txt", "train/sad/._b.webp", "raw/b.webp", ".git/happy/e.webp"):  # fmt: skip
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    read = load(tmp_path)
    assert list(zip(read.splits, read.labels, strict=True)) == [(PUBLIC, 3), (TRAINING, 4), (TRAINING, 4)]
    (tmp_path / "train" / "sad" / "anna" / "ring").symlink_to(tmp_path / "train" / "sad")
    with pytest.raises(UserError, match="anna/ring is a link to .*/train/sad, which was read already"):
        load(tmp_path)


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "train" / "happy"
    closed.mkdir(parents=True)
    scandir = os.scandir

    def guarded(path: str) -> Iterator[os.DirEntry]:  # root, as whom tests may run, reads everything
        if path == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UserError, match=f"^cannot read {closed}: Permission denied$"):
        load(tmp_path)


def test_votes_that_are_shifted_among_the_last_rows_are_refused(tmp_path: Path) -> None:
    as_label = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
    labels = np.arange(950) % 7
    table = pd.DataFrame({n: [10 * (LABELS[label] == as_label.get(n, n)) for label in labels] for n in VOTES})
    blank = np.zeros((949, 1, 1), np.uint8)
    faces = FaceSet(Path("x"), blank, np.delete(labels, 850), np.full(949, TRAINING), np.arange(949))
    table.assign(row=range(950)).to_csv(tmp_path / "v.csv", index=False)
    with pytest.raises(UserError, match="contradict the labels from about row 849 on"):
        load_votes(tmp_path / "v.csv", faces)
