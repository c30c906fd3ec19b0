"""The `location` of a node that writes files: which file it means, whether that can be written, and how it is replaced.

    path = fill_in("out/{camera}.csv", "door")
    check_suffix(path, (".csv", ".jsonl"))
    check_writable(path, overwrite=True)

Shared by `videosink`, `picturesink` and `table`. Everything that is wrong is a UserError in one line, told before the
start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from pipeline import UserError
from pipeline.errors import did_you_mean

CAMERA = "{camera}"
"""Stands in a location for the camera's name."""


def fill_in(location: str, camera: str, later: tuple[str, ...] = ()) -> Path:
    """A location with its `~` and its `{camera}` filled in, and what is named in `later` left to be filled in by the
    caller. UserError where it names something else in braces."""
    location = os.path.expanduser(location)
    unknown = [name for name in re.findall(r"\{.*?\}", location) if name not in (CAMERA, *later)]
    if unknown:
        known = " and ".join((CAMERA, *later))
        raise UserError(f"location {location} names {unknown[0]}; only {known} {'are' if later else 'is'} known")
    return Path(location.replace(CAMERA, camera))


def check_suffix(path: Path, known: Iterable[str]) -> None:
    """UserError when a file's suffix is none of those known (`.csv`), in small letters or large ones."""
    if path.suffix.lower() not in known:
        what = f"unknown suffix '{path.suffix}'" if path.suffix else "no suffix"
        raise UserError(f"location {path} has {what}{did_you_mean(path.suffix.lower(), known)}")


def check_writable(path: Path, overwrite: bool) -> None:
    """Find out before the start what would fail with the first frame; makes the folder. UserError when it would."""
    make_folder(path.parent)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    if mode is not None and not stat.S_ISREG(mode):
        raise UserError(f"location {path} is {'a folder' if stat.S_ISDIR(mode) else 'no ordinary file'}")
    if not os.access(path.parent if mode is None else path, os.W_OK):
        raise UserError(f"cannot write {path}: Permission denied")
    if mode is not None and not overwrite:
        raise UserError(f"{path} is there already, and overwrite is false")


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it. UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise UserError(f"cannot create the folder {folder}: {getattr(error, 'strerror', None) or error}") from None


def check_folder(folder: Path) -> None:
    """Make sure that files can be made in a folder, which is made itself. UserError where they cannot."""
    make_folder(folder)
    try:
        tempfile.TemporaryFile(dir=folder).close()  # permissions do not tell all: /proc lets nobody
    except OSError as error:
        raise UserError(f"cannot write to the folder {folder}: {error.strerror}") from None


def replace_file(path: Path, content: bytes, sync: bool = False) -> None:
    """Write a file so that at every moment either the old one or the new one is there, whole.

    sync: bring it to the disk first, so that this holds for a power cut too. Raises OSError; the old file then stands.
    """
    # Another process may write to the same path, and a name may be as long as names can be.
    partial = path.with_name(f".{os.getpid()}-{zlib.crc32(os.fsencode(path.name)):08x}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def lock(path: Path) -> int:
    """Open `path` for this process alone; returns the descriptor. Two writers would spoil each other's file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise UserError(
                f"{path} is being written by another node; give each a location of its own,"
                f" or name the camera in it: {CAMERA}"
            ) from None
        # A file system without locks; then nothing guards against two writers.
    return descriptor
