"""Opens a place, or says in one line why it cannot: `no such file 'door.mp4'`, `permission denied`, ...

`emograph launch "capture uri=rtsp://10.0.0.5/stream1 ! fakesink"` comes through here, again at each reconnect.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from nodes.capture.reader import Reader, rtsp_transport
from nodes.capture.uri import Place
from nodes.capture.why import LIMIT, has_end, why
from pipeline.errors import UserError

Transport = Literal["tcp", "udp"]

GRACE = 1.0
"""Seconds that FFmpeg gets above our own limit: ours tells a timeout from an error, FFmpeg's frees the thread."""
_VIDIOC_QUERYCAP = 0x80685600
_TEXT = "ansi"
"""The codec as which FFmpeg draws a text file: the terminal art it might be."""


class NoCamera(UserError):
    """Something else than a camera is there; waiting for one would not mend that."""


@dataclass(frozen=True)
class Wishes:
    """How to open. timeout: seconds, for opening and between frames. The rest is asked of a webcam only."""

    timeout: float
    transport: Transport = "tcp"
    fps: float | None = None
    width: int | None = None
    height: int | None = None


def open_place(place: Place, wishes: Wishes, reader: Reader) -> Reader:
    """`reader`, opened at `place`. Raises UserError and Interrupted; the reader is closed then."""
    try:
        if place.kind == "path":
            _open_file(place, reader)
        elif place.kind == "camera":
            _open_camera(place, wishes, reader)
        else:
            _open_network(place, wishes, reader)
    except TimeoutError:
        reader.close()
        raise UserError(f"'{place.shown}' gave no video within {wishes.timeout:g} s") from None
    except BaseException:
        reader.close()
        raise
    return reader


def is_recording(place: Place, wishes: Wishes, reader: Reader) -> bool:
    """Whether `reader`, opened at a place on the network, gives something with an end: FFmpeg knows how many frames,
    or the server how many bytes. Raises UserError and Interrupted; the reader is closed then."""
    if place.kind != "http" or reader.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return place.kind == "http"
    try:
        return reader.call(lambda: has_end(place), max(wishes.timeout, 3 * LIMIT))
    except TimeoutError:
        reader.close()
        raise UserError(f"'{place.shown}' does not say whether it has an end") from None
    except BaseException:
        reader.close()
        raise


def check_path(place: Place) -> Path:
    """The file or folder, known to be there and readable."""
    path = Path(place.address)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)
        elif stat.S_ISREG(mode):
            path.open("rb").close()
        else:
            raise UserError(f"'{place.shown}' is neither a file nor a folder")
    except FileNotFoundError:
        raise UserError(f"no such file '{place.shown}'") from None
    except PermissionError:
        raise UserError(f"permission denied: '{place.shown}'") from None
    except OSError as error:
        raise UserError(f"'{place.shown}': {error.strerror}") from None
    return path


def _open_file(place: Place, reader: Reader) -> None:
    # Absolute, so that FFmpeg does not take "a:b.mp4" for a protocol.
    path = str(check_path(place).absolute())

    def attempt() -> bool:
        return reader.capture.open(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])

    if not reader.call(attempt, None) or reader.codec == _TEXT:
        raise UserError(f"'{place.shown}' is not a video that can be decoded: another kind of file, or cut short")


def _open_camera(place: Place, wishes: Wishes, reader: Reader) -> None:
    try:
        device = os.open(place.address, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, _VIDIOC_QUERYCAP, bytearray(104))
        finally:
            os.close(device)
    except OSError as error:
        reasons = {
            errno.ENOENT: f"no camera at '{place.shown}'",
            errno.EACCES: f"permission denied: '{place.shown}' (is the user in the group 'video'?)",
            errno.EBUSY: f"'{place.shown}' is busy: another program uses it",
            errno.ENOTTY: f"'{place.shown}' is not a camera",
        }
        reason = reasons.get(error.errno or 0, f"'{place.shown}': {error.strerror}")
        kind = NoCamera if error.errno in (errno.ENOTTY, errno.EISDIR) else UserError
        raise kind(reason) from None

    def attempt() -> bool:
        if not reader.capture.open(place.address, cv2.CAP_V4L2):
            return False
        wanted = {
            cv2.CAP_PROP_FRAME_WIDTH: wishes.width,
            cv2.CAP_PROP_FRAME_HEIGHT: wishes.height,
            cv2.CAP_PROP_FPS: wishes.fps,
        }
        for prop, value in wanted.items():
            if value:
                reader.capture.set(prop, value)  # the device takes the nearest it can
        return True

    if not reader.call(attempt, wishes.timeout):
        raise UserError(f"'{place.shown}' gives no picture: another program uses it, or it is not a capture device")


def _open_network(place: Place, wishes: Wishes, reader: Reader) -> None:
    # One decoder thread: a second one holds back a frame, and decoded no faster where it was measured
    # (docs/cameras.md). No `fflags nobuffer`: it drops what was read while probing, up to the next key frame.
    limit = round((wishes.timeout + GRACE) * 1000)
    options = [
        *(cv2.CAP_PROP_N_THREADS, 1),
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit),
    ]

    def attempt() -> bool:
        if place.kind == "rtsp":
            with rtsp_transport(wishes.transport):
                return reader.capture.open(place.address, cv2.CAP_FFMPEG, options)
        return reader.capture.open(place.address, cv2.CAP_FFMPEG, options)

    if not reader.call(attempt, wishes.timeout) or reader.codec == _TEXT:
        reason = reader.call(lambda: why(place, wishes.transport), 3 * LIMIT)
        raise UserError(f"'{place.shown}': {reason}")
