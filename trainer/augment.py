"""Augmentation of a whole batch at once, on whatever device the batch lives.

One affine resampling does flip, shift, rotation, scale and the change of size; then light, then erasing.
All randomness comes from the generator given, so that a run can be repeated and resumed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.recipe import Augment


def augment(images: Tensor, recipe: Augment, size: int, generator: torch.Generator) -> Tensor:
    """uint8 (N, H, W) -> float32 (N, 1, size, size), values on the 0..255 scale."""
    count, side = images.shape[0], images.shape[-1]
    device = images.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, device=device, generator=generator) * (high - low) + low

    angle = uniform(-recipe.rotate, recipe.rotate) * (math.pi / 180)
    zoom = torch.exp(uniform(math.log(recipe.scale[0]), math.log(recipe.scale[1])))
    mirror = torch.where(uniform(0, 1) < recipe.flip, -1.0, 1.0)
    # Grid units: the picture spans -1..1, so a shift by the whole side is 2.
    shift_x, shift_y = (2 * uniform(-recipe.translate, recipe.translate) for _ in range(2))
    if recipe.crop_padding:
        whole = [torch.floor(uniform(-recipe.crop_padding, recipe.crop_padding + 1)) for _ in range(2)]
        shift_x, shift_y = shift_x + whole[0] * (2 / side), shift_y + whole[1] * (2 / side)
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    theta = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift_x], dim=1),
            torch.stack([sine * mirror, cosine, shift_y], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    x = F.grid_sample(images.unsqueeze(1).float(), grid, mode="bilinear", padding_mode=recipe.fill, align_corners=False)

    if recipe.contrast or recipe.brightness:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        gain = uniform(1 - recipe.contrast, 1 + recipe.contrast).view(-1, 1, 1, 1)
        offset = 255 * uniform(-recipe.brightness, recipe.brightness).view(-1, 1, 1, 1)
        x = ((x - mean) * gain + mean + offset).clamp(0, 255)
    if recipe.erase:
        x = _erase(x, recipe, uniform)
    return x


def _erase(x: Tensor, recipe: Augment, uniform) -> Tensor:
    """One rectangle per chosen picture becomes one random grey (Zhong et al., "Random Erasing", 2017)."""
    size = x.shape[-1]
    area = uniform(*recipe.erase_area)
    aspect = torch.exp(uniform(math.log(0.4), math.log(2.5)))
    width, height = size * torch.sqrt(area * aspect), size * torch.sqrt(area / aspect)
    left, top = uniform(0, 1) * (size - width), uniform(0, 1) * (size - height)
    chosen = uniform(0, 1) < recipe.erase
    grey = uniform(0, 255)
    cells = torch.arange(size, device=x.device)

    def inside(start: Tensor, length: Tensor) -> Tensor:
        return (cells >= start[:, None]) & (cells < (start + length)[:, None])

    mask = inside(top, height)[:, :, None] & inside(left, width)[:, None, :] & chosen[:, None, None]
    return torch.where(mask.unsqueeze(1), grey.view(-1, 1, 1, 1), x)


def resize(images: Tensor, size: int) -> Tensor:
    """`augment` that changes nothing but the size: uint8 (N, H, W) -> float32 (N, 1, size, size)."""
    x = images.unsqueeze(1).float()
    return x if images.shape[-1] == size else F.interpolate(x, (size, size), mode="bilinear")
