"""The command `emograph launch`: checks a graph, runs it under the supervisor, shows it, prints the ledger."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq

from pipeline import console, modules
from pipeline.durations import seconds
from pipeline.errors import GraphError, UserError, printable
from pipeline.graph import attach, expand
from pipeline.lines import Lines
from pipeline.live import LiveStatus
from pipeline.load import load
from pipeline.node import check_properties
from pipeline.plan import NodePlan, Plan
from pipeline.registry import find
from pipeline.ring import Ledger
from pipeline.streams import silence
from pipeline.subscription import Subscription, subscribe
from pipeline.supervisor import Supervisor
from pipeline.trace import TraceFile


class _View:
    """Follows a run: shows what the bus says and the events of its `publish` nodes, ends it when time is up."""

    def __init__(
        self, plan: Plan, trace: TraceFile | None, limit: float | None, quiet: bool, debug: bool, live: bool
    ) -> None:
        self.plan = plan
        self.trace = trace
        self.limit = limit
        self.started = time.monotonic()
        self.shown = ("debug", "info", "warning", "error") if debug else ("info", "warning", "error")
        self.quiet = quiet
        self.told: list[tuple[str, str]] = []
        """Node and text of what was reported at level `error` while the graph went on."""
        self.errors: list[str] = []
        """What went wrong here, and nobody was told yet."""
        self.supervisor: Supervisor | None = None
        self.subscriptions: list[Subscription] = []
        self.screen: Lines | LiveStatus = (LiveStatus if live else Lines)(self.started, plan.mode == "lossless")

    def subscribe(self) -> None:
        """Hear the graph's own `publish` nodes as anybody else would."""
        for node in self.plan.nodes.values():
            # A file's class may be called so as well.
            if not self.quiet and node.type == "publish" and node.cls == (found := find(node.type)).path:
                endpoint = str(found.load()(node.name, **node.properties).props.endpoint)
                reachable = endpoint.replace("//*:", "//127.0.0.1:").replace("//0.0.0.0:", "//127.0.0.1:")
                with contextlib.suppress(UserError):  # a port or interface that only the node itself will know
                    self.subscriptions.append(subscribe(reachable, kinds=["change", "status"]))

    def show_events(self) -> None:
        for subscription in self.subscriptions:
            while (event := subscription.receive(0)) is not None:
                # Before this graph plays, whoever speaks on its port is somebody else.
                playing = self.supervisor is not None and self.supervisor.playing_at is not None
                if playing and event.camera in self.plan.sources and not event.snapshot:
                    self.screen.event(event)

    def __call__(self, what: str, fields: dict[str, Any]) -> None:
        try:
            self._show(what, fields)
        except OSError as error:
            if isinstance(error, BrokenPipeError):  # whoever read us has gone (`| head`): end in order, in silence
                silence()
            else:
                self.errors.append(f"cannot write the output: {error.strerror}")
            if self.supervisor is not None:
                self.supervisor.stop("nobody takes the output")

    def _show(self, what: str, fields: dict[str, Any]) -> None:
        supervisor = self.supervisor
        if what == "log" and fields["level"] in self.shown:
            if fields["level"] == "error":
                self.told.append((fields["node"], fields["text"]))
            self.screen.message(fields["level"], fields["node"], fields["text"])
        elif what == "trace" and self.trace is not None:
            self.trace.add(fields["buffers"])
        elif what == "tick" and supervisor is not None:
            self.show_events()
            self.screen.tick(supervisor)
            if self.limit is not None and supervisor.playing_at is not None:
                if time.monotonic() - supervisor.playing_at >= self.limit:
                    self.limit = None
                    supervisor.stop("the duration is over")

    def close(self) -> None:
        self.show_events()
        for subscription in self.subscriptions:
            subscription.close()
        self.screen.close()


def launch_graph(
    graph: str,
    settings: list[str] | None,
    duration: str | None,
    trace_path: Path | None,
    *,
    quiet: bool = False,
    as_json: bool = False,
    debug: bool = False,
    monitor: str | None = None,
    plain: bool = False,
    reports: list[Path] | None = None,
    thumbnails: bool = False,
    tables: list[Path] | None = None,
) -> int:
    """Run a graph; returns the exit code, 0 only when all went well."""
    try:
        limit = None if duration is None else float(seconds(duration))
    except ValueError as error:
        raise UserError(f"--duration: {error}") from None
    spec = load(graph, settings)
    if thumbnails and not reports:
        raise UserError("--report-thumbnails: there is no --report for them")
    look = {"thumbnails": True} if thumbnails else {}
    extras: list[tuple[str, dict[str, Any]]] = [
        *(("report", {"location": str(path)} | look) for path in reports or []),
        *(("table", {"location": str(path)}) for path in tables or []),
    ]
    for type_, properties in extras:
        # A node like any other: nothing may be missing in it, so the source waits for it in lossless mode.
        attach(spec, type_, properties)
    plan = expand(spec, monitor)
    if trace_path is not None and os.path.exists(graph) and os.path.realpath(graph) == os.path.realpath(trace_path):
        raise UserError(f"--trace: it would be written over the graph file {trace_path}")
    trace = TraceFile(trace_path, plan) if trace_path is not None else None
    live = not (plain or quiet or as_json or debug) and _is_terminal()
    view = _View(plan, trace, limit, quiet or as_json, debug, live)
    signals = _Signals()
    try:
        file = os.path.realpath(graph) if os.path.exists(graph) else ""
        supervisor = Supervisor(plan, view, trace=trace is not None, debug=debug, file=file, monitor=monitor)
    except BaseException as error:
        signals.let_go()
        if trace is not None:
            trace.discard()
        if isinstance(error, OSError | zmq.ZMQError):  # too many open files, no shared memory, no temporary folder
            raise UserError(f"cannot start: {error}") from None
        raise
    view.supervisor = supervisor
    view.subscribe()
    stood = {properties["location"]: _state(properties["location"]) for _, properties in extras}
    signals.stop(supervisor)
    if not as_json:
        cameras = "1 camera" if len(plan.sources) == 1 else f"{len(plan.sources)} cameras"
        processes = "1 process" if len(plan.processes) == 1 else f"{len(plan.processes)} processes"
        print(f"{printable(plan.name)}: {cameras}, {processes}, mode {plan.mode}", file=sys.stderr)
    errors: list[str] = []
    try:
        supervisor.run()
    except UserError as error:
        errors.append(str(error))
    finally:
        view.close()
        failed = trace.write() if trace is not None else ""
        signals.let_go()  # all is closed: what is left to print may be interrupted
    errors += view.errors + _unbalanced(supervisor)
    if failed:
        errors.append(failed)
    discrepancies = _discrepancies(supervisor)
    told = [f"{node}: {text}" for node, text in view.told]
    if as_json:
        console.print_json(console.summary(supervisor, [*errors, *told, *discrepancies]))
    elif supervisor.playing_at is not None:
        console.print_ledger(supervisor)
        if hint := missed(plan, supervisor.ledgers):
            print(printable(hint), file=sys.stderr)
    if supervisor.stop_reason in signal.Signals.__members__ and not as_json:
        when = "" if supervisor.playing_at is not None else " before the first frame"
        print(f"stopped by {supervisor.stop_reason}{when}", file=sys.stderr)
    supervisor.close()
    if trace is not None and not failed and not as_json:
        print(f"trace: {trace_path} (https://ui.perfetto.dev opens it)", file=sys.stderr)
    for type_, properties in extras:
        location = properties["location"]
        if not as_json and _state(location) not in (None, stood[location]):
            print(f"{type_}: {location}", file=sys.stderr)
    # What a node has told stands above already: it is the last line only where there is no other.
    if left := errors or discrepancies or told:
        raise GraphError(left[0] + (f" (and {len(left) - 1} more)" if left[1:] else ""))
    return 0


def missed(plan: Plan, ledgers: Mapping[str, Ledger]) -> str:
    """A line for those who had a recording written down in `mode: live`, and did not get all of it; else empty."""
    if plan.mode != "live" or not any(_files(node, written=True) for node in plan.nodes.values()):
        return ""
    names, late = [], 0
    for camera, ledger in ledgers.items():
        node = plan.nodes[camera]
        count = sum(n for (_, reason), n in ledger.dropped.items() if reason in ("window full", "late"))
        if count and node.type == "capture" and not node.properties.get("loop") and (files := _files(node)):
            names.append(files[0].name)
            late += count
    if not names:
        return ""
    who, whose = (f"{names[0]} was", "its") if len(names) == 1 else (f"{len(names)} recordings were", "their")
    return (
        f"{who} played in real time, and {late} of {whose} frames came too late; --set mode=lossless reads every frame"
    )


def _files(node: NodePlan, written: bool = False) -> list[Path]:
    """What a node of a checked graph reads, or what it writes."""
    cls = modules.load(node.cls)
    props = check_properties(cls, node.properties, node.name)
    return cls.writes(props, node.streams) if written else cls.reads(props)


def _state(location: str) -> tuple[int, int] | None:
    """What changes when a file is written; None where there is none."""
    try:
        found = os.stat(os.path.expanduser(location))
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _is_terminal() -> bool:
    return sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


ECHO = 0.3
"""Seconds; nobody asks twice as fast."""


class _Signals:
    """Ctrl-C and friends stop a supervisor in order; a second one at once. One that comes before there is a supervisor
    waits for it, since in the middle of its making it would leave a folder behind. What comes within ECHO of another is
    the same one: a terminal and `uv run` each send theirs."""

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._waiting: list[str] = []
        self._came = -math.inf
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # with `nohup` it shall go on
            signals.append(signal.SIGHUP)
        self._before = {signum: signal.signal(signum, self._come) for signum in signals}

    def _come(self, signum: int, frame: object) -> None:
        now = time.monotonic()
        if now - self._came < ECHO:
            return
        self._came = now  # not of an echo: whoever goes on asking is heard again
        if self._supervisor is None:
            self._waiting.append(signal.Signals(signum).name)
        else:
            self._supervisor.stop(signal.Signals(signum).name)

    def stop(self, supervisor: Supervisor) -> None:
        """From now on they stop this one."""
        self._supervisor = supervisor
        for name in self._waiting:
            supervisor.stop(name)

    def let_go(self) -> None:
        """Give signals back to those who had them before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


def _unbalanced(supervisor: Supervisor) -> list[str]:
    """Ledgers in which a frame is missing, or stands twice."""
    return [f"{name}: the ledger does not add up: {le}" for name, le in supervisor.ledgers.items() if not le.adds_up]


def _discrepancies(supervisor: Supervisor) -> list[str]:
    """What the final account says against the run: errors in nodes.

    What has ended the run is not told twice.
    """
    found = []
    for name, process in supervisor.processes.items():
        if process.failures_total and not any(error.startswith(f"{name}: ") for error in supervisor.errors):
            times = "once" if process.failures_total == 1 else f"{process.failures_total} times"
            found.append(f"{name}: the process ended {times} because a node failed")
    for name, ledger in supervisor.ledgers.items():
        for (node, reason), count in ledger.dropped.items():
            if reason == "error":
                frames, them = ("1 frame was", "it") if count == 1 else (f"{count} frames were", "them")
                found.append(f"{name}: {frames} dropped because {node} failed on {them}")
    return found
