"""Starts the workers of a run: one fresh process that has imported what they need, and is forked for each of them.

Importing numpy, OpenCV and pydantic takes a process half a second and 40 MB. Done once and forked, a worker starts in
milliseconds and shares the pages, so that a graph of sixteen cameras starts as quickly as one of one.

The spawner is no child of the supervisor's own memory: it is a new interpreter without threads or sockets, and stays so
(a process with threads cannot be forked safely: should a plugin have started one while it was imported, workers are
started by `exec` in place of `fork`, at the old price). It dies with the supervisor, and the workers die with it; the
supervisor then starts another one, and them anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from pipeline.errors import UserError

REPLY_TIMEOUT = 5.0
"""Seconds that the spawner may take to fork, once it is ready."""
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
_MAX_MESSAGE = 4096
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


class Spawner:
    """The supervisor's side. Raises UserError when the spawner cannot be started or does not answer.

    modules: what the workers import. group: the process group to put them all in. keep: descriptors they inherit.
    Nothing is to be asked of it before it is `ready`, so that nobody waits for its imports.
    """

    def __init__(self, modules: Sequence[str], group: int, keep: Sequence[int]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(REPLY_TIMEOUT)
        self._ready = False
        self._stderr = os.memfd_create("emograph-spawner", os.MFD_CLOEXEC)
        # One thread per library and process: the processes are the parallelism.
        threads = {f"{n}_NUM_THREADS": os.environ.get(f"{n}_NUM_THREADS", "1") for n in ("OMP", "OPENBLAS", "MKL")}
        command = [sys.executable, "-P", "-m", "pipeline.worker", str(theirs.fileno()), str(os.getpid()), *modules]

        def start(into: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr,
                env={**os.environ, **threads}, pass_fds=(theirs.fileno(), *keep), process_group=into,
            )  # fmt: skip

        try:
            try:
                self._process = start(group)
            except PermissionError:  # the reaper was killed, its group is gone; the workers still die with us
                self._process = start(0)
        except OSError as error:
            raise UserError(f"cannot start a process: {error.strerror}") from None
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.started_at = time.monotonic()
        self.control = self._control.fileno()
        """Becomes readable when the spawner is ready."""

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
                self._ready = self._control.recv(_MAX_MESSAGE) == b"ready"
        return self._ready

    def spawn(self, assignment: bytes) -> Child:
        """Start a worker. OSError when the spawner is gone."""
        read_end, write_end = os.pipe()
        note = os.memfd_create("emograph-assignment", os.MFD_CLOEXEC)
        try:
            with open(note, "wb", closefd=False) as file:
                file.write(assignment)
            os.lseek(note, 0, os.SEEK_SET)
            socket.send_fds(self._control, [b"spawn"], [note, write_end])
            pid = int(self._reply())
            return Child(self, pid, read_end)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(note)
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
        self._control.close()
        os.close(self._stderr)
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """`: ` and the last line that it wrote to stderr, if any."""
        lines = os.pread(self._stderr, 65536, max(0, os.fstat(self._stderr).st_size - 65536)).decode(errors="replace")
        written = [line for line in lines.splitlines() if line.strip()]
        return f": {written[-1]}" if written else ""

    def _reply(self) -> bytes:
        try:
            reply = self._control.recv(_MAX_MESSAGE)
        except TimeoutError:
            self._process.kill()
            raise UserError(f"the process that starts the workers did not answer for {REPLY_TIMEOUT:.0f} s") from None
        if not reply:
            raise ConnectionResetError("the process that starts the workers has ended" + self.last_words())
        if reply.startswith(b"!"):
            raise UserError(f"cannot start a process: {reply[1:].decode(errors='replace')}")
        return reply


# The spawner's own side --------------------------------------------------------------------------------------


def serve(control_fd: int, supervisor: int, modules: Sequence[str], work: Callable[[], None]) -> None:
    """The spawner's loop: import, then fork a worker for each request until the supervisor goes."""
    # It ends when the supervisor does, and never before: its workers would die with it, in the middle of their work.
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    die_with(supervisor)
    call_process("spawner")
    me = os.getpid()
    control = socket.socket(fileno=control_fd)
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit):
            continue  # whoever needs it will say what is wrong
    threads = len(os.listdir("/proc/self/task"))
    gc.freeze()  # what is shared stays shared: the collector would touch all of it in each worker
    control.send(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE, 2)
        if not request:
            os._exit(0)
        if request == b"spawn":
            note, stderr = descriptors
            try:
                pid = os.fork()
            except OSError as error:
                control.send(b"!" + (error.strerror or "").encode())
                pid = -1
            if pid == 0:
                _become_worker(me, control, note, stderr, work, threads)
            os.close(note)
            os.close(stderr)
            if pid > 0:
                control.send(b"%d" % pid)
        else:
            _, status = os.waitpid(int(request.split()[1]), 0)
            control.send(b"%d" % os.waitstatus_to_exitcode(status))


def _become_worker(
    spawner: int, control: socket.socket, note: int, stderr: int, work: Callable[[], None], threads: int
) -> None:
    """In the forked process: take the assignment as stdin, and never come back."""
    try:
        die_with(spawner)  # holds after `exec` too
        for signum in _SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        control.close()
        os.dup2(note, 0)
        os.dup2(stderr, 2)
        os.close(note)
        os.close(stderr)
        if threads > 1:
            os.execv(sys.executable, [sys.executable, "-P", "-m", "pipeline.worker"])
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # not everybody the same numbers
        work()
    except SystemExit as error:  # as Python itself ends on it, but for what it would do at its exit
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def die_with(parent: int) -> None:
    """End when the parent ends: the kernel sends SIGKILL, so that no state of this process can prevent it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked


def call_process(name: str) -> None:
    """The name that `ps` and `top` show."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"emograph:{name}"[:15].encode(), 0, 0, 0)
