"""The spawner, the process that workers are forked from: `python -m pipeline.forkserver CONTROL LAUNCHER`.

It is told what to import, and then forks a worker for each request until the launcher goes. What nearly every graph
needs is imported before it is told anything: the launcher starts it first and reads the graph meanwhile
(`pipeline.spawner.begin`). Here only the standard library is imported at once, so that it soon ends with its launcher.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Sequence

from pipeline.modules import load_module

MAX_MESSAGE = 65536
MAX_DESCRIPTORS = 250
"""In one message; the kernel takes 253."""
_EVERYBODYS = ("numpy", "cv2", "pydantic", "pipeline.worker")
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a program."""


def serve(control_fd: int, launcher: int) -> None:
    """The loop. Requests, each a message of its own, with the descriptors that come along:

    `keep` (any): workers shall have these. `prepare` (a file of JSON: modules, environment, group): import; the answer
    is `ready` and the numbers that the kept descriptors have here. `spawn` (the assignment, the stderr): the answer is
    the worker's pid, or `!` and why not. `wait PID`: the answer is its return code.
    """
    # It ends when the launcher does, and never before: its workers would die with it, in the middle of their work.
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)
    die_with(launcher)
    call_process("spawner")
    me = os.getpid()
    control = socket.socket(fileno=control_fd)
    started_with = dict(os.environ)
    _import(_EVERYBODYS)
    kept: list[int] = []
    threads = 1
    while True:
        request, descriptors, flags, _ = socket.recv_fds(control, MAX_MESSAGE, MAX_DESCRIPTORS)
        if flags & socket.MSG_CTRUNC:
            sys.exit("too few open files are allowed (ulimit -n)")
        match request.split():
            case []:
                os._exit(0)
            case [b"keep"]:
                kept += descriptors
            case [b"prepare"]:
                with open(descriptors[0], "rb") as file:
                    _prepare(started_with, **json.load(file))
                for descriptor in kept:
                    os.set_inheritable(descriptor, True)  # for workers that are started by `exec`
                threads = len(os.listdir("/proc/self/task"))
                gc.freeze()  # what is shared stays shared: the collector would touch all of it in each worker
                control.send(b" ".join([b"ready", *(b"%d" % descriptor for descriptor in kept)]))
            case [b"spawn"]:
                note, stderr = descriptors
                try:
                    pid = os.fork()
                except OSError as error:
                    control.send(b"!" + (error.strerror or "").encode())
                    pid = -1
                if pid == 0:
                    _become_worker(me, control, note, stderr, threads)
                os.close(note)
                os.close(stderr)
                if pid > 0:
                    control.send(b"%d" % pid)
            case [b"wait", pid]:
                _, status = os.waitpid(int(pid), 0)
                control.send(b"%d" % os.waitstatus_to_exitcode(status))


def _prepare(started_with: dict[str, str], modules: Sequence[str], environment: dict[str, str], group: int) -> None:
    """Import, and take over what has changed in the launcher's environment since this process was started with one.

    What imports have put into ours stays: OpenCV says there where its window's parts are. group: the process group for
    all of the graph.
    """
    for name in started_with.keys() - environment.keys():
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in environment.items() if started_with.get(name) != value})
    with contextlib.suppress(OSError):  # the reaper was killed, its group is gone; the workers still die with us
        os.setpgid(0, group)
    _import(modules)


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        try:
            load_module(module)
        except (Exception, SystemExit):
            continue  # whoever needs it will say what is wrong


def _become_worker(spawner: int, control: socket.socket, note: int, stderr: int, threads: int) -> None:
    """In the forked process: take the assignment as stdin, and never come back."""
    try:
        die_with(spawner)  # holds after `exec` too
        for signum in ENDING:
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
        from pipeline.worker import work

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


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
