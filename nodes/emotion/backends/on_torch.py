"""torch on a CPU: always installed, and what the other back ends are measured against."""

from __future__ import annotations

import numpy as np
import torch

from nodes.emotion.backends import Precision, parts
from nodes.emotion.model import ResNet9, fuse
from nodes.emotion.weights import load_weights


class TorchBackend:
    """The network with its batch norms folded, channels last."""

    def __init__(self, model: ResNet9, temperature: float, precision: Precision, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = fuse(model).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        self._temperature = temperature
        self.where = f"the CPU (torch, {precision}, {threads} thread{'s' * (threads > 1)})"

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rows = [self._model(torch.from_numpy(faces[part])).float() for part in parts(len(faces))]
            return (torch.cat(rows) / self._temperature).softmax(dim=1).numpy()


def load(weights: str, precision: Precision, threads: int) -> TorchBackend:
    model, header = load_weights(weights)
    return TorchBackend(model, header.temperature, precision, threads)
