"""The network as an ONNX graph, made from a weights file's tensors with numpy alone.

For onnxruntime and OpenVINO, and for `emograph export`. torch stays out of it: its import costs a live graph
three seconds and 500 MB. Batch norms are folded into their convolutions, the preprocessing's scale into the
first one, and the temperature into the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from nodes.emotion.architecture import STAGES, Residual
from nodes.emotion.layers import Int8Layers, Layers, Value
from nodes.emotion.weights import Header

OPSET = 18
INPUT, OUTPUT = "faces", "probabilities"


def build(
    tensors: Mapping[str, np.ndarray], header: Header, precision: Literal["fp32", "int8"] = "fp32"
) -> onnx.ModelProto:
    """`faces` uint8 (N, 1, S, S) -> `probabilities` float32 (N, classes), N free; the header as metadata.

    tensors: as weights.read_tensors gives them. precision: what the layers compute in (layers.py).
    """
    layers = Int8Layers(tensors) if precision == "int8" else Layers(tensors)
    spec, size = header.preprocess, header.preprocess.size
    grey = layers.add("Cast", INPUT, to=TensorProto.FLOAT)
    # The mean is taken off here and not in the convolution's bias, since the zeros padded around are grey means.
    x = Value(layers.add("Sub", grey, layers.constant(np.float32(255 * spec.mean))))
    scale = 1 / (255 * spec.std)
    for number, stage in enumerate(STAGES):
        name = f"features.{number}"
        if isinstance(stage, Residual):
            inner = layers.convolution(x, f"{name}.body.0")
            x = layers.sum(x, layers.convolution(inner, f"{name}.body.1"))
        else:
            x = layers.convolution(x, name, scale)
            scale = 1.0
            if stage.pool:
                x = layers.pool(x)
    pooled = layers.add("Flatten", layers.add("GlobalMaxPool", layers.floats(x)))
    weight, bias = (np.float32(tensors[f"classifier.{part}"] / header.temperature) for part in ("weight", "bias"))
    logits = layers.add("Gemm", pooled, layers.constant(weight), layers.constant(bias), transB=1)
    layers.nodes.append(helper.make_node("Softmax", [logits], [OUTPUT], axis=1))

    faces = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", 1, size, size])
    probabilities = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", len(header.labels)])
    whole = helper.make_graph(layers.nodes, header.architecture, [faces], [probabilities], layers.constants)
    # The IR version belongs to the opset; the onnx package's newest may be unknown to an older runtime.
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(whole, opset_imports=[opset], ir_version=8, producer_name="emograph")
    helper.set_model_props(model, {"emograph": header.model_dump_json()})
    return model
