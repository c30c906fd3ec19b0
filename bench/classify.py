"""The network alone: faces/s, latency, start and memory of each back end, and how far its answers differ.

    emograph bench classify --seconds 3 --data fer2013.csv
    emograph bench classify --device cuda

The peer is torch as one would write it without a thought for speed. Both networks that ship are measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import reuse
from bench.classify_worker import CPU, CUDA, PEER
from bench.record import ROOT, Result, Settings, percentile, usual_environment
from nodes.emotion.backends import COMPUTES_IN, Precision, cpu_computes_in, installed
from nodes.emotion.weights import available
from pipeline.errors import UserError

SMALL, FULL = "resnet9-s", "resnet9"
CPU_SIZES = (1, 2, 4, 8, 16, 64)
CUDA_SIZES = (1, 8, 64, 512, 4096)
"""The last one goes in parts of the one before, so that copies and computing overlap."""


@dataclass(frozen=True)
class Job:
    """weights: SMALL or FULL. answers: whether to keep what it says of the faces."""

    contestant: str
    weights: str
    threads: int
    answers: bool = False


def contestants(settings: Settings) -> list[str]:
    return list(_offered(settings))


def run(settings: Settings) -> Result:
    result = Result("classify")
    chosen = _chosen(settings, result)
    with tempfile.TemporaryDirectory(prefix="emograph-bench-") as folder:
        faces, labels = _faces(settings, Path(folder))
        networks = [name for name in (SMALL, FULL) if name in available()]
        result.skipped += [
            f"{name}: this version has no such weights" for name in (SMALL, FULL) if name not in networks
        ]
        threads = (1,) if settings.device != "cpu" else (1, 2)
        for count in threads:
            for weights in networks:
                where = settings.device if settings.device != "cpu" else f"{count} thread{'s' * (count > 1)}"
                found = {}
                for name in chosen:
                    job = Job(name, weights, count, answers=count == 1)
                    found[name] = _measure(job, faces, Path(folder), settings)
                _speed(result, f"{weights}, {where}", found, _high(settings))
                if count == 1:
                    _start(result, f"{weights}, {where}", found)
                    _answers(result, weights, chosen, Path(folder), labels)
    if labels is None:
        result.skipped.append("accuracy on PublicTest: give --data fer2013.csv")
    if settings.device == "cpu" and not settings.only:
        reuse.measure(result, settings, SMALL)
    result.notes += [
        f"faces/s are of the median call; latencies are median / {_high(settings)}th percentile, in ms.",
        "A process each. import: of the back end; opening: of the weights with it; memory: of the whole process.",
    ]
    return result


def _offered(settings: Settings) -> dict[str, tuple[str, Precision]]:
    """Contestant -> back end and precision, on the device asked for."""
    return CPU if settings.device == "cpu" else CUDA


def _chosen(settings: Settings, result: Result) -> list[str]:
    """Those that can run here and are asked for, the peer first and always."""
    names = []
    for name, (kind, precision) in _offered(settings).items():
        if name != PEER and not settings.wants(name):
            continue
        if kind in COMPUTES_IN and not installed(kind):
            result.skipped.append(f"{name}: pip install {kind}")
        elif settings.device == "cpu" and not cpu_computes_in(precision):
            result.skipped.append(f"{name}: this CPU does not compute in it")
        else:
            names.append(name)
    if settings.device != "cpu":
        from nodes.emotion.backends.on_cuda import find_device

        find_device(settings.device)
    return names


def _measure(job: Job, faces: Path, folder: Path, settings: Settings) -> dict[str, Any]:
    sizes = CPU_SIZES if settings.device == "cpu" else CUDA_SIZES
    order = {
        "contestant": job.contestant, "weights": job.weights, "threads": job.threads, "device": settings.device,
        "sizes": sizes, "seconds": settings.seconds, "runs": settings.runs,
        "faces": str(faces) if job.answers else "", "answers": str(_answers_file(folder, job.weights, job.contestant)),
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.classify_worker"]
    done = subprocess.run(
        command, input=json.dumps(order), capture_output=True, text=True, cwd=ROOT, check=False, env=usual_environment()
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the contestant '{job.contestant}' failed: {last}")
    return json.loads(done.stdout)


def _speed(result: Result, title: str, found: dict[str, dict[str, Any]], high: int) -> None:
    """Two tables: faces/s, with the ratio to the peer at the batch where each is best, and latencies: p50 / p`high`."""
    rates = {
        name: {int(n): int(n) / percentile(taken, 50) for n, taken in figures["seconds"].items()}
        for name, figures in found.items()
    }
    best = max(rates[PEER].values())
    for name, rate in rates.items():
        columns = {f"{n}": speed for n, speed in rate.items()}
        result.add(f"Faces/s by batch size: {title}", contestant=name, **columns, times_peer=max(rate.values()) / best)
    for name, figures in found.items():
        taken = {n: [1e3 * t for t in values] for n, values in figures["seconds"].items()}
        columns = {n: f"{percentile(v, 50):.3g} / {percentile(v, high):.3g}" for n, v in taken.items()}
        result.add(f"Latency in ms by batch size: {title}", contestant=name, **columns)


def _start(result: Result, title: str, found: dict[str, dict[str, Any]]) -> None:
    for name, figures in found.items():
        columns = {key: figures[key] for key in ("import s", "open s", "memory MB")}
        result.add(f"Start and memory: {title}", contestant=name, **columns)


def _answers(result: Result, weights: str, chosen: list[str], folder: Path, labels: np.ndarray | None) -> None:
    """How far each one's probabilities are from the peer's, and its accuracy where labels are given."""
    truth = np.load(_answers_file(folder, weights, PEER))
    for name in chosen:
        said = np.load(_answers_file(folder, weights, name))
        row: dict[str, Any] = {
            "largest difference": f"{np.abs(said - truth).max():.1e}",
            "labels changed": int((said.argmax(1) != truth.argmax(1)).sum()),
            "of": len(truth),
        }
        if labels is not None:
            row["PublicTest accuracy"] = f"{(said.argmax(1) == labels).mean():.2%}"
        result.add(f"Answers: {weights}", contestant=name, **row)


def _faces(settings: Settings, folder: Path) -> tuple[Path, np.ndarray | None]:
    """A file of faces to compare answers on, and their labels: PublicTest, or class means and noise."""
    path = folder / "faces.npy"
    if settings.data is not None:
        from trainer.dataset import load
        from trainer.folders import PUBLIC

        public = load(settings.data, [PUBLIC]).split(PUBLIC)
        np.save(path, public.images)
        return path, public.labels
    import cv2

    strip = cv2.imread(str(ROOT / "nodes" / "testsrc_faces.png"), cv2.IMREAD_GRAYSCALE)
    assert strip is not None
    noise = np.random.default_rng(2).integers(0, 256, (64, 48, 48), np.uint8)
    np.save(path, np.concatenate([np.stack(np.split(strip, strip.shape[1] // 48, axis=1)), noise]))
    return path, None


def _answers_file(folder: Path, weights: str, contestant: str) -> Path:
    return folder / f"{weights} {contestant}.npy"


def _high(settings: Settings) -> int:
    return 95 if settings.device == "cpu" else 99
