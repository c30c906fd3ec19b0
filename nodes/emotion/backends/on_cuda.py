"""torch on a GPU: one CUDA graph for each of a few batch sizes, pinned memory, copies beside the computing.

At a batch of 8 the network's thirty kernels take less time than Python needs to launch them; a CUDA graph launches
them all at once. A graph has one batch size, so a batch is padded to the next power of two. What is more than
max_batch goes in parts: while one is computed, the next is copied, and the answers are waited for once, at the end.
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

_WARM_UPS = 3
"""Calls before a capture, so that cuDNN has chosen its algorithms and allocated its workspaces."""


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
        self._sizes = bucket_sizes(max_batch)
        try:
            self._model = fuse(model).to(device, torch.float32 if precision == "fp32" else torch.bfloat16)
            self._compute, self._copy = torch.cuda.Stream(device), torch.cuda.Stream(device)
            self._slots = [_Slot(self._sizes[-1], self._size, device) for _ in range(2)]
            torch.cuda.synchronize(device)  # what was put there is there, for the other streams too
            self._graphs = self._capture(warn) if graphs else {}
        except torch.OutOfMemoryError as error:
            raise UserError(f"the GPU {device} has no memory left for the network; use device: cpu") from error
        self.where = f"{torch.cuda.get_device_name(device)} (torch, {precision}, {device})"
        self(np.zeros((1, self._size, self._size), np.uint8))

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        answers = torch.empty((len(faces), self._classes), pin_memory=self._device.type == "cuda")
        for number, part in enumerate(parts(len(faces), self._sizes[-1])):
            slot = self._slots[number % 2]
            count = part.stop - part.start
            slot.copied.synchronize()  # its staging buffer may still be on its way to the GPU, two parts ago
            slot.staging[:count].copy_(torch.from_numpy(faces[part]))
            with torch.cuda.stream(self._copy):
                self._copy.wait_event(slot.computed)
                slot.faces[:count].copy_(slot.staging[:count], non_blocking=True)
                slot.copied.record(self._copy)
            with torch.cuda.stream(self._compute):
                self._compute.wait_event(slot.copied)
                answers[part].copy_(self._run(number % 2, count)[:count], non_blocking=True)
                slot.computed.record(self._compute)
        self._compute.synchronize()
        return answers.numpy()

    def _run(self, slot: int, count: int) -> Tensor:
        """Probabilities of a slot's first faces, (bucket, classes), on the stream that is current."""
        bucket = next(size for size in self._sizes if size >= count)
        if (slot, bucket) not in self._graphs:
            return self._probabilities(self._slots[slot].faces[:bucket])
        graph, output = self._graphs[slot, bucket]
        graph.replay()
        return output

    def _probabilities(self, faces: Tensor) -> Tensor:
        with torch.inference_mode():
            return (self._model(faces).float() / self._temperature).softmax(dim=1)

    def _capture(self, warn: Callable[[str], None]) -> dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]]:
        """(slot, batch size) -> graph and its output. They run one after the other, so they share their memory."""
        graphs = {}
        pool = torch.cuda.graph_pool_handle()
        try:
            for bucket in reversed(self._sizes):  # the largest first: the smaller ones fit into what it took
                for number, slot in enumerate(self._slots):
                    faces = slot.faces[:bucket]
                    with torch.cuda.stream(self._compute):
                        for _ in range(_WARM_UPS):
                            self._probabilities(faces)
                    self._compute.synchronize()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph, pool=pool, stream=self._compute):
                        output = self._probabilities(faces)
                    graphs[number, bucket] = graph, output
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            warn(f"no CUDA graphs, which is slower: {str(error).splitlines()[0]}")
            return {}
        return graphs


class _Slot:
    """Pinned memory on the host and its place on the GPU, for one part of a batch."""

    def __init__(self, count: int, size: int, device: torch.device) -> None:
        self.staging = torch.zeros((count, size, size), dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.faces = torch.zeros((count, size, size), dtype=torch.uint8, device=device)
        self.copied, self.computed = torch.cuda.Event(), torch.cuda.Event()


def bucket_sizes(max_batch: int) -> tuple[int, ...]:
    """Batch sizes to capture: powers of two below max_batch, and max_batch: 48 -> 1, 2, 4, 8, 16, 32, 48."""
    return (*(1 << n for n in range((max_batch - 1).bit_length())), max_batch)


def find_device(wanted: str) -> torch.device | None:
    """The GPU of a property's value, or None where `auto` finds none; UserError when one was named."""
    if not torch.cuda.is_available():
        if wanted == "auto":
            return None
        raise UserError(f"device is '{wanted}', but torch finds no usable GPU; use device: auto or cpu")
    device = torch.device("cuda" if wanted == "auto" else wanted)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"device is '{wanted}', but there are {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
