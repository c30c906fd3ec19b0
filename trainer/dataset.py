"""FER2013 in memory: Kaggle's fer2013.csv, or its image folders, checked row by row.

Rows of splits that were not asked for are never decoded: training asks for Training and PublicTest and so
cannot see PrivateTest, whatever the file holds. Nothing is mended here; checks.py counts what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from nodes.preprocess import LABELS
from pipeline.errors import UserError, did_you_mean

SIZE = 48
PIXELS = SIZE * SIZE
TRAINING, PUBLIC, PRIVATE = SPLITS = ("Training", "PublicTest", "PrivateTest")
COLUMNS = ("emotion", "pixels", "Usage")

_FOLDER_SPLITS = {
    "training": TRAINING,
    "train": TRAINING,
    "publictest": PUBLIC,
    "validation": PUBLIC,
    "val": PUBLIC,
    "privatetest": PRIVATE,
    "test": PRIVATE,  # Kaggle's `test` mixes both; its file names (PublicTest_123.jpg) say which is which
}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


@dataclass(frozen=True)
class FaceSet:
    """Faces with their labels, in the order of their source.

    `images` uint8 (N, 48, 48); `labels` int64 (N,), index into LABELS; `splits` str (N,), of SPLITS;
    `rows` int64 (N,), each face's place among all data rows of the source, from 0 (csv line number - 2).
    """

    source: Path
    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> FaceSet:
        """The faces of a bool mask (N,) or of indices."""
        return FaceSet(self.source, self.images[chosen], self.labels[chosen], self.splits[chosen], self.rows[chosen])

    def split(self, name: str) -> FaceSet:
        """One split; UserError if it is empty."""
        part = self.take(self.splits == name)
        if not len(part):
            raise UserError(f"{self.source} has no {name} rows")
        return part

    def digest(self) -> str:
        """sha256 over labels, then pixels: the same for the csv in whatever column order it was written."""
        return hashlib.sha256(self.labels.astype(np.uint8).tobytes() + self.images.tobytes()).hexdigest()


def load(path: str | Path, splits: Sequence[str] = SPLITS) -> FaceSet:
    """Read the given splits of a fer2013.csv file or of a folder of picture folders.

    Raises UserError, naming the line or the file, for whatever is not as FER2013 has it.
    """
    path = Path(path)
    for name in splits:
        if name not in SPLITS:
            raise UserError(f"unknown split '{name}'{did_you_mean(name, SPLITS)}")
    if path.is_dir():
        return _load_folders(path, splits)
    if not path.is_file():
        raise UserError(f"no data at {path}: give Kaggle's fer2013.csv or its image folder")
    return _load_csv(path, splits)


def _load_csv(path: Path, splits: Sequence[str]) -> FaceSet:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a FER2013 csv: {error}") from error
    table.columns = [str(column).strip() for column in table.columns]
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: FER2013 has {', '.join(COLUMNS)}, "
            f"this file has {', '.join(map(str, table.columns[:6]))}"
        )
    usage = table["Usage"].str.strip().to_numpy(dtype=str)
    unknown = np.flatnonzero(~np.isin(usage, SPLITS))
    if len(unknown):
        row, value = unknown[0], usage[unknown[0]]
        what = f"unknown Usage '{value}'" if value else "the row is cut off (it has no Usage)"
        raise UserError(f"{path} line {row + 2}: {what}; it must be one of {', '.join(SPLITS)}")

    rows = np.flatnonzero(np.isin(usage, splits))
    emotions, pixels = table["emotion"].to_numpy(), table["pixels"].to_numpy()
    labels = np.empty(len(rows), np.int64)
    images = np.empty((len(rows), PIXELS), np.uint8)
    for i, row in enumerate(rows):
        try:
            labels[i] = _label(emotions[row])
            images[i] = _pixels(pixels[row])
        except ValueError as error:
            raise UserError(f"{path} line {row + 2}: {error}") from error
    return FaceSet(path, images.reshape(-1, SIZE, SIZE), labels, usage[rows], rows.astype(np.int64))


def _label(text: str) -> int:
    if text.strip() not in {str(number) for number in range(len(LABELS))}:
        raise ValueError(f"emotion '{text}' is not a number from 0 to {len(LABELS) - 1}")
    return int(text)


def _pixels(text: str) -> np.ndarray:
    """Space-separated grey values -> uint8 (2304,)."""
    try:
        values = np.array(text.split(), dtype=np.int32)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"a pixel is not a whole number ({error})") from error
    if len(values) != PIXELS:
        raise ValueError(f"{len(values)} pixels instead of {PIXELS} (48 x 48)")
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"a pixel value lies outside 0..255 ({values.min()}..{values.max()})")
    return values.astype(np.uint8)


def _load_folders(root: Path, splits: Sequence[str]) -> FaceSet:
    """ROOT/train/happy/*.jpg and the like; Kaggle's file name prefix, where there is one, names the split."""
    found: list[tuple[str, int, Path]] = []
    for split_folder in sorted(p for p in root.iterdir() if p.is_dir()):
        folder_split = _FOLDER_SPLITS.get(split_folder.name.lower())
        if folder_split is None:
            continue
        for label_folder in sorted(p for p in split_folder.iterdir() if p.is_dir()):
            label = _folder_label(label_folder)
            for picture in sorted(p for p in label_folder.iterdir() if p.suffix.lower() in _SUFFIXES):
                prefix = picture.name.split("_")[0]
                found.append((prefix if prefix in SPLITS else folder_split, label, picture))
    if not found:
        raise UserError(f"{root} has no pictures where FER2013 keeps them (train/happy/*.jpg, test/sad/*.png, ...)")
    chosen = [(row, *entry) for row, entry in enumerate(found) if entry[0] in splits]
    images = np.empty((len(chosen), SIZE, SIZE), np.uint8)
    for i, (_, _, _, picture) in enumerate(chosen):
        image = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise UserError(f"{picture} cannot be read as a picture")
        if image.shape != (SIZE, SIZE):
            raise UserError(f"{picture} is {image.shape[1]} x {image.shape[0]} pixels instead of 48 x 48")
        images[i] = image
    return FaceSet(
        root,
        images,
        np.array([label for _, _, label, _ in chosen], np.int64),
        np.array([split for _, split, _, _ in chosen], dtype=str),
        np.array([row for row, *_ in chosen], np.int64),
    )


def _folder_label(folder: Path) -> int:
    name = folder.name.lower()
    if name not in LABELS:
        raise UserError(f"{folder} is not named after a class{did_you_mean(name, LABELS)}")
    return LABELS.index(name)
