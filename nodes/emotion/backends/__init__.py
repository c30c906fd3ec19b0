"""What runs the network: one file a back end, the same answers from each.

A back end is made once, by `load`, and then called: uint8 faces in, calibrated probabilities out. torch is imported
only by the back ends that need it: its import costs a live graph three seconds and 500 MB.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from pipeline.errors import UserError

BackendName = Literal["torch", "onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]

FASTEST_FIRST: tuple[BackendName, ...] = ("openvino", "onnxruntime", "torch")
"""On a CPU, as `emograph bench classify` measured them."""

COMPUTES_IN: dict[BackendName, tuple[Precision, ...]] = {
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "int8"),
    "torch": ("fp32", "bf16"),
}

_CPUINFO = Path("/proc/cpuinfo")
_CPU_FLAGS: dict[Precision, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
}
"""Words of /proc/cpuinfo, any of which says that the CPU computes in a precision by itself. On other CPUs bf16 is slow,
and int8 wrong besides: their sums of two products end at 16 bits."""
_LACKS: dict[Precision, str] = {"bf16": "no avx512_bf16", "int8": "no VNNI"}

SPARE_THREADS = 4
"""CPU threads of a graph that uses all cores in turn, at the most. Measured on two cores only; parts of `PART` faces
are little work for many."""

PART = 8
"""Faces in one call on a CPU: more at once are not faster there, and fall out of its caches."""

_PACKAGES: dict[BackendName, tuple[str, ...]] = {
    "openvino": ("openvino", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "torch": ("torch",),
}
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")


class Backend(Protocol):
    """The network, ready to run. On a GPU the first, slow calls are behind it."""

    where: str
    """For a log: what computes, and in which precision."""

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S), N >= 1 -> probabilities float32 (N, classes), the header's temperature applied."""
        ...


def load(
    weights: str,
    backend: BackendName | Literal["auto"] = "auto",
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    threads: int | None = 1,
    max_batch: int = 64,
    warn: Callable[[str], None] = lambda _: None,
) -> Backend:
    """The back end asked for; `auto` takes the fastest that is installed for the device.

    weights: a packaged name or a path. device: auto, cpu, cuda or cuda:N. precision: auto is fp32 on a CPU and bf16
    on a GPU; int8 means the CPU. threads: of a CPU; None: as many as there are cores, up to SPARE_THREADS, but one for
    torch, whose threads wait for each other in a loop and crawl where other processes work too. max_batch: faces that a
    GPU prepares for; a call may bring more, which go in parts.

    Raises UserError where the back end, the device or the precision is not to be had here, and WeightsError.
    """
    from nodes.emotion.weights import read_header

    problem = conflict(backend, device, precision)
    if problem:
        raise UserError(problem)
    read_header(weights)  # wrong weights are told before torch's import, which takes seconds
    gpu_wanted = device != "cpu" and backend in ("auto", "torch") and precision != "int8"
    if gpu_wanted and (device != "auto" or _may_have_gpu()):
        found = _on_gpu(weights, device, "fp32" if precision == "fp32" else "bf16", max_batch, warn)
        if found is not None:
            return found

    wanted: Precision = "fp32" if precision == "auto" else precision
    if not cpu_computes_in(wanted):
        raise UserError(
            f"precision is '{wanted}', but this CPU does not compute in it ({_LACKS[wanted]}): use precision: auto"
        )
    for name in FASTEST_FIRST if backend == "auto" else (backend,):
        if wanted not in COMPUTES_IN[name]:
            continue
        try:
            return _load(name, weights, wanted, threads or (1 if name == "torch" else spare_threads()))
        except ImportError as error:
            if backend != "auto":
                raise UserError(_cure(name, error)) from error
            if installed(name):
                warn(_cure(name, error))
    raise UserError(f"no back end for precision {wanted} on this CPU is installed: pip install openvino")


def conflict(backend: BackendName | Literal["auto"], device: str, precision: Precision | Literal["auto"]) -> str | None:
    """What is wrong with a choice on any machine, or None; `auto` goes with everything."""
    if backend in ("onnxruntime", "openvino") and device.startswith("cuda"):
        return f"backend '{backend}' runs on the CPU, and device is '{device}': use backend: auto"
    if precision == "int8" and device.startswith("cuda"):
        return f"precision 'int8' is for CPUs, and device is '{device}': use precision: auto"
    if backend != "auto" and precision != "auto" and precision not in COMPUTES_IN[backend]:
        possible = " and ".join(COMPUTES_IN[backend])
        return f"backend '{backend}' computes in {possible} alone: use backend: openvino, or precision: auto"
    return None


def installed(name: BackendName) -> bool:
    """Whether a back end's packages are there; imports none of them."""
    return all(find_spec(package) is not None for package in _PACKAGES[name])


def cpu_computes_in(precision: Precision) -> bool:
    """Whether the CPU multiplies in this precision by itself. All of them do in fp32."""
    if precision == "fp32":
        return True
    try:
        words = _CPUINFO.read_text().split()
    except OSError:
        return False
    return not set(words).isdisjoint(_CPU_FLAGS[precision])


def int8_can_be_had(backend: BackendName | Literal["auto"]) -> bool:
    """Whether `precision: int8` would work on this CPU with a back end, or for `auto` with any that is installed."""
    able = [name for name, precisions in COMPUTES_IN.items() if "int8" in precisions and installed(name)]
    return cpu_computes_in("int8") and (bool(able) if backend == "auto" else backend in able)


def spare_threads() -> int:
    """Cores that this process may use, up to SPARE_THREADS."""
    return min(len(os.sched_getaffinity(0)), SPARE_THREADS)


def parts(count: int, size: int = PART) -> Iterator[slice]:
    """0..count in pieces of `size`, the last one smaller."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _load(name: BackendName, weights: str, precision: Precision, threads: int) -> Backend:
    module = importlib.import_module(f"nodes.emotion.backends.on_{name}")
    return module.load(weights, precision, threads)


def _on_gpu(
    weights: str, device: str, precision: Precision, max_batch: int, warn: Callable[[str], None]
) -> Backend | None:
    """The back end on a GPU; None where device is `auto` and no GPU can be used. UserError if it was named."""
    from nodes.emotion.backends import on_cuda

    place = on_cuda.find_device(device)
    if place is None:
        return None
    try:
        return on_cuda.CudaBackend(weights, place, precision, max_batch, warn=warn)
    except on_cuda.GpuError as error:
        if device != "auto":
            raise UserError(f"{error}; use device: cpu, or auto") from error
        warn(f"{error}; the network runs on the CPU")
        return None


def _may_have_gpu() -> bool:
    """Whether it is worth the seconds of importing torch to ask it for a GPU."""
    return any(Path(path).exists() for path in _GPU_DRIVERS)


def _cure(name: BackendName, error: ImportError) -> str:
    missing = [package for package in _PACKAGES[name] if find_spec(package) is None]
    if missing:
        packages, install = " and ".join(missing), " ".join(missing)
        return f"backend '{name}' needs the package {packages}: pip install {install}, or use backend: auto"
    return f"backend '{name}' cannot be loaded ({error}): install it anew, or use backend: auto"
