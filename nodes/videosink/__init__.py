"""emograph launch "testsrc ! haardetect ! emotion ! overlay ! videosink location=out.mp4"

Writes video files: one per camera, every frame once and at its own time, or all cameras in one picture
(`mosaic: true`, see `wall.py`). What is written plays even if the process is killed (see `video_file.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from nodes.location import CAMERA, check_writable, fill_in
from nodes.rates import RateOrZero
from nodes.videosink.video_file import VideoFile, choose_codec
from nodes.videosink.wall import LiveWall, SyncedWall
from pipeline import Buffer, Properties, Sink, UserError, pad
from pipeline.buffer import Mark

MOSAIC = ""
"""Stands for all cameras where files are kept by camera; no camera has an empty name."""
MOSAIC_FPS = 25.0


class VideoSink(Sink):
    """Writes one video file per camera, or one with all of them as a mosaic."""

    sink = pad("video/raw", format="BGR", access="read")
    tick_interval = 0.02

    class Properties(Properties):
        location: str = Field(
            min_length=1,
            description="file to write: .mp4, .mov, .mkv or .webm; {camera} stands for the camera's name, which is"
            " added before the suffix if it is not there and there are several",
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
        overwrite: bool = Field(True, description="replace a file that is there; false: that is an error")

    @classmethod
    def writes(cls, props: VideoSink.Properties, streams: list[str]) -> list[Path]:
        cameras = [MOSAIC] if props.mosaic else streams
        paths = [path_for(props.location, camera, many=len(cameras) > 1) for camera in cameras]
        for path in paths:
            choose_codec(path, props.codec).settings(props.quality, props.bitrate)  # an error if that cannot be
        return paths

    def open(self) -> None:
        self._files: dict[str, VideoFile] = {}
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        cameras = (MOSAIC,) if self.props.mosaic else self.streams
        self._paths = {camera: path_for(self.props.location, camera, many=len(cameras) > 1) for camera in cameras}
        for path in self._paths.values():
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
        if file is not None and not file.reaches(pts):
            self._complete(camera)
            file = None
        if file is None:
            path = self._paths[camera]
            if camera in self._begun or self.restarted:
                path = next_free(path)
            fps = 0.0 if self.props.mosaic else self.props.fps  # a mosaic's pictures have their times already
            file = VideoFile(path, frame.shape, self._codec, self._options, fps)
            self._files[camera] = file
            self._begun.add(camera)
            self.log("info", f"writing {path}")
        file.write(frame, pts)

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


def path_for(location: str, camera: str, many: bool) -> Path:
    """The file of one camera, or of a MOSAIC. UserError for a location that names something else in braces."""
    path = fill_in(location, camera)
    if CAMERA in location:
        if camera == MOSAIC:
            raise UserError(f"location {location}: a mosaic is one file for all cameras, without {CAMERA}")
        return path
    return path.with_name(f"{path.stem}-{camera}{path.suffix}") if many else path


def next_free(path: Path) -> Path:
    """`path`, or the first of `out-2.mp4`, `out-3.mp4` ... that is not there."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
