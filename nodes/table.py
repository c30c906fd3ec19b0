"""emograph launch "capture uri=talk.mp4 ! haardetect ! emotion ! table location=talk.csv" --set mode=lossless

Writes what is seen in each frame as a table, CSV or JSON lines: a row for each face of each frame, one without a face
for a frame that shows nobody. Any graph gets it with `emograph launch GRAPH --table talk.csv`. Needs no pixels.

- A frame's rows are handed to the system, in one call, before the frame counts as delivered. So what the ledger calls
  delivered is in the table, also after a `kill -9` of this process. There is no buffer of ours that could be lost, and
  none is needed: of the 20 us that a frame with a face takes, the call is one.
- The columns depend on the properties alone, never on what is seen: tables of many recordings fit together, and the
  header can be written before the first face comes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from nodes.changes import label_score, picture_of, plain
from nodes.location import CAMERA, check_suffix, check_writable, fill_in, lock
from nodes.preprocess import LABELS
from pipeline import Buffer, Properties, Region, Sink, UserError, pad
from pipeline.buffer import Mark
from pipeline.caps import ANY
from pipeline.events import utc
from pipeline.jsonlines import dumps
from pipeline.node import Words

COLUMNS = (
    "camera", "frame", "picture", "time", "wall", "track", "x", "y", "width", "height", "held", "reused", "label",
    "score",
)  # fmt: skip
"""Before the probabilities; what they hold is in docs/watching.md."""
RAW = "raw_"
"""Before a label: the column of its probability in this frame alone."""
SUFFIXES = (".csv", ".jsonl")
DIGITS = 6
"""Of a probability, and of a time in seconds."""
BLOCK = 65536
"""Bytes in which the last whole line of a file is looked for."""

ALL = ""
"""Stands for all cameras where files are kept by camera; no camera has an empty name."""


def _check_labels(labels: list[str]) -> list[str]:
    names = [*COLUMNS, *labels, *(RAW + label for label in labels)]
    for name in names:
        if not name.isprintable() or not name.strip() or names.count(name) > 1:
            raise ValueError(f"{name!r} cannot be a label: each names a column of its own")
    return labels


class Table(Sink):
    """Writes the scores of every face in every frame as a table, CSV or JSON lines, for pandas, R or a spreadsheet."""

    sink = pad(ANY, needs="emotions", access="none")

    class Properties(Properties):
        location: str = Field(
            min_length=1,
            description="file to write: .csv or .jsonl; {camera} stands for the camera's name, without it all cameras"
            " are in one file",
        )
        overwrite: bool = Field(True, description="replace a file that is there; false: that is an error")
        empty_frames: bool = Field(
            True, description="a row for a frame without a face, too, so that no frame is missing"
        )
        labels: Annotated[Words, AfterValidator(_check_labels)] = Field(
            [], description="expressions that have a column each; none given: the seven of the networks that ship"
        )

    @classmethod
    def writes(cls, props: Table.Properties, streams: list[str]) -> list[Path]:
        paths = list(_paths(props.location, streams).values())
        for path in paths:
            check_suffix(path, SUFFIXES)
        return paths

    def open(self) -> None:
        self._paths = _paths(self.props.location, self.streams)
        for path in self._paths.values():
            check_suffix(path, SUFFIXES)
            check_writable(path, self.props.overwrite or self.restarted)
        self._labels = self.props.labels or list(LABELS)
        self._columns = [*COLUMNS, *self._labels, *(RAW + label for label in self._labels)]
        self._files: dict[str, _File] = {}
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._fits = self._told = False
        """Whether a face has come whose labels all have their columns, and whether it was told of another one."""

    def consume(self, buffer: Buffer) -> None:
        rows = [self._row(buffer, region) for region in buffer.regions]
        if not rows and self.props.empty_frames:
            rows = [self._row(buffer, None)]
        self._file(buffer.stream).write(rows, faces=len(buffer.regions))

    def on_mark(self, mark: Mark) -> None:
        if mark.kind != "eos":
            return
        self._ended.add(mark.stream)
        if self._key(mark.stream) == mark.stream or self._ended.issuperset(self.streams):
            self._file(mark.stream)  # a stream without a frame has a table too, with a header and no row
            self._finish(self._key(mark.stream))

    def close(self) -> None:
        errors = []
        for key in tuple(self._files):
            try:
                self._finish(key)
            except UserError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    # Rows ----------------------------------------------------------------------------------------------

    def _row(self, buffer: Buffer, region: Region | None) -> list[Any]:
        """A value for each column, None for an empty one."""
        wall = utc(buffer.wall).isoformat(timespec="microseconds").replace("+00:00", "Z")
        row = [buffer.stream, buffer.sequence, picture_of(buffer), round(buffer.pts / 1e9, DIGITS), wall]
        if region is None:
            return row + [None] * (len(self._columns) - len(row))
        smoothed, raw = plain(region.scores) or {}, plain(region.raw) or {}
        self._check_fit(buffer.stream, [*smoothed, *raw])
        box = (round(float(value), 2) for value in region.box)
        track = None if region.track is None else int(region.track)
        row += [track, *box, bool(region.attrs.get("held")), bool(region.attrs.get("reused"))]
        row += [region.label, _rounded(label_score(region.label, smoothed))]
        return row + [_rounded(found.get(label)) for found in (smoothed, raw) for label in self._labels]

    def _check_fit(self, camera: str, labels: list[str]) -> None:
        """A label without a column is a wrong setting, which ends the graph, if none has fit so far. Later it is told
        once: the face may come from another host, whose mistakes must not end this graph."""
        strange = next((label for label in labels if label not in self._labels), None)
        if strange is None:
            self._fits |= bool(labels)
            return
        text = f"a face of {camera} has a probability of '{strange}', which has no column"
        if not self._fits:
            raise UserError(f"{self.name}: {text}; set labels: [{', '.join(dict.fromkeys(labels))}]")
        if not self._told:
            self._told = True
            self.log("error", f"{text}; such probabilities are left out")

    # Files ---------------------------------------------------------------------------------------------

    def _key(self, camera: str) -> str:
        return ALL if ALL in self._paths else camera

    def _file(self, camera: str) -> _File:
        """The file of a camera. It is begun with the first frame: a graph that does not start replaces nothing."""
        key = self._key(camera)
        file = self._files.get(key)
        if file is None:
            go_on = self._has_begun(key)
            path = self._paths[key]
            file = self._files[key] = _File(path, self._columns, go_on)
            self._set_begun(key)
            self.log("info", f"going on with {path}" if go_on else f"writing {path}")
            if file.cut:
                self.log("warning", f"{path} ended in half a line, which is cut off")
        return file

    def _has_begun(self, key: str) -> bool:
        """Whether what is at the path is this run's own table, which must not be replaced."""
        if key in self._begun or not self.restarted:
            return key in self._begun
        marker = self._marker(key)
        return marker is None or marker.exists()

    def _set_begun(self, key: str) -> None:
        self._begun.add(key)
        marker = self._marker(key)
        if marker is not None:
            try:
                marker.touch()
            except OSError as error:
                raise UserError(f"cannot write {marker}: {error.strerror}") from None

    def _marker(self, key: str) -> Path | None:
        """A file in the run's own folder that tells the successor of this process that the table was begun. Without it
        rows would be added to the table of an earlier run. None outside of a graph."""
        if not self.monitor.startswith("ipc://"):
            return None
        return Path(self.monitor.removeprefix("ipc://")).with_name(f"{self.name}.{key}.begun")

    def _finish(self, key: str) -> None:
        """Complete a file; a further frame goes on with it."""
        file = self._files.pop(key)
        file.close()
        if not file.failed:
            rows, frames = (f"{n} {word}{'s' * (n != 1)}" for n, word in ((file.faces, "face"), (file.frames, "frame")))
            self.log("info", f"{'added to' if file.went_on else 'wrote'} {file.path}: {rows} in {frames}")


class _File:
    """One table being written, locked. `frames` and `faces` count what came to it through this object.

    All methods raise UserError, in one line, when the file cannot be written; it then ends with the last frame that
    went in as a whole.
    """

    def __init__(self, path: Path, columns: list[str], go_on: bool) -> None:
        """go_on: behind the last whole line of what is there; else in its place."""
        self.path = path
        self.frames = self.faces = 0
        self.went_on = go_on
        self.failed = self.cut = False
        self._columns = columns
        self._csv = path.suffix.lower() == ".csv"
        self._size = 0
        self._descriptor = lock(path)
        try:
            there = os.fstat(self._descriptor).st_size
            self._size = _whole_lines(self._descriptor, there) if go_on else 0
            self.cut = go_on and self._size < there
            if self._size < there:
                os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            if self._csv and not self._size:
                self._put([columns])
        except OSError as error:
            self._cut_back()
            os.close(self._descriptor)
            raise UserError(f"cannot write {path}: {error.strerror}") from None

    def write(self, rows: list[list[Any]], faces: int) -> None:
        """Add the rows of one frame, all of them or none."""
        try:
            self._put(rows)
        except OSError as error:
            self.failed = True
            self._cut_back()
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None
        self.frames += 1
        self.faces += faces

    def close(self) -> None:
        """Let go of the file. Some file systems say only now that they are full."""
        try:
            os.close(self._descriptor)
        except OSError as error:
            if not self.failed:
                self.failed = True
                raise UserError(f"cannot write {self.path}: {error.strerror}") from None

    def _text(self, rows: Iterable[list[Any]]) -> bytes:
        if not self._csv:
            return "".join(dumps(dict(zip(self._columns, row, strict=True))) + "\n" for row in rows).encode()
        text = io.StringIO()
        # 1 and 0: every program reads them, also in a column in which others are empty.
        plain_rows = ([int(v) if isinstance(v, bool) else v for v in row] for row in rows)
        csv.writer(text, lineterminator="\n").writerows(plain_rows)
        return text.getvalue().encode()

    def _cut_back(self) -> None:
        """After a failed write: no half line stays behind."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._size)

    def _put(self, rows: Iterable[list[Any]]) -> None:
        data = self._text(rows)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(data)


def _paths(location: str, cameras: Iterable[str]) -> dict[str, Path]:
    """Camera -> its file, or ALL -> that of all cameras."""
    return {key: fill_in(location, key) for key in (cameras if CAMERA in location else (ALL,))}


def _whole_lines(descriptor: int, size: int) -> int:
    """How many bytes of a file are whole lines: what a killed process wrote last may be a part of one."""
    end = size
    while end > 0:
        begin = max(0, end - BLOCK)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(probability, DIGITS)
