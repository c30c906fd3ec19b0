"""ResNet9 for 48x48 grey faces: the one network of this project, at any width.

It takes the detector's uint8 cuts as they are and normalises them itself, so that training and run time
cannot differ. It knows nothing of files (weights.py) or of buffers (the node).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nodes.emotion import architecture
from nodes.emotion.architecture import BATCH_NORM_EPS, STAGES
from nodes.preprocess import DEFAULT, LABELS


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU, and a 2x2 max pool where `pool` is set."""

    def __init__(self, channels_in: int, channels_out: int, pool: bool = False) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out, BATCH_NORM_EPS),
            nn.ReLU(inplace=True),
        )
        if pool:
            self.append(nn.MaxPool2d(2))


class Residual(nn.Module):
    """x + two ConvBlocks of the same width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBlock(channels, channels), ConvBlock(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResNet9(nn.Module):
    """uint8 (N, 48, 48) or (N, 1, 48, 48), values 0..255 -> logits float (N, classes).

    `width` is the number of channels of the first convolution: 64 gives 6.57 M parameters, 32 gives 1.65 M.
    Any multiple of 8 is a valid size, since the last map is pooled as a whole; floats are taken too and read
    on the same 0..255 scale (augmented training batches). The layout is the ResNet9 of D. Page, "How to train
    your ResNet", 2018 (myrtle.ai), with the pool over all 6x6 cells that a 48x48 input leaves.
    """

    def __init__(
        self,
        width: int = 64,
        classes: int = len(LABELS),
        mean: float = DEFAULT.mean,
        std: float = DEFAULT.std,
    ) -> None:
        super().__init__()
        self.width = width
        self.mean, self.std = mean, std
        self.features = nn.Sequential()
        channels = 1
        for stage in STAGES:
            wide = stage.channels * width
            residual = isinstance(stage, architecture.Residual)
            self.features.append(Residual(wide) if residual else ConvBlock(channels, wide, stage.pool))
            channels = wide
        self.classifier = nn.Linear(channels, classes)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def embed(self, x: Tensor) -> Tensor:
        """The pooled last map, (N, 8 * width)."""
        if x.ndim == 3:
            x = x.unsqueeze(1)
        dtype = self.classifier.weight.dtype
        x = (x.to(dtype) - 255 * self.mean) / (255 * self.std)
        return self.features(x.contiguous(memory_format=torch.channels_last)).amax(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


class FusedBlock(nn.Module):
    """A ConvBlock whose batch norm is folded into its convolution; for inference.

    ReLU comes after the pool, where it has a quarter of the work: the maximum commutes with it, and with the bias.
    oneDNN adds the bias within the convolution; cuDNN would in a pass of its own, so there it comes after the pool too.
    """

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        convolution, norm = block[0], block[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        folded = fuse_conv_bn_eval(convolution, norm)
        self.weight, self.bias = folded.weight, folded.bias
        self.pool = isinstance(block[-1], nn.MaxPool2d)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        late = self.pool and x.is_cuda
        x = F.conv2d(x, self.weight, None if late else self.bias, padding=1)
        if self.pool:
            x = F.max_pool2d(x, 2)
        if late:
            x.add_(self.bias[:, None, None])
        return x.relu_()


@torch.no_grad()
def fuse(model: ResNet9) -> ResNet9:
    """A copy for inference with each batch norm folded into its convolution: same answers, fewer passes.

    The copy is in eval mode and cannot be trained further.
    """
    fused = ResNet9(model.width, model.classifier.out_features, model.mean, model.std)
    fused.load_state_dict(model.state_dict())
    fused.to(model.classifier.weight.device, model.classifier.weight.dtype).eval()
    for parent in list(fused.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConvBlock):
                setattr(parent, name, FusedBlock(child))
    return fused.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
