"""The layers of the network as ONNX nodes: in fp32, and in int8 for CPUs that multiply whole numbers (VNNI, AMX).

int8 takes no calibration pictures. How large a layer's outputs get is known from its batch norm, which makes each
channel's mean and deviation its own `beta` and `gamma` (Nagel et al., "Data-free quantization through weight
equalization and bias correction", ICCV 2019); weights have a scale for each channel. So any weights file can run in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nodes.emotion.architecture import BATCH_NORM_EPS

DEVIATIONS = 8.0
"""Outputs more than so many deviations above a channel's mean are cut off. On both networks that ship 8 changed
probabilities least: less cuts off too much, more makes the steps coarse (6 to 13 are nearly as good)."""
LEVELS = 255
"""Steps from 0 to the largest output: behind a ReLU nothing is negative."""
WEIGHT_LEVELS = 127

_CONVOLUTION: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
_POOL: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}


@dataclass(frozen=True)
class Value:
    """What a layer gives. step: what a level of a uint8 value stands for, 0 for floats; scale: the constant of that."""

    name: str
    step: float = 0.0
    scale: str = ""


class Layers:
    """fp32. Nodes and constants as they are added, with names made up.

    tensors: as weights.read_tensors gives them; a layer is named as its tensors are.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: np.ndarray | np.generic) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def convolution(self, x: Value, name: str, scale: float = 1.0) -> Value:
        """3x3, padded, its batch norm folded in, then ReLU. scale: of its input, folded in too."""
        weight, bias = fold(self.tensors, name)
        weight *= np.float32(scale)
        y = self.add("Conv", x.name, self.constant(weight), self.constant(bias), **_CONVOLUTION)
        return Value(self.add("Relu", y))

    def sum(self, x: Value, y: Value) -> Value:
        return Value(self.add("Add", x.name, y.name))

    def pool(self, x: Value) -> Value:
        """Maximum of each 2x2."""
        return Value(self.add("MaxPool", x.name, **_POOL))

    def floats(self, x: Value) -> str:
        """Where its values stand as float32."""
        return x.name


class Int8Layers(Layers):
    """uint8 between layers, int8 weights, int32 sums: QuantizeLinear and DequantizeLinear around each layer, which
    runtimes melt into it. The first convolution, which is next to no work, stays in fp32."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        super().__init__(tensors)
        self._zero = self.constant(np.uint8(0))

    def convolution(self, x: Value, name: str, scale: float = 1.0) -> Value:
        if not x.step:
            return self._round(super().convolution(x, name, scale).name, self._top(name))
        weight, bias = fold(self.tensors, name)
        weight *= np.float32(scale)
        # A channel of next to no weight must still have room for its bias in 32 bits.
        least = np.abs(bias) / (x.step * 2**30)
        steps = np.maximum(np.abs(weight).max(axis=(1, 2, 3)) / WEIGHT_LEVELS, np.maximum(least, 1e-20))
        y = self.add(
            "Conv",
            self.floats(x),
            self._whole(weight, steps[:, None, None, None], np.int8),
            self._whole(bias, steps * x.step, np.int32),
            **_CONVOLUTION,
        )
        return self._round(self.add("Relu", y), self._top(name))

    def sum(self, x: Value, y: Value) -> Value:
        return self._round(self.add("Add", self.floats(x), self.floats(y)), (x.step + y.step) * LEVELS)

    def pool(self, x: Value) -> Value:
        pooled = self.add("MaxPool", self.floats(x), **_POOL)
        return Value(self.add("QuantizeLinear", pooled, x.scale, self._zero), x.step, x.scale)

    def floats(self, x: Value) -> str:
        return self.add("DequantizeLinear", x.name, x.scale, self._zero)

    def _top(self, name: str) -> float:
        """The largest output of a convolution that counts."""
        gamma, beta = self.tensors[f"{name}.1.weight"], self.tensors[f"{name}.1.bias"]
        return max(float((beta + DEVIATIONS * np.abs(gamma)).max()), 1e-6)

    def _round(self, x: str, top: float) -> Value:
        scale = self.constant(np.float32(top / LEVELS))
        return Value(self.add("QuantizeLinear", x, scale, self._zero), top / LEVELS, scale)

    def _whole(self, values: np.ndarray, steps: np.ndarray, kind: type[np.signedinteger]) -> str:
        """Constants as whole numbers of steps, a step for each output channel."""
        whole = np.rint(values / steps).astype(kind)
        channels = steps.astype(np.float32).reshape(-1)
        zeros = self.constant(np.zeros(len(channels), kind))
        return self.add("DequantizeLinear", self.constant(whole), self.constant(channels), zeros, axis=0)


def fold(tensors: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """A convolution's weight float32 (out, in, 3, 3) and bias float32 (out,) with its batch norm folded in."""
    gamma, beta, mean, variance = (
        tensors[f"{name}.1.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
    weight = tensors[f"{name}.0.weight"] * scale.astype(np.float32)[:, None, None, None]
    return weight, (beta - mean * scale).astype(np.float32)
