"""The network as an ONNX graph, made from a weights file's tensors with numpy alone.

For onnxruntime and OpenVINO, and for `emograph export`. torch stays out of it: its import costs a live graph
three seconds and 500 MB. Batch norms are folded into their convolutions, the preprocessing's scale into the
first one, and the temperature into the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nodes.emotion.architecture import BATCH_NORM_EPS, STAGES, Residual
from nodes.emotion.weights import Header

OPSET = 18
INPUT, OUTPUT = "faces", "probabilities"


def build(tensors: Mapping[str, np.ndarray], header: Header) -> onnx.ModelProto:
    """`faces` uint8 (N, 1, S, S) -> `probabilities` float32 (N, classes), N free; the header as metadata.

    tensors: as weights.read_tensors gives them.
    """
    graph = _Graph()
    spec, size = header.preprocess, header.preprocess.size
    grey = graph.add("Cast", INPUT, to=TensorProto.FLOAT)
    # The mean is taken off here and not in the convolution's bias, since the zeros padded around are grey means.
    x = graph.add("Sub", grey, graph.constant(np.float32(255 * spec.mean)))
    scale = 1 / (255 * spec.std)
    for number, stage in enumerate(STAGES):
        name = f"features.{number}"
        if isinstance(stage, Residual):
            inner = graph.convolution(x, *fold(tensors, f"{name}.body.0"))
            x = graph.add("Add", x, graph.convolution(inner, *fold(tensors, f"{name}.body.1")))
        else:
            weight, bias = fold(tensors, name)
            x = graph.convolution(x, weight * np.float32(scale), bias)
            scale = 1.0
            if stage.pool:
                x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    pooled = graph.add("Flatten", graph.add("GlobalMaxPool", x))
    weight, bias = (np.float32(tensors[f"classifier.{part}"] / header.temperature) for part in ("weight", "bias"))
    logits = graph.add("Gemm", pooled, graph.constant(weight), graph.constant(bias), transB=1)
    graph.nodes.append(helper.make_node("Softmax", [logits], [OUTPUT], axis=1))

    faces = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", 1, size, size])
    probabilities = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", len(header.labels)])
    whole = helper.make_graph(graph.nodes, header.architecture, [faces], [probabilities], graph.constants)
    # The IR version belongs to the opset; the onnx package's newest may be unknown to an older runtime.
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(whole, opset_imports=[opset], ir_version=8, producer_name="emograph")
    helper.set_model_props(model, {"emograph": header.model_dump_json()})
    return model


def fold(tensors: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """A convolution's weight float32 (out, in, 3, 3) and bias float32 (out,) with its batch norm folded in."""
    gamma, beta, mean, variance = (
        tensors[f"{name}.1.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
    weight = tensors[f"{name}.0.weight"].astype(np.float64) * scale[:, None, None, None]
    return weight.astype(np.float32), (beta - mean * scale).astype(np.float32)


class _Graph:
    """Nodes and constants as they are added, with names made up."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: np.ndarray | np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def convolution(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """3x3, padded, then ReLU."""
        x = self.add("Conv", x, self.constant(weight), self.constant(bias), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return self.add("Relu", x)
