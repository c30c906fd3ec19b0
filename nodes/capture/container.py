"""What the container of a video says about the video's end.

Matroska and WebM store no number of frames: OpenCV estimates it from the duration of the longest track, which may be
the sound. But they store their own size in bytes, so a file that was cut short can be told from one that was not.
Source: RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

COUNTED = (".avi", ".m4v", ".mov", ".mp4")
"""Suffixes of containers that store how many frames they have."""

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def is_whole(path: Path) -> bool | None:
    """Whether a Matroska or WebM file is as long as it says; None when it does not say, or is another kind of file."""
    try:
        length = path.stat().st_size
        with path.open("rb") as file:
            for wanted in (_EBML, _SEGMENT):
                if _number(file, keep_marker=True) != wanted:
                    return None
                size = _number(file, keep_marker=False)
                if size is None:
                    return None
                end = file.tell() + size
                file.seek(end)
        return length >= end
    except OSError:
        return None


def _number(file: BinaryIO, keep_marker: bool) -> int | None:
    """An EBML variable-size integer: the leading zero bits of its first byte tell how many bytes follow.

    With its marker bit it is an element's id; without it a size, which is unknown (None) when all other bits are set.
    None too where there is no such number.
    """
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    if len(rest) < more:
        return None
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    mask = (1 << 7 * (more + 1)) - 1
    return None if value & mask == mask else value & mask
