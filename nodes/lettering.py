"""Text and plates on frames: one bundled font, each word rendered once and kept, blended in place.

Used by the nodes that draw (`overlay`, and `mosaic` for the sinks). OpenCV's own Hershey fonts are strokes that
blur at small sizes; this one stays legible with letters 7 pixels high. Nothing here knows what the text means.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
"""Blue, green, red; 0-255 each."""

DARK: Colour = (28, 22, 20)
LIGHT: Colour = (255, 255, 255)

CAP = 0.73
"""Height of a capital letter or a digit as a fraction of the text size."""

_FONT = Path(__file__).with_name("fonts") / "DejaVuSansCondensed-Bold.ttf"


def text_size(height: int, width: int) -> int:
    """The text size in pixels for a frame: 3 % of its shorter side, and never too small to read."""
    return max(10, round(0.03 * min(height, width)))


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONT), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=2048)
def _extent(text: str, size: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the drawn text, seen from where its baseline begins."""
    left, top, right, bottom = _font(size).getbbox(text, anchor="ls")
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def text_width(text: str, size: int) -> int:
    """Pixels that `text` takes in a row at `size` (the font's em in pixels)."""
    left, _, right, _ = _extent(text, size)
    return right - min(left, 0)


@lru_cache(maxsize=256)
def _render(text: str, size: int, colour: Colour) -> tuple[np.ndarray, np.ndarray, int]:
    """(colour times coverage, 255 minus coverage, rows above the baseline); the arrays are uint8 (h, w, 3)."""
    left, top, _, bottom = _extent(text, size)
    mask = Image.new("L", (text_width(text, size), bottom - top))
    # A letter may reach left of its origin; the text starts where it was asked to start.
    ImageDraw.Draw(mask).text((-min(left, 0), -top), text, 255, _font(size), anchor="ls")
    ink = np.asarray(mask)[..., None]
    painted = (ink * np.array(colour, np.uint16) // 255).astype(np.uint8)
    return painted, np.repeat(255 - ink, 3, axis=2), -top


def draw_text(image: np.ndarray, text: str, x: int, baseline: int, size: int, colour: Colour) -> None:
    """Blend `text` into `image` (uint8 (H, W, 3), changed in place), its lower left corner at (x, baseline).

    What lies outside the image is cut off.
    """
    painted, rest, above = _render(text, size, colour)
    y = baseline - above
    y0, y1 = max(y, 0), min(y + painted.shape[0], image.shape[0])
    x0, x1 = max(x, 0), min(x + painted.shape[1], image.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    within = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
    part = image[y0:y1, x0:x1]
    cv2.add(cv2.multiply(part, rest[within], scale=1 / 255), painted[within], part)


@lru_cache(maxsize=256)
def shorten(text: str, size: int, width: int) -> str:
    """`text`, or as much of its beginning as fits into `width` pixels with an ellipsis behind; `""` if none."""
    if text_width(text, size) <= width:
        return text

    def beginning(length: int) -> str:
        return text[:length].rstrip() + "…"

    longest = bisect_right(range(1, len(text)), width, key=lambda length: text_width(beginning(length), size))
    return beginning(longest) if longest else ""


def block(image: np.ndarray, x: int, y: int, width: int, height: int, colour: Colour) -> None:
    """A filled rectangle; nothing where it has no size, and what lies outside the image is cut off."""
    if width > 0 and height > 0:
        cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), colour, cv2.FILLED)


def plate(image: np.ndarray, x: int, y: int, width: int, height: int, colour: Colour, radius: int) -> None:
    """A filled rectangle with round, smooth corners; what lies outside the image is cut off."""
    outline = _round_corners(min(radius, width // 2, height // 2)) + np.array([16 * x, 16 * y], np.int32)
    outline[5:15, 0] += 16 * (width - 1)
    outline[10:, 1] += 16 * (height - 1)
    cv2.fillConvexPoly(image, outline, colour, cv2.LINE_AA, 4)


@lru_cache(maxsize=64)
def _round_corners(radius: int) -> np.ndarray:
    """Outline of a plate of 1 x 1 pixels but for its corners, clockwise, in sixteenths: int32 (20, 2)."""
    turn = np.linspace(0, np.pi / 2, 5)
    x, y = radius * (1 - np.cos(turn)), radius * (1 - np.sin(turn))
    quarters = [(x, y), (-x[::-1], y[::-1]), (-x, -y), (x[::-1], -y[::-1])]
    return np.round(16 * np.concatenate([np.stack(q, 1) for q in quarters])).astype(np.int32)
