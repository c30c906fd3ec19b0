"""Frames of the synthetic camera, for tests of what looks for faces."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from nodes.testsrc import TestSrc
from pipeline import Buffer, Harness


def camera(count: int, **properties: Any) -> list[Buffer]:
    """Frames of a synthetic camera, small so that searching them is quick: faces from 60 to 84 pixels."""
    size = {"width": 320, "height": 240, "min_face": 0.25, "max_face": 0.35, "seed": 5}
    with Harness(TestSrc(name="synthetic", **(size | properties))) as h:
        return h.pull(count)


def grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
