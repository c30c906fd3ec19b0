"""`emograph launch --trace out.json`: the traces that buffers bring home, as a file that Perfetto opens.

Chrome's trace event format (the "JSON Array Format" of its documentation): a process row per process, a thread
row per node and camera, a slice per buffer and node, and the batch size as a counter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.plan import Plan


class TraceFile:
    """Gathers slices in memory (about 100 bytes each) and writes them at the end."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self.events: list[dict[str, Any]] = []
        self._seen: set[tuple[str, int, str, int]] = set()
        self._pid = {name: index + 1 for index, name in enumerate(plan.processes)}
        self._tid: dict[tuple[str, str], int] = {}
        try:
            with path.open("a"):  # what is there stays until there is something to put in its place
                pass
        except OSError as error:
            raise UserError(f"cannot write the trace {path}: {error.strerror}") from None
        for name, pid in self._pid.items():
            self.events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})
            self.events.append({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}})

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
                if slice_ in self._seen:
                    continue
                self._seen.add(slice_)
                if batched:
                    for at_ns, value in ((start, batch), (end, 0)):
                        self.events.append(
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
                self.events.append(
                    {
                        "ph": "X", "name": f"{node} {camera}#{sequence}", "cat": node, "pid": pid,
                        "tid": self._thread(pid, row), "ts": start / 1e3, "dur": (end - start) / 1e3, "args": args,
                    }
                )  # fmt: skip

    def _thread(self, pid: int, row: str) -> int:
        key = (str(pid), row)
        if key not in self._tid:
            self._tid[key] = len(self._tid) + 1
            self.events.append(
                {"ph": "M", "name": "thread_name", "pid": pid, "tid": self._tid[key], "args": {"name": row}}
            )
        return self._tid[key]

    def write(self) -> str:
        """Write the file; returns what went wrong, or nothing."""
        try:
            self.path.write_text(json.dumps({"traceEvents": self.events, "displayTimeUnit": "ms"}))
        except OSError as error:
            return f"cannot write the trace {self.path}: {error.strerror}"
        return ""
