"""The launcher's side of the spawner (pipeline/forkserver.py), the one process that a run's workers are forked from.

Importing numpy, OpenCV and pydantic takes a process half a second and 40 MB. Done once and forked, a worker starts in
milliseconds and shares the pages, so that a graph of sixteen cameras starts as quickly as one of one.

The spawner is no child of the supervisor's own memory: it is a new interpreter without threads, and stays so (a process
with threads cannot be forked safely: should a plugin have started one while it was imported, workers are started by
`exec` in place of `fork`, at the old price). It dies with the supervisor, and the workers die with it; the supervisor
then starts another one, and them anew.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from pipeline.errors import UserError
from pipeline.forkserver import ENDING, MAX_DESCRIPTORS, MAX_MESSAGE

REPLY_TIMEOUT = 5.0
"""Seconds that the spawner may take to fork, once it is ready."""


def _readable(fd: int, timeout: float | None) -> bool:
    """Whether a descriptor becomes readable within `timeout` seconds (None: wait for it)."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else timeout * 1000))


class Child:
    """A worker as the supervisor holds it: a pidfd, so that no other process can ever be meant.

    stderr: file descriptor of what it writes there. returncode: None while it runs, negative for a signal.
    """

    def __init__(self, spawner: Spawner, pid: int, stderr: int) -> None:
        self.pid = pid
        self.stderr = stderr
        self.returncode: int | None = None
        self._spawner = spawner
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The return code, or None while it runs."""
        return self._ended(0)

    def wait(self) -> int:
        """Wait for the end."""
        code = self._ended(None)
        assert code is not None
        return code

    def kill(self) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its spawner too
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Give the descriptors back; the process has ended."""
        os.close(self.stderr)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and _readable(self._pidfd, timeout):
            # Until the spawner is asked it stays a zombie, so that its number cannot go to another process.
            self.returncode = self._spawner.exit_code(self.pid)
            os.close(self._pidfd)
        return self.returncode


class _Interpreter:
    """A spawner that was started and has been told nothing yet. UserError when none can be started."""

    def __init__(self) -> None:
        self.launcher = os.getpid()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as at_once:
            try:
                self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.callback(self.control.close)
                at_once.callback(theirs.close)
                self.control.settimeout(REPLY_TIMEOUT)
                self.stderr = os.memfd_create("emograph-spawner", os.MFD_CLOEXEC)
                ours.callback(os.close, self.stderr)
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "pipeline.forkserver", str(theirs.fileno()), str(self.launcher)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr, env=_environment(),
                    pass_fds=(theirs.fileno(),), process_group=0,
                )  # fmt: skip
            except OSError as error:
                raise UserError(f"cannot start a process: {error.strerror}") from None
            ours.pop_all()

    def close(self) -> None:
        """End it; its workers have ended."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # the reaper may hold a copy, which closing would not end
        self.control.close()
        os.close(self.stderr)
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_begun: list[_Interpreter] = []
"""What `begin` has started and no `Spawner` has taken yet."""


def begin() -> None:
    """Start the process of a coming `Spawner` now: while a graph is read, it imports what all graphs need."""
    with contextlib.suppress(UserError):  # the spawner will try again, and say so
        _begun.append(_Interpreter())


@atexit.register
def _end() -> None:
    if _begun:
        for signum in ENDING:  # a second Ctrl-C has nothing to add
            with contextlib.suppress(KeyboardInterrupt):
                signal.signal(signum, signal.SIG_IGN)
        _discard()


def _discard() -> None:
    """No run came of it: a mistake in the graph."""
    while _begun:
        interpreter = _begun.pop()
        if interpreter.launcher == os.getpid():  # not in a process that was forked from it
            interpreter.process.kill()
            interpreter.close()


def _environment() -> dict[str, str]:
    # One thread per library and process: the processes are the parallelism.
    threads = {f"{n}_NUM_THREADS": os.environ.get(f"{n}_NUM_THREADS", "1") for n in ("OMP", "OPENBLAS", "MKL")}
    return {**os.environ, **threads}


class Spawner:
    """The supervisor's side. Raises UserError when the spawner cannot be started or does not answer.

    modules: what the workers import. group: the process group to put them all in. keep: descriptors they inherit.
    Nothing is to be asked of it before it is `ready`, so that nobody waits for its imports.
    """

    def __init__(self, modules: Sequence[str], group: int, keep: Sequence[int]) -> None:
        self._interpreter = _begun.pop() if _begun else _Interpreter()
        self._process, self._control = self._interpreter.process, self._interpreter.control
        self._ready = False
        self._keep = list(keep)
        self.inherited: dict[int, int] = {}
        """Descriptor here -> its number in a worker, once it is ready."""
        self.pid = self._process.pid
        self.started_at = time.monotonic()
        self.control = self._control.fileno()
        """Becomes readable when the spawner is ready."""
        try:
            self._prepare(modules, group)
        except ConnectionError:
            pass  # it has ended: whoever asks for it will see
        except OSError as error:
            self.close()
            raise UserError(f"cannot start a process: {error.strerror or error}") from None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def end_code(self) -> int:
        """The return code of the spawner itself, which has ended; negative for a signal."""
        return self._process.wait()

    @property
    def ready(self) -> bool:
        """Whether it has imported everything and takes requests; never waits."""
        if not self._ready and _readable(self.control, 0):
            with contextlib.suppress(ConnectionError):
                what, *numbers = self._control.recv(MAX_MESSAGE).split() or [b""]
                self._ready = what == b"ready"
                self.inherited = dict(zip(self._keep, map(int, numbers), strict=self._ready))
        return self._ready

    def spawn(self, assignment: bytes) -> Child:
        """Start a worker. OSError when the spawner is gone."""
        read_end, write_end = os.pipe()
        try:
            with _note(assignment) as note:
                socket.send_fds(self._control, [b"spawn"], [note, write_end])
            pid = int(self._reply())
            return Child(self, pid, read_end)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)

    def exit_code(self, pid: int) -> int:
        """The return code of a worker that has ended; if the spawner went before it, the kernel killed it."""
        try:
            self._control.send(b"wait %d" % pid)
            return int(self._reply())
        except (OSError, UserError):
            return -signal.SIGKILL

    def close(self) -> None:
        """End the spawner; its workers have ended."""
        if not self.ready:
            self._process.kill()  # it has no workers, and would hear of the end when all is imported
        self._interpreter.close()

    def last_words(self) -> str:
        """`: ` and the last line that it wrote to stderr, if any."""
        stderr = self._interpreter.stderr
        lines = os.pread(stderr, 65536, max(0, os.fstat(stderr).st_size - 65536)).decode(errors="replace")
        written = [line for line in lines.splitlines() if line.strip()]
        return f": {written[-1]}" if written else ""

    def _prepare(self, modules: Sequence[str], group: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # it may have started with a lower one than there is now
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        for first in range(0, len(self._keep), MAX_DESCRIPTORS):
            socket.send_fds(self._control, [b"keep"], self._keep[first : first + MAX_DESCRIPTORS])
        wanted = {"modules": list(modules), "environment": _environment(), "group": group}
        with _note(json.dumps(wanted).encode()) as note:
            socket.send_fds(self._control, [b"prepare"], [note])

    def _reply(self) -> bytes:
        try:
            reply = self._control.recv(MAX_MESSAGE)
        except TimeoutError:
            self._process.kill()
            raise UserError(f"the process that starts the workers did not answer for {REPLY_TIMEOUT:.0f} s") from None
        if not reply:
            raise ConnectionResetError("the process that starts the workers has ended" + self.last_words())
        if reply.startswith(b"!"):
            raise UserError(f"cannot start a process: {reply[1:].decode(errors='replace')}")
        return reply


@contextlib.contextmanager
def _note(text: bytes) -> Iterator[int]:
    """A descriptor from which a text of any length can be read."""
    note = os.memfd_create("emograph-note", os.MFD_CLOEXEC)
    try:
        with open(note, "wb", closefd=False) as file:
            file.write(text)
        os.lseek(note, 0, os.SEEK_SET)
        yield note
    finally:
        os.close(note)
