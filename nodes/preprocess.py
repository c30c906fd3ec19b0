"""The one way from a face box in a grey frame to the picture the emotion network reads.

Training, evaluation, the detector node and the synthetic camera all take the label list and the crop from
here, so that the network meets at run time what it saw in training. The detector's process imports this
file: it must never import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from pydantic import ConfigDict, Field

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The classes of FER2013 in the data set's own order: index = class number."""
UNCERTAIN = "uncertain"
"""The label of a face of which no class is probable enough."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a face is cut. It is stored in the header of the weights trained with it.

    `margin` is added on each side of the box as a fraction of its side (0.1: the cut is 1.2 times as wide;
    negative: tighter than the box). `size` is the side of the cut in pixels. `mean` and `std` (of values
    scaled to 0..1) are applied inside the network, which takes the uint8 cut as it is.

    The bounds are for what is read from a file; they are not checked here.
    """

    margin: Annotated[float, Field(gt=-0.5, le=2.0, allow_inf_nan=False)]
    size: Annotated[int, Field(ge=8, le=512, multiple_of=8)] = 48  # the network halves it three times
    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.5
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5


Preprocess.__pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportAttributeAccessIssue]


DEFAULT = Preprocess(margin=0.0)


def preprocess(grey: np.ndarray, box: tuple[float, float, float, float], spec: Preprocess = DEFAULT) -> np.ndarray:
    """Cut one face: uint8 (H, W) and box (x, y, w, h) in pixels -> uint8 (spec.size, spec.size).

    The cut is the square around the box's centre, as wide as the box's longer side plus the margin, rounded
    to whole pixels. What lies outside the frame repeats the frame's edge. Only the cut's own pixels are read.

    Raises ValueError if the frame is not uint8 (H, W), or the box is not finite or not wider than 0.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8 or grey.size == 0:
        raise ValueError(f"a grey frame is uint8 (H, W), not {grey.dtype} {grey.shape}")
    x, y, w, h = (float(v) for v in box)
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise ValueError(f"a face box is (x, y, w, h) with w, h > 0, not {tuple(box)}")

    side = max(1, round(max(w, h) * (1 + 2 * spec.margin)))
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    cut = _square(grey, left, top, side)
    if side == spec.size:
        return cut.copy()  # the frame is a slot of shared memory that somebody fills again
    shrinking = side > spec.size
    return cv2.resize(cut, (spec.size, spec.size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def _square(grey: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """The square at (left, top), its part outside the frame filled from the nearest edge."""
    height, width = grey.shape
    # At least one row and column stay inside, so that a box beside the frame still has an edge to repeat.
    x0, x1 = min(max(left, 0), width - 1), max(min(left + side, width), 1)
    y0, y1 = min(max(top, 0), height - 1), max(min(top + side, height), 1)
    inside = grey[y0:y1, x0:x1]
    before_x, before_y = min(max(-left, 0), side - 1), min(max(-top, 0), side - 1)
    after_x, after_y = side - before_x - inside.shape[1], side - before_y - inside.shape[0]
    if not (before_x or before_y or after_x or after_y):
        return inside
    return cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
