"""onnxruntime: the lightest to import; fp32 and int8 on a CPU."""

from __future__ import annotations

import os

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import: else it reports its use to Microsoft
import onnxruntime

from nodes.emotion.backends import Precision, parts
from nodes.emotion.graph import INPUT, build
from nodes.emotion.weights import read_tensors


class OnnxruntimeBackend:
    """One session whose threads sleep when there is nothing to do: other processes need the cores."""

    def __init__(self, model: bytes, precision: Precision, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only; they come as exceptions too
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.where = f"the CPU (onnxruntime, {precision}, {threads} thread{'s' * (threads > 1)})"

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        rows = [np.asarray(self._session.run(None, {INPUT: faces[part, None]})[0]) for part in parts(len(faces))]
        return np.concatenate(rows)


def load(weights: str, precision: Precision, threads: int) -> OnnxruntimeBackend:
    tensors, header = read_tensors(weights)
    model = build(tensors, header, "int8" if precision == "int8" else "fp32")
    return OnnxruntimeBackend(model.SerializeToString(), precision, threads)
