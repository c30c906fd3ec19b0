"""`emograph data cut`: faces out of pictures of any size, as the live system would cut them, for `emograph train`.

    PICTURES/train/happy/anna.jpg  ->  OUT/train/happy/anna.png, grey, 48 x 48

What became of each picture stands in OUT/cut.csv.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from nodes.facedetector import FaceDetector, cut_patches
from nodes.preprocess import LABELS
from pipeline.errors import UserError
from trainer.checkpoint import write_whole
from trainer.dataset import pictures, read_grey

LIST = "cut.csv"
SEARCH_WIDTH = 1280
"""Wider pictures are searched shrunk to this: a portrait from a phone has its face in a third of the width."""
NO_FACE, UNREADABLE = "no face was found", "unreadable"


@dataclass(frozen=True)
class Cut:
    """What became of a picture: the number of faces found, and the file written, or why there is none."""

    picture: Path
    split: str
    label: str
    faces: int = 0
    written: Path | None = None
    problem: str = ""


def cut_faces(root: Path, out: Path, tell: Callable[[int, int], None] = lambda _done, _of: None) -> list[Cut]:
    """Cut the largest face of each picture below `root` into `out`, with the haardetect node's own code.

    A picture that cannot be read, or shows no face, is left out and said so in what comes back and in `out`/cut.csv.
    `tell` hears how many pictures are done, of how many. Raises UserError if there are no pictures, `out` is not
    empty or cannot be written, or no picture has a face.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder of pictures")
    found = pictures(root)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: give a folder that is new or empty")
    detector = FaceDetector(detect_width=SEARCH_WIDTH)
    taken: set[Path] = set()
    done: list[Cut] = []
    for split, label, picture in found:
        tell(len(done), len(found))
        folder = out / picture.parent.relative_to(root)
        target = folder / f"{picture.stem}.png"
        if target in taken:  # a.jpg and a.png
            target = folder / f"{picture.name}.png"
        cut = _cut(detector, picture, split, LABELS[label], target)
        if cut.written is not None:
            taken.add(cut.written)
        done.append(cut)
    _list(done, root, out)
    if not taken:
        raise UserError(f"no face was found in any of the {len(done)} pictures of {root}; {out / LIST} says more")
    return done


def _cut(detector: FaceDetector, picture: Path, split: str, label: str, target: Path) -> Cut:
    try:
        grey = read_grey(picture)
    except UserError as error:
        return Cut(picture, split, label, problem=f"{UNREADABLE}: {error}")
    boxes, _ = detector.detect(grey)
    if not len(boxes):
        return Cut(picture, split, label, problem=NO_FACE)
    largest = max(boxes, key=lambda box: float(box[2] * box[3]))
    write_whole(target, cv2.imencode(".png", cut_patches(grey, [largest])[0])[1].tobytes())
    return Cut(picture, split, label, len(boxes), target)


def _list(done: list[Cut], root: Path, out: Path) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["picture", "faces", "cut", "problem"])
    for cut in done:
        written = cut.written.relative_to(out) if cut.written else ""
        writer.writerow([cut.picture.relative_to(root), cut.faces, written, cut.problem])
    write_whole(out / LIST, text.getvalue().encode(errors="surrogateescape"))
