"""Parts of a frame, as people give them: rectangles in fractions of its sides.

    faces: {type: haardetect, roi: [0, 0.2, 1, 0.6]}
    faces: {type: haardetect, roi: {door: [0.5, 0, 0.5, 1], desk: [[0, 0, 0.4, 1], [0.6, 0, 0.4, 1]]}}

A rectangle is x, y, width, height; in a launch string `roi=0,0.2,1,0.6` as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BeforeValidator

from nodes.motion import Area

EVERY = ""
"""In place of a camera's name: all that are not named."""

_ROUNDING = 1e-6
"""By which two fractions may be above 1 together: 0.7 and 0.3 are not exactly that."""


class Rectangle(NamedTuple):
    """Fractions of the frame's width and height, 0 to 1; x and y are its upper left corner's."""

    x: float
    y: float
    width: float
    height: float

    def area(self, height: int, width: int) -> Area:
        """The pixels that it touches in a frame of this size, at least one."""
        left, top = min(int(self.x * width), width - 1), min(int(self.y * height), height - 1)
        right = max(left + 1, math.ceil((self.x + self.width) * width - _ROUNDING))
        bottom = max(top + 1, math.ceil((self.y + self.height) * height - _ROUNDING))
        return left, top, min(right, width), min(bottom, height)


def _rectangle(value: Any) -> Rectangle:
    try:
        x, y, width, height = (float(number) for number in value if not isinstance(number, bool))
    except (TypeError, ValueError):
        raise ValueError(
            "a rectangle is [x, y, width, height] in fractions of the frame, such as [0, 0.2, 1, 0.6]"
        ) from None
    found = Rectangle(x, y, width, height)
    if not all(0 <= number <= 1 for number in found):
        raise ValueError("x, y, width and height of a rectangle are fractions of the frame, from 0 to 1")
    for size, begin in (("width", "x"), ("height", "y")):
        if getattr(found, size) <= 0:
            raise ValueError(f"a rectangle's {size} is more than 0")
        if getattr(found, begin) + getattr(found, size) > 1 + _ROUNDING:
            raise ValueError(f"{begin} and {size} of a rectangle are more than 1 together")
    return found


def _rectangles(value: Any) -> list[Rectangle]:
    """One, or a list of them. Raises ValueError."""
    if isinstance(value, str):
        return [_rectangle(value.split(","))]
    if isinstance(value, list | tuple) and (not value or isinstance(value[0], list | tuple)):
        return [_rectangle(part) for part in value]
    return [_rectangle(value)]


def _by_camera(value: Any) -> dict[str, list[Rectangle]]:
    if isinstance(value, Mapping):
        if not all(isinstance(camera, str) for camera in value):
            raise ValueError("a camera's name that is more to YAML than a word, such as on or no, needs quotes")
        return {camera: _rectangles(part) for camera, part in value.items()}
    return {} if value in ([], "") else {EVERY: _rectangles(value)}


_As = list[float] | list[list[float]] | str
Rectangles = Annotated[list[Rectangle], BeforeValidator(_rectangles, json_schema_input_type=_As)]
"""Property type: rectangles."""
RectanglesByCamera = Annotated[
    dict[str, list[Rectangle]], BeforeValidator(_by_camera, json_schema_input_type=_As | dict[str, _As])
]
"""Property type: rectangles for all cameras, or a map that gives some of them their own."""


def of_camera(given: Mapping[str, list[Rectangle]], camera: str) -> list[Rectangle]:
    return given.get(camera, given.get(EVERY, []))


def named(given: Mapping[str, list[Rectangle]]) -> list[str]:
    """The cameras that have rectangles of their own."""
    return [camera for camera in given if camera != EVERY]


def inside(boxes: np.ndarray, areas: Sequence[Area]) -> np.ndarray:
    """bool (N,): whether the middle of a box, (N, 4) x y width height, lies in one of the areas."""
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    found = np.zeros(len(boxes), bool)
    for left, top, right, bottom in areas:
        found |= ((middle >= (left, top)) & (middle < (right, bottom))).all(axis=1)
    return found


def common(areas: Iterable[Area], others: Sequence[Area]) -> list[Area]:
    """What of each area lies in each of the others."""
    pairs = [(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])) for a in areas for b in others]
    return [area for area in pairs if area[0] < area[2] and area[1] < area[3]]
