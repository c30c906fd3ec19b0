"""Each picture of the data set as the live system would meet it: in a larger frame, found and cut there.

The frame is the picture enlarged four times with its edge pixels repeated around it; finding and cutting are
the haardetect node's own code, with its default properties.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nodes.facedetector import FaceDetector, cut_patches
from nodes.preprocess import DEFAULT, Preprocess

ENLARGED = 192
BORDER = 96


@dataclass(frozen=True)
class Found:
    """`index` int (M,): which pictures had a face found; `patches` uint8 (M, 48, 48): its cut."""

    index: np.ndarray
    patches: np.ndarray


def find_faces(images: np.ndarray, spec: Preprocess = DEFAULT) -> Found:
    """Look for one face in each picture, uint8 (N, 48, 48); of several the one that overlaps it most is taken."""
    detector = FaceDetector()
    index, patches = [], []
    for i, image in enumerate(images):
        frame = in_a_frame(image)
        boxes, _ = detector.detect(frame)
        if len(boxes):
            index.append(i)
            patches.append(cut_patches(frame, [boxes[best_box(boxes)]], spec)[0])
    return Found(np.array(index, int), np.array(patches, np.uint8).reshape(-1, spec.size, spec.size))


def in_a_frame(image: np.ndarray) -> np.ndarray:
    """uint8 (48, 48) -> uint8 (384, 384), the picture at BORDER..BORDER + ENLARGED."""
    large = cv2.resize(image, (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC)
    return cv2.copyMakeBorder(large, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)


def best_box(boxes: np.ndarray) -> int:
    """Which of the boxes (N, 4) of a frame overlaps the enlarged picture most."""
    return max(range(len(boxes)), key=lambda i: _overlap(boxes[i]))


def _overlap(box: np.ndarray) -> float:
    """Intersection over union of a box with the enlarged picture."""
    x, y, w, h = box
    end = BORDER + ENLARGED
    inside = max(min(x + w, end) - max(x, BORDER), 0) * max(min(y + h, end) - max(y, BORDER), 0)
    return inside / (w * h + ENLARGED**2 - inside)
