"""One video file being written: frames and times in, a file that plays out, however the writer ends.

An mp4 is written in fragments of half a second, so what a killed process leaves behind plays up to there; when it
is closed it becomes an ordinary mp4 (FFmpeg's `hybrid_fragmented`). Encoders run without look-ahead: no frame waits
in memory for later ones.

PyAV encodes, since OpenCV's wheels carry no H.264 encoder. It brings an FFmpeg of its own: import it only here.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from nodes.location import check_suffix, lock
from nodes.mosaic import fit
from pipeline import UserError

TICKS = 60_000
"""Times in a file are in units of 1/60000 s: whole numbers for 12, 15, 24, 25, 30, 29.97, 50 and 60 frames/s, and
the finest that an MPEG-4 stream can tell."""
LONGEST = 1 << 30
"""Ticks that a frame may be shown, five hours: no kind of file can tell of 2^31, which a gap of ten hours is."""
NOMINAL_FPS = 25
"""Frames/s when nothing tells."""
KEYFRAMES = 60
"""Frames from one key frame to the next."""


@dataclass(frozen=True)
class Codec:
    """An encoder of FFmpeg, and what it calls best and worst (by `parameter`) on its scale of quality."""

    encoder: str
    best: int
    worst: int
    options: dict[str, str] = field(default_factory=dict)
    parameter: str = "crf"
    pixels: str = "yuv420p"

    def settings(self, quality: int, bitrate: int) -> dict[str, str]:
        """Encoder options for a quality of 1-100, or for `bitrate` kbit/s where that is not 0.

        UserError when the encoder does not go by bitrate.
        """
        options = {"g": str(KEYFRAMES), **self.options}
        if bitrate:
            if self.parameter != "crf":
                # Their rate control reckons with a fixed frame rate and misses by far.
                raise UserError(f"{self.encoder} goes by quality, not by bitrate; h264 goes by either")
            return options | {"b": str(bitrate * 1000)}
        level = str(round(self.worst + (self.best - self.worst) * quality / 100))
        if self.parameter == "crf":
            return options | {"crf": level, "b": "0"}
        return options | {"qmin": level, "qmax": level}


CODECS = {
    "h264": Codec("libx264", 15, 45, {"preset": "superfast", "tune": "zerolatency"}),
    "h265": Codec(
        "libx265",
        18,
        45,
        {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none:pools=1"},
    ),
    "vp9": Codec("libvpx-vp9", 20, 60, {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "row-mt": "1"}),
    "mpeg4": Codec("mpeg4", 2, 14, parameter="q"),
    "mjpeg": Codec("mjpeg", 2, 14, parameter="q", pixels="yuvj420p"),
}
CONTAINERS = {
    ".mp4": ("h264", "mpeg4", "h265", "vp9", "mjpeg"),
    ".mov": ("h264", "mpeg4", "h265", "mjpeg"),
    ".mkv": ("h264", "mpeg4", "h265", "vp9", "mjpeg"),
    ".webm": ("vp9",),
}
"""Codecs that each kind of file may hold; the first that this FFmpeg can encode is `auto`."""


def available(codec: str) -> bool:
    """Whether this FFmpeg has the encoder."""
    try:
        av.Codec(CODECS[codec].encoder, "w")
    except UnknownCodecError:
        return False
    return True


def choose_codec(path: Path, codec: str) -> Codec:
    """The codec for a file, by its suffix; `codec` is a name in CODECS or `auto`. UserError if they do not fit."""
    check_suffix(path, CONTAINERS)
    possible = CONTAINERS[path.suffix.lower()]
    if codec not in ("auto", *possible):
        raise UserError(f"a {path.suffix} file holds no {codec}; it holds {', '.join(possible)}")
    for name in possible if codec == "auto" else (codec,):
        if available(name):
            return CODECS[name]
    raise UserError(
        f"this FFmpeg has no encoder for {codec}: {CODECS[codec].encoder if codec != 'auto' else ', '.join(possible)}"
    )


class VideoFile:
    """Locked with its construction, encoded from the second frame on: before that nobody knows the rate, which the
    encoder shares out its bits by. `frames` and `seconds` say how much was written.

    All methods raise UserError, in one line, when the file cannot be written; what was written, if anything, stays.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], codec: Codec, options: dict[str, str], fps: float) -> None:
        """shape: (height, width, ...) of the frames. options: from `Codec.settings`. fps: 0 to go by `pts`."""
        self.path = path
        self.frames = 0
        self.failed = False
        self._codec, self._options = codec, options
        self._height, self._width = shape[:2]
        self._fps = fps
        self._step = round(TICKS / (fps or NOMINAL_FPS))
        self._start = self._last = self._pts = 0
        self._timed = False
        """Whether any PTS has risen."""
        self._first: av.VideoFrame | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._lock = lock(path)

    @property
    def seconds(self) -> float:
        return (self._last + self._step) / TICKS if self.frames else 0.0

    def write(self, frame: np.ndarray, pts: int) -> None:
        """Add one frame, uint8 BGR (height, width, 3), shown from `pts` (ns) on.

        The first frame is at 0. Where `pts` steps back (the source began again), and while all are the same (a source
        without times), the frame follows the last one after as long as that one was shown. One that is too close to
        the last is a tick later, and those behind it stay where they are. A frame of another size is fitted into
        this one's.
        """
        ticks = self._place(pts)
        picture = self._convert(frame)
        picture.pts, picture.time_base = ticks, Fraction(1, TICKS)
        if self.frames == 0:
            self._first = picture
        else:
            self._encode_first()
            self._encode(picture)
        self.frames += 1
        self._last = ticks

    def reaches(self, pts: int) -> bool:
        """Whether a frame at `pts` (ns) can be in this file: not after a gap of more than five hours."""
        return not self.frames or bool(self._fps) or round(pts * TICKS / 1e9) - self._start - self._last <= LONGEST

    def length_at(self, pts: int) -> float:
        """Seconds from the beginning of the file to a frame at `pts` (ns)."""
        if self._fps or pts <= self._pts:
            return self.seconds
        return (round(pts * TICKS / 1e9) - self._start) / TICKS if self.frames else 0.0

    def close(self) -> None:
        """Complete the file. After a failed write this only lets go of it."""
        try:
            if self.failed:
                # The trailer would fail as the frame did, and that has been told; or end the process, where FFmpeg
                # could not even write the header.
                self._container = self._stream = None
                return
            self._encode_first()
            self._encode(None)
            with self._explained():
                assert self._container is not None
                self._container.close()
        finally:
            if self.failed:
                self._remove_if_empty()
            os.close(self._lock)

    def _remove_if_empty(self) -> None:
        """An encoder that takes no picture of this size has written nothing: leave no file that looks like a video."""
        with contextlib.suppress(OSError):
            state = os.fstat(self._lock)
            if stat.S_ISREG(state.st_mode) and state.st_size == 0:
                self.path.unlink()

    def _place(self, pts: int) -> int:
        """The time of the next frame in the file, in ticks."""
        if self._fps:
            return round(self.frames * TICKS / self._fps)
        now = round(pts * TICKS / 1e9)
        before, self._pts = self._pts, pts
        if self.frames == 0:
            self._start = now
            return 0
        if pts < before:
            self._start = now - self._last - self._step
        self._timed |= pts > before
        ticks = now - self._start
        if ticks <= self._last:
            return self._last + (1 if self._timed else self._step)
        self._step = ticks - self._last
        return ticks

    def _convert(self, frame: np.ndarray) -> av.VideoFrame:
        height, width = self._height, self._width
        if frame.shape[:2] != (height, width):
            fitted = np.empty((height, width, 3), np.uint8)
            fit(frame, fitted)
            frame = fitted
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._codec.pixels == "yuv420p":  # OpenCV is four times as fast as FFmpeg here, with the same colours
            planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), np.uint8)
            return av.VideoFrame.from_ndarray(planes, "yuv420p")
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "bgr24").reformat(format=self._codec.pixels)

    def _encode_first(self) -> None:
        if self._first is not None:
            first, self._first = self._first, None
            with self._explained():
                self._open()
            self._encode(first)

    def _open(self) -> None:
        options = {"flush_packets": "1"}
        if self.path.suffix.lower() in (".mkv", ".webm"):
            options["cluster_time_limit"] = "500"  # ms
        else:
            options |= {"movflags": "hybrid_fragmented", "frag_duration": "500000"}  # us
        self._container = av.open(str(self.path), "w", container_options=options)
        rate = min(Fraction(self._fps or TICKS / self._step).limit_denominator(1001), Fraction(240))
        stream = self._container.add_stream(self._codec.encoder, rate=rate or 1, options=self._options)
        self._stream = cast(VideoStream, stream)
        context = self._stream.codec_context
        context.width, context.height = self._width + self._width % 2, self._height + self._height % 2
        context.pix_fmt = self._codec.pixels
        context.time_base = Fraction(1, TICKS)
        context.thread_count = 1
        context.colorspace = Colorspace.ITU601
        context.color_range = ColorRange.JPEG if self._codec.pixels == "yuvj420p" else ColorRange.MPEG

    def _encode(self, picture: av.VideoFrame | None) -> None:
        """None: there are no more."""
        assert self._container is not None
        assert self._stream is not None
        with self._explained():
            for packet in self._stream.encode(picture):
                packet.duration = self._step  # a guess that stands for the last frame alone
                self._container.mux(packet)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (FFmpegError, OSError, ValueError) as error:
            self.failed = True
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"cannot write {self.path}: {reason}") from None
