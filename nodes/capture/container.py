"""What a file says about its own end: whether a video or a picture was cut short.

Matroska and WebM store no number of frames: OpenCV estimates it from the duration of the longest track, which may be
the sound. But they store their own size in bytes, so a file that was cut short can be told from one that was not.
Sources: RFC 8794 (EBML), RFC 9559 (Matroska), ITU-T T.81 (JPEG), ISO/IEC 15948 (PNG).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

COUNTED = (".avi", ".m4v", ".mov", ".mp4")
"""Suffixes of containers that store how many frames they have."""

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.S)
"""A marker with a segment behind it; restart markers and stuffed bytes are part of the pixels."""


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


def is_cut(picture: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; what follows the end (the film of a motion photo) plays no part.

    OpenCV finds out as well, but before 4.12 it filled a JPEG up with grey, and libpng complains on stderr.
    """
    if picture.startswith(b"\xff\xd8"):
        return not _reaches_end_of_jpeg(picture)
    return picture.startswith(b"\x89PNG") and not _reaches_end_of_png(picture)


def _reaches_end_of_jpeg(data: bytes) -> bool:
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        if marker[1] == b"\xd9":
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _reaches_end_of_png(data: bytes) -> bool:
    at = 8
    while at < len(data):
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            return at <= len(data)
    return False


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
