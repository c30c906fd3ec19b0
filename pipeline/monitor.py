"""What a running graph looks like from outside: one snapshot twice a second, for `emograph top`, a web page, a script.

The supervisor binds a PUB socket in the run's folder (and, if asked, at a tcp address); each message is one msgpack
map (docs/PROTOCOL.md, "Snapshots"), built only where somebody listens. Who listens keeps the newest snapshot only, so
that a slow viewer is never behind and never slows the graph.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from pipeline import wire
from pipeline.audience import Audience
from pipeline.endpoints import check_endpoint, is_local
from pipeline.errors import UserError, did_you_mean, redact_setting
from pipeline.plan import monitor_endpoint
from pipeline.rundir import Run, base_directory, running
from pipeline.snapshot import VERSION, is_snapshot

if TYPE_CHECKING:
    from pipeline.process import Process
    from pipeline.supervisor import Supervisor

INTERVAL = 0.5
"""Seconds between two snapshots."""
MESSAGES = 50
"""Messages of the bus that a snapshot carries, the newest last."""
GOODBYE_MS = 200
"""How long the end of a run waits, at the most, for its viewers to take the last snapshot."""
_REQUESTS_PER_TICK = 100


class Monitor:
    """The supervisor's side: keeps the last messages and the cameras' states, publishes snapshots.

    Raises UserError when `extra`, an address besides the run's own, cannot be bound.
    """

    def __init__(self, supervisor: Supervisor, context: zmq.Context[Any], extra: str | None = None) -> None:
        self.supervisor = supervisor
        self.ended = False
        self.endpoint = ""
        """The additional address, with the port that `*` became."""
        self.messages: deque[dict[str, Any]] = deque(maxlen=MESSAGES)
        self.cameras: dict[str, dict[str, Any]] = {}
        """camera -> up, since (UTC ns), reason; from its first status on."""
        self._watched = self._visited = False
        """Whether anybody has listened in the run's folder, and at the additional address."""
        self._due = 0.0
        self._settings = {
            name: {key: redact_setting(key, value) for key, value in node.properties.items()}
            for name, node in supervisor.plan.nodes.items()
        }
        # XPUB tells of subscriptions: before the first one no snapshot is built.
        self._socket: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 4)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 1024)  # of what comes in: subscriptions
        self._socket.bind(monitor_endpoint(str(supervisor.directory.path)))
        # What strangers reach is a socket of its own: whatever they do there, the page and `top` go on.
        self._guests: Audience | None = None
        if extra is not None:
            self._listen(extra)

    def _listen(self, extra: str) -> None:
        # Not ipc: a snapshot's address is for other hosts.
        if not extra.startswith("tcp://"):
            raise UserError(f"--monitor: {extra} is no address such as tcp://127.0.0.1:5557")
        try:
            self._guests = Audience(extra, hwm=4, linger_ms=GOODBYE_MS)
        except ValueError as error:
            raise UserError(f"--monitor: {error}") from None
        except OSError as error:
            raise UserError(f"--monitor: cannot listen at {extra}: {(error.strerror or '').lower()}") from None
        self.endpoint = self._guests.endpoint

    def announce(self) -> None:
        """Say on the bus where else snapshots are published, if anywhere."""
        if not self.endpoint:
            return
        self.supervisor.log("info", "monitor", f"snapshots on {self.endpoint}")
        if not is_local(self.endpoint):
            text = (
                f"{self.endpoint} can be read by anybody who reaches this port; tcp://127.0.0.1:PORT stays on this host"
            )
            self.supervisor.log("warning", "monitor", text)

    def heard(self, level: str, node: str, text: str) -> None:
        """A message of the bus, credentials already removed."""
        self.messages.append({"time": time.time_ns(), "level": level, "node": node, "text": text})

    def tick(self) -> None:
        """Publish when it is time and somebody listens; never waits."""
        now = time.monotonic()
        for _ in range(_REQUESTS_PER_TICK):
            if not wire.readable(self._socket):
                break
            request = self._socket.recv(zmq.NOBLOCK)
            # The first subscription and the end of the last one are told; whatever else comes is garbage.
            if request == b"\x01":
                self._watched, self._due = True, now
            elif request == b"\x00":
                self._watched = False
        if self._guests is not None:
            before = self._guests.thrown_out
            prefixes, _ = self._guests.take()
            # That nobody listens any more cannot be told there: libzmq passes on the end of a subscription also from a
            # peer that never had one, and the others would see no more snapshots.
            if b"" in prefixes:
                self._visited, self._due = True, now
            if before == 0 < self._guests.thrown_out:
                self.supervisor.log("warning", "monitor", f"a peer floods {self.endpoint}: all were thrown out")
        if now >= self._due:
            self._due = now + INTERVAL
            self.publish()

    def publish(self) -> None:
        """A snapshot now, if somebody listens, or has listened at the additional address."""
        if not (self._watched or self._visited):
            return
        snapshot = wire.pack(self.snapshot())
        with contextlib.suppress(zmq.Again):
            self._socket.send(snapshot, zmq.NOBLOCK)
        if self._guests is not None:
            self._guests.send([snapshot])

    def close(self) -> None:
        """The last snapshot says that the run has ended."""
        self.ended = True
        self.tick()
        self.publish()
        self._socket.close(linger=GOODBYE_MS if self._watched else 0)
        if self._guests is not None:
            self._guests.close()

    def snapshot(self) -> dict[str, Any]:
        """The run as it stands now, in plain types."""
        supervisor = self.supervisor
        plan = supervisor.plan
        now = time.monotonic()
        if self.ended:
            state = "ENDED"
        elif supervisor.stop_reason is not None or supervisor.drained >= set(plan.sources):
            state = "STOPPING"
        else:
            state = "STARTING" if supervisor.playing_at is None else "PLAYING"
        uptime = now - supervisor.playing_at if supervisor.playing_at is not None else 0.0
        nodes: dict[str, Any] = {}
        for name, figures in supervisor.figures.items():
            node = plan.nodes[name]
            nodes[name] = {
                "type": node.type, "kind": node.kind, "process": node.process, "base": node.base,
                "settings": self._settings[name], "streams": node.streams,
                "links": sorted({to for targets in node.routes.values() for to in targets}),
                "in": figures.taken, "out": figures.done, "dropped": figures.dropped, **figures.recent(now),
            }  # fmt: skip
        cameras = {}
        for name, ledger in supervisor.ledgers.items():
            recent = nodes[name]
            latency = recent["metrics"].get("latency_ms")  # a sample for each frame delivered
            cameras[name] = {
                **ledger.as_dict(), "capture_fps": recent["in_fps"], "fps": latency["per_s"] if latency else 0.0,
                "latency_ms": latency,
                **self._camera(name, uptime, ledger.captured), "ended": name in supervisor.drained,
            }  # fmt: skip
        processes = {
            p.name: {
                "nodes": p.nodes, "pid": p.child.pid if p.child is not None else None,
                "state": "RESTARTING" if self._recovers(p, cameras) else p.state, "restarts": p.restarts_total,
                "cpu": p.cpu_share, "rss_mb": round(p.rss / 1e6, 1),
            }
            for p in supervisor.processes.values()
        }  # fmt: skip
        return {
            "v": VERSION, "graph": plan.name, "mode": plan.mode, "latency_budget_ms": plan.latency_budget * 1e3,
            "pid": os.getpid(), "time": time.time_ns(), "state": state,
            "uptime_s": uptime,
            "cameras": cameras, "nodes": nodes, "processes": processes,
            "messages": list(self.messages), "errors": list(supervisor.errors), "garbage": supervisor.garbage,
        }  # fmt: skip

    def _recovers(self, process: Process, cameras: dict[str, Any]) -> bool:
        """Whether it was started again, and the first buffer that passes it is still awaited: not where it plays and
        all of its cameras are away or at their end."""
        if not process.recovering or process.state != "PLAYING":
            return process.recovering
        reach = self.supervisor.plan.reach(process.name)
        return any(cameras[name]["up"] and not cameras[name]["ended"] for name in reach)

    def _camera(self, name: str, uptime: float, captured: int) -> dict[str, Any]:
        """up, since, reason. What the camera said of itself, unless its process is gone; up with its first frame."""
        process = self.supervisor.processes[self.supervisor.plan.nodes[name].process]
        said = self.cameras.get(name)
        if process.recovering and process.state != "PLAYING":
            since = time.time_ns() - int((time.monotonic() - process.died_at) * 1e9)
            return {"up": False, "since": since, "reason": "its process is being restarted"}
        if said is not None:
            return said
        if not uptime or not captured:
            return {"up": False, "since": 0, "reason": "starting"}
        return {"up": True, "since": time.time_ns() - int(uptime * 1e9), "reason": ""}


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
            self._socket.setsockopt(zmq.IPV6, "[" in endpoint)
            self._socket.connect(check_endpoint(endpoint))
        except (ValueError, zmq.ZMQError) as error:
            self.close()
            reason = error.strerror if isinstance(error, zmq.ZMQError) else error
            raise UserError(f"cannot connect to {endpoint}: {reason}") from None

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The newest snapshot that has come, None after `timeout` seconds without one. Garbage counts as none."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0 and self._socket.poll(math.ceil(left * 1000)):
            with contextlib.suppress(ValueError):
                snapshot = wire.unpack(self._socket.recv())
                if is_snapshot(snapshot):
                    return snapshot
        return None

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
    if what is not None and "://" in what:
        return what
    runs = list(running())
    found = [run for run in runs if what is None or _is(run, what)]
    names = ", ".join(sorted({run.graph for run in runs})) or "none"
    if not found:
        if what is None:
            raise UserError(f"no graph of this user is running here (looked in {base_directory()}, by XDG_RUNTIME_DIR)")
        near = did_you_mean(Path(what).stem, [run.graph for run in runs])
        hint = near if "did you mean" in near else f"; running: {names}"
        raise UserError(f"no running graph is called '{what}'{hint}")
    if len(found) > 1:
        listed = ", ".join(f"{run.graph} (process {run.pid}: {monitor_endpoint(run.directory)})" for run in found)
        raise UserError(f"several graphs are running; say which by its process id or address: {listed}")
    return monitor_endpoint(found[0].directory)


def _is(run: Run, what: str) -> bool:
    return what in (run.graph, str(run.pid)) or bool(run.file and os.path.realpath(what) == run.file)


def watch(endpoint: str, timeout: float | None = None) -> Iterator[dict[str, Any]]:
    """The snapshots of a run as they come; ends after `timeout` seconds without one."""
    with Watch(endpoint) as viewer:
        while (snapshot := viewer.receive(1e6 if timeout is None else timeout)) is not None:
            yield snapshot
