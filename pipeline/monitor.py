"""What a running graph looks like from outside: one snapshot twice a second, for `emograph top`, a web page, a script.

The supervisor binds a PUB socket in the run's folder (and, if asked, at a tcp address); each message is one msgpack
map (docs/PROTOCOL.md, "Snapshots"). It is built only while somebody listens. Who listens keeps the newest snapshot
only, so that a slow viewer is never behind and never slows the graph.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import zmq

from pipeline import wire
from pipeline.errors import UserError, did_you_mean
from pipeline.plan import monitor_endpoint
from pipeline.rundir import Run, running

if TYPE_CHECKING:
    from pipeline.supervisor import Supervisor

VERSION = 1
"""Of the snapshot's form; docs/PROTOCOL.md says what each version has."""
INTERVAL = 0.5
"""Seconds between two snapshots."""
MESSAGES = 50
"""Messages of the bus that a snapshot carries, the newest last."""


class Monitor:
    """The supervisor's side: keeps the last messages and the cameras' states, publishes snapshots.

    Raises UserError when `extra`, an address besides the run's own, cannot be bound.
    """

    def __init__(self, supervisor: Supervisor, context: zmq.Context[Any], extra: str | None = None) -> None:
        self.supervisor = supervisor
        self.messages: deque[dict[str, Any]] = deque(maxlen=MESSAGES)
        self.cameras: dict[str, dict[str, Any]] = {}
        """camera -> up, since (UTC ns), reason; from its first status on."""
        self._listeners = 0
        self._due = 0.0
        # XPUB tells of subscriptions: without any, no snapshot is built.
        self._socket: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 4)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 1024)  # of what comes in: subscriptions
        self._socket.bind(monitor_endpoint(str(supervisor.directory.path)))
        if extra is not None:
            try:
                self._socket.bind(extra)
            except zmq.ZMQError as error:
                raise UserError(f"--monitor: cannot listen at {extra}: {error.strerror}") from None

    def heard(self, level: str, node: str, text: str) -> None:
        """A message of the bus, credentials already removed."""
        self.messages.append({"time": time.time_ns(), "level": level, "node": node, "text": text})

    def tick(self) -> None:
        """Publish when it is time and somebody listens; never waits."""
        now = time.monotonic()
        while True:
            try:
                request = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if request in (b"\x00", b"\x01"):
                self._listeners += 1 if request == b"\x01" else -1
                self._due = now if request == b"\x01" else self._due  # who joins need not wait
        if self._listeners > 0 and now >= self._due:
            self._due = now + INTERVAL
            with contextlib.suppress(zmq.Again):
                self._socket.send(wire.pack(self.snapshot()), zmq.NOBLOCK)

    def snapshot(self) -> dict[str, Any]:
        """The run as it stands now, in plain types."""
        supervisor = self.supervisor
        plan = supervisor.plan
        now = time.monotonic()
        if supervisor.stop_reason is not None or supervisor.drained >= set(plan.sources):
            state = "STOPPING"
        else:
            state = "STARTING" if supervisor.playing_at is None else "PLAYING"
        started = supervisor.playing_at
        nodes: dict[str, Any] = {}
        for name, figures in supervisor.figures.items():
            node = plan.nodes[name]
            nodes[name] = {
                "type": node.type, "kind": node.kind, "process": node.process, "base": node.base,
                "streams": node.streams, "links": sorted({to for targets in node.routes.values() for to in targets}),
                "in": figures.taken, "out": figures.done, "dropped": figures.dropped, **figures.recent(now),
            }  # fmt: skip
        cameras = {}
        for name, ledger in supervisor.ledgers.items():
            recent = nodes[name]
            cameras[name] = {
                **ledger.as_dict(), "capture_fps": recent["in_fps"],
                "fps": supervisor.delivered_fps(name, ledger.delivered, now),
                "latency_ms": recent["metrics"].get("latency_ms"),
                **self.cameras.get(name, {"up": started is not None, "since": 0, "reason": ""}),
                "ended": name in supervisor.drained,
            }  # fmt: skip
        processes = {
            p.name: {
                "nodes": p.nodes, "pid": p.child.pid if p.child is not None else None,
                "state": "RESTARTING" if p.recovering else p.state, "restarts": p.restarts_total,
                "cpu": p.cpu_share, "rss_mb": round(p.rss / 1e6, 1),
            }
            for p in supervisor.processes.values()
        }  # fmt: skip
        return {
            "v": VERSION, "graph": plan.name, "mode": plan.mode, "latency_budget_ms": plan.latency_budget * 1e3,
            "pid": os.getpid(), "time": time.time_ns(), "state": state,
            "uptime_s": now - started if started is not None else 0.0,
            "cameras": cameras, "nodes": nodes, "processes": processes,
            "messages": list(self.messages), "garbage": supervisor.garbage,
        }  # fmt: skip


class Watch:
    """A viewer's side: the newest snapshot of one run. Raises UserError for an address that is none."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        # Only the newest is kept: a viewer that was away sees the present.
        self._socket.setsockopt(zmq.CONFLATE, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise UserError(f"cannot connect to {endpoint}: {error.strerror}") from None

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The newest snapshot that has come, None after `timeout` seconds without one. Garbage counts as none."""
        end = time.monotonic() + timeout
        while True:
            if not self._socket.poll(max(0, int((end - time.monotonic()) * 1000))):
                return None
            with contextlib.suppress(ValueError):
                snapshot = wire.unpack(self._socket.recv())
                if isinstance(snapshot, dict) and snapshot.get("v") == VERSION:
                    return snapshot

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def locate(what: str | None) -> str:
    """The snapshots' address of a run: `what` is an address, a graph's file or name, a pid; None is the only run.

    Raises UserError when there is no such run, or more than one.
    """
    if what is not None and re.match(r"(tcp|ipc)://", what):
        return what
    runs = list(running())
    found = [run for run in runs if what is None or _is(run, what)]
    names = ", ".join(sorted({run.graph for run in runs})) or "none"
    if not found:
        if what is None:
            raise UserError("no graph of this user is running here")
        hint = did_you_mean(what, [run.graph for run in runs])
        raise UserError(f"no running graph is called '{what}'{hint} (running: {names})")
    if len(found) > 1:
        listed = ", ".join(f"{run.graph} (process {run.pid}: {monitor_endpoint(run.directory)})" for run in found)
        raise UserError(f"several graphs are running; say which by its address: {listed}")
    return monitor_endpoint(found[0].directory)


def _is(run: Run, what: str) -> bool:
    return what in (run.graph, run.file, str(run.pid)) or bool(run.file and os.path.abspath(what) == run.file)


def watch(endpoint: str, timeout: float | None = None) -> Iterator[dict[str, Any]]:
    """The snapshots of a run as they come; ends after `timeout` seconds without one."""
    with Watch(endpoint) as viewer:
        while (snapshot := viewer.receive(1e6 if timeout is None else timeout)) is not None:
            yield snapshot
