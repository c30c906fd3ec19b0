"""Pictures in folders named after split and class, as Kaggle offers FER2013 and as people keep their own.

    ROOT/train/happy/1.jpg    ROOT/test/sad/PublicTest_2.png    ROOT/val/fear/anna/3.webp

What lies there is found in one order on every machine, and a folder whose name looks like a slip is an error: its
pictures would be missing without a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nodes.capture.container import is_cut
from nodes.capture.pictures import PICTURES
from nodes.preprocess import LABELS
from pipeline.errors import UserError, did_you_mean

TRAINING, PUBLIC, PRIVATE = SPLITS = ("Training", "PublicTest", "PrivateTest")
"""FER2013's own names (its column Usage) for what is learnt from, chosen on, and measured once."""

SPLIT_OF = {
    "training": TRAINING,
    "train": TRAINING,
    "publictest": PUBLIC,
    "validation": PUBLIC,
    "valid": PUBLIC,
    "val": PUBLIC,
    "privatetest": PRIVATE,
    "test": PRIVATE,  # Kaggle's `test` mixes both; its file names (PublicTest_123.jpg) say which is which
}


FOLDER_OF = {TRAINING: "train", PUBLIC: "val", PRIVATE: "test"}
"""Where the pictures of a split lie, of one's own."""


class Filed(NamedTuple):
    """A file and what its folders say of it. split: of SPLITS. label: index into LABELS."""

    split: str
    label: int
    path: Path

    @property
    def is_picture(self) -> bool:
        """Whether its name is one of a picture."""
        return self.path.suffix.lower() in PICTURES


def files(root: Path) -> list[Filed]:
    """All files below the class folders of `root`, in order; hidden ones (.DS_Store) are none.

    Kaggle's file name prefix (PublicTest_123.jpg), where there is one, names the split. Raises UserError if there are
    no pictures, if a folder holds classes and is no split, or may not be read.
    """
    try:
        found = list(_walk(root))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    if not any(file.is_picture for file in found):
        table = next(filter(_has_pixels, sorted(root.glob("*.csv"))), None)
        hint = f"; is it {table} that you mean?" if table else ""
        raise UserError(
            f"{root} has no pictures where FER2013 keeps them (train/happy/*.jpg, test/sad/*.png, ...){hint}"
        )
    return found


def _has_pixels(path: Path) -> bool:
    """Whether a csv looks like fer2013.csv."""
    try:
        with path.open("rb") as file:
            return b"pixels" in file.readline(200)
    except OSError:
        return False


def pictures(root: Path) -> list[Filed]:
    """Those of `files` that are pictures by their names; raises as it does."""
    return [file for file in files(root) if file.is_picture]


def _walk(root: Path) -> Iterator[Filed]:
    for split_folder in _folders(root):
        folder_split = SPLIT_OF.get(split_folder.name.lower())
        labels = _folders(split_folder)
        if folder_split is None:
            if any(folder.name.lower() in LABELS for folder in labels):
                raise UserError(f"{split_folder} is not named after a split{did_you_mean(split_folder.name, SPLIT_OF)}")
            continue
        for label_folder in labels:
            label = _label(label_folder)
            for path in _files(label_folder):
                prefix = path.name.split("_")[0]
                yield Filed(prefix if prefix in SPLITS else folder_split, label, path)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> Iterator[Path]:
    """All files in `folder` and below; UserError if links lead to a folder twice, OSError if one may not be read."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            raise UserError(f"{parent} is a link to {real}, which was read already")
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _label(folder: Path) -> int:
    name = folder.name.lower()
    if name not in LABELS:
        raise UserError(f"{folder} is not named after a class{did_you_mean(name, LABELS)}")
    return LABELS.index(name)


def read_grey(path: Path) -> np.ndarray:
    """A picture file of any size -> uint8 (H, W); UserError if it is none, or not all of it is there."""
    # The bytes are read here because cv2.imread crashes on file names that are not UTF-8.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read as a picture: {error.strerror or error}") from error
    if not content:
        raise UserError(f"{path} cannot be read as a picture: it is empty")
    if is_cut(content):
        raise UserError(f"{path} is cut off")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # of sizes that no picture has
        image = None
    if image is None:
        raise UserError(f"{path} cannot be read as a picture")
    return image
