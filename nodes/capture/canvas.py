"""Puts a decoded picture into its frame slot: in place where the sizes agree, scaled where they do not.

`emograph launch "capture uri=0 width=640 ! fakesink"` scales here.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


class Canvas:
    """The size that a source said its frames have, and the way there from whatever comes.

    source: (height, width) of the first picture; None where it is still to come, which needs both of the next.
    height, width: the wanted ones; with one of them the other follows from the aspect, with both the picture is
    stretched. A later picture of another shape (a camera that came back in another mode, or pictures of many sizes that
    shall have one) keeps its aspect and gets black borders.
    """

    def __init__(self, source: tuple[int, int] | None, height: int | None, width: int | None) -> None:
        if source is None:
            assert height is not None, "without a picture only both tell the size"
            assert width is not None, "without a picture only both tell the size"
            self.size = (height, width)
        else:
            rows, columns = source
            self.size = (
                height or max(1, round(rows * (width or columns) / columns)),
                width or max(1, round(columns * (height or rows) / rows)),
            )
        self._source = source
        self._scratch: np.ndarray | None = None

    def room_for(self, picture: np.ndarray) -> tuple[int, int]:
        """(height, width) of a picture that keeps its own size, scaled as the largest one is, and made to fit."""
        rows, columns = picture.shape[:2]
        height, width = self.size
        scale = min(height / max(rows, self._source[0]), width / max(columns, self._source[1])) if self._source else 1.0
        return max(1, round(rows * scale)), max(1, round(columns * scale))

    def write(self, take: Callable[[np.ndarray], np.ndarray | None], frame: np.ndarray) -> bool:
        """Have `take` decode into `frame` (uint8, height x width x 3); False when it has no picture.

        `take` gets an array to use if the size is right, and returns the one it used.
        """
        into = frame if self._scratch is None else self._scratch
        picture = take(into)
        if picture is None:
            return False
        if self._source is None:
            self._source = picture.shape[:2]
        if np.may_share_memory(picture, frame):
            return True
        if picture.shape == frame.shape:
            np.copyto(frame, picture)
            self._scratch = None
            return True
        self._scratch = picture
        rows, columns = picture.shape[:2]
        if (rows, columns) == self._source or self.room_for(picture) == frame.shape[:2]:
            _scale(picture, frame)
            return True
        scale = min(frame.shape[0] / rows, frame.shape[1] / columns)
        height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
        top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
        frame[:] = 0
        _scale(picture, frame[top : top + height, left : left + width])
        return True


def _scale(picture: np.ndarray, into: np.ndarray) -> None:
    height, width = into.shape[:2]
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    scaled = cv2.resize(picture, (width, height), dst=into, interpolation=method)
    if not np.may_share_memory(scaled, into):  # a view with borders: OpenCV made an array of its own
        np.copyto(into, scaled)
