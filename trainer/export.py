"""The network as an ONNX file: uint8 faces in, probabilities out, nothing left for the other side to know."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from nodes.emotion.model import ResNet9, fuse
from nodes.emotion.weights import Header
from pipeline.errors import UserError
from trainer.checkpoint import write_whole

OPSET = 18


class _Probabilities(nn.Module):
    """The folded network with its temperature and softmax."""

    def __init__(self, net: ResNet9, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = fuse(net), temperature

    def forward(self, faces: Tensor) -> Tensor:
        return (self.net(faces) / self.temperature).softmax(dim=1)


def export_onnx(net: ResNet9, header: Header, path: Path) -> None:
    """Write `faces` uint8 (N, 1, 48, 48) -> `probabilities` float32 (N, 7), N free; the header as metadata.

    Raises UserError if the `onnx` package is missing or the place cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("ONNX export needs the package onnx: pip install 'emograph[onnxruntime]'") from error
    size = header.preprocess.size
    example = torch.zeros((2, 1, size, size), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                _Probabilities(net.cpu(), header.temperature).eval(),
                (example,),
                plain,
                input_names=["faces"],
                output_names=["probabilities"],
                dynamic_axes={"faces": {0: "n"}, "probabilities": {0: "n"}},
                opset_version=OPSET,
                dynamo=False,  # deprecated, but the other exporter needs one more package, onnxscript
            )
        model = onnx.load(str(plain))
    onnx.helper.set_model_props(model, {"emograph": header.model_dump_json()})
    onnx.checker.check_model(model)
    write_whole(path, model.SerializeToString())
