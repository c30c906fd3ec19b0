"""The shape of ResNet9 as a table, for everything that builds it: torch (model.py) and ONNX (graph.py).

    conv 1 - conv 2 + pool - residual 2 - conv 4 + pool - conv 8 + pool - residual 8 - global max pool - linear

where a number is the channels in widths. Needs neither torch nor a runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ARCHITECTURE = "resnet9"
BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Convolution:
    """3x3 convolution to `channels` widths, batch norm, ReLU, and a 2x2 max pool where `pool` is set."""

    channels: int
    pool: bool = False


@dataclass(frozen=True)
class Residual:
    """x + two convolutions of the same `channels` widths."""

    channels: int


STAGES: tuple[Convolution | Residual, ...] = (
    Convolution(1),
    Convolution(2, pool=True),
    Residual(2),
    Convolution(4, pool=True),
    Convolution(8, pool=True),
    Residual(8),
)


def parameter_shapes(width: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that a weights file holds, in the network's order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, channels_in, channels_out in _convolutions(width):
        shapes[f"{prefix}.0.weight"] = (channels_out, channels_in, 3, 3)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.1.{name}"] = (channels_out,)
    features = STAGES[-1].channels * width
    return shapes | {"classifier.weight": (classes, features), "classifier.bias": (classes,)}


def _convolutions(width: int) -> Iterator[tuple[str, int, int]]:
    """(name in a weights file, channels in, channels out) of each convolution, in order."""
    channels = 1
    for number, stage in enumerate(STAGES):
        wide = stage.channels * width
        if isinstance(stage, Residual):
            yield f"features.{number}.body.0", wide, wide
            yield f"features.{number}.body.1", wide, wide
        else:
            yield f"features.{number}", channels, wide
        channels = wide
