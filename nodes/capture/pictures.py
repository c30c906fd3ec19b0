"""Pictures, one or a folder of them: a time-lapse, or photographs of many sizes.

`emograph launch "capture uri=photos/ fps=1 ! haardetect full_scan_interval=0 ! fakesink" --set mode=lossless` reads
through this.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from nodes.capture.container import is_cut
from nodes.capture.reader import Interrupted
from nodes.capture.timeline import SECOND
from pipeline.errors import UserError

PICTURES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_OTHER = (".avif", ".cr2", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef")
_VIDEOS = (
    ".3gp",
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ts",
    ".webm",
    ".wmv",
)
_ORIENTATION = 0x0112
"""EXIF tag; from 5 on rows and columns change places."""

Size = tuple[int, int]
"""Height and width in pixels."""


class Pictures:
    """A pass through pictures in the order given, at `fps` a second.

    start, end: seconds, pictures from `start` up to but without `end`. log: where to say that one cannot be read.
    """

    def __init__(
        self, paths: list[Path], fps: float, start: float, end: float | None, log: Callable[[str, str], None]
    ) -> None:
        self._paths, self._log = paths, log
        self.fps = fps
        self._index = round(start * fps)
        self._zero: int | None = 0 if start else None
        """Index of the picture whose time is 0: the first that can be read, where that is the first of all."""
        self._stop = len(paths) if end is None else min(len(paths), round(end * fps))
        self._picture: np.ndarray | None = None

    def next(self) -> int | None:
        while self._index < self._stop:
            index = self._index
            self._index += 1
            self._picture = _read(self._paths[index])
            if self._picture is not None:
                self._zero = index if self._zero is None else self._zero
                return round((index - self._zero) * SECOND / self.fps)
            self._log("warning", f"'{self._paths[index]}' is not a picture that can be decoded; skipped")
        return None

    @property
    def name(self) -> str | None:
        if self._picture is None:
            return None
        # What is no UTF-8 is spelt out: two such names stay two.
        return os.fsencode(self._paths[self._index - 1].name).decode(errors="backslashreplace")

    def picture(self, into: np.ndarray) -> np.ndarray | None:
        return self._picture

    def close(self) -> None:
        self._picture = None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, by its name."""
    return path.suffix.lower() in PICTURES


def pictures_in(place: Path) -> list[Path]:
    """The pictures of a folder in natural order (`2.png` before `10.png`); of a file, itself. Raises UserError where
    there are none."""
    if not place.is_dir():
        return [place]
    paths = sorted(filter(is_picture, place.iterdir()), key=_natural)
    if not paths:
        raise UserError(f"no pictures in the folder '{place}' ({' '.join(PICTURES)}){_videos_in(place)}")
    return paths


def other_pictures(place: Path) -> list[str]:
    """The endings of the pictures in a folder that are of kinds not read here: a telephone's, animations, raw data."""
    return [p.suffix.lower() for p in place.iterdir() if p.suffix.lower() in _OTHER] if place.is_dir() else []


def _videos_in(place: Path) -> str:
    """What to say of the videos in a folder, if there are any."""
    videos = sorted((path for path in place.iterdir() if path.suffix.lower() in _VIDEOS), key=_natural)
    if not videos:
        return ""
    there = "is 1 video" if len(videos) == 1 else f"are {len(videos)} videos"
    return f"; there {there} in it, and a graph reads one, such as '{videos[0]}' (README.md has a loop over a folder)"


def size_for(paths: Iterable[Path], stopping: threading.Event) -> Size | None:
    """The smallest size that has room for each picture, by their headers, 0.1 ms each; None if no header tells one.
    Raises Interrupted when the graph stops meanwhile."""
    height = width = 0
    with warnings.catch_warnings(action="ignore"):  # Pillow's, of pictures above 90 megapixels
        for path in paths:
            if stopping.is_set():
                raise Interrupted
            rows, columns = _size(path)
            height, width = max(height, rows), max(width, columns)
    return (height, width) if height and width else None


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part.casefold()) for part in parts]


def _size(path: Path) -> Size:
    """Of a picture turned upright; 0, 0 where its header does not tell."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow turns TIFF by itself, and reads a PNG to its end for an EXIF that is not in front.
            told = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            turned = told and image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception:  # whatever Pillow makes of a broken file; whether it can be decoded is found out when it is read
        return 0, 0
    return (width, height) if turned else (height, width)


def _read(path: Path) -> np.ndarray | None:
    """uint8 (h, w, 3) BGR, turned upright by its EXIF; None when it cannot be read or is cut short."""
    try:
        data = path.read_bytes()
        if is_cut(data):
            return None
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
