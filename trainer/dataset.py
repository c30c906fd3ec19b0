"""FER2013 in memory: Kaggle's fer2013.csv, or its image folders, checked row by row.

Rows of splits that were not asked for are never decoded: training asks for Training and PublicTest and so
cannot see PrivateTest, whatever the file holds. Nothing is mended here; checks.py counts what is wrong.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nodes.preprocess import LABELS
from pipeline.errors import UserError, did_you_mean
from trainer import table
from trainer.folders import FOLDER_OF, PUBLIC, SPLITS, pictures, read_grey

SIZE = 48
PIXELS = SIZE * SIZE
COLUMNS = ("emotion", "pixels", "Usage")
_GREYS = {str(value): value for value in range(256)}


@dataclass(frozen=True)
class FaceSet:
    """Faces with their labels, in the order of their source.

    `images` uint8 (N, 48, 48); `labels` int64 (N,), index into LABELS; `splits` str (N,), of SPLITS;
    `rows` int64 (N,), each face's place among all data rows of the source, from 0 (without blank lines: csv line - 2).
    """

    source: Path
    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    rows: np.ndarray
    files: tuple[Path, ...] = ()
    """Each face's own, where they come from a folder of pictures."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> FaceSet:
        """The faces of a bool mask (N,) or of indices."""
        files = tuple(self.files[i] for i in np.arange(len(self))[chosen]) if self.files else ()
        return FaceSet(
            self.source, self.images[chosen], self.labels[chosen], self.splits[chosen], self.rows[chosen], files
        )

    def split(self, name: str) -> FaceSet:
        """One split; UserError if it is empty."""
        part = self.take(self.splits == name)
        if not len(part):
            if self.source.is_dir():
                also = "; `test` is what is measured once, at the end (PrivateTest)" if name == PUBLIC else ""
                raise UserError(
                    f"{self.source} has no pictures of {name}: they belong into a folder `{FOLDER_OF[name]}`{also}"
                )
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
    try:
        mode = path.stat().st_mode
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
        raise UserError(f"no data at {path}{why}: give Kaggle's fer2013.csv or its image folder") from error
    if stat.S_ISDIR(mode):
        return _load_folders(path, splits)
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is neither a file nor a folder: give Kaggle's fer2013.csv or its image folder")
    return _load_csv(path, splits)


def _load_csv(path: Path, splits: Sequence[str]) -> FaceSet:
    images: list[np.ndarray] = []
    labels, usages, rows = [], [], []
    row = -1
    for row, (line, (emotion, pixels, usage)) in enumerate(table.rows(path, COLUMNS)):
        try:
            if usage not in SPLITS:
                raise ValueError(f"unknown Usage '{usage}'; it must be one of {', '.join(SPLITS)}")
            if usage in splits:
                labels.append(_label(emotion))
                images.append(_pixels(pixels))
                usages.append(usage)
                rows.append(row)
        except ValueError as error:
            raise UserError(f"{path}:{line}: {error}") from error
    if row < 0:
        raise UserError(f"{path} has no rows, only its first line")
    return _face_set(path, images, labels, usages, rows)


def _face_set(
    source: Path,
    images: list[np.ndarray],
    labels: list[int],
    splits: list[str],
    rows: list[int],
    files: tuple[Path, ...] = (),
) -> FaceSet:
    return FaceSet(
        source,
        np.array(images, np.uint8).reshape(len(images), SIZE, SIZE),
        np.array(labels, np.int64),
        np.array(splits, dtype=str),
        np.array(rows, np.int64),
        files,
    )


def _label(text: str) -> int:
    if text not in {str(number) for number in range(len(LABELS))}:
        raise ValueError(f"emotion '{text}' is not a number from 0 to {len(LABELS) - 1}")
    return int(text)


def _pixels(text: str) -> np.ndarray:
    """Space-separated grey values -> uint8 (2304,)."""
    plain = _plain_pixels(text)
    if plain is not None:
        return plain
    words = text.split()
    if len(words) != PIXELS:
        raise ValueError(f"{len(words)} pixels instead of {PIXELS} (48 x 48)")
    try:
        return np.frombuffer(bytes(map(_GREYS.__getitem__, words)), np.uint8)  # stricter than int(): `1_0` is no number
    except KeyError as error:
        raise ValueError(f"a pixel is '{str(error.args[0])[:20]}' instead of a whole number from 0 to 255") from None


def _plain_pixels(text: str) -> np.ndarray | None:
    """The same for numbers of one to three digits with one space between them, as FER2013 has them, twice as
    fast; None for anything else."""
    raw = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    digits = raw - 48  # wraps around: all that is no digit is above 9
    spaces = np.flatnonzero(raw == 32)
    if len(spaces) != PIXELS - 1 or np.count_nonzero(digits <= 9) != len(raw) - len(spaces):
        return None
    first, behind = np.append(0, spaces + 1), np.append(spaces, len(raw))
    length = behind - first
    if length.min() < 1 or length.max() > 3:
        return None
    values = digits[behind - 1].astype(np.int16)
    values += np.where(length > 1, 10 * digits[behind - 2].astype(np.int16), 0)
    values += np.where(length > 2, 100 * digits[behind - 3].astype(np.int16), 0)
    if values.max() > 255 or (digits[first[length > 1]] == 0).any():
        return None
    return values.astype(np.uint8)


def _load_folders(root: Path, splits: Sequence[str]) -> FaceSet:
    chosen = [(row, file) for row, file in enumerate(pictures(root)) if file.split in splits]
    return _face_set(
        root,
        [_picture(file.path) for _, file in chosen],
        [file.label for _, file in chosen],
        [file.split for _, file in chosen],
        [row for row, _ in chosen],
        tuple(file.path for _, file in chosen),
    )


def _picture(path: Path) -> np.ndarray:
    """A picture file -> uint8 (48, 48); UserError if it is not one of that size, or not all of it is there."""
    image = read_grey(path)
    if image.shape != (SIZE, SIZE):
        raise UserError(
            f"{path} is {image.shape[1]} x {image.shape[0]} pixels instead of 48 x 48; "
            "`emograph data cut` makes such pictures"
        )
    return image
