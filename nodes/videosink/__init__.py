"""emograph launch "testsrc ! haardetect ! emotion ! overlay ! videosink location=out.mp4"

Writes video files: one per camera, every frame once and at its own time, or all cameras in one picture
(`mosaic: true`, see `wall.py`). What is written plays even if the process is killed (see `video_file.py`); a camera may
have a file for each hour, of which the last are kept (see `segments.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from nodes.location import CAMERA, check_folder, check_writable, fill_in
from nodes.rates import RateOrZero
from nodes.videosink.segments import TIME, discard, named, next_free, recordings
from nodes.videosink.video_file import VideoFile, choose_codec
from nodes.videosink.wall import LiveWall, SyncedWall
from pipeline import Buffer, Properties, Seconds, Sink, UserError, pad
from pipeline.buffer import Mark

MOSAIC = ""
"""Stands for all cameras where files are kept by camera; no camera has an empty name."""
MOSAIC_FPS = 25.0
SHORTEST = 1.0
"""Seconds of a segment."""


class VideoSink(Sink):
    """Writes one video file per camera, or one with all of them as a mosaic."""

    sink = pad("video/raw", format="BGR", access="read")
    tick_interval = 0.02

    class Properties(Properties):
        location: str = Field(
            min_length=1,
            description="file to write: .mp4, .mov, .mkv or .webm; {camera} stands for the camera's name, which is"
            " added before the suffix if it is not there and there are several; {time} for when the file begins (UTC)",
        )
        codec: Literal["auto", "h264", "h265", "vp9", "mpeg4", "mjpeg"] = Field(
            "auto", description="auto: the best that the kind of file holds and this FFmpeg has"
        )
        quality: int = Field(75, ge=1, le=100, description="picture quality, 100 is best")
        bitrate: int = Field(0, ge=0, le=1_000_000, description="kbit/s; 0: as many as `quality` needs")
        fps: RateOrZero = Field(
            0,
            ge=0,
            le=240,
            description="frames/s of the file: another rate than the camera's changes its speed; "
            "0: each frame at its own time (a mosaic: 25 frames/s)",
        )
        mosaic: bool = Field(False, description="all cameras in one picture, in one file")
        segment: Seconds = Field(
            0.0, description="begin another file this often, named by its {time}; 0: one file until the end"
        )
        keep: int = Field(
            0, ge=0, le=1_000_000, description="delete all but so many of a camera's newest segments; 0: delete none"
        )
        overwrite: bool = Field(True, description="replace a file that is there; false: that is an error")

        @model_validator(mode="after")
        def _segments(self) -> VideoSink.Properties:
            if 0 < self.segment < SHORTEST:
                raise ValueError(f"a segment has {SHORTEST:g} s or more; 0: one file until the end")
            if self.keep and not self.segment:
                raise ValueError("'keep' counts segments, and there is no 'segment'")
            return self

    @classmethod
    def writes(cls, props: VideoSink.Properties, streams: list[str]) -> list[Path]:
        paths = list(_paths(props, streams).values())
        for path in paths:
            choose_codec(path, props.codec).settings(props.quality, props.bitrate)  # an error if that cannot be
        # What may be deleted is no other node's to read.
        old = [file for path in paths if props.keep for file in _old(path)]
        return [*paths, *old]

    def open(self) -> None:
        self._files: dict[str, VideoFile] = {}
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._captured = 0
        self._paths = _paths(self.props, self.streams)
        for path in self._paths.values():
            if TIME in path.name:
                check_folder(path.parent)
            else:
                check_writable(path, self.props.overwrite or self.restarted)
        self._codec = choose_codec(next(iter(self._paths.values())), self.props.codec)
        self._options = self._codec.settings(self.props.quality, self.props.bitrate)
        self._wall = self._new_wall()

    def _new_wall(self) -> LiveWall | SyncedWall | None:
        if not self.props.mosaic:
            return None
        fps = self.props.fps or MOSAIC_FPS
        if self.lossless:
            return SyncedWall(self.streams, fps, self._paths[MOSAIC].parent)
        return LiveWall(self.streams, fps)

    def consume(self, buffer: Buffer) -> None:
        self._captured = buffer.wall
        if self._wall is None:
            self._write(buffer.stream, buffer.frame, buffer.pts)
        else:
            self._wall.push(buffer.stream, buffer.frame, buffer.pts, self.clock())
            self.tick()

    def tick(self) -> None:
        if self._wall is not None:
            for picture, time in self._wall.due(self.clock()):
                self._write(MOSAIC, picture, time)
                self.breathe()  # there may be thousands, where one camera was far ahead of another

    def on_mark(self, mark: Mark) -> None:
        if mark.kind == "status" and not mark.data.get("up") and self._wall is not None:
            self._wall.mute(mark.stream, mark.data.get("reason") or "down")
            self.tick()
        if mark.kind == "eos":
            self._ended.add(mark.stream)
            if self._wall is None:
                self._finish(mark.stream)
            else:
                self._wall.mute(mark.stream, "ended")
                self.tick()
                if self._ended.issuperset(self.streams):
                    self._finish(MOSAIC)

    def close(self) -> None:
        errors = []
        for camera in (MOSAIC,) if self._wall else tuple(self._files):
            try:
                self._finish(camera)
            except UserError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _write(self, camera: str, frame: np.ndarray, pts: int) -> None:
        file = self._files.get(camera)
        if file is not None and not (file.reaches(pts) and file.length_at(pts) < (self.props.segment or math.inf)):
            self._complete(camera)
            file = None
        if file is None:
            file = self._begin(camera, frame.shape)
        file.write(frame, pts)

    def _begin(self, camera: str, shape: tuple[int, ...]) -> VideoFile:
        """A camera's first file, or its next. UserError where that cannot be."""
        path = self._paths[camera]
        if TIME in path.name:
            try:
                path = named(path, self._captured)
            except OSError as error:
                raise UserError(f"cannot read the folder {path.parent}: {error.strerror}") from None
        elif camera in self._begun or self.restarted:
            path = next_free(path)
        fps = 0.0 if self.props.mosaic else self.props.fps  # a mosaic's pictures have their times already
        file = self._files[camera] = VideoFile(path, shape, self._codec, self._options, fps)
        self._begun.add(camera)
        self.log("info", f"writing {path}")
        if self.props.keep:
            discard(self._paths[camera], self.props.keep, path, self.log)
        return file

    def _finish(self, camera: str) -> None:
        """Complete a camera's file, if it has one; a further frame would begin the next."""
        if self._wall is not None:
            file = self._files.get(camera)
            if file is None or not file.failed:
                for picture, time in self._wall.finish():
                    self._write(camera, picture, time)
                    self.breathe()
            self._wall = self._new_wall()
        self._complete(camera)

    def _complete(self, camera: str) -> None:
        file = self._files.pop(camera, None)
        if file is not None:
            file.close()
            if not file.failed:
                self.log(
                    "info", f"wrote {file.path}: {file.frames} frame{'s' * (file.frames != 1)}, {file.seconds:.2f} s"
                )


def _paths(props: VideoSink.Properties, streams: Sequence[str]) -> dict[str, Path]:
    """Camera, or MOSAIC -> its file, with TIME still in its name where it is named by that."""
    cameras = (MOSAIC,) if props.mosaic else streams
    return {c: path_for(props.location, c, many=len(cameras) > 1, timed=bool(props.segment)) for c in cameras}


def _old(pattern: Path) -> list[Path]:
    """Recordings that are there already."""
    try:
        return [path for _, _, path in recordings(pattern)]
    except FileNotFoundError:  # `open` makes the folder
        return []
    except OSError as error:
        raise UserError(f"cannot read the folder {pattern.parent}: {error.strerror}") from None


def path_for(location: str, camera: str, many: bool, timed: bool = False) -> Path:
    """The file of one camera, or of a MOSAIC. timed: TIME must be in its name. UserError for a location that names
    something else in braces."""
    path = fill_in(location, camera, (TIME,))
    if CAMERA in location and camera == MOSAIC:
        raise UserError(f"location {location}: a mosaic is one file for all cameras, without {CAMERA}")
    if location.count(TIME) > 1:
        raise UserError(f"location {location} names {TIME} twice")
    if TIME in str(path.parent):
        raise UserError(f"location {location}: {TIME} belongs into the name of the file, not of its folder")
    if many and CAMERA not in location:
        path = path.with_name(f"{path.stem}-{camera}{path.suffix}")
    return path.with_name(f"{path.stem}-{TIME}{path.suffix}") if timed and TIME not in path.name else path
