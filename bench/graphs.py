"""Runs a graph as `emograph launch` does and measures it between two moments in its steady state."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from pipeline.errors import UserError
from pipeline.graph import expand
from pipeline.graphfile import parse_yaml
from pipeline.load import load
from pipeline.subscription import subscribe
from pipeline.supervisor import Supervisor


@dataclass
class Measured:
    """What a graph did in `seconds`.

    frames: delivered, of all cameras. delivered: the same by camera. dropped: (node, reason) -> frames. cpu: process ->
    CPU seconds, the supervisor (which is this process) as "". pss: bytes of memory of all but the supervisor, of what
    is shared each one's part. traces: of the buffers that came home.
    latencies: seconds from capture to a subscriber's hands, of each observation that was told.
    """

    seconds: float = 0.0
    frames: int = 0
    delivered: dict[str, int] = field(default_factory=dict)
    dropped: dict[tuple[str, str], int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    pss: int = 0
    traces: list[list[list[Any]]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds

    @property
    def cpu_seconds(self) -> float:
        return sum(self.cpu.values())


def measure(
    graph: str, mode: str, seconds: float, warm_up: float, *, trace: bool = False, events: str | None = None,
    clips: Mapping[str, Path] = MappingProxyType({}),
) -> Measured:  # fmt: skip
    """Run a launch string or YAML text for `warm_up` seconds after the start and `seconds` more.

    events: the endpoint of the graph's `publish` node, to be heard by a subscriber in this process. clips: what its
    `capture` nodes play, by their names; any name of a file may be. Raises UserError when the graph does not come so
    far.
    """
    spec = parse_yaml(graph, "bench.yaml") if "nodes:" in graph else load(graph)
    spec.mode = mode
    for camera, clip in clips.items():
        spec.nodes[camera].properties["uri"] = str(clip)
    found = Measured()
    begin: dict[str, Any] = {}

    def on_event(what: str, fields: dict[str, Any]) -> None:
        if what == "trace" and begin and not found.seconds:
            found.traces += [buffer_trace for _, _, buffer_trace in fields["buffers"]]
        if what != "tick" or supervisor.playing_at is None or found.seconds:
            return
        now = time.monotonic()
        if not begin and now >= supervisor.playing_at + warm_up:
            begin.update(_account(supervisor), at=now)
        elif begin and now >= begin["at"] + seconds:
            _close_account(found, supervisor, begin, now)
            supervisor.stop("measured")

    supervisor = Supervisor(expand(spec), on_event, trace=trace)
    listener = _Listener(events, begin, found) if events else None
    try:
        supervisor.run()
    finally:
        if listener is not None:
            listener.stop()
        supervisor.close()
    if not found.seconds:
        raise UserError("the graph ended before it was measured")
    if not found.frames:
        raise UserError(f"no frame came through in {found.seconds:.0f} s: {found.dropped or 'none was captured'}")
    return found


def _account(supervisor: Supervisor) -> dict[str, Any]:
    dropped: dict[tuple[str, str], int] = {}
    for ledger in supervisor.ledgers.values():
        for fate, count in ledger.dropped.items():
            dropped[fate] = dropped.get(fate, 0) + count
    running = {p.name: p.child.pid for p in supervisor.processes.values() if p.child is not None}
    running |= {"": os.getpid(), "spawner": supervisor.spawner_pid or os.getpid()}
    cpu = {name: cpu_of(pid) for name, pid in running.items()}
    return {
        "delivered": {name: ledger.delivered for name, ledger in supervisor.ledgers.items()},
        "dropped": dropped, "cpu": cpu, "pids": running,
    }  # fmt: skip


def _close_account(found: Measured, supervisor: Supervisor, begin: dict[str, Any], now: float) -> None:
    end = _account(supervisor)
    found.seconds = now - begin["at"]
    found.delivered = {name: count - begin["delivered"].get(name, 0) for name, count in end["delivered"].items()}
    found.frames = sum(found.delivered.values())
    counts = {fate: count - begin["dropped"].get(fate, 0) for fate, count in end["dropped"].items()}
    found.dropped = {fate: count for fate, count in counts.items() if count}
    found.cpu = {name: cpu - begin["cpu"].get(name, 0.0) for name, cpu in end["cpu"].items()}
    found.pss = sum(_pss(pid) for name, pid in end["pids"].items() if name)


class _Listener(threading.Thread):
    """A subscriber like any other: when does it hold the event of a frame?"""

    def __init__(self, endpoint: str, begin: dict[str, Any], found: Measured) -> None:
        super().__init__(daemon=True)
        self._subscription = subscribe(endpoint, kinds=["observation"])
        self._begin, self._found = begin, found
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.is_set():
            event = self._subscription.receive(0.1)
            if event is not None and self._begin and not self._found.seconds and not event.snapshot:
                self._found.latencies.append(time.time() - event.time.timestamp())

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self._subscription.close()


def _pss(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_full_info().pss
    except psutil.NoSuchProcess:
        return 0


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, all its threads; 0 for one that has ended.

    From the scheduler's own clock of the process (the id is that of `clock_getcpuclockid`, which Python lacks): what
    `/proc/PID/stat` tells in ticks of 10 ms may stand still for seconds where a process works little at a time.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0
