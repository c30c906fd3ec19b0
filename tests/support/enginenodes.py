"""Small nodes for tests of the engine: real plugin classes, run in real processes.

`tests/support/graphs.py` registers them as an installed package's entry points would.
"""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import time

import numpy as np
from pydantic import Field

from pipeline import (
    BatchTransform,
    Buffer,
    Mark,
    Properties,
    Region,
    Seconds,
    Sink,
    Source,
    SourceProperties,
    Transform,
    UserError,
    VideoInfo,
    pad,
)


class Numbers(Source):
    """Frames whose every pixel is the sequence number modulo 251."""

    class Properties(SourceProperties):
        num_buffers: int = Field(100, ge=0, description="0 for endless")
        fps: float = Field(0, ge=0, description="0 for as fast as possible")
        width: int = 64
        height: int = 48
        live: bool = False
        force_paced: bool = Field(False, description="ask for pacing whatever the mode is")
        slow_fill: Seconds = Field(0.0, description="how long a frame takes")
        slow_reopen: Seconds = Field(0.0, description="how long it takes to open after a restart")
        chatter: int = Field(0, description="messages to post with the last frame")
        saying: str = Field("", description="a message to post with every frame")
        bad_wall_at: int = -1
        bad_meta_at: int = -1
        fail_at: int = Field(-1, description="raise in the place of this frame")
        forgets: bool = Field(False, description="begin at the first frame again after a restart")
        meddles: bool = Field(False, description="write into what is the engine's in every buffer")

    src = pad("video/raw", format="BGR")

    def open(self) -> VideoInfo:
        self.next = 0
        if self.restarted:
            time.sleep(self.props.slow_reopen)
        self.paced = self.props.fps > 0 and not self.props.live and not self.lossless
        self.paced = self.paced or self.props.force_paced
        self.live = self.props.live
        return VideoInfo(self.props.height, self.props.width, 3, self.props.fps)

    def seek(self, sequence: int) -> None:
        self.next = 0 if self.props.forgets else sequence

    def fill(self, buffer: Buffer) -> bool:
        if self.props.num_buffers and self.next >= self.props.num_buffers:
            return False
        if self.live:
            if self.stopping.wait(1 / self.props.fps):
                return False
        if self.next == self.props.fail_at and (self.props.forgets or not self.restarted):
            raise ValueError("this frame cannot be read")
        time.sleep(self.props.slow_fill)
        buffer.frame[:] = self.next % 251
        buffer.pts = int(self.next * 1e9 / (self.props.fps or 30))
        buffer.meta["number"] = self.next
        if self.next == self.props.bad_wall_at:
            buffer.wall = -5
        if self.next == self.props.bad_meta_at:
            buffer.meta = None  # type: ignore[assignment]
        if self.props.meddles:
            buffer.stream = buffer.home = "nowhere"
            buffer.sequence = buffer.slot = buffer.generation = buffer.plane = buffer.weight = buffer.captured = 77
            buffer.trace = None  # type: ignore[assignment]
        self.next += 1
        if self.props.saying:
            self.log("info", self.props.saying)
        if self.next == self.props.num_buffers:
            for number in range(self.props.chatter):
                self.log("info", f"message {number}")
        return True


def _spoil_next() -> None:
    """Break the next buffer that this process sends on."""
    plain = Buffer.pack

    def pack(buffer: Buffer, to: str) -> bytes:
        Buffer.pack = plain
        buffer.trace[0][0] = 5
        return plain(buffer, to)

    Buffer.pack = pack


class Work(Transform):
    """Takes a while, and checks that the pixels stay what they are."""

    class Properties(Properties):
        delay: Seconds = 0.0
        fail_at: int = Field(-1, description="raise on this frame")
        abort_at: int = Field(-1, description="crash the process on this frame")
        hang_at: int = -1
        fatal_at: int = -1
        numpy_meta: bool = False
        bad_meta_at: int = -1
        bad_region_at: int = Field(-1, description="add a region that msgpack writes and no node could read")
        spoil_at: int = Field(-1, description="have a buffer sent on that no node can read")
        replace_at: int = Field(-1, description="return another buffer than the one given")
        refuse_while: str = Field("", description="fail to open again as long as this file exists")

    sink = pad("video/raw", format="BGR", access="read")
    src = pad("video/raw", format="BGR", adds="worked")

    def open(self) -> None:
        if self.restarted and os.path.exists(self.props.refuse_while):
            raise UserError("the camera does not answer")

    def transform(self, buffer: Buffer) -> Buffer | None:
        number = buffer.meta["number"]
        if not (buffer.frame == number % 251).all():
            raise ValueError("mixed pixels")
        if self.props.delay:
            time.sleep(self.props.delay)
        if number == self.props.fail_at:
            raise RuntimeError("this frame is bad")
        if number == self.props.fatal_at:
            raise UserError(f"{self.name}: the disk is full")
        if number == self.props.abort_at and not self.restarted:
            ctypes.string_at(0)  # a crash of a native library
        if self.props.numpy_meta:
            buffer.meta["score"] = np.float32(0.5)
            buffer.meta["points"] = np.arange(3)
            self.observe("score", np.float32(0.5))
        if number == self.props.bad_meta_at:
            buffer.meta["object"] = object()
        if number == self.props.bad_region_at:
            buffer.regions.append(Region((1, 2, 3, 4), attrs={"seen": [{3: "a key that is no text"}]}))
        if number == self.props.spoil_at:
            _spoil_next()
        if number == self.props.replace_at:
            return buffer.branch(1)
        if number == self.props.hang_at and not self.restarted:
            time.sleep(3600)
        return buffer


class Invert(Transform):
    """Draws on the frame: 255 minus each sample."""

    sink = pad("video/raw", format="BGR", access="write")
    src = pad("video/raw", format="BGR")

    def transform(self, buffer: Buffer) -> Buffer | None:
        np.subtract(255, buffer.frame, out=buffer.frame)
        return buffer


class Odd(Transform):
    """Lets only even frames pass."""

    sink = pad("video/raw", access="none")
    src = pad("video/raw")

    def transform(self, buffer: Buffer) -> Buffer | None:
        return buffer if buffer.sequence % 2 == 0 else None


class Gather(BatchTransform):
    """A batch node that needs a while per call, whatever the batch."""

    class Properties(Properties):
        delay: Seconds = 0.0
        max_batch: int = 64

    sink = pad("video/raw", access="none")
    src = pad("video/raw")

    def open(self) -> None:
        self.max_batch = self.props.max_batch

    def transform_batch(self, buffers: list[Buffer]) -> list[Buffer | None]:
        if self.props.delay:
            time.sleep(self.props.delay)
        return list(buffers)


class Record(Sink):
    """Writes a line per buffer: camera, number, mean pixel; and one per mark."""

    class Properties(Properties):
        path: str = Field(description="file to append to")
        delay: Seconds = 0.0
        last_line: str = Field("", description="to write when it is closed")

    sink = pad("video/raw", access="read")

    def open(self) -> None:
        self.file = open(self.props.path, "a", buffering=1)  # noqa: SIM115 - closed in close

    def consume(self, buffer: Buffer) -> None:
        if self.props.delay:
            time.sleep(self.props.delay)
        age = (self.clock() - buffer.captured) / 1e6
        self.file.write(f"{buffer.stream} {buffer.meta['number']} {buffer.frame.mean():.0f} {age:.1f}\n")

    def on_mark(self, mark: Mark) -> None:
        if mark.kind == "eos":
            self.file.write(f"{mark.stream} eos\n")

    def close(self) -> None:
        if self.props.last_line:
            self.file.write(f"{self.props.last_line}\n")
        self.file.close()


class Nothing(Sink):
    """Needs no pixels."""

    sink = pad("ANY", access="none")

    def consume(self, buffer: Buffer) -> None:
        pass


class Picky(Sink):
    """Needs what no node here adds."""

    sink = pad("video/raw", needs="faces", access="none")

    def consume(self, buffer: Buffer) -> None:
        pass


class Trouble(Sink):
    """Misbehaves outside of `consume`."""

    class Properties(Properties):
        fail_in_close: bool = False
        slow_close: Seconds = 0.0
        hang_in_tick: bool = False
        fail_in_tick: bool = False
        fail_in_mark: bool = False
        start_child: bool = False
        hang_in_open: bool = False
        talk_in_close: int = Field(0, description="bytes to stderr")
        unknown: bool = Field(False, description="observe a metric that is NaN")
        odd_words: bool = Field(False, description="call `observe` and `log` with what they are not made for")
        leave: bool = Field(False, description="end the process at the first buffer, as for a device that is gone")

    sink = pad("ANY", access="none")
    tick_interval = 0.1

    def open(self) -> None:
        self.ticks = 0
        if self.props.hang_in_open:
            time.sleep(3600)
        if self.props.start_child:
            subprocess.Popen(["sleep", "7777"])

    def tick(self) -> None:
        if self.props.hang_in_tick and not self.restarted:
            time.sleep(3600)
        if self.props.fail_in_tick:
            raise KeyError("no such thing")

    def on_mark(self, mark: Mark) -> None:
        if self.props.fail_in_mark:
            raise ValueError("a mark is nothing to this node")

    def consume(self, buffer: Buffer) -> None:
        if self.props.unknown:
            self.observe("unknown", math.nan)
        if self.props.odd_words:
            self.observe(3, -2.5)  # type: ignore[arg-type]
            self.log("shout", 5)  # type: ignore[arg-type]
            self.log("info", "x" * 100_000)
        if self.props.leave and not self.restarted:
            raise SystemExit("the device is gone")

    def close(self) -> None:
        for _ in range(self.props.talk_in_close // 100):
            sys.stderr.write("x" * 99 + "\n")
        time.sleep(self.props.slow_close)
        if self.props.fail_in_close:
            raise OSError("No space left on device")


class Away(Source):
    """A camera that is not there, and does not come but where it is told to."""

    class Properties(SourceProperties):
        uri: str = "rtsp://user:word@10.0.0.5/stream"
        token: str = ""
        says: bool = True
        comes_after: Seconds = Field(0.0, description="gives another reason after half of it, then frames; 0 for never")

    src = pad("video/raw", format="BGR")
    live = True
    came = False

    def open(self) -> VideoInfo:
        return VideoInfo(48, 64, 3, 30)

    def fill(self, buffer: Buffer) -> bool:
        if self.props.says and not self.came:
            self.status(False, f"no answer from {self.props.uri}")
        if not self.props.comes_after:
            self.stopping.wait()
        elif not self.came:
            self.came = True
            self.stopping.wait(self.props.comes_after / 2)
            self.status(False, "no frame in time")
            self.stopping.wait(self.props.comes_after / 2)
            self.status(True)
        return not self.stopping.wait(0.02)
