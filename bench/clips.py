"""The videos that benchmarks play: every clip of a folder, each of which must open."""

from __future__ import annotations

from pathlib import Path

import cv2

from bench.record import Settings
from nodes.capture.reader import quieten
from pipeline.errors import UserError

SUFFIXES = {".mkv", ".mp4", ".avi"}


def find_clips(folder: Path) -> list[Path]:
    """The clips of a folder, by name. UserError if there are none, or one has no frame that OpenCV can read."""
    clips = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not clips and folder == Settings.videos:  # nobody named it
        raise UserError("this benchmark plays videos with faces: name a folder of them, --videos DIR")
    if not clips:
        raise UserError(f"no clips in {folder}; name a folder of videos with faces: --videos DIR")
    quieten()
    for clip in clips:
        if not cv2.VideoCapture(str(clip)).read()[0]:
            raise UserError(f"{clip} has no frame that can be read: take it out of the folder, or mend it")
    return clips
