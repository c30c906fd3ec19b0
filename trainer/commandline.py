"""Command lines: the paths in them, and how they are written into what is passed on to others (weights, cards, results
of benchmarks)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

_INSIDE = re.compile(r"""(?<![^=,:\[\s'"])/(?:[^/,:\]\s'"]+/)*""")
"""The folders of an absolute path inside a word: `--out=/home/me/run`, `distill.teachers=[/home/me/a, /home/me/b]`."""


def location(text: str) -> Path:
    """A path of the command line: in `--out=~/runs` a shell leaves the ~ as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~nobody`
        return Path(text)


def shorten(word: str) -> str:
    """A word of a command line without the folders of its absolute paths: they are nobody else's business."""
    return Path(word).name if Path(word).is_absolute() else _INSIDE.sub("", word)


def joined(words: Iterable[str]) -> str:
    """Words as one line for a shell, each of them shortened."""
    return shlex.join(map(shorten, words))
