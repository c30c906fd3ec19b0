"""OpenVINO: the fastest on the CPUs measured, in fp32 and, where the CPU has it, bf16."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import numpy as np

from nodes.emotion.backends import Precision, parts
from nodes.emotion.graph import build
from nodes.emotion.weights import read_tensors

_UNWANTED = ("openvino.tools.ovc", "openvino_telemetry")


@contextmanager
def _without_telemetry():
    """Import openvino without its model converter, whose import tells Google Analytics so from a forked process.

    Both packages are optional to openvino, which catches their ImportError.
    """
    hidden = [name for name in _UNWANTED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # pyright: ignore[reportArgumentType, reportCallIssue]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


with _without_telemetry():
    import openvino


class OpenvinoBackend:
    """One compiled network and one request. Batch sizes are few (PART): the first of each takes 3 to 20 ms more."""

    def __init__(self, model: bytes, precision: Precision, threads: int) -> None:
        settings = {
            # Else openvino takes bf16 by itself. Of int8 it is the hint for what is not int8 in the graph.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # pinned, it would fight the other processes for one core
        }
        core = openvino.Core()
        self._network = core.compile_model(core.read_model(model), "CPU", settings)
        self._request = self._network.create_infer_request()
        self.where = f"the CPU (openvino, {precision}, {threads} thread{'s' * (threads > 1)})"

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        rows = []
        for part in parts(len(faces)):
            found = self._request.infer({0: np.ascontiguousarray(faces[part, None])}, share_inputs=True)
            rows.append(np.array(found[0]))
        return np.concatenate(rows)


def load(weights: str, precision: Precision, threads: int) -> OpenvinoBackend:
    tensors, header = read_tensors(weights)
    model = build(tensors, header, "int8" if precision == "int8" else "fp32")
    return OpenvinoBackend(model.SerializeToString(), precision, threads)
