"""One process of a graph, forked by the spawner (pipeline/forkserver.py), its assignment on stdin.

A flat loop: bus, home, buffers, work, sources, ticks. The process dies with the supervisor, whatever happens
to it, and never writes to stdout.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import resource
import signal
import sys
import time
import traceback
from typing import Any

import zmq

from pipeline import modules, wire
from pipeline.alarm import Alarm
from pipeline.buffer import BadMessage, Buffer, is_trace
from pipeline.busline import BusLine
from pipeline.errors import UserError
from pipeline.forkserver import call_process
from pipeline.inbox import Inbox
from pipeline.links import CallHome, CallLink, Home, Link, Outbox, SocketHome, SocketLink
from pipeline.memory import MemoryWatch
from pipeline.mishaps import Mishaps, told
from pipeline.node import Node, Sink, Source
from pipeline.plan import Assignment
from pipeline.ring import Fate, Reader
from pipeline.runner import RUNNERS, BatchRunner, Runner
from pipeline.source import SourceRunner, Trace

REPORT_INTERVAL = 0.5
"""Seconds between reports on the bus; they are the heartbeat too."""
_SLICE_NS = 10_000_000
"""How long buffers are taken before bus and home get their turn again."""


class Worker:
    """Builds the nodes of one process and runs them until the supervisor says quit."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.context = zmq.Context()
        self.bus = BusLine(self.context, assignment)
        self.say, self.log = self.bus.say, self.bus.log
        in_socket = self._listen("in")
        self.homebox = self._listen("home")
        self.nodes: dict[str, Node] = {}
        self.runners: dict[str, Runner] = {}
        self.inbox = Inbox(in_socket, self.runners, lambda error: self._count_garbage("in", error))
        self.sources: dict[str, SourceRunner] = {}
        self.socket_homes: dict[str, SocketHome] = {}
        self.outboxes: dict[str, Outbox] = {}
        """process -> what goes to its nodes."""
        self.garbage = 0
        self.quitting = False
        self._opened: list[str] = []
        self._announced_drained: set[str] = set()
        self._announced_passed: set[str] = set()
        self._traces: list[Any] = []
        self._next_report = 0.0
        self._memory = MemoryWatch()
        self._next_tick: dict[str, float] = {}

    # Construction --------------------------------------------------------------------------------------

    def _listen(self, what: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(zmq.PULL)
        # The windows of the sources bound what can wait here; a limit of the socket's own would only block.
        socket.setsockopt(zmq.RCVHWM, 0)
        endpoint = self.assignment.endpoint(self.assignment.process, what)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(endpoint.removeprefix("ipc://"))  # an earlier, killed process of the same name
        socket.bind(endpoint)
        return socket

    def _connect(self, process: str, what: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.LINGER, 500)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.connect(self.assignment.endpoint(process, what))
        return socket

    def build(self) -> None:
        """Import and construct the nodes, wire their links. Nothing is opened yet."""
        assignment, plan = self.assignment, self.assignment.plan
        mine = plan.processes[assignment.process]

        def link(to: str) -> Link:
            process = plan.nodes[to].process
            if process == assignment.process:
                return CallLink(self.runners, to)
            if process not in self.outboxes:
                self.outboxes[process] = Outbox(self._connect(process, "in"))
            return SocketLink(self.outboxes[process], to)

        streams = plan.reach(assignment.process)
        readers = {s: Reader(assignment.rings[s]) for s in streams}
        homes: dict[str, Home] = {}
        for stream in streams:
            process = plan.nodes[stream].process
            if process == assignment.process:
                homes[stream] = CallHome(self.sources, stream)
                continue
            if process not in self.socket_homes:
                self.socket_homes[process] = SocketHome(self._connect(process, "home"))
            homes[stream] = self.socket_homes[process]

        for name in mine:
            node_plan = plan.nodes[name]
            node: Node = modules.load(node_plan.cls)(name, tuple(node_plan.streams), **node_plan.properties)
            node.lossless = plan.mode == "lossless"
            node.restarted = assignment.restarted
            node.monitor = assignment.monitor
            node._log = lambda level, text, name=name: self.log(level, name, text)
            node._request_stop = lambda reason, name=name: self.say("request_stop", node=name, reason=reason)
            self.nodes[name] = node
            links = {s: [link(to) for to in targets] for s, targets in node_plan.routes.items()}
            runner: Runner | SourceRunner
            if isinstance(node, Source):
                node.pixels_wanted = plan.pixels_wanted[name]
                runner = self.sources[name] = SourceRunner(
                    node, node_plan, links[name], assignment.rings[name],
                    planes=plan.planes[name],
                    budget_ns=0 if node.lossless else int(plan.latency_budget * 1e9),
                    phase=plan.sources.index(name) / len(plan.sources),
                    log=self.log,
                    on_sent=self._settle,
                    on_trace=self._trace if assignment.trace else None,
                    on_status=lambda up, reason, since, name=name: self.say(
                        "camera", node=name, up=up, reason=reason, since=since
                    ),
                )  # fmt: skip
            else:
                runner = self.runners[name] = RUNNERS[node.kind](node, node_plan, links, homes, readers, self.log)
                runner.flush_links = self._flush
            node._observe = runner.stats.observe
            node._breathe = self._breathe
        if "cv2" in sys.modules:
            # A thread pool per process would fight the other processes for the same cores.
            sys.modules["cv2"].setNumThreads(1)

    def open(self) -> None:
        """NULL -> READY, the end of the flow first."""
        for name in reversed(self.nodes):
            node = self.nodes[name]
            try:
                if name in self.sources:
                    self.sources[name].open(self.assignment.restarted)
                else:
                    node.open()
            except UserError as error:
                raise error.at(name) from None
            self._opened.append(name)
            if node.tick_interval is not None:
                self._next_tick[name] = 0.0
        self.say("state", state="READY")

    def end(self, quiet: bool = False) -> None:
        """Close the nodes and tell the supervisor. quiet: a worse error is on its way, so theirs are not told."""
        self.close(quiet)
        self.say("state", state="NULL")
        self.context.destroy(linger=500)

    def close(self, quiet: bool = False) -> None:
        """READY -> NULL, in order of flow; every node that was opened is closed once, whatever the others do."""
        self._flush()
        for name in [n for n in self.nodes if n in self._opened]:
            self._opened.remove(name)
            try:
                if name in self.sources:
                    self.sources[name].close()
                else:
                    self.nodes[name].close()
            except Exception as error:
                if Mishaps.tracebacks and not isinstance(error, UserError):
                    traceback.print_exception(error)
                text = str(error) if isinstance(error, UserError) else told(error)
                if not quiet:
                    self.say("error", text=str(UserError(f"while closing: {text}").at(name)))

    # Bus -----------------------------------------------------------------------------------------------

    def _breathe(self) -> None:
        """Called by a node in the middle of its work: only look whether the end has come. All else waits, since nodes
        of this process may be in the middle of theirs too."""
        if self.bus.look() or self.quitting:
            for node in self.nodes.values():
                node.stopping.set()

    def _hear(self) -> None:
        for message in self.bus.hear():
            match message["do"]:
                case "play":
                    for source in self.sources.values():
                        source.play(self.assignment.restarted)
                    self.say("state", state="PLAYING")
                case "stop":
                    for node in self.nodes.values():
                        if not isinstance(node, Sink):
                            node.stopping.set()
                    for source in self.sources.values():
                        source.stop()
                case "flush":
                    for name in message["streams"]:
                        if name in self.sources and self.sources[name].playing:
                            self.sources[name].flush(message["lost_in"])
                case "quit":
                    for node in self.nodes.values():
                        node.stopping.set()
                    self.quitting = True

    def _trace(self, sequence: int, fate: Fate, trace: Trace) -> None:
        self._traces.append((sequence, fate, trace))

    def _report(self, now: float) -> None:
        """Figures since the last report, and the heartbeat."""
        self._next_report = now + REPORT_INTERVAL
        self.bus.allow_logs()
        runners: dict[str, Runner | SourceRunner] = {**self.sources, **self.runners}
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.say(
            "stats",
            nodes={name: runner.stats.report() for name, runner in runners.items()},
            cpu=usage.ru_utime + usage.ru_stime,
            rss=self._memory.bytes,
            garbage=self.garbage,
        )
        if self._traces:
            self.say("trace", buffers=self._traces)
            self._traces = []

    # Loop ----------------------------------------------------------------------------------------------

    def _take_home(self) -> None:
        """Take in what has come home: all buffers first, then the marks that may settle what is missing.

        A process that was killed and its successor send through two pipes, which ZeroMQ reads in turns: a mark of
        the successor can overtake a buffer that the dead one had sent home. What is here at all is here now.
        """
        marks: list[tuple[SourceRunner, int, int]] = []
        for data in wire.arrived(self.homebox):
            try:
                for what, stream, number, weight, fate, trace in wire.unpack(data):
                    source = self.sources[stream]
                    if what == 0:
                        node, reason = fate
                        sound = type(trace) is list and all(is_trace(t) for t in trace)
                        if not sound:  # its frame comes home all the same
                            self._count_garbage("home", BadMessage("no trace"))
                        source.buffer_home(number, weight, (str(node), str(reason)), trace if sound else [])
                    else:
                        marks.append((source, number, weight))
            except Exception as error:
                self._count_garbage("home", error)
        for source, number, weight in marks:
            try:
                source.mark_home(number, weight)
            except TypeError as error:
                self._count_garbage("home", error)

    def _take_buffers(self) -> bool:
        """Let the nodes take what waits, for a slice of time. True when there is more."""
        now = time.monotonic_ns()
        end = now + _SLICE_NS
        waiting = self.inbox.waiting
        while waiting:
            runner, item = waiting.popleft()
            if isinstance(item, Buffer):
                runner.take(item)
            else:
                runner.take_mark(item)
            before, now = now, time.monotonic_ns()
            self._settle(now, now - before)
            if now > end:
                break
        return bool(waiting)

    def _settle(self, now: int, took: int) -> None:
        for outbox in self.outboxes.values():
            outbox.settle(now, took)

    def _flush(self) -> None:
        for way_out in (*self.outboxes.values(), *self.socket_homes.values()):
            way_out.flush()

    def _count_garbage(self, socket: str, error: Exception) -> None:
        self.garbage += 1
        if self.garbage <= 3:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            self.log("warning", self.assignment.process, f"dropped a garbage message on socket '{socket}' ({text})")

    def run(self) -> None:
        poller = zmq.Poller()
        for socket in (self.bus.socket, self.inbox.socket, self.homebox):
            poller.register(socket, zmq.POLLIN)
        alarm = Alarm()
        poller.register(alarm.fd, zmq.POLLIN)
        for source in self.sources.values():
            poller.register(source.wake, zmq.POLLIN)
        batches = [r for r in self.runners.values() if isinstance(r, BatchRunner)]
        self._memory.start()
        wait_ms = 0
        while not self.quitting:
            ready = dict(poller.poll(wait_ms))
            for source in self.sources.values():
                if source.wake in ready:
                    os.eventfd_read(source.wake)
            if self.bus.socket in ready or self.bus.waiting:
                self._hear()
            if self.homebox in ready:
                self._take_home()
            if self.inbox.socket in ready:
                self.inbox.receive()
            more = self._take_buffers()
            for runner in batches:
                runner.work()
            again = None
            for source in self.sources.values():
                due = source.step()
                if due is not None:
                    again = due if again is None else min(again, due)
            self._flush()
            now = time.monotonic()
            for name, due_at in self._next_tick.items():
                if now >= due_at:
                    self._tick(name)
                    interval = self.nodes[name].tick_interval or 1.0
                    self._next_tick[name] = now + interval
            self._announce()
            self.bus.send_logs()
            if now >= self._next_report:
                self._report(now)
            wait = self._next_report - now
            if self._next_tick:
                wait = min(wait, min(self._next_tick.values()) - now)
            if again is None:
                alarm.clear()
            elif again > time.monotonic_ns():
                alarm.set(again)
            else:
                wait = 0
            if any(runner.busy for runner in batches):
                wait = min(wait, 0.001 if any(runner.node.max_wait for runner in batches) else 0)
            # Rounded up: poll counts in whole milliseconds, and 0 would spin until the time has come.
            wait_ms = 0 if more or self.bus.waiting or wait <= 0 else math.ceil(wait * 1000)
        alarm.close()
        self._report(time.monotonic())

    def _tick(self, name: str) -> None:
        try:
            self.nodes[name].tick()
        except UserError as error:
            raise error.at(name) from None
        except Exception as error:
            if name not in self.runners:  # a source's own exceptions end its process, in `fill` too
                raise
            self.runners[name].mishaps.tell(error, "it goes on")

    def _announce(self) -> None:
        """Tell the supervisor, once each, that a source has drained and that a buffer has passed a node."""
        for name, source in self.sources.items():
            if source.drained and name not in self._announced_drained:
                self._announced_drained.add(name)
                self.say("drained", node=name)
        for name, runner in {**self.sources, **self.runners}.items():
            if runner.passed and name not in self._announced_passed:
                self._announced_passed.add(name)
                self.say("passed", node=name)


def work() -> None:
    """Be the worker whose assignment is on stdin."""
    with open(0, "rb", closefd=False) as stdin:
        assignment = Assignment.unpack(stdin.read())
    call_process(assignment.process)
    faulthandler.enable()
    # The supervisor ends a graph in order; a Ctrl-C of the terminal is for it alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Mishaps.tracebacks = assignment.debug
    worker = Worker(assignment)

    def quit_(signum: int, frame: object) -> None:
        worker.quitting = True

    signal.signal(signal.SIGTERM, quit_)
    code = 0
    try:
        worker.build()
        worker.open()
        worker.run()
    except UserError as error:
        worker.say("error", text=str(error))
        code = 1
    except SystemExit:
        worker.end(quiet=True)  # what the other nodes of this process hold (a report, a film) is kept all the same
        raise
    except BaseException as error:
        traceback.print_exc()
        print(told(error), file=sys.stderr, flush=True)  # the last line is what the supervisor tells
        worker.say("failed")
        worker.end(quiet=True)
        os._exit(1)
    worker.end()
    sys.stdout.flush()
    os._exit(code)  # interpreter shutdown would only wait for other people's threads


if __name__ == "__main__":
    work()
