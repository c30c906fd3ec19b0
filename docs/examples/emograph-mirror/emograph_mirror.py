"""Shows each camera as a mirror does.

emograph launch "testsrc ! haardetect ! mirror ! overlay ! videosink location=mirror.mp4"
"""

from typing import Literal

import cv2
from pydantic import Field

from pipeline import Buffer, Properties, Transform, pad


class Mirror(Transform):
    """Flips the frame and the boxes on it."""

    class Properties(Properties):
        axis: Literal["horizontal", "vertical"] = Field("horizontal", description="which way to flip")

    sink = pad("video/raw", format="BGR", access="write")
    src = pad("video/raw", format="BGR")

    def transform(self, buffer: Buffer) -> Buffer:
        sideways = self.props.axis == "horizontal"
        cv2.flip(buffer.frame, 1 if sideways else 0, dst=buffer.frame)
        height, width, _ = buffer.shape
        for region in buffer.regions:
            x, y, w, h = region.box
            region.box = (width - x - w, y, w, h) if sideways else (x, height - y - h, w, h)
        return buffer
