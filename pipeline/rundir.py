"""A run's folder of sockets, and the reaper that removes it however the run ends.

The folder is private to the user (mode 0700), so nobody else can speak to a graph's sockets. It is locked while
its run lives: a start removes the folders of runs whose lock is free. Frames are not in here; they have no name
at all (pipeline/ring.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import stat
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import UserError


def base_directory() -> Path:
    """Where the folders of this user's runs are; created private when missing."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        base = Path(runtime) / "emograph"
    else:
        base = Path(tempfile.gettempdir()) / f"emograph-{os.getuid()}"
    try:
        str(base).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(base).decode(errors="replace")
        raise UserError(
            f"sockets cannot lie in {shown}, whose name is no UTF-8; set XDG_RUNTIME_DIR or TMPDIR"
        ) from None
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        info = base.lstat()
    except OSError as error:
        raise UserError(f"cannot make the folder for sockets {base}: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise UserError(f"{base} is not a private folder of this user; remove it or set XDG_RUNTIME_DIR")
    return base


@dataclass(frozen=True)
class Run:
    """A run of this user that is alive: folder, graph's name and file ("" for a launch string), supervisor's pid."""

    directory: str
    graph: str
    file: str
    pid: int


class RunDirectory:
    """The folder of one run. `path` is short: a Unix socket's path has at most 107 bytes."""

    def __init__(self, graph: str = "", file: str = "") -> None:
        base = base_directory()
        self.path = base / secrets.token_hex(4)
        if len(str(self.path)) > 90:
            raise UserError(
                f"the path {self.path} is too long for sockets; set XDG_RUNTIME_DIR or TMPDIR to a shorter one"
            )
        try:
            with _locked(base):  # nobody sweeps between making the folder and locking it
                sweep(base)
                self.path.mkdir(mode=0o700)
                self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                (self.path / "run").write_text(json.dumps(asdict(Run(str(self.path), graph, file, os.getpid()))))
        except OSError as error:
            shutil.rmtree(self.path, ignore_errors=True)
            raise UserError(f"cannot make the run's folder {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def running() -> Iterator[Run]:
    """The runs of this user that are alive, the oldest first."""

    def begun(folder: Path) -> float:
        with contextlib.suppress(OSError):  # its run has just ended
            return (folder / "lock").lstat().st_mtime
        return 0.0

    for folder in sorted(base_directory().iterdir(), key=begun):
        # Their folders are private to this user, like the base, so what is in them is trusted.
        with contextlib.suppress(OSError, ValueError, TypeError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                yield Run(**json.loads((folder / "run").read_text()))
            finally:
                os.close(lock)


def sweep(base: Path) -> list[str]:
    """Remove what crashed runs left behind; returns the names of the folders removed."""
    removed = []
    for folder in base.iterdir():
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            continue  # no folder of ours
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its run is alive
        else:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
        finally:
            os.close(lock)
    return removed


class Reaper:
    """A child of the supervisor that outlives it for a moment: when the supervisor is gone, it removes the
    folder and kills what is left of the process group, which it leads and all workers join."""

    def __init__(self, directory: Path) -> None:
        read_end, self._lifeline = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads that the child does not have; numpy alone has some. This child needs none.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            # In the child: no Python beyond what is needed, and never back into the caller.
            try:
                os.close(self._lifeline)
                os.setpgid(0, 0)
                for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(signum, signal.SIG_IGN)
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                if not os.read(read_end, 1):  # end of file: the supervisor died without saying goodbye
                    shutil.rmtree(directory, ignore_errors=True)
                    os.killpg(0, signal.SIGKILL)
            finally:
                os._exit(0)
        os.close(read_end)
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)  # here too: whoever comes first

    def dismiss(self) -> None:
        """The run ended in order: nothing is left but what the workers may have started, and the reaper itself."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
