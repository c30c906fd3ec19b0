"""emograph launch "testsrc faces=3 ! haardetect ! emotion ! overlay ! display"

Draws what the graph found onto the frame, in place: a box per face in the colour of its expression, the label with
its probability as text and as a bar, the track id, the camera's name and the frame's age. It only draws: it
decides nothing and changes no metadata.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from nodes.lettering import Colour, block, shorten
from nodes.motion import Area
from nodes.overlay.look import Look, colour_of, ink
from nodes.overlay.notes import Chip, Note, Panel
from nodes.overlay.placement import Rect, place
from pipeline import Buffer, Properties, Transform, pad


class Overlay(Transform):
    """Draws boxes, expressions, camera name and latency onto the frame, legible at every frame size."""

    sink = pad("video/raw", format="BGR", needs="faces", access="write")
    src = pad("video/raw", format="BGR")

    class Properties(Properties):
        labels: bool = Field(True, description="write label, probability and track id at each face")
        camera: bool = Field(True, description="write the camera's name into the lower left corner")
        latency: bool = Field(
            True, description="write the frame's age, from capture to here, into the lower right corner"
        )
        bars: Literal["none", "top", "all"] = Field(
            "top", description="probability bars: none, of the label, or of all labels where there is room"
        )
        blur: bool = Field(
            False, description="make detected faces unrecognisable; one that was not detected stays as it is"
        )
        roi: bool = Field(False, description="darken what haardetect leaves out: what is outside its roi, or ignored")
        thickness: int = Field(0, ge=0, le=64, description="line width of a box in pixels; 0: by frame size")

    def transform(self, buffer: Buffer) -> Buffer:
        frame, props = buffer.frame, self.props
        size = height, width = frame.shape[:2]
        look = Look.of(height, width, props.thickness)
        faces = [(r, box) for r in buffer.regions if (box := visible_part(r.box, height, width))]
        boxes = [box for _, box in faces]
        if props.blur:
            for box in boxes:
                obscure(frame, box)
        if props.roi:
            darken(frame, buffer.meta.get("roi", ()), buffer.meta.get("ignore", ()))
        for region, box in faces:
            draw_box(frame, box, colour_of(region.label), look)
        taken = self._draw_corners(frame, buffer, look)
        columns = math.ceil(math.sqrt(len(faces)))  # of a grid that would hold all notes side by side
        for region, box in faces if props.labels else ():
            note = Note(region, look, width // columns, bar=props.bars == "top")
            if note.size[0]:
                x, y, _ = place(note.size, box.grown(look.halo), boxes, taken, size)
                taken.append(note.draw(frame, x, y))
        for region, box in faces if props.bars == "all" else ():
            if region.scores:
                panel = Panel(region, look, room=height * width // (4 * len(faces)))
                x, y, clear = place(panel.size, box.grown(look.gap), boxes, taken, size, beside=True)
                if clear:
                    taken.append(panel.draw(frame, x, y))
        return buffer

    def _draw_corners(self, frame: np.ndarray, buffer: Buffer, look: Look) -> list[Rect]:
        """Camera name lower left, latency lower right; returns what they cover."""
        height, width = frame.shape[:2]
        taken: list[Rect] = []
        room = width - 2 * look.gap
        bottom = height - look.gap
        if self.props.latency:
            chip = Chip(age((self.clock() - buffer.captured) / 1e9), look)
            if chip.size[0] <= room:
                taken.append(chip.draw(frame, width - look.gap - chip.size[0], bottom - chip.size[1]))
                room -= chip.size[0] + look.gap
        name = shorten(buffer.stream, look.text, room - 2 * look.gap) if self.props.camera else ""
        if name:
            chip = Chip(name, look)
            taken.append(chip.draw(frame, look.gap, bottom - chip.size[1]))
        return taken


def age(seconds: float) -> str:
    """A latency for reading: `47 ms`, `1.2 s`, `95 s`."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def visible_part(box: tuple[float, float, float, float], height: int, width: int) -> Rect | None:
    """The part of a region's box that lies in the frame, or None when there is none."""
    x, y, w, h = box
    if not all(map(math.isfinite, box)) or w <= 0 or h <= 0:
        return None
    left, top = round(max(x, 0)), round(max(y, 0))
    right, bottom = round(min(x + w, width)), round(min(y + h, height))
    return Rect(left, top, right, bottom) if right > left and bottom > top else None


def obscure(frame: np.ndarray, box: Rect) -> None:
    """Replace a face, and a sixth of its size around it, by 6 x 6 flat blocks.

    That leaves one or two blocks to the eyes and to the mouth, too few to know a person or an expression by;
    each block is the mean of its pixels, so nothing can be computed back.
    """
    margin_x, margin_y = (box.right - box.left) // 6, (box.bottom - box.top) // 6
    part = frame[max(box.top - margin_y, 0) : box.bottom + margin_y, max(box.left - margin_x, 0) : box.right + margin_x]
    size = part.shape[1], part.shape[0]
    blocks = cv2.resize(part, (min(6, size[0]), min(6, size[1])), interpolation=cv2.INTER_AREA)
    part[:] = cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST)


def darken(frame: np.ndarray, roi: Sequence[Area], ignored: Sequence[Area]) -> None:
    """Half the brightness for what is outside of all areas of `roi`, if there are any, and for what is in `ignored`.

    Areas are left, top, right, bottom, in pixels.
    """
    if not (roi or ignored):
        return
    dark = cv2.convertScaleAbs(frame, alpha=0.5)
    bright = frame.copy()
    if roi:
        frame[:] = dark
    for left, top, right, bottom in roi:
        frame[top:bottom, left:right] = bright[top:bottom, left:right]
    for left, top, right, bottom in ignored:
        frame[top:bottom, left:right] = dark[top:bottom, left:right]


def draw_box(frame: np.ndarray, box: Rect, colour: Colour, look: Look) -> None:
    """A thin frame with strong corners, and an outline around them that shows it on any background."""
    reach = max(min(box.right - box.left, box.bottom - box.top) // 5, 2 * look.line)
    edge = 2 * look.halo
    frame_lines(frame, box.grown(look.halo), reach + edge, look.line + edge, 2 * look.line + edge, ink(colour))
    frame_lines(frame, box, reach, look.line, 2 * look.line, colour)


def frame_lines(image: np.ndarray, box: Rect, reach: int, thin: int, thick: int, colour: Colour) -> None:
    """Lines `thin` along the inside of the box's edge, `thick` up to `reach` from each corner."""
    left, top, right, bottom = box
    for y, below in ((top, 0), (bottom, 1)):
        block(image, left, y - thin * below, right - left, thin, colour)
        block(image, left, y - thick * below, reach, thick, colour)
        block(image, right - reach, y - thick * below, reach, thick, colour)
    for x, beyond in ((left, 0), (right, 1)):
        block(image, x - thin * beyond, top, thin, bottom - top, colour)
        block(image, x - thick * beyond, top, thick, reach, colour)
        block(image, x - thick * beyond, bottom - reach, thick, reach, colour)
