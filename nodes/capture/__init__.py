"""A webcam, a video file, pictures, an RTSP or an HTTP/MJPEG camera.

    emograph launch "capture uri=0 ! haardetect ! emotion ! overlay ! display"

docs/cameras.md shows every kind of `uri`. What is read is decided here; how, in recording.py (things with an
end) and live.py (cameras).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from nodes.capture.canvas import Canvas
from nodes.capture.connect import NoCamera, Transport, Wishes, check_path, is_recording, open_place
from nodes.capture.live import Live
from nodes.capture.pictures import Pictures, is_picture, other_pictures, pictures_in, size_for
from nodes.capture.reader import Interrupted, Reader, quieten
from nodes.capture.recording import Recording, Video
from nodes.capture.timeline import RateLimit
from nodes.capture.uri import Place, is_live, parse, redact
from nodes.capture.why import why
from nodes.rates import SLOWEST
from nodes.zones import Rectangles
from pipeline.buffer import Buffer
from pipeline.caps import pad
from pipeline.durations import Seconds
from pipeline.errors import UserError
from pipeline.node import Source, SourceProperties, VideoInfo

__all__ = ["Capture", "redact"]

FOLDER_FPS = 25.0


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


class Capture(Source):
    """Frames from a camera or a recording, decoded straight into the frame's slot.

    Cameras (`/dev/video*`, rtsp://, http:// without an end) are live in either mode: they cannot be held back.
    Recordings are played in real time in live mode; in lossless mode each frame comes once, as fast as the graph
    takes them. PTS start at 0, with `start` there, and rise strictly, over loops and reconnects too. A camera that is
    not `required` is down until it answers; only when something else than a camera is there, a recording or another
    device, the graph ends.
    """

    src = pad("video/raw", format="BGR")

    class Properties(SourceProperties):
        uri: Annotated[str, BeforeValidator(_text, json_schema_input_type=str | int)] = Field(
            min_length=1,
            repr=False,  # may hold a password
            description="webcam number, /dev/video*, video file, picture, folder of pictures, "
            "rtsp:// or http:// address",
        )
        fps: float | None = Field(
            None, ge=SLOWEST, le=1000, description="at most so many frames/s; for a folder its rate, default 25"
        )
        width: int | None = Field(None, ge=16, le=16384, description="frame width; keeps the aspect if alone")
        height: int | None = Field(None, ge=16, le=16384, description="frame height; keeps the aspect if alone")
        mask: Rectangles = Field(
            [],
            description="black from the start, so that no other node sees it: one or several [x, y, width, height] in "
            "fractions of the frame",
        )
        loop: bool = Field(False, description="start a recording over when it ends")
        start: Seconds = Field(0.0, description="where in a recording to start")
        end: Seconds | None = Field(
            None, description="where in a recording to end; the frame at `end` is not shown; default: its own end"
        )
        rtsp_transport: Transport = Field("tcp", description="how RTSP brings the video: tcp or udp")
        timeout: Seconds = Field(
            10.0, gt=0, le=3600, description="how long a camera may take to answer, and from frame to frame"
        )
        reconnect: bool = Field(True, description="bring a lost camera back; false: its stream ends")
        required: bool = Field(
            True,
            description="false: the graph starts without this camera, which joins when it answers; "
            "needs 'width' and 'height'",
        )

        @field_validator("end")
        @classmethod
        def _after_start(cls, end: float | None, info: ValidationInfo) -> float | None:
            if end is not None and end <= info.data.get("start", 0.0):
                raise ValueError("it must lie after 'start'")
            return end

        @model_validator(mode="after")
        def _has_parts(self) -> Capture.Properties:
            with contextlib.suppress(UserError):  # `reads` tells what is wrong with the address
                place = parse(self.uri)
                if self.required and place.kind in ("rtsp", "camera") and self.wants_part():
                    raise ValueError(is_live(place))
            return self

        def wants_part(self) -> bool:
            """Whether it is to begin, end or begin again where it would not by itself."""
            return self.loop or self.start > 0 or self.end is not None

        @model_validator(mode="after")
        def _can_join_later(self) -> Capture.Properties:
            if self.required:
                return self
            if not (self.width and self.height):
                raise ValueError("'required: false' needs 'width' and 'height': frames get their size before they come")
            if not self.reconnect:
                raise ValueError("'required: false' waits for the camera, and 'reconnect: false' does not")
            if self.wants_part():
                raise ValueError("'required: false' is for cameras, and they have no 'start', 'end' and 'loop'")
            with contextlib.suppress(UserError):  # `reads` tells what is wrong with the address
                place = parse(self.uri)
                if place.kind == "path":
                    raise ValueError(f"'required: false' is for cameras, and '{place.shown}' is a file or a folder")
            return self

    @classmethod
    def reads(cls, props: Capture.Properties) -> list[Path]:
        place = parse(props.uri)
        path = Path(place.address)
        if place.kind != "path":
            return []
        # A picture's folder too: a marked copy in it, of the same name, would take the place of the picture.
        return [path, path.parent] if is_picture(path) else [path]

    props: Properties
    _frames: Recording | Live | None = None
    _held: tuple[int, np.ndarray] | None = None
    """PTS and picture of the first frame, which `open` has read already."""
    _largest: tuple[int, int] | None = None
    """(height, width) that has room for each picture of a folder."""

    def open(self) -> VideoInfo:
        quieten()
        self._said: set[str] = set()
        try:
            place = parse(self.props.uri)
            self._frames, fps = self._begin(place)
            self._held = self._first(place, self._frames) if self._waits else None
        except Interrupted:
            raise UserError(f"{self.name}: stopped while opening") from None
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        self._canvas = self._new_canvas()
        self.live = isinstance(self._frames, Live)
        self.paced = not self.live and not self.lossless
        height, width = self._canvas.size
        return VideoInfo(height, width, 3, min(fps, self.props.fps or fps) or self.props.fps or 0.0)

    @property
    def _waits(self) -> bool:
        """Whether the camera has to answer before the graph goes on. One that this process takes over from another
        was there once: its size is known, and where it is away now, the others shall not be kept waiting."""
        taken_over = self.restarted and self.live and self.shape_before is not None and self.props.reconnect
        return self.props.required and not taken_over

    def _new_canvas(self) -> Canvas:
        height, width = self.props.height, self.props.width
        first = self._largest or (self._held[1].shape[:2] if self._held is not None else None)
        if first is None and self.shape_before is not None:  # the same size again, whatever comes
            before = self.shape_before[:2]
            return Canvas(None if height or width else before, *before)
        return Canvas(first, height, width)

    def seek(self, sequence: int) -> None:
        """Exact for recordings, by decoding again what is skipped; a camera goes on with what comes."""
        if isinstance(self._frames, Recording) and sequence > 0:
            self._held = None
            try:
                self._frames.seek(sequence)
            except Interrupted:
                return
            except UserError as error:
                raise UserError(f"{self.name}: {error}") from None

    def fill(self, buffer: Buffer) -> bool:
        if self._held is not None:
            buffer.pts, picture = self._held
            self._held = None
            return self._write(lambda into: picture, buffer)
        assert self._frames is not None, "open() makes it"
        try:
            while (pts := self._frames.advance()) is not None:
                if self._write(self._frames.picture, buffer):
                    buffer.pts = pts
                    return True
        except Interrupted:
            return False
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        return False

    def _write(self, take: Callable[[np.ndarray], np.ndarray | None], buffer: Buffer) -> bool:
        """The current frame into its slot, and how it is called; False when there is no picture in it."""
        name = self._frames.name if isinstance(self._frames, Recording) else None
        if name is not None:
            buffer.meta["picture"] = name
            picture = take(buffer.frame)
            if picture is not None and not (self.props.width and self.props.height):
                buffer.resize(*self._canvas.room_for(picture))
            take = lambda into: picture  # noqa: E731 - it is decoded, and need not be twice
        if not self._canvas.write(take, buffer.frame):
            return False
        for part in self.props.mask:
            left, top, right, bottom = part.area(*buffer.frame.shape[:2])
            buffer.frame[top:bottom, left:right] = 0
        return True

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()

    def _begin(self, place: Place) -> tuple[Recording | Live, float]:
        """The opened place, and its nominal frames/s (0 when unknown)."""
        p, stopping = self.props, self.stopping
        wishes = Wishes(p.timeout, p.rtsp_transport, p.fps, p.width, p.height)

        def again() -> Reader:
            return open_place(place, wishes, Reader(stopping))

        def video(limit: float | None) -> tuple[Recording, float]:
            frames = Recording(
                lambda: Video(place, again, p.start, p.end, limit, stopping, self._say), p.loop, p.fps, stopping
            )
            return frames, frames.rate

        if place.kind == "path":
            path, fps = check_path(place), p.fps or FOLDER_FPS
            if not (path.is_dir() or is_picture(path)):
                return video(None)
            self._largest = size_for(pictures_in(path), stopping)
            if other := other_pictures(path):
                kinds = " ".join(sorted(set(other)))
                what = f"{len(other)} files are pictures of kinds" if other[1:] else "1 file is a picture of a kind"
                self._say("warning", f"{what} not read here: {kinds}")

            def pictures() -> Pictures:
                return Pictures(pictures_in(path), fps, p.start, p.end, self._say)

            return Recording(pictures, p.loop, None, stopping), fps

        def timed(reader: Reader) -> bool:
            # Motion JPEG over HTTP carries no times; FFmpeg makes them, and the rate, up.
            return not (place.kind == "http" and reader.codec == "mjpg")

        def live(reader: Reader | None, connect: Callable[[], Reader]) -> Live:
            return Live(self, reader, connect, timed, RateLimit(p.fps, 0), p.timeout, p.reconnect)

        if not self._waits:
            # Not even the first attempt is waited for: a camera without power would hold up the others for `timeout`,
            # and several of them in one process would do so one after the other.
            connect = again if p.required else lambda: self._join(place, wishes, again)
            return live(None, lambda: self._rejoin(place, connect)), 0.0
        reader = again()
        if is_recording(place, wishes, reader):
            reader.close()
            return video(p.timeout)
        if p.wants_part():
            reader.close()
            raise UserError(is_live(place))
        return live(reader, lambda: self._rejoin(place, again)), reader.fps if timed(reader) else 0.0

    def _join(self, place: Place, wishes: Wishes, connect: Callable[[], Reader]) -> Reader:
        """A connection to a camera that the graph has not waited for. Raises UserError; NoCamera; Interrupted."""
        reader = connect()
        if is_recording(place, wishes, reader):
            reader.close()
            raise NoCamera(f"'{place.shown}' is a recording, and 'required: false' is for cameras")
        return reader

    def _rejoin(self, place: Place, connect: Callable[[], Reader]) -> Reader:
        """Another connection. Raises UserError: why the camera is away, without its address, which would fill the cell
        of a mosaic; NoCamera, with it; Interrupted."""
        try:
            return connect()
        except UserError as error:
            if isinstance(error, NoCamera) and not self.props.required:
                raise
            raise UserError(str(error).removeprefix(f"'{place.shown}'").lstrip(": ")) from None

    def _first(self, place: Place, frames: Recording | Live) -> tuple[int, np.ndarray]:
        """The first frame that can be decoded: only it tells the size for sure (rotation, wrong headers)."""
        nothing = np.empty((1, 1, 3), np.uint8)
        while (pts := frames.advance()) is not None:
            picture = frames.picture(nothing)
            if picture is not None:
                return pts, picture
        if self.stopping.is_set():
            raise Interrupted
        if isinstance(frames, Live):
            raise UserError(f"'{place.shown}' gives no picture: {frames.lost}")
        if self.props.start:
            raise UserError(f"'{place.shown}' has no frame at or after 'start' ({self.props.start:g} s)")
        reason = "it is damaged, or cut short"
        if place.kind == "http":  # or its server cannot send the part that FFmpeg needs
            reason = why(place, self.props.rtsp_transport)
        raise UserError(f"'{place.shown}' holds no frame that can be decoded: {reason}")

    def _say(self, level: str, text: str) -> None:
        """Log, but not again in each round of a loop."""
        if text not in self._said:
            self._said.add(text)
            self.log(level, text)
