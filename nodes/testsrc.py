"""A synthetic camera with known answers: `emograph launch "testsrc faces=3 ! haardetect ! overlay ! display"`.

Figures that move, grow, shrink and change their expression in front of a drifting background, for tests and
demos that need no camera and no person's picture. Each face is a class mean of FER2013 (nodes/testsrc_faces.png),
so cascades find it and a trained network reads it. What is where is attached as `truth`:

    buffer.meta["truth"] = [{"box": [x, y, w, h], "label": "happy", "next": "sad", "mix": 0.25}, ...]

Frame n depends on the properties and n alone: two runs are equal to the bit, and `seek` is exact.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field, model_validator

from nodes.preprocess import LABELS
from nodes.rates import RateOrZero
from pipeline import Buffer, Seconds, Source, SourceProperties, UserError, VideoInfo, pad

FREE_RATE = 30.0
"""Frames per second of PTS where the source runs as fast as possible."""

# A figure in units of its face's side: the face is a square, hair above it, neck and shoulders below.
FIGURE_WIDTH, FIGURE_HEIGHT, ABOVE_FACE = 1.5, 2.0, 0.3
DRAWN_SIDE = 256
"""Figures are drawn at about the size in which they are shown, but no larger than this, and scaled from there."""
SMALLEST = 12
"""Side in pixels of the smallest face worth drawing."""
DRIFT = 96
"""Pixels that the background drifts at the most, each way."""

SKIN = ((0.70, 0.93, 1.20), (0.62, 0.90, 1.27), (0.74, 0.90, 1.24), (0.56, 0.88, 1.33))
HAIR = ((28, 34, 46), (20, 24, 28), (38, 62, 96), (58, 74, 92), (34, 44, 78))
GREY_WEIGHTS = (0.114, 0.587, 0.299)
"""Of blue, green and red in OpenCV's grey."""


class TestSrcProperties(SourceProperties):
    faces: int = Field(1, ge=0, le=64, description="how many")
    width: int = Field(640, ge=16, le=16384, description="pixels")
    height: int = Field(480, ge=16, le=16384, description="pixels")
    fps: RateOrZero = Field(
        15.0, ge=0, le=1000, description="frames per second; 0: as fast as possible, PTS 1/30 s apart"
    )
    num_buffers: int = Field(0, ge=0, description="end after so many frames; 0: never")
    duration: Seconds = Field(0.0, description="end after so much stream time; 0: never")
    seed: int | None = Field(None, ge=0, description="another seed, other faces and ways; unset: the node's name")
    hold: Seconds = Field(2.0, description="time for which an expression stays")
    morph: Seconds = Field(1.0, description="time in which it becomes the next")
    min_face: float = Field(0.2, gt=0, le=1, description="smallest side of a face, fraction of the frame's height")
    max_face: float = Field(0.4, gt=0, le=1, description="largest; many faces get smaller, so that all have room")

    @model_validator(mode="after")
    def _consistent(self) -> TestSrcProperties:
        if self.min_face > self.max_face:
            raise ValueError(f"min_face {self.min_face} is above max_face {self.max_face}")
        if self.hold + self.morph < 0.001:
            raise ValueError("hold and morph together must be 1ms or more")
        if self.faces and (smallest := _sizes(self)[0]) < SMALLEST:
            raise ValueError(
                f"{self.faces} face{'s' * (self.faces > 1)} in {self.width}x{self.height} would be {smallest:.0f} "
                f"pixels wide, less than {SMALLEST}; take fewer faces, a larger frame or a larger min_face"
            )
        return self


class TestSrc(Source):
    """Synthetic camera: moving faces of known place and expression. Adds `truth` to the metadata.

    Faces never overlap: each has a part of the frame for itself. Which face is where, when it changes and how
    it looks depends on `seed`, by default on the node's name, so that two cameras differ.
    """

    __test__ = False  # for pytest: no test case, in spite of its name
    Properties = TestSrcProperties
    src = pad("video/raw", format="BGR", adds="truth")

    def open(self) -> VideoInfo:
        p = self.props
        seed = zlib.crc32(self.name.encode()) if p.seed is None else p.seed
        self._rate = p.fps or FREE_RATE
        self.paced = p.fps > 0 and not self.lossless
        limits = [n for n in (p.num_buffers, math.ceil(round(p.duration * self._rate, 6))) if n]
        self._end = min(limits, default=None)
        self._next = 0
        self._background = _Background(p.width, p.height, np.random.default_rng([seed, 0]))
        self._figures = self._make_figures(seed)
        return VideoInfo(p.height, p.width, 3, self._rate)

    def seek(self, sequence: int) -> None:
        self._next = sequence

    def fill(self, buffer: Buffer) -> bool:
        n = self._next
        if self._end is not None and n >= self._end:
            return False
        t = n / self._rate
        self._background.draw(buffer.frame, t)
        buffer.pts = round(n * 1e9 / self._rate)
        buffer.meta["truth"] = [figure.draw(buffer.frame, t) for figure in self._figures]
        self._next = n + 1
        return True

    def _make_figures(self, seed: int) -> list[_Figure]:
        p = self.props
        if not p.faces:
            return []
        means = _read_means()
        smallest, largest = _sizes(p)
        return [
            _Figure(cell, smallest, largest, p.hold, p.morph, means, np.random.default_rng([seed, 1, i]))
            for i, cell in enumerate(_cells(p.width, p.height, p.faces))
        ]


def _sizes(p: TestSrcProperties) -> tuple[float, float]:
    """The smallest and the largest side of a face, pixels, where there is one."""
    cell = _cells(p.width, p.height, p.faces)[0]
    largest = min(p.max_face * p.height, cell.width / FIGURE_WIDTH, cell.height / FIGURE_HEIGHT)
    return min(p.min_face * p.height, 0.75 * largest), largest


@dataclass(frozen=True)
class _Cell:
    """The part of the frame that one figure never leaves, in pixels."""

    x: float
    y: float
    width: float
    height: float


def _cells(width: int, height: int, count: int) -> list[_Cell]:
    """`count` equal cells, as many in a row as gives the largest figures."""

    def room(columns: int) -> float:
        rows = math.ceil(count / columns)
        return min(width / columns / FIGURE_WIDTH, height / rows / FIGURE_HEIGHT)

    columns = max(range(1, count + 1), key=room)
    w, h = width / columns, height / math.ceil(count / columns)
    return [_Cell(i % columns * w, i // columns * h, w, h) for i in range(count)]


class _Wave:
    """A number in 0..1 that swings with a period and phase of its own."""

    def __init__(self, rng: np.random.Generator, shortest: float, longest: float) -> None:
        self._speed = 2 * math.pi / (shortest + (longest - shortest) * rng.random())
        self._phase = 2 * math.pi * rng.random()

    def at(self, t: float) -> float:
        return 0.5 + 0.5 * math.sin(self._speed * t + self._phase)


class _Background:
    """A soft pattern somewhat larger than the frame, of which each frame shows another part."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self._across, self._down = _Wave(rng, 17, 29), _Wave(rng, 13, 23)
        y, x = np.ogrid[: height + DRIFT, : width + DRIFT]
        x, y = x.astype(np.float32) / height, y.astype(np.float32) / height
        light = 0.9 + 0.1 * np.sin(2 * np.pi * (0.6 * x + 0.35 * y + rng.random()))
        light = light * (0.94 + 0.06 * np.sin(2 * np.pi * (1.7 * x - 1.1 * y + rng.random())))
        tone = np.array([[[int(180 * rng.random()), 60, 175]]], np.uint8)
        colour = cv2.cvtColor(tone, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)
        self._texture = (light[..., None] * colour).astype(np.uint8)

    def draw(self, frame: np.ndarray, t: float) -> None:
        height, width = frame.shape[:2]
        x, y = round(DRIFT * self._across.at(t)), round(DRIFT * self._down.at(t))
        frame[:] = self._texture[y : y + height, x : x + width]


class _Figure:
    """One figure: where it is, how large, with which expression, and its picture."""

    def __init__(
        self,
        cell: _Cell,
        smallest: float,
        largest: float,
        hold: float,
        morph: float,
        means: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        self._cell = cell
        self._smallest, self._largest = smallest, largest
        self._hold, self._morph = hold, morph
        self._across, self._down, self._size = _Wave(rng, 9, 14), _Wave(rng, 7, 12), _Wave(rng, 8, 15)
        # All expressions come by in turn, in an order of this figure's own; its phase tells it from the others.
        self._order = np.argsort(rng.random(len(LABELS)))
        self._ahead = (hold + morph) * rng.random()
        self._side = min(DRAWN_SIDE, round((smallest + largest) / 2))
        self._pictures, self._behind = _draw_figure(means, self._side, rng)

    def draw(self, frame: np.ndarray, t: float) -> dict[str, object]:
        """Draw the figure as it is at `t` seconds; returns its truth."""
        side = self._smallest + (self._largest - self._smallest) * self._size.at(t)
        left = self._cell.x + (self._cell.width - FIGURE_WIDTH * side) * self._across.at(t)
        top = self._cell.y + (self._cell.height - FIGURE_HEIGHT * side) * self._down.at(t)
        now, following, mix = self._expression(t)
        picture = self._pictures[now]
        if mix:
            picture = cv2.addWeighted(picture, 1 - mix, self._pictures[following], mix, 0)
        self._blend(frame, picture, left, top, side)
        box = [left + (FIGURE_WIDTH - 1) / 2 * side, top + ABOVE_FACE * side, side, side]
        return {
            "box": [round(v, 2) for v in box],
            "label": LABELS[now],
            "next": LABELS[following],
            "mix": round(mix, 3),
        }

    def _expression(self, t: float) -> tuple[int, int, float]:
        """The expression at `t`, the one after it, and how far the one has become the other."""
        turn, into = divmod(t + self._ahead, self._hold + self._morph)
        now, following = (int(self._order[(int(turn) + k) % len(LABELS)]) for k in (0, 1))
        part = max(0.0, into - self._hold) / self._morph if self._morph else 0.0
        return now, following, part * part * (3 - 2 * part)

    def _blend(self, frame: np.ndarray, picture: np.ndarray, left: float, top: float, side: float) -> None:
        """Lay the picture over the frame at fractions of a pixel, so that slow motion does not stutter."""
        scale = side / self._side
        x0, y0 = math.floor(left), math.floor(top)
        width = min(frame.shape[1] - x0, math.ceil(FIGURE_WIDTH * side) + 1)
        height = min(frame.shape[0] - y0, math.ceil(FIGURE_HEIGHT * side) + 1)
        # Pixel centres lie at .5, hence the shift by half a pixel of either scale.
        shift = scale / 2 - 0.5
        move = np.array([[scale, 0, left - x0 + shift], [0, scale, top - y0 + shift]])
        over = cv2.warpAffine(picture, move, (width, height))
        behind = cv2.warpAffine(self._behind, move, (width, height), borderValue=255)
        part = frame[y0 : y0 + height, x0 : x0 + width]
        cv2.multiply(part, cv2.merge((behind, behind, behind)), dst=part, scale=1 / 255)
        cv2.add(part, over, dst=part)


def _read_means() -> np.ndarray:
    """The faces: uint8 (7, 48, 48), class means of FER2013 in the order of LABELS."""
    path = Path(__file__).with_name("testsrc_faces.png")
    strip = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if strip is None or strip.shape != (48, 48 * len(LABELS)):
        raise UserError(f"{path.name} is missing or damaged; install emograph again")
    return strip.reshape(48, len(LABELS), 48).transpose(1, 0, 2)


def _draw_figure(means: np.ndarray, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A figure with a face `side` pixels wide, drawn with each of the faces uint8 (7, 48, 48).

    Returns its pictures, uint8 (7, H, W, 3), already weighted with how opaque they are, and how much of what is
    behind shows through, uint8 (H, W), 255 for all. The grey of a drawn face is the grey of its mean.
    """
    width, height = math.ceil(FIGURE_WIDTH * side), math.ceil(FIGURE_HEIGHT * side)
    tint = np.array(SKIN[int(len(SKIN) * rng.random())])
    tint /= tint @ GREY_WEIGHTS
    hair = np.array(HAIR[int(len(HAIR) * rng.random())])
    tone = np.array([[[int(180 * rng.random()), 150, 130]]], np.uint8)
    clothes = cv2.cvtColor(tone, cv2.COLOR_HSV2BGR)[0, 0]
    middle, top = width / 2, ABOVE_FACE * side

    def ellipse(y: float, rx: float, ry: float, soft: float) -> np.ndarray:
        """Mask float32 (height, width, 1), 0..1; measures in face sides, `y` of the centre from the face's top."""
        fine = 4
        mask = np.zeros((height * fine, width * fine), np.uint8)
        centre = (round(middle * fine), round((top + y * side) * fine))
        cv2.ellipse(mask, centre, (round(rx * side * fine), round(ry * side * fine)), 0, 0, 360, 255, -1)
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(mask, (0, 0), soft * side)[..., None].astype(np.float32) / 255

    # Shoulders fade towards the lower edge: the figure has no feet to stand on.
    fade = np.clip((height - 1 - np.arange(height, dtype=np.float32)) / (0.2 * side), 0, 1)[:, None, None]
    layers = [
        (ellipse(0.34, 0.60, 0.60, 0.015), hair),
        (ellipse(1.12, 0.28, 0.42, 0.02), 75 * tint),
        (ellipse(1.80, 0.72, 0.48, 0.010) * fade, clothes),
    ]
    body, opaque = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 1), np.float32)
    for mask, colour in layers:
        body = body * (1 - mask) + colour * mask
        opaque = opaque * (1 - mask) + mask
    mask = ellipse(0.47, 0.47, 0.56, 0.03)
    opaque = opaque * (1 - mask) + mask
    pictures = []
    for mean in means:
        move = np.array([[side / 48, 0, middle - side / 2], [0, side / 48, top]])
        face = cv2.warpAffine(mean, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        picture = body * (1 - mask) + _tinted(face, tint) * mask
        pictures.append(np.clip(np.round(picture), 0, 255).astype(np.uint8))
    return np.stack(pictures), np.round(255 * (1 - opaque[..., 0])).astype(np.uint8)


def _tinted(grey: np.ndarray, tint: np.ndarray) -> np.ndarray:
    """uint8 (H, W) -> float (H, W, 3) in a colour whose grey is 1; paler where it would be too bright to show."""
    light = np.maximum(grey[..., None].astype(np.float32), 1)
    strength = np.minimum(1, (255 / light - 1) / (tint.max() - 1))
    return light * (1 + strength * (tint - 1))
