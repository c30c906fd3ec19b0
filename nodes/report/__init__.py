"""emograph launch "capture uri=talk.mp4 ! haardetect ! emotion ! report location=talk.html" --set mode=lossless

Writes one HTML page at the end of a run: who showed which expression when, and the account of every frame. Any graph
gets it with `emograph launch GRAPH --report talk.html`. Needs no pixels; keeps pictures of faces only if asked to.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from nodes.location import check_folder, check_writable
from nodes.report.page import Facts, write_page
from nodes.report.tracks import Camera
from pipeline import Buffer, Properties, Sink, UserError, pad
from pipeline.monitor import Watch

ACCOUNT_TIMEOUT = 0.5
"""Seconds to wait for the final account; a stopped graph does not wait long for its nodes to close."""


class Report(Sink):
    """Writes an HTML report of a run: expressions over time and their shares, by camera and track; the ledger."""

    sink = pad("ANY", needs="emotions", access="none")

    class Properties(Properties):
        location: str = Field(min_length=1, description="file to write, HTML")
        thumbnails: bool = Field(
            False, description="also a small picture of each face; without it the report holds no picture of anybody"
        )

    @classmethod
    def writes(cls, props: Report.Properties, streams: list[str]) -> list[Path]:
        return [Path(os.path.expanduser(props.location))]

    def open(self) -> None:
        self._path = Path(os.path.expanduser(self.props.location))
        check_writable(self._path, overwrite=True)
        check_folder(self._path.parent)
        self._cameras = {name: Camera(name, self.props.thumbnails) for name in self.streams}
        self._begin = time.time_ns()
        self._opened = self.clock()

    def consume(self, buffer: Buffer) -> None:
        # A recording has its own time; cameras share this host's. (`wall` may be by another host's clock.)
        at = buffer.pts if self.lossless else buffer.captured - self._opened
        self._cameras[buffer.stream].add(max(0, at) / 1e9, buffer.regions)

    def close(self) -> None:
        facts = Facts(list(self._cameras.values()), self._begin, self.lossless, self.restarted, self._account())
        try:
            write_page(self._path, facts)
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from None
        self.log("info", f"wrote {self._path}")

    def _account(self) -> dict[str, Any] | None:
        """The run's last snapshot: by now all frames have come home, or never will. None outside of a graph."""
        if not self.monitor:
            return None
        newest = None
        end = time.monotonic() + ACCOUNT_TIMEOUT
        with contextlib.suppress(UserError), Watch(self.monitor) as viewer:
            while (snapshot := viewer.receive(end - time.monotonic())) is not None:
                newest = snapshot
                if not any(camera["in_flight"] for camera in snapshot["cameras"].values()):
                    break
        return newest
