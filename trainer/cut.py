"""`emograph data cut`: faces out of pictures of any size, as the live system would cut them, for `emograph train`.

    PICTURES/train/happy/anna.jpg  ->  OUT/train/happy/anna.png, grey, 48 x 48

What became of each file stands in OUT/cut.csv. All of it is there in the end, or nothing.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from nodes.facedetector import FaceDetector, cut_patches
from pipeline.errors import UserError
from trainer.folders import Filed, files, read_grey

LIST = "cut.csv"
SEARCH_WIDTH = 1280
"""Wider pictures are searched shrunk to this: a portrait from a phone has its face in a third of the width."""
NO_FACE, UNREADABLE = "no face was found", "unreadable"
_PARTIAL = ".partial"
"""Folder in OUT for what is not complete yet; one that a killed run left is cleared away by the next."""


@dataclass(frozen=True)
class Cut:
    """What became of a file. faces: how many were found. written: the file in OUT, or None; problem: then, why."""

    file: Filed
    faces: int = 0
    written: Path | None = None
    problem: str = ""


def cut_faces(root: Path, out: Path, tell: Callable[[int, int], None] = lambda _done, _of: None) -> list[Cut]:
    """Cut the largest face of each picture below `root` into `out`, with the haardetect node's own code.

    A picture that cannot be read, or shows no face, is left out and said so in what comes back and in `out`/cut.csv.
    `tell` hears how many files are done, of how many. Raises UserError, and writes nothing, if there are no pictures,
    no picture has a face, or `out` is not empty, lies in `root` or cannot be written.
    """
    try:
        if not root.is_dir():
            raise UserError(f"{root} is no folder of pictures")
        if out.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{out} lies in {root}, whose pictures it would be mixed with: give another folder")
        if out.exists() and (not out.is_dir() or any(path.name != _PARTIAL for path in out.iterdir())):
            raise UserError(f"{out} is there already: give a folder that is new or empty")
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    found = files(root)
    detector = FaceDetector(detect_width=SEARCH_WIDTH)
    taken: set[Path] = set()
    done: list[Cut] = []
    with _all_or_nothing(out) as partial:
        for file in found:
            tell(len(done), len(found))
            folder = file.path.parent.relative_to(root)
            target = folder / f"{file.path.stem}.png"
            if target in taken:  # a.jpg and a.png
                target = folder / f"{file.path.name}.png"
            cut = _cut(detector, file, partial, target)
            if cut.written is not None:
                taken.add(target)
            done.append(cut)
        if not taken:
            first = f", the first of them is {done[0].problem}" if done[0].problem != NO_FACE else ""
            raise UserError(f"no face was found in any of the {len(done)} files of {root}{first}")
        _list(done, root, partial / LIST)
    return done


def _cut(detector: FaceDetector, file: Filed, out: Path, target: Path) -> Cut:
    if not file.is_picture:
        return Cut(file, problem=f"{UNREADABLE}: its name is not one of a picture")
    try:
        grey = read_grey(file.path)
    except UserError as error:
        return Cut(file, problem=f"{UNREADABLE}: {error}")
    boxes, _ = detector.detect(grey)
    if not len(boxes):
        return Cut(file, problem=NO_FACE)
    largest = max(boxes, key=lambda box: float(box[2] * box[3]))
    png = cv2.imencode(".png", cut_patches(grey, [largest])[0])[1].tobytes()
    path = out / target
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(png)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # .png may be longer than what stood there
            raise
        return Cut(file, len(boxes), problem=f"{UNREADABLE}: its name is too long")
    return Cut(file, len(boxes), target)


@contextlib.contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """A folder whose content is in `out` once all went well; else `out` is as it was. UserError if it cannot be."""
    partial = out / _PARTIAL
    new = not out.exists()
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in sorted(partial.iterdir()):
            path.rename(out / path.name)
        partial.rmdir()
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
        raise


def _list(done: list[Cut], root: Path, path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "faces", "cut", "problem"])
        for cut in done:
            writer.writerow([cut.file.path.relative_to(root), cut.faces, cut.written or "", cut.problem])
