"""Logits of a network for many faces, in one or several views each (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nodes.emotion.model import ResNet9, fuse
from trainer.metrics import softmax

VIEWS = {"none": 1, "flip": 2, "ten-crop": 10}
"""Levels of test-time augmentation and how many views each has."""

_CROP = 44
_BATCH = 512


@torch.inference_mode()
def predict_logits(net: ResNet9, images: np.ndarray, tta: str = "none") -> np.ndarray:
    """uint8 (N, 48, 48) -> logits float32 (views, N, 7), on the network's device, in float32."""
    device = net.classifier.weight.device
    fused = fuse(net)
    views: list[list[Tensor]] = [[] for _ in range(VIEWS[tta])]
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):  # TF32 is no float32
        for batch in torch.from_numpy(images).split(_BATCH):
            for view, x in zip(views, _views(batch.to(device), tta), strict=True):
                view.append(fused(x).cpu())
    return torch.stack([torch.cat(view) for view in views]).numpy()


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logits (views, N, 7) -> probabilities (N, 7), the mean over the views."""
    return softmax(logits, temperature).mean(axis=0)


def _views(images: Tensor, tta: str) -> Iterator[Tensor]:
    """The picture; its mirror image too; or four corners and centre of 44 px, each with its mirror image."""
    if tta != "ten-crop":
        yield images
        if tta == "flip":
            yield images.flip(-1)
        return
    side = images.shape[-1]
    far, middle = side - _CROP, (side - _CROP) // 2
    for top, left in ((0, 0), (0, far), (far, 0), (far, far), (middle, middle)):
        crop = images[:, top : top + _CROP, left : left + _CROP].unsqueeze(1).float()
        crop = F.interpolate(crop, (side, side), mode="bilinear")
        yield crop
        yield crop.flip(-1)
