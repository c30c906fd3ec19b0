"""Frames of 1920x1080 BGR from a source over two hops to a sink: four processes, three links.

The frames are filled once and four bytes of each of their pages are read at the sink, so what is measured is the way.
Throughput: one source, as fast as it goes, at most 32 frames on their way. Latency: four sources at 30 frames/s each,
per link, from the moment a node lets go of a frame to the moment the next one takes it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import psutil

from bench.graphs import cpu_of, measure
from bench.nodes import register
from bench.peers import PEERS, MissingPeer
from bench.peers.dora_chain import find_dora
from bench.peers.meter import SLOTS, WARM_UP
from bench.record import Result, Row, Settings, middle, percentile

HOPS = 3
"""Links that a frame passes."""
CAMERAS, FPS = 4, 30
_MODULES = {"pyzmq": "zmq", "imagezmq": "imagezmq", "dora-rs": "dora", "queue": "multiprocessing"}
"""Peers and what they import."""
_INSTALL = {"pyzmq": "pyzmq", "imagezmq": "imagezmq", "dora-rs": "dora-rs dora-rs-cli"}


def contestants(settings: Settings) -> list[str]:
    return ["emograph", *_MODULES]


def run(settings: Settings) -> Result:
    """Both measurements for every contestant that is installed."""
    result = Result("transport")
    ways = _ways(settings, result)
    for title, cameras, fps in (("throughput", 1, 0), (f"latency at {CAMERAS} x {FPS} frames/s", CAMERAS, FPS)):
        found: dict[str, list[Row]] = {name: [] for name in ways}
        for _ in range(settings.runs):  # in turns, so that a slow minute of the machine meets all alike
            for name in tuple(ways):
                try:
                    found[name].append(ways[name](cameras, fps))
                except MissingPeer as missing:  # no reason to throw away what the others did
                    result.skipped.append(f"{name}, {title}: {missing}")
                    del ways[name], found[name]
        for name, rows in found.items():
            result.add(title, **_row(name, rows, throughput=not fps))
    _ratios(result)
    result.notes = [
        f"emograph: {SLOTS} slots of shared memory. pyzmq and the queue: as many frames in their buffers. "
        "imagezmq: its default, one at a time and acknowledged. dora-rs: its defaults.",
        "CPU: of all processes of the contestant, supervisor or daemon included, per frame and link.",
    ]
    return result


def _ways(settings: Settings, result: Result) -> dict[str, Callable[[int, float], Row]]:
    found: dict[str, Callable[[int, float], Row]] = {}
    if settings.wants("emograph"):
        found["emograph"] = lambda cameras, fps: _emograph(settings, cameras, fps)
    python = settings.python
    for name, module in _MODULES.items():
        if not settings.wants(name):
            continue
        if not _has(python, module) or (name == "dora-rs" and find_dora(python) is None):
            result.skipped.append(f"{name}: pip install {_INSTALL[name]}")
            continue
        script = ["dora_chain.py"] if name == "dora-rs" else ["chain.py", name]
        found[name] = lambda cameras, fps, script=script: _peer(settings, script, cameras, fps)
    return found


def _has(python: str, module: str) -> bool:
    """Whether an interpreter can import a module (without importing it)."""
    if python == sys.executable:
        return find_spec(module) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def _row(name: str, rows: list[Row], throughput: bool) -> Row:
    def mid(key: str) -> float:
        return middle([row[key] for row in rows])

    found: Row = {"contestant": name, "frames/s": mid("fps"), "CPU us per frame and link": mid("cpu_us")}
    if not throughput:
        found |= {"p50 ms per link": mid("p50_ms"), "p99 ms per link": mid("p99_ms")}
    return found


def _ratios(result: Result) -> None:
    for rows in result.tables.values():
        own = next((row for row in rows if row["contestant"] == "emograph"), None)
        if own is None:
            continue
        key = "p99 ms per link" if "p99 ms per link" in rows[0] else "frames/s"
        for row in rows:
            ratio = own[key] / row[key] if key == "frames/s" else row[key] / own[key]
            row["emograph is better by"] = f"{ratio:.3g} x"


# emograph ---------------------------------------------------------------------------------------------------


def _emograph(settings: Settings, cameras: int, fps: float) -> Row:
    """The engine as it is: supervisor, workers, ledger, traces."""
    register()
    chain = "hop name=hop0 ! hop name=hop1 ! pages name=sink"
    window = SLOTS - 2  # the ring has two more: the newest that waits, and the one that is being filled
    launch = f"frames name=camera0 window={window} fps={fps} ! {chain}"
    for index in range(1, cameras):
        launch += f" frames name=camera{index} window={window} fps={fps} ! hop0."
    found = measure(launch, "live" if fps else "lossless", settings.seconds, WARM_UP, trace=bool(fps))
    latencies = [(b[1] - a[2]) / 1e6 for trace in found.traces for a, b in pairwise(trace)]
    return {
        "fps": found.fps, "cpu_us": found.cpu_seconds / found.frames / HOPS * 1e6,
        "p50_ms": percentile(latencies, 50), "p99_ms": percentile(latencies, 99),
    }  # fmt: skip


# Peers ------------------------------------------------------------------------------------------------------


def _peer(settings: Settings, script: list[str], cameras: int, fps: float) -> Row:
    """A script of bench/peers: its sink marks the begin and the end of the measurement in a file. Raises MissingPeer
    when it does not come so far."""
    folder = tempfile.mkdtemp(prefix="emograph-bench-")
    marks = Path(folder, "marks")
    command = [settings.python, str(PEERS / script[0]), *script[1:], str(marks), str(settings.seconds)]
    cpu: list[float] = []
    try:
        with subprocess.Popen(
            [*command, str(cameras), str(fps)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            limit = time.monotonic() + settings.seconds + 60
            try:
                while len(cpu) < 2:
                    time.sleep(0.02)
                    lines = marks.read_text().splitlines() if marks.exists() else []
                    if len(lines) > len(cpu):
                        cpu.append(_cpu(psutil.Process(process.pid)))
                    if (process.poll() is not None and len(lines) < 2) or time.monotonic() > limit:
                        raise MissingPeer(f"it did not come to an end: {_last(process)}")
            finally:
                _kill(process)
        end = json.loads(marks.read_text().splitlines()[1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "fps": end["frames"] / end["seconds"], "cpu_us": (cpu[1] - cpu[0]) / end["frames"] / HOPS * 1e6,
        "p50_ms": end["p50_ms"], "p99_ms": end["p99_ms"],
    }  # fmt: skip


def _last(process: subprocess.Popen[str]) -> str:
    _kill(process)
    assert process.stderr is not None
    lines = [line for line in process.stderr.read().splitlines() if line.strip()]
    return lines[-1] if lines else "no word"


def _kill(process: subprocess.Popen[str]) -> None:
    """The peer with all its processes, and the shared memory that a dora-rs leaves behind when it is killed."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    segments = {segment for member in family for segment in _segments(member.pid)}
    for member in [*family, process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    for segment in segments:
        segment.unlink(missing_ok=True)


def _segments(pid: int) -> set[Path]:
    """The shared memory of dora-rs that a process has mapped."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    return {Path(found) for found in re.findall(r"/dev/shm/\S+\.zenoh\b", maps)}


def _cpu(root: psutil.Process) -> float:
    """CPU seconds of a process and all below it, without those that have ended."""
    return sum(cpu_of(process.pid) for process in [root, *root.children(recursive=True)])
