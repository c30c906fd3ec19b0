"""emograph launch "testsrc duration=5s ! haardetect ! emotion ! overlay ! picturesink location=out interval=1s"

Writes frames as pictures, each a file of its own: photographs with what was found in them (configs/graphs/photos.yaml),
or now and then a frame of a camera. A picture is written whole or not at all, before its frame counts as delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from nodes.changes import picture_of
from nodes.location import CAMERA, check_folder, fill_in, replace_file
from pipeline import Buffer, Properties, Sink, UserError, pad
from pipeline.buffer import Mark
from pipeline.durations import Seconds

FORMATS = {"jpeg": (".jpg", ".jpeg"), "png": (".png",), "webp": (".webp",)}
"""Kinds of picture, and the suffixes of their files; the first is what a file without one gets."""
QUALITY = {"jpeg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}
LONGEST = 200
"""Bytes that a picture's name may have: file systems take 255, with a suffix or two."""


class PictureSink(Sink):
    """Writes frames as pictures into a folder: every one, or one of a camera now and then."""

    sink = pad("video/raw", format="BGR", access="read")

    class Properties(Properties):
        location: str = Field(
            min_length=1,
            description="folder for the pictures; {camera} stands for the camera's name, which is a folder in it if it"
            " is not there and there are several",
        )
        format: Literal["auto", "jpeg", "png", "webp"] = Field(
            "auto", description="auto: that of the file, where the frame was a picture of one of these; else jpeg"
        )
        quality: int = Field(90, ge=1, le=100, description="of JPEG and WebP, 100 is best")
        interval: Seconds = Field(
            0.0, description="least time from one picture of a camera to its next; 0: every frame"
        )
        faces_only: bool = Field(False, description="leave out frames that show no face")
        overwrite: bool = Field(True, description="replace pictures of the same name; false: the folder must be empty")

    @classmethod
    def writes(cls, props: PictureSink.Properties, streams: list[str]) -> list[Path]:
        return list(_folders(props.location, streams).values())

    def open(self) -> None:
        self._folders = _folders(self.props.location, self.streams)
        for folder in self._folders.values():
            check_folder(folder)
            if not (self.props.overwrite or self.restarted) and any(folder.iterdir()):
                raise UserError(f"the folder {folder} is not empty, and overwrite is false")
        self._written = dict.fromkeys(self.streams, 0)
        self._next: dict[str, int] = {}
        """PTS (ns) from which a camera's next picture may be."""

    def consume(self, buffer: Buffer) -> None:
        camera, interval = buffer.stream, round(self.props.interval * 1e9)
        next = self._next.get(camera, buffer.pts)
        too_early = next - interval <= buffer.pts < next  # what lies before the last picture is of a stream begun anew
        if too_early or (self.props.faces_only and not buffer.regions):
            return
        self._next[camera] = buffer.pts + interval
        path = self._folders[camera] / name_for(buffer, self.props.format)
        try:
            replace_file(path, _encoded(buffer.frame, path, self.props.quality))
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        self._written[camera] += 1

    def on_mark(self, mark: Mark) -> None:
        if mark.kind == "eos":
            self._tell(mark.stream)

    def close(self) -> None:
        for camera in self.streams:
            self._tell(camera)

    def _tell(self, camera: str) -> None:
        count, self._written[camera] = self._written[camera], 0
        if count:
            self.log("info", f"wrote {count} picture{'s' * (count != 1)} to {self._folders[camera]}")


def name_for(buffer: Buffer, format: str) -> str:
    """The name of a frame's file: that of the picture it was, else the camera's with the number of the frame.

    A picture whose suffix is not of its format gets another behind it: scan.tif.jpg, beside which scan.jpg has room.
    """
    # What is a name here may have come from another host: it must not lead out of the folder.
    name = (picture_of(buffer) or "").replace("\0", "").rpartition("/")[2]
    suffix = Path(name).suffix.lower()
    if name in ("", ".", "..") or len(name.encode(errors="replace")) > LONGEST:
        name, suffix = f"{buffer.stream}-{buffer.sequence:06d}", ""
    fitting = [s for kind, suffixes in FORMATS.items() if format in ("auto", kind) for s in suffixes]
    return name if suffix in fitting else name + fitting[0]


def _encoded(frame: np.ndarray, path: Path, quality: int) -> bytes:
    """What goes into the file. UserError where its format holds no picture of this size."""
    suffix = path.suffix.lower()
    kind = next(kind for kind, suffixes in FORMATS.items() if suffix in suffixes)
    try:
        done, data = cv2.imencode(suffix, frame, [QUALITY[kind], quality] if kind in QUALITY else [])
    except cv2.error:
        done = False
    if not done:
        height, width = frame.shape[:2]
        raise UserError(f"cannot write {path}: {kind} holds no picture of {width}x{height}")
    return data.tobytes()


def _folders(location: str, cameras: Sequence[str]) -> dict[str, Path]:
    """Camera -> its folder. UserError for a location that reads like a file's."""
    place = fill_in(location, "camera")
    if any(place.suffix.lower() in suffixes for suffixes in FORMATS.values()) and not place.is_dir():
        raise UserError(f"location {location} reads like a file; give the folder that the pictures go into")
    several = CAMERA not in location and len(cameras) > 1
    return {camera: fill_in(location, camera) / (camera if several else "") for camera in cameras}
