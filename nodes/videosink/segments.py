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


def named(pattern: Path, wall: int) -> Path:
    """A path with its TIME filled in; where there are files of that time, a number behind it that is above theirs: one
    that was deleted gives none free, so that the names stay in their order. wall: UTC ns."""
    stamp = datetime.fromtimestamp(wall / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    numbers = [number for at, number, _ in recordings(pattern) if at == stamp]
    return pattern.with_name(pattern.name.replace(TIME, f"{stamp}-{max(numbers) + 1}" if numbers else stamp))


def recordings(pattern: Path) -> list[tuple[str, int, Path]]:
    """(time, number, path) of the files that are called like `pattern` at any TIME, the oldest first; those of earlier
    runs too. OSError where the folder cannot be read."""
    before, after = map(re.escape, pattern.name.split(TIME))
    ours = re.compile(f"{before}({_STAMP})(?:-(\\d+))?{after}")
    found = [(ours.fullmatch(path.name), path) for path in pattern.parent.iterdir()]
    return sorted((match[1], int(match[2] or 1), path) for match, path in found if match)


def next_free(path: Path) -> Path:
    """`path`, or the first of `out-2.mp4`, `out-3.mp4` ... that is not there."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def discard(pattern: Path, keep: int, current: Path, log: Callable[[str, str], None]) -> None:
    """Delete the oldest recordings until `keep` are left. current: the one being written, which stays, whatever was
    done to the clock."""
    others = [path for _, _, path in recordings(pattern) if path != current]
    for path in others[: max(0, len(others) - keep + 1)]:
        try:
            path.unlink(missing_ok=True)
            log("info", f"deleted {path}")
        except OSError as error:
            log("warning", f"cannot delete {path}: {error.strerror}")
