"""Pixels on their way to another host: raw, or JPEG at a twentieth of the size.

    emograph launch "testsrc ! haardetect ! send format=jpeg quality=90"

What comes from the network is decoded only after its own header says the size that is expected: a JPEG of a few
bytes can claim gigapixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.buffer import BadMessage

_SIZE_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the three in between are tables."""
_COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def encode(frame: np.ndarray, format: str, quality: int) -> bytes:
    """uint8 (H, W, 3) BGR pixels as bytes; quality: 1 to 100, of JPEG. A copy in either case."""
    if format == "raw":
        return frame.tobytes()
    done, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "a uint8 (H, W, 3) frame below 65536 pixels a side is always encoded"
    return data.tobytes()


def decode(data: memoryview, format: str, into: np.ndarray) -> None:
    """Write the picture into `into`, uint8 (H, W, 3); raises BadMessage, `into` untouched, when it does not fit."""
    if format == "raw":
        if len(data) != into.nbytes:
            raise BadMessage(f"{len(data)} bytes of pixels for a frame of {into.nbytes}")
        np.copyto(into, np.frombuffer(data, np.uint8).reshape(into.shape))
        return
    size = jpeg_size(data) if format == "jpeg" else None
    if size != into.shape[:2]:
        raise BadMessage(f"no {format} picture of {into.shape[1]}x{into.shape[0]}")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), _COLOUR)
    except cv2.error as error:
        raise BadMessage(str(error)) from None
    if picture is None or picture.shape != into.shape:
        raise BadMessage("a damaged JPEG picture")
    np.copyto(into, picture)


def jpeg_size(data: memoryview) -> tuple[int, int] | None:
    """(height, width) that a JPEG's frame header states (ITU-T T.81, B.2.2); None when there is none."""
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _SIZE_MARKERS:
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
