"""How much of an MP4 or MOV its edit list shows: phones and `ffmpeg -ss` cut a video by that alone.

The frames that the list leaves out are stored and counted all the same, but no player shows them. So a file that has
fewer frames than its header says need not be damaged. Source: ISO/IEC 14496-12, 8.4.2 and 8.6.6.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_LONGEST_INDEX = 256 << 20
"""Bytes; hours of video take a few million."""


def shown_share(path: Path) -> float:
    """The share of the video's duration that is shown, above 0 and up to 1; 1 for any other or an unreadable file."""
    try:
        with path.open("rb") as file:
            index = _index(file)
        return 1.0 if index is None else _share(index)
    except (OSError, struct.error):
        return 1.0


def _index(file: BinaryIO) -> memoryview | None:
    """What is in the `moov` box."""
    length = file.seek(0, os.SEEK_END)
    at = 0
    while at < length:
        file.seek(at)
        head = file.read(16)
        size, kind, large = struct.unpack(">I4sQ", head.ljust(16, b"\0"))
        begin, size = (16, large) if size == 1 else (8, size or length - at)
        if (at == 0 and kind not in _FIRST) or size < begin:
            return None
        if kind == b"moov":
            file.seek(at + begin)
            return memoryview(file.read(min(size - begin, _LONGEST_INDEX)))
        at += size
    return None


def _share(index: memoryview) -> float:
    scale, _ = _clock(_find(index, b"mvhd"))
    for kind, track in _boxes(index):
        media = _find(track, b"mdia") if kind == b"trak" else None
        if media is None or bytes(_find(media, b"hdlr")[8:12]) != b"vide":
            continue
        media_scale, media_duration = _clock(_find(media, b"mdhd"))
        shown = _shown(_find(_find(track, b"edts"), b"elst"))
        if scale and media_scale and media_duration and shown:
            return min(1.0, shown / scale / (media_duration / media_scale))
    return 1.0


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes in a box, up to the first that is damaged: (kind, content)."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _find(data: memoryview, wanted: bytes) -> memoryview:
    """The content of the first box of a kind; empty when there is none."""
    return next((content for kind, content in _boxes(data) if kind == wanted), data[:0])


def _clock(header: memoryview) -> tuple[int, int]:
    """(units a second, duration in units) of an `mvhd` or `mdhd`; zeros when it is not there."""
    if not header:
        return 0, 0
    return struct.unpack_from(">IQ", header, 20) if header[0] else struct.unpack_from(">II", header, 12)


def _shown(edits: memoryview) -> int:
    """What an `elst` shows in all, in units of the `mvhd`; 0 when it is not there, or open-ended."""
    if not edits:
        return 0
    entry = struct.Struct(">Qqi" if edits[0] else ">Iii")
    (count,) = struct.unpack_from(">I", edits, 4)
    spans = [entry.unpack_from(edits, 8 + n * entry.size)[:2] for n in range(min(count, len(edits) // entry.size))]
    kept = [duration for duration, start in spans if start >= 0]  # -1: nothing is shown for so long
    return sum(kept) if all(kept) else 0
