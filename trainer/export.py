"""The network as an ONNX file: uint8 faces in, probabilities out, nothing left for the other side to know."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nodes.emotion.model import ResNet9
from nodes.emotion.weights import Header
from pipeline.errors import UserError
from trainer.checkpoint import write_whole


def export_onnx(net: ResNet9, header: Header, path: Path, precision: Literal["fp32", "int8"] = "fp32") -> None:
    """Write `faces` uint8 (N, 1, 48, 48) -> `probabilities` float32 (N, 7), N free; the header as metadata.

    It is the graph that the `emotion` node gives to onnxruntime and OpenVINO at that precision. In int8 the file is a
    quarter of the size, and for CPUs with VNNI, AMX or ARM's dot products: on others sums may overflow in silence.
    Raises UserError if the `onnx` package is missing or the place cannot be written.
    """
    try:
        import onnx

        from nodes.emotion.graph import build
    except ImportError as error:
        raise UserError("ONNX export needs the package onnx: pip install onnx") from error
    model = build({name: tensor.float().cpu().numpy() for name, tensor in net.state_dict().items()}, header, precision)
    onnx.checker.check_model(model)
    write_whole(path, model.SerializeToString())
