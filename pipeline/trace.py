"""`emograph launch --trace out.json`: the traces that buffers bring home, as a file that Perfetto opens.

Chrome's trace event format (the "JSON Array Format" of its documentation): a process row per process, a thread
row per node and camera, a slice per buffer and node, and the batch size as a counter.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UserError
from pipeline.plan import Plan

_REMEMBERED = 50_000
"""Slices, at least, within which another buffer's trace that tells of the same one is recognised."""


class TraceFile:
    """Gathers events in a file without a name, since a long run has millions, and puts them in place at the end."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self._failed = ""
        self._seen: set[tuple[str, int, str, int]] = set()
        self._seen_before: set[tuple[str, int, str, int]] = set()
        self._pid = {name: index + 1 for index, name in enumerate(plan.processes)}
        self._tid: dict[tuple[str, str], int] = {}
        try:
            self._is_new = not path.exists()
            with path.open("a"):  # what is there stays until there is something to put in its place
                pass
            self._gathered = self._unnamed()
        except OSError as error:
            raise UserError(self._cannot(error)) from None
        self._names: list[dict[str, Any]] = []
        """Of the rows."""
        for name, pid in self._pid.items():
            self._names.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})
            self._names.append({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}})

    def _unnamed(self) -> IO[str]:
        try:
            return tempfile.TemporaryFile("w+", encoding="utf-8", dir=self.path.parent)
        except OSError:  # a file that may be written, in a folder that may not
            return tempfile.TemporaryFile("w+", encoding="utf-8")

    def _put(self, event: dict[str, Any]) -> None:
        if self._failed:
            return
        try:
            self._gathered.write(json.dumps(event) + ",\n")
        except OSError as error:
            self._failed = self._cannot(error)

    def add(self, buffers: list[Any]) -> None:
        """Traces as a source reports them: (sequence, fate, [[node, taken ns, released ns, batch], ...])."""
        for sequence, (at, reason), trace in buffers:
            camera = trace[0][0] if trace else ""
            for node, start, end, batch in trace:
                pid = self._pid[self.plan.nodes[node].process]
                args = {"sequence": sequence, "fate": reason if not at else f"{at}: {reason}"}
                batched = self.plan.nodes[node].kind == "batch"
                # One call for many buffers is one slice, whichever camera's buffer tells of it first; and each branch
                # of a tee tells of all that was before it.
                slice_ = (node, start, "", 0) if batched else (node, start, camera, sequence)
                if slice_ in self._seen or slice_ in self._seen_before:
                    continue
                self._seen.add(slice_)
                if len(self._seen) >= _REMEMBERED:
                    self._seen_before, self._seen = self._seen, set()
                if batched:
                    for at_ns, value in ((start, batch), (end, 0)):
                        self._put(
                            {
                                "ph": "C",
                                "name": f"{node} batch",
                                "pid": pid,
                                "ts": at_ns / 1e3,
                                "args": {"items": value},
                            }
                        )
                    args["batch"] = batch
                    row = node
                else:
                    row = f"{node} {camera}" if node != camera else node
                self._put(
                    {
                        "ph": "X", "name": f"{node} {camera}#{sequence}", "cat": node, "pid": pid,
                        "tid": self._thread(pid, row), "ts": start / 1e3, "dur": (end - start) / 1e3, "args": args,
                    }
                )  # fmt: skip

    def _thread(self, pid: int, row: str) -> int:
        key = (str(pid), row)
        if key not in self._tid:
            self._tid[key] = len(self._tid) + 1
            self._names.append(
                {"ph": "M", "name": "thread_name", "pid": pid, "tid": self._tid[key], "args": {"name": row}}
            )
        return self._tid[key]

    def write(self) -> str:
        """Put it in place; returns what went wrong, or nothing."""
        try:
            if not self._failed:
                self._gathered.seek(0)
                with self.path.open("w", encoding="utf-8") as file:
                    file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
                    shutil.copyfileobj(self._gathered, file, 1 << 20)
                    file.write(",\n".join(map(json.dumps, self._names)) + "\n]}\n")
        except OSError as error:
            self._failed = self._cannot(error)
        if self._failed:
            self.discard()
        else:
            self._gathered.close()
        return self._failed

    def discard(self) -> None:
        """There is nothing to put in place: where there was no file, there is none."""
        with contextlib.suppress(OSError):  # of what was still to be written
            self._gathered.close()
        if self._is_new:
            self.path.unlink(missing_ok=True)

    def _cannot(self, error: OSError) -> str:
        return f"cannot write the trace {self.path}: {error.strerror}"
