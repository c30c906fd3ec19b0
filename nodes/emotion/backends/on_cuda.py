"""torch on a GPU: one CUDA graph for each of a few batch sizes, pinned memory, copies beside the computing.

At a batch of 8 the network's thirty kernels take less time than Python needs to launch them; a CUDA graph launches
them all at once. A graph has one batch size, so a batch is padded to the next power of two. What is more than
max_batch (or LARGEST) goes in parts: while one is computed, the next is copied, and the answers are waited for once,
at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nodes.emotion.backends import Precision, parts
from nodes.emotion.model import fuse
from nodes.emotion.weights import load_weights
from pipeline.errors import UserError

LARGEST = 512
"""Faces computed at once, at the most: the maps of more take gigabytes."""

_WARM_UPS = 3
"""Calls before a capture, so that cuDNN has chosen its algorithms and allocated its workspaces."""

_FAULTS: tuple[type[Exception], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()
"""Errors of the device itself (since torch 2.8): after one, no call of this process succeeds any more."""
_CAPTURE_ERRORS = range(900, 909)
"""cudaErrorStreamCaptureUnsupported and its like: the capture failed, and the device is as well as before."""


class GpuError(UserError):
    """A GPU that is there but cannot be used."""


class CudaBackend:
    """bf16 (or fp32) and channels last; `graphs=False` launches kernel by kernel, for comparison."""

    def __init__(
        self,
        weights: str,
        device: torch.device,
        precision: Precision = "bf16",
        max_batch: int = 64,
        graphs: bool = True,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        model, header = load_weights(weights)
        self._device, self._temperature = device, header.temperature
        self._size, self._classes = header.preprocess.size, len(header.labels)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False  # precision fp32 means it
        self._sizes = bucket_sizes(min(max_batch, LARGEST))
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)  # else pinned memory takes half a gigabyte of the first GPU as well
            self._answers = _on_host(1, (self._classes,), torch.float32, device)
            self._model = fuse(model).to(device, torch.float32 if precision == "fp32" else torch.bfloat16)
            self._compute, self._copy = torch.cuda.Stream(device), torch.cuda.Stream(device)
            self._slots = [_Slot(self._sizes[-1], self._size, device) for _ in range(2)]
            self._input = torch.zeros_like(self._slots[0].faces)
            torch.cuda.synchronize(device)  # what was put there is there, for the other streams too
            self._graphs = self._capture(warn) if graphs else {}
            self.where = f"{torch.cuda.get_device_name(device)} (torch, {precision}, {device})"
            self._classify(np.zeros((1, self._size, self._size), np.uint8))
        except torch.OutOfMemoryError as error:
            raise GpuError(f"the GPU {device} has no memory left for the network") from error
        except RuntimeError as error:  # in use by somebody alone, a driver of another version, a device that fell out
            raise GpuError(f"the GPU {device} cannot be used: {_first_line(error)}") from error

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """See `Backend`. After an error of the GPU itself the process ends, so that a fresh one takes over."""
        try:
            return self._classify(faces)
        except _FAULTS as error:
            raise SystemExit(f"the GPU {self._device} failed: {_first_line(error)}") from error

    def _classify(self, faces: np.ndarray) -> np.ndarray:
        if len(faces) > len(self._answers):
            self._answers = _on_host(len(faces), (self._classes,), torch.float32, self._device)
        for number, part in enumerate(parts(len(faces), self._sizes[-1])):
            slot = self._slots[number % 2]
            count = part.stop - part.start
            slot.copied.synchronize()  # its staging buffer may still be on its way to the GPU, two parts ago
            np.copyto(slot.staging_array[:count], faces[part])
            with torch.cuda.stream(self._copy):
                self._copy.wait_event(slot.taken)
                slot.faces[:count].copy_(slot.staging[:count], non_blocking=True)
                slot.copied.record(self._copy)
            with torch.cuda.stream(self._compute):
                self._compute.wait_event(slot.copied)
                self._input[:count].copy_(slot.faces[:count])
                slot.taken.record(self._compute)
                self._answers[part].copy_(self._run(count)[:count], non_blocking=True)
        self._compute.synchronize()
        return self._answers[: len(faces)].numpy().copy()

    def _run(self, count: int) -> Tensor:
        """Probabilities of the first faces of the input, (bucket, classes), on the stream that is current."""
        bucket = next(size for size in self._sizes if size >= count)
        if bucket not in self._graphs:
            return self._probabilities(self._input[:bucket])
        graph, output = self._graphs[bucket]
        graph.replay()
        return output

    def _probabilities(self, faces: Tensor) -> Tensor:
        with torch.inference_mode():
            return (self._model(faces).float() / self._temperature).softmax(dim=1)

    def _capture(self, warn: Callable[[str], None]) -> dict[int, tuple[torch.cuda.CUDAGraph, Tensor]]:
        """Batch size -> graph and its output. They run one after the other, so they share their memory.

        Sizes that cannot be captured have no graph: they are launched kernel by kernel.
        """
        graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        pool = torch.cuda.graph_pool_handle()
        failed = False
        for bucket in reversed(self._sizes):  # the largest first: the smaller ones fit into what it took
            faces = self._input[:bucket]
            with torch.cuda.stream(self._compute):
                for _ in range(_WARM_UPS):
                    self._probabilities(faces)
            self._compute.synchronize()
            if failed:
                continue  # warm all the same: a frame must not wait for cuDNN's choice
            try:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, stream=self._compute):
                    output = self._probabilities(faces)
                graphs[bucket] = graph, output
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if isinstance(error, _FAULTS) and getattr(error, "error_code", 0) not in _CAPTURE_ERRORS:
                    raise
                failed = True
                torch.cuda.set_stream(torch.cuda.default_stream(self._device))  # a broken capture may leave its own
                warn(f"no CUDA graphs, which is slower: {_first_line(error.__context__ or error)}")
        return graphs


class _Slot:
    """Pinned memory on the host and its place on the GPU, for one part of a batch."""

    def __init__(self, count: int, size: int, device: torch.device) -> None:
        self.staging = _on_host(count, (size, size), torch.uint8, device)
        self.staging_array = self.staging.numpy()
        self.faces = torch.zeros((count, size, size), dtype=torch.uint8, device=device)
        self.copied, self.taken = torch.cuda.Event(), torch.cuda.Event()


def _on_host(count: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the host that the GPU reads and writes by itself."""
    return torch.zeros((count, *shape), dtype=dtype, pin_memory=device.type == "cuda")


def bucket_sizes(max_batch: int) -> tuple[int, ...]:
    """Batch sizes to capture: powers of two below max_batch, and max_batch: 48 -> 1, 2, 4, 8, 16, 32, 48."""
    return (*(1 << n for n in range((max_batch - 1).bit_length())), max_batch)


def find_device(wanted: str) -> torch.device | None:
    """The GPU of a property's value, or None where `auto` finds none; UserError when one was named."""
    if not torch.cuda.is_available():
        if wanted == "auto":
            return None
        raise UserError(f"device is '{wanted}', but torch finds no usable GPU; use device: auto or cpu")
    _, _, index = wanted.partition(":")
    number = int(index) if index else torch.cuda.current_device()
    # Compared as a number: torch.device keeps a byte of it, so that cuda:256 would be the first GPU.
    if number >= torch.cuda.device_count():
        raise UserError(f"device is '{wanted}', but there are {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", number)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
