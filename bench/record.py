"""What a benchmark found, with all that is needed to repeat it: machine, commit, versions, settings."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.jsonlines import finite
from trainer.commandline import joined

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Of a processor: those that decide how fast a network is on it."""

Row = dict[str, Any]
"""One line of a table: column -> number, text or None. Units stand in the column's name."""


@dataclass
class Settings:
    """How a benchmark shall run.

    runs: repetitions, of which the median counts. seconds: length of one measurement. only: contestants by name,
    all when empty. videos: folder of clips. data: fer2013.csv or None. device: a torch device for what uses one.
    """

    runs: int = 3
    seconds: float = 5.0
    only: tuple[str, ...] = ()
    videos: Path = ROOT.parent / "shared" / "videos"
    data: Path | None = None
    device: str = "cpu"
    python: str = sys.executable
    """The interpreter that has the peers."""

    def wants(self, contestant: str) -> bool:
        """Whether a contestant (or a part of a benchmark) shall run."""
        return not self.only or contestant in self.only

    def command(self, benchmark: str) -> str:
        """The command that measures so again; of absolute paths only the last part, they are of this machine."""
        words = ["emograph", "bench", benchmark]
        for name in ("runs", "seconds", "only", "videos", "data", "device", "python"):
            value, usual = getattr(self, name), getattr(Settings, name)
            if value != usual:
                for each in value if isinstance(value, tuple) else [value]:
                    words += [f"--{name}", f"{each:g}" if isinstance(each, float) else str(each)]
        return joined(words)

    def file_name(self, benchmark: str) -> str:
        """What tells a result from others of its day: the device, and whether it is only a part."""
        parts = [benchmark]
        if self.device != "cpu":
            parts.append(self.device)
        if self.only:
            parts += ["only", *self.only]
        return slug("-".join(parts))


@dataclass
class Result:
    """The tables of one benchmark. tables: title -> rows, the same columns in each row of a table."""

    name: str
    tables: dict[str, list[Row]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """`imagezmq: pip install imagezmq`: what was not measured, and how to get it."""
    notes: list[str] = field(default_factory=list)
    """What one must know to read the tables."""
    once: bool = False
    """It would be the same again, so that it is measured once, whatever `--runs` says."""

    def add(self, table: str, **row: Any) -> None:
        self.tables.setdefault(table, []).append(row)

    def as_dict(self, settings: Settings) -> dict[str, Any]:
        return {
            "benchmark": self.name, "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "command": settings.command(self.name), "runs": 1 if self.once else settings.runs, "machine": machine(),
            "commit": commit(), "versions": versions(settings.python), "tables": self.tables, "skipped": self.skipped,
            "notes": self.notes,
        }  # fmt: skip

    def write(self, settings: Settings, folder: Path = RESULTS) -> Path:
        """Write a dated JSON file and the same as Markdown; returns the Markdown's path. Raises OSError.

        Only a result of the same day, device, contestants and machine is replaced: where another machine's has the
        name, this one's says its processor as well.
        """
        folder.mkdir(parents=True, exist_ok=True)
        found = finite(self.as_dict(settings))
        stem = f"{found['date'][:10]}-{settings.file_name(self.name)}"
        if _processor_in(folder / f"{stem}.json") not in (None, found["machine"]["processor"]):
            stem += "-" + slug(found["machine"]["processor"]).lower()
        (folder / f"{stem}.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        path = folder / f"{stem}.md"
        path.write_text(markdown(found))
        return path


def markdown(found: dict[str, Any]) -> str:
    """A result as a page."""
    machine_line = ", ".join(f"{value}" for value in found["machine"].values())
    versions_line = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    runs = f"median of {found['runs']} runs" if found["runs"] > 1 else "one run"
    lines = [
        f"# {found['benchmark']}, {found['date']}", "",
        f"`{found['command']}`, {runs}. Commit {found['commit']}.", "",
        f"Machine: {machine_line}.", f"Versions: {versions_line}.", "",
    ]  # fmt: skip
    for title, rows in found["tables"].items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines += [f"## {title}", "", "| " + " | ".join(columns) + " |"]
        lines.append("|" + "|".join(" --- " if c == columns[0] else " ---: " for c in columns) + "|")
        lines += ["| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows]
        lines.append("")
    lines += [f"- {note}" for note in found["notes"]]
    lines += [f"- Not measured: {what}" for what in found["skipped"]]
    return "\n".join(lines).rstrip() + "\n"


def slug(words: str) -> str:
    """Words as a part of a file's name."""
    return re.sub(r"[^\w.]+", "-", words).strip("-")


def _processor_in(result: Path) -> str | None:
    """The processor that a saved result names, None where there is no such file."""
    try:
        return json.loads(result.read_text())["machine"]["processor"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def cell(value: Any) -> str:
    """Three significant digits say all that a noisy machine can."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def middle(values: list[float]) -> float:
    """The median of several runs, NaN of none."""
    return median(values) if values else float("nan")


def percentile(values: list[float], percent: float) -> float:
    """The least of the values that so many per cent of them do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else float("nan")


def usual_environment() -> dict[str, str]:
    """This process's environment for one whose start is measured: Python shall keep compiled modules, as it does for
    nearly everybody, also where a container's environment says that it should not."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def machine() -> dict[str, str]:
    """The machine in words: processor, what it can do of INSTRUCTIONS, cores, memory, GPU, system, Python."""
    about: dict[str, str] = {}
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        about.setdefault(name.strip(), value.strip())
    # Virtual machines call processors of several generations by one name.
    generation = f" (family {about.get('cpu family', '?')}, model {about.get('model', '?')})"
    flags = set(about.get("flags", "").split())
    total = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), 0)
    found = {
        "processor": about.get("model name", "?") + generation,
        "instructions": " ".join(name for name in INSTRUCTIONS if name in flags) or "no AVX2",
        "cores": f"{len(os.sched_getaffinity(0))} cores",
        "memory": f"{total / 2**20:.0f} GiB",
        "system": f"Linux {platform.release()}",
        "python": f"Python {platform.python_version()}",
    }
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        found["gpu"] = gpu.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        found["gpu"] = "no GPU"
    return found


def commit() -> str:
    """The commit measured; `+ changes` where the tree is not clean. Of a copy without its repository what
    EMOGRAPH_COMMIT says."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        # With files that git does not know: what is measured may import them.
        status = [*git, "status", "--porcelain", "--", "pipeline", "nodes", "trainer", "bench", ":!bench/results"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("EMOGRAPH_COMMIT") or "unknown"
    return head.stdout.strip() + (" + changes" if changed.stdout.strip() else "")


_OURS = ("emograph", "torch", "onnxruntime", "openvino", "opencv-python", "numpy", "pyzmq", "msgpack")
_PEERS = ("pyzmq", "imagezmq", "dora-rs", "fer")
_ASK = """
import importlib.metadata, json, platform, sys
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def versions(python: str = sys.executable) -> dict[str, str]:
    """Of the packages whose speed is measured here, as far as they are installed.

    python: the peers' interpreter. Of another one than this, what it has itself stands there as `peers' NAME`.
    """
    found = _ask(sys.executable, (*_OURS, *_PEERS) if python == sys.executable else _OURS)
    found.pop("Python", None)  # it is told with the machine
    if python != sys.executable:
        found |= {f"peers' {name}": version for name, version in _ask(python, _PEERS).items()}
    return found


def _ask(python: str, packages: Sequence[str]) -> dict[str, str]:
    """Versions of an interpreter and of its packages; none if it cannot be asked."""
    try:
        told = subprocess.run([python, "-c", _ASK, *packages], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
