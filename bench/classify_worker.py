"""One contestant of `emograph bench classify` in a process of its own: JSON job on stdin, JSON figures on stdout.

A process each, since import time and memory cannot be measured twice in one.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from nodes.emotion.backends import Precision

Run = Callable[[np.ndarray], np.ndarray]

PEER = "torch as one would write it"
"""Eager, fp32 (on a GPU with torch's default, TF32 convolutions), batch norms unfused, NCHW."""

CPU: dict[str, tuple[str, Precision]] = {
    PEER: ("peer", "fp32"),
    "torch": ("torch", "fp32"),
    "onnxruntime": ("onnxruntime", "fp32"),
    "openvino": ("openvino", "fp32"),
    "torch bf16": ("torch", "bf16"),
    "openvino bf16": ("openvino", "bf16"),
    "onnxruntime int8": ("onnxruntime", "int8"),
    "openvino int8": ("openvino", "int8"),
}
"""Contestant -> back end and precision."""

CUDA: dict[str, tuple[str, Precision]] = {
    PEER: ("peer", "fp32"),
    "cuda fp32": ("cuda", "fp32"),
    "cuda bf16": ("cuda", "bf16"),
    "cuda bf16, no graphs": ("cuda-eager", "bf16"),
}


def main() -> None:
    job = json.load(sys.stdin)
    kind, precision = (CPU | CUDA)[job["contestant"]]
    started = time.perf_counter()
    _import(kind)
    imported = time.perf_counter()
    run = _open(kind, precision, job)
    opened = time.perf_counter()
    found: dict[str, Any] = {"import s": imported - started, "open s": opened - imported}
    rng = np.random.default_rng(0)
    run(rng.integers(0, 256, (1, 48, 48), np.uint8))
    found["memory MB"] = _resident()
    if job["faces"]:
        faces = np.load(job["faces"])
        with _exact(kind):
            np.save(job["answers"], np.concatenate([run(faces[i : i + 64]) for i in range(0, len(faces), 64)]))
    noise = rng.integers(0, 256, (max(job["sizes"], default=1), 48, 48), np.uint8)
    seconds: dict[int, list[float]] = {size: [] for size in job["sizes"]}
    for size in seconds:
        run(noise[:size])
    for _ in range(job["runs"]):  # in turns, so that a slow moment of the machine hits all sizes alike
        for size in seconds:
            seconds[size] += _measure(run, noise[:size], job["seconds"] / job["runs"] / len(seconds))
    found["seconds"] = seconds
    json.dump(found, sys.stdout)


def _exact(kind: str) -> AbstractContextManager[Any]:
    """The peer's answers are what the others are compared with: on a GPU it must not round its fp32 to TF32."""
    if kind != "peer":
        return nullcontext()
    import torch

    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _measure(run: Run, faces: np.ndarray, seconds: float) -> list[float]:
    """Seconds of each call, at least one."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        started = time.perf_counter()
        run(faces)
        taken.append(time.perf_counter() - started)
    return taken


def _import(kind: str) -> None:
    name = kind if kind in ("onnxruntime", "openvino") else "torch"
    importlib.import_module(f"nodes.emotion.backends.on_{name}")


def _open(kind: str, precision: str, job: dict[str, Any]) -> Run:
    weights, device = job["weights"], job["device"]
    if kind == "peer":
        return _peer(weights, device, job["threads"])
    if kind in ("cuda", "cuda-eager"):
        from nodes.emotion.backends.on_cuda import CudaBackend, find_device

        place = find_device(device)
        assert place is not None
        sizes = max(job["sizes"][:-1])
        return CudaBackend(weights, place, precision, sizes, kind == "cuda", _refuse)  # pyright: ignore[reportArgumentType]
    from nodes.emotion.backends import load

    return load(weights, kind, "cpu", precision, job["threads"])  # pyright: ignore[reportArgumentType]


def _refuse(text: str) -> None:
    """What a graph would be warned of would make another contestant of this one."""
    raise RuntimeError(text)


def _peer(weights: str, device: str, threads: int) -> Run:
    import torch

    from nodes.emotion.weights import load_weights

    torch.set_num_threads(threads)
    model, header = load_weights(weights)
    model.to(device, memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]

    def embed(x: torch.Tensor) -> torch.Tensor:
        x = (x.unsqueeze(1).float() - 255 * model.mean) / (255 * model.std)
        return model.features(x).amax(dim=(2, 3))

    @torch.inference_mode()
    def run(faces: np.ndarray) -> np.ndarray:
        logits = model.classifier(embed(torch.from_numpy(faces).to(device)))
        return (logits / header.temperature).softmax(dim=1).cpu().numpy()

    return run


def _resident() -> float:
    """Memory of this process, MB."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
