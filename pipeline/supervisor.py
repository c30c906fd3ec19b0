"""`emograph launch`: starts the processes of a plan, keeps them alive, ends them in order, accounts for every frame.

One loop looks at the desired state each tick and reconciles: a process that should run and does not is started
(sinks first, with back-off after a crash), one that should not is ended. Only this process starts and stops
others; the workers only speak.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import zmq

from pipeline import descriptors, ring
from pipeline.errors import UserError, redact, shortened
from pipeline.figures import NodeFigures, checked
from pipeline.monitor import Monitor
from pipeline.node import LEVELS
from pipeline.plan import Assignment, Plan, bus_endpoint
from pipeline.process import Process, how_it_ended
from pipeline.ring import Ledger
from pipeline.rundir import Reaper, RunDirectory
from pipeline.spawner import Spawner
from pipeline.wire import pack, readable, unpack

START_TIMEOUT = 90.0
"""Seconds from a process's start until READY; a camera's own timeout and torch's import fit in."""
SLOW_START = 10.0
"""Seconds of it after which a person is told what the graph waits for."""
HANG_TIMEOUT = 15.0
"""Seconds without a report until a process counts as hanging and is killed."""
DRAIN_TIMEOUT = 1.5
"""Seconds that a stopped graph has to bring its buffers home."""
QUIT_TIMEOUT = 5.0
"""Seconds that processes have to finish what they are at and close their nodes after a stop (a file is completed, a
frame of many megapixels searched); an ended graph gives them three times that."""
QUIT_AT_ONCE = 1.0
"""Seconds of it that is all for who never played, and after which the others are named."""
MESSAGES_PER_TURN = 2000
"""Heard from the bus before processes and a stop get their turn again."""
LAST_WORDS = 1.0
"""Seconds that what ended processes said last may take to get here, for all that are found to have ended at once."""
SPAWNER_LIMIT = 3
"""Deaths in a row of the process that starts the workers, before it was ready, after which the graph gives up."""
ORDERLY = (0, -signal.SIGTERM)
"""Exit codes of a process that is no trouble while its graph stops: a service manager may end all of them alike."""


Listener = Callable[[str, dict[str, Any]], None]


class Supervisor:
    """Runs one plan. `run` returns when the graph has ended; `ledgers` then holds every camera's account.

    on_event: called with ("log" | "state" | "restart" | "trace" | "tick", fields) for whoever shows the run.
    """

    def __init__(
        self,
        plan: Plan,
        on_event: Listener | None = None,
        *,
        trace: bool = False,
        debug: bool = False,
        file: str = "",
        monitor: str | None = None,
    ) -> None:
        descriptors.provide(len(plan.processes), len(plan.sources))
        self.plan = plan
        self.on_event = on_event or (lambda what, fields: None)
        self.trace = trace
        self.debug = debug
        self.processes = {name: Process(name, nodes) for name, nodes in plan.processes.items()}
        self.figures = {name: NodeFigures() for name in plan.nodes}
        self.rings = {source: ring.create() for source in plan.sources}
        self.drained: set[str] = set()
        self.errors: list[str] = []
        self.garbage = 0
        self.playing_at: float | None = None
        self.finished_at: float | None = None
        """When the last buffer was home; closing the nodes comes after it."""
        self.stop_reason: str | None = None
        self._stop_at = 0.0
        self._stop_told = False
        self._turn_at = self._words_until = time.monotonic()
        self._abort = False
        self._play_sent: set[str] = set()
        self.directory = RunDirectory(plan.name, file)
        # Forked before any thread or socket of this class exists.
        self._reaper = Reaper(self.directory.path)
        self._spawner: Spawner | None = None
        self._spawner_deaths = 0
        self._context = zmq.Context()
        self._bus: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        # A restarted worker comes with the identity of the dead one.
        self._bus.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._bus.setsockopt(zmq.LINGER, 0)
        self._bus.setsockopt(zmq.RCVHWM, 0)
        self._bus.bind(bus_endpoint(str(self.directory.path)))
        self.poller = zmq.Poller()
        self.poller.register(self._bus, zmq.POLLIN)
        try:
            self.monitor = Monitor(self, self._context, monitor)
        except UserError:
            self._clean_up()
            self.close()
            raise

    # For whoever shows the run -------------------------------------------------------------------------

    @property
    def ledgers(self) -> dict[str, Ledger]:
        """Every camera's account as it stands now."""
        return {name: ring.read_ledger(fd) for name, fd in self.rings.items()}

    @property
    def spawner_pid(self) -> int | None:
        """The process that the workers are forked from."""
        return self._spawner.pid if self._spawner is not None else None

    def stop(self, reason: str) -> None:
        """Ask for an orderly end; a second call ends at once."""
        # May be called by a signal handler in the middle of anything: the loop does the rest.
        if self.stop_reason is None:
            self.stop_reason = reason
            self._stop_at = time.monotonic()
        else:
            self._abort = True

    # The loop ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start, supervise, end. Raises UserError when the graph could not go on; the ledgers hold all the same."""
        try:
            self.monitor.announce()
            while not self._finished():
                self._reconcile()
                self._listen(0.05)
                self.monitor.tick()
                self.on_event("tick", {})
            self.finished_at = time.monotonic()
            self._quit()
        finally:
            self._end_all()
        if self.errors:
            raise UserError(self.errors[0])

    def _listen(self, seconds: float) -> None:
        """What processes say, on the bus and on stderr; waits so long for the first of it."""
        for item, _ in self.poller.poll(round(seconds * 1000)):
            if item is self._bus:
                self._hear()
            elif isinstance(item, int):
                self._read_stderr(item)

    def _finished(self) -> bool:
        if self._abort or self.errors:
            return True
        if self.drained >= set(self.plan.sources):
            return True
        if self.stop_reason is not None:
            if not self._play_sent:
                return True  # stopped before anything flowed
            return time.monotonic() - self._stop_at > DRAIN_TIMEOUT
        return False

    def _reconcile(self) -> None:
        now = time.monotonic()
        if self.stop_reason is not None and not self._stop_told:
            self._stop_told = True
            self._tell_all({"do": "stop"})
        self._hear()  # before anybody is judged by his silence
        self._words_until = now + LAST_WORDS
        if now - self._turn_at > 1.0:
            # It was this process that hung (a terminal that does not take our lines, a suspended laptop).
            for process in self.processes.values():
                process.heard_at = now
        self._turn_at = now
        may_start = self._may_start(now)
        for process in reversed(self.processes.values()):  # sinks first
            if process.child is None:
                if may_start and now >= process.not_before:
                    self._start(process)
            elif (code := process.child.poll()) is not None:
                self._died(process, code)
            elif not process.was_ready:
                self._wait_for(process, now - process.started_at)
            elif now - process.heard_at > HANG_TIMEOUT:
                self._kill(process, f"no sign of life for {HANG_TIMEOUT:.0f} s")
        ready = [p for p in self.processes.values() if p.state in ("READY", "PLAYING")]
        if self.playing_at is None and len(ready) == len(self.processes) and self.stop_reason is None:
            self.playing_at = now
        if self.playing_at is not None:
            # Sinks play first here too: nothing flows before the last one can take it.
            for process in reversed(ready):
                if process.name not in self._play_sent and self.stop_reason is None:
                    self._play_sent.add(process.name)
                    self._tell(process.name, {"do": "play"})

    # Processes -----------------------------------------------------------------------------------------

    def _start(self, process: Process) -> None:
        restarted = process.restarts_total > 0
        assert self._spawner is not None
        rings = {name: self._spawner.inherited[self.rings[name]] for name in self.plan.reach(process.name)}
        assignment = Assignment(
            process.name,
            str(self.directory.path),
            self.plan,
            rings,
            restarted,
            self.trace,
            self.debug,
        )
        try:
            child = self._spawner.spawn(assignment.pack())
        except (ConnectionError, ProcessLookupError):
            return  # it has just been killed, and with it what it had started: with the next one
        except (OSError, UserError) as error:
            text = error if isinstance(error, UserError) else f"cannot start a process: {error.strerror or error}"
            raise UserError(f"{process.name}: {text}") from None
        process.begin(child)
        self.poller.register(child.stderr, zmq.POLLIN)
        self._play_sent.discard(process.name)

    def _may_start(self, now: float) -> bool:
        """Whether the spawner is ready; makes one where there is none, or where it was killed."""
        if self.stop_reason is not None:
            return False
        if self._spawner is None or not self._spawner.alive:
            if self._spawner is not None:
                self._bury(self._spawner)
            modules = sorted({node.cls.rpartition(":")[0] for node in self.plan.nodes.values()})
            self._spawner = Spawner(modules, self._reaper.pid, list(self.rings.values()))
            self.poller.register(self._spawner.control, zmq.POLLIN)
        if not self._spawner.ready:
            if now - self._spawner.started_at > START_TIMEOUT:
                last = self._spawner.last_words()
                raise UserError(f"the process that starts the workers is not ready after {START_TIMEOUT:.0f} s{last}")
            return False
        self._spawner_deaths = 0
        self._unlisten(self._spawner.control)
        return True

    def _bury(self, spawner: Spawner) -> None:
        """The spawner has ended, and its workers with it. Raises UserError where another one would end alike."""
        self._unlisten(spawner.control)
        ready, last = spawner.ready, spawner.last_words()
        text = f"the process that starts the workers {how_it_ended(spawner.end_code)}"
        spawner.close()
        self._spawner = None
        if not ready:
            self._spawner_deaths += 1
            text += f" while it imported the nodes{last}"
            if self._spawner_deaths >= SPAWNER_LIMIT:
                raise UserError(text)
        self.log("warning", "launcher", f"{text}; starting another one")

    def _wait_for(self, process: Process, seconds: float) -> None:
        """It has been opening its nodes for so long."""
        if seconds > START_TIMEOUT:
            self._kill(process, f"not ready after {START_TIMEOUT:g} s")
        elif seconds > SLOW_START and not process.told_slow:
            process.told_slow = True
            self.log("info", process.name, f"not ready after {SLOW_START:g} s; waiting up to {START_TIMEOUT:g} s")

    def _kill(self, process: Process, why: str) -> None:
        process.killed_for = why
        if process.child is not None:
            process.child.kill()
            process.child.wait()

    def _died(self, process: Process, code: int) -> None:
        """A process ended that should not have: give up, or start it again after a while."""
        self._hear_out(process, code)
        ready = process.was_ready
        self._forget(process)
        if process.error and (ready or process.restarts_total == 0):
            self.errors.append(process.error)
            return
        text, last = f"the process {how_it_ended(code)}", process.last_words
        if process.killed_for:
            text = f"{process.killed_for}; killed"
        away = bool(process.error) and any(self.plan.nodes[n].kind == "source" for n in process.nodes)
        if process.error:  # it cannot open what it had before (a camera that is away just now): try again
            text, process.error = process.error.removeprefix(f"{process.name}: "), None
        elif last and code > 0:
            text += f": {last}"
        if self.stop_reason is not None:
            self.log("warning", process.name, text)
            if code not in ORDERLY:
                process.error = f"{process.name}: {text} while the graph was stopping"
            return
        if code > 0 and not ready and process.restarts_total == 0:
            self.errors.append(f"{process.name}: {text}")  # it never worked: trying again would not mend it
            return
        delay = process.plan_restart(patient=away)
        if delay is None:
            self.errors.append(f"{process.name}: {text}; gave up after {process.RESTART_LIMIT} restarts")
            return
        which = f"trying again in {delay:.1f} s" if away else f"restart {process.restarts} of {process.RESTART_LIMIT}"
        self.log("warning", process.name, f"{text}; {which}")
        self.on_event("restart", {"process": process.name})
        self.monitor.publish()  # who watches shall see it, however quickly it is back

    def _hear_out(self, process: Process, code: int) -> None:
        """Take in all that an ended process has said: why it ended may still be on its way."""
        self._hear()
        while code >= 0 and not process.has_closed and not self._abort and time.monotonic() < self._words_until:
            self._bus.poll(20)
            self._hear()

    def _forget(self, process: Process) -> None:
        if process.child is not None:
            self._read_stderr(process.child.stderr)
            self._unlisten(process.child.stderr)
        process.end()

    def _read_stderr(self, fd: int) -> None:
        process = next((p for p in self.processes.values() if p.child is not None and p.child.stderr == fd), None)
        if process is None:
            return
        lines, closed = process.read_stderr()
        if closed:
            self._unlisten(fd)  # else it would wake us for ever
        if self.debug:
            for line in lines:
                self.log("debug", process.name, line)

    def _unlisten(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self.poller.unregister(fd)

    # Bus -----------------------------------------------------------------------------------------------

    def _tell(self, process: str, message: dict[str, Any]) -> None:
        # A worker that is gone is no error: its successor is told anew.
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            self._bus.send_multipart([process.encode(), pack(message)], zmq.NOBLOCK)

    def _tell_all(self, message: dict[str, Any]) -> None:
        for name in self.processes:
            self._tell(name, message)

    def _hear(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            if not readable(self._bus):
                return
            frames = self._bus.recv_multipart(zmq.NOBLOCK)
            try:
                identity, data = frames
                process = self.processes[identity.decode()]
                message = unpack(data)
                handle = getattr(self, f"_on_{message['say']}")
                handle(process, message)
                process.heard_at = time.monotonic()
            except Exception as error:  # whatever the bytes are that somebody sends
                self.garbage += 1
                if self.garbage <= 3:
                    self.log("warning", "bus", f"dropped a garbage message ({type(error).__name__})")

    def _on_state(self, process: Process, message: dict[str, Any]) -> None:
        process.state = message["state"]
        process.has_closed = process.state == "NULL"
        process.heard_at = time.monotonic()
        self.on_event("state", {"process": process.name, "state": process.state})
        if process.state == "READY":
            process.ready_at = process.heard_at
        if process.state == "READY" and process.recovering:
            # Its sockets are back: a mark sent now follows all that waited for it.
            self._flush(process)

    def _flush(self, process: Process) -> None:
        """Something may have been lost in this process: let the sources in front of it find out what."""
        for source in self.plan.reach(process.name):
            owner = self.plan.nodes[source].process
            if owner != process.name:
                lost_in = [n for n in process.nodes if source in self.plan.nodes[n].streams]
                self._tell(owner, {"do": "flush", "streams": [source], "lost_in": lost_in[0]})

    def _on_log(self, process: Process, message: dict[str, Any]) -> None:
        level = message["level"] if message["level"] in LEVELS else "warning"
        self.log(level, str(message["node"]), str(message["text"]))

    def log(self, level: str, node: str, text: str) -> None:
        """A message, as if it had come over the bus; credentials are removed."""
        text = shortened(redact(text))
        if level != "debug":
            self.monitor.heard(level, node, text)
        self.on_event("log", {"level": level, "node": node, "text": text})

    def _on_camera(self, process: Process, message: dict[str, Any]) -> None:
        state = {"up": bool(message["up"]), "since": int(message["since"]), "reason": redact(str(message["reason"]))}
        self.monitor.cameras[self.plan.nodes[message["node"]].name] = state

    def _on_stats(self, process: Process, message: dict[str, Any]) -> None:
        now = time.monotonic()
        reports = [(self.figures[node], checked(report)) for node, report in message["nodes"].items()]
        before = process.garbage
        process.report(now, float(message["cpu"]), int(message["rss"]), int(message["garbage"]))
        if process.garbage > before:
            self.garbage += process.garbage - before
            self._flush(process)  # among what it could not read may have been a buffer
        for figures, report in reports:
            figures.add(report, now)

    def _on_trace(self, process: Process, message: dict[str, Any]) -> None:
        self.on_event("trace", {"process": process.name, "buffers": message["buffers"]})

    def _on_drained(self, process: Process, message: dict[str, Any]) -> None:
        self.drained.add(str(message["node"]))

    def _on_passed(self, process: Process, message: dict[str, Any]) -> None:
        """A buffer has passed a node; after a restart, all nodes of a process have to see one."""
        process.waits_for_pass.discard(message["node"])
        said = self.monitor.cameras.get(message["node"])
        if said is not None and not said["up"]:  # by the process before this one, which has a frame
            self.monitor.cameras[message["node"]] = {"up": True, "since": time.time_ns(), "reason": ""}
        if process.recovering and not process.waits_for_pass:
            process.recover()
            self.log("info", process.name, "recovered: buffers pass again")

    def _on_error(self, process: Process, message: dict[str, Any]) -> None:
        process.error = str(message["text"])

    def _on_failed(self, process: Process, message: dict[str, Any]) -> None:
        process.failed = True
        process.failures_total += 1

    def _on_request_stop(self, process: Process, message: dict[str, Any]) -> None:
        if self.stop_reason is None:
            self.log("info", str(message["node"]), str(message["reason"]))
            self.stop(str(message["reason"]))

    # The end -------------------------------------------------------------------------------------------

    def _quit(self) -> None:
        """All nodes close; whoever does not is killed."""
        self._tell_all({"do": "quit"})
        self.monitor.publish()  # the account as it stands, for whoever writes it down while closing
        ended = self.stop_reason is None and not self.errors
        start = time.monotonic()
        told = False
        while (now := time.monotonic()) - start < QUIT_TIMEOUT * (3 if ended else 1) and not self._abort:
            late = [name for name, p in self.processes.items() if p.child is not None and p.child.poll() is None]
            if not late or (now - start > QUIT_AT_ONCE and self._play_sent.isdisjoint(late)):
                break
            if not told and now - start > QUIT_AT_ONCE:
                told = True
                key = "another Ctrl-C" if self.stop_reason is not None else "Ctrl-C twice"
                self.log("info", "launcher", f"waiting for {', '.join(late)} to close; {key} ends it at once")
            self._listen(0.02)
            self.monitor.tick()
        self._hear()

    def _end_all(self) -> None:
        closing = self.stop_reason is not None or self.drained >= set(self.plan.sources)
        all_late = [name for name, p in self.processes.items() if p.child is not None and p.child.poll() is None]
        for name in all_late:
            self._kill(self.processes[name], "")
        self._words_until = time.monotonic() + LAST_WORDS
        for process in self.processes.values():
            if process.child is None:
                if process.error and process.error not in self.errors:
                    self.errors.append(process.error)
                continue
            late = process.name in all_late
            code = process.child.wait()
            played = process.name in self._play_sent
            self._hear_out(process, code)
            self._forget(process)
            if process.error and process.error not in self.errors:
                self.errors.append(process.error)
            elif late and closing and played:
                why = "had to end at once" if self._abort else "did not close in time"
                self.errors.append(f"{process.name}: {why} and was killed")
            elif code not in ORDERLY and not late and process.error is None:
                how = process.last_words or (f"signal {-code}" if code < 0 else f"exit code {code}")
                how = f"{process.killed_for}; killed" if process.killed_for else how
                self.errors.append(f"{process.name}: the process ended badly: {how}")
        self.monitor.close()
        self._clean_up()

    def _clean_up(self) -> None:
        if self._spawner is not None:
            self._spawner.close()
        self._context.destroy(linger=0)
        self.directory.remove()
        self._reaper.dismiss()

    def close(self) -> None:
        """Give the rings back; `ledgers` cannot be read after this."""
        for fd in self.rings.values():
            os.close(fd)
