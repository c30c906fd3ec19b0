"""Names of recordings by the time at which they begin, and how many of them are kept.

    emograph launch "testsrc duration=60s ! videosink location=rec/door.mkv segment=10s keep=3"

A recording that is named by its time is never replaced by a later one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

TIME = "{time}"
"""Stands in a location for when the file begins: UTC, as `20261129T181500Z`, which sorts by time."""
_STAMP = r"\d{8}T\d{6}Z"


def named(path: Path, wall: int) -> Path:
    """A path with its TIME filled in, or, where a file of that name is there, the next free name. wall: UTC ns."""
    stamp = datetime.fromtimestamp(wall / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    return next_free(path.with_name(path.name.replace(TIME, stamp)))


def next_free(path: Path) -> Path:
    """`path`, or the first of `out-2.mp4`, `out-3.mp4` ... that is not there."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def discard(pattern: Path, keep: int, current: Path, warn: Callable[[str], None]) -> None:
    """Delete the oldest files that are called like `pattern` at any TIME, those of earlier runs too, until `keep` are
    left. current: the one being written, which stays, whatever was done to the clock."""
    stem, suffix = re.escape(pattern.stem), re.escape(pattern.suffix)
    ours = re.compile(stem.replace(re.escape(TIME), f"({_STAMP})") + r"(?:-(\d+))?" + suffix)
    names = [ours.fullmatch(file.name) for file in pattern.parent.iterdir()]
    found = [(match[1], int(match[2] or 1), match[0]) for match in names if match]
    others = sorted(file for file in found if file[2] != current.name)
    for _, _, name in others[: max(0, len(others) - keep + 1)]:
        try:
            (pattern.parent / name).unlink(missing_ok=True)
        except OSError as error:
            warn(f"cannot delete {pattern.parent / name}: {error.strerror}")
