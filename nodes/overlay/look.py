"""How the overlay looks: one colour per expression, and every size from the size of the frame."""

from __future__ import annotations

from typing import NamedTuple

from nodes.lettering import CAP, DARK, LIGHT, Colour, text_size
from nodes.preprocess import UNCERTAIN


def _bgr(hexadecimal: str) -> Colour:
    red, green, blue = bytes.fromhex(hexadecimal)
    return blue, green, red


COLOURS: dict[str, Colour] = {
    "angry": _bgr("C4300C"),
    "disgust": _bgr("12AE74"),
    "fear": _bgr("C08FDC"),
    "happy": _bgr("FFEE55"),
    "sad": _bgr("3A5BD0"),
    "surprise": _bgr("EA8E0C"),
    "neutral": _bgr("D6F3F5"),
    UNCERTAIN: _bgr("545058"),
}
"""Okabe and Ito's palette for all kinds of colour vision (jfly.uni-koeln.de/color, 2008) and two greys, moved apart
until every two labels differ by 20 or more in CIELAB for normal, protan, deutan and tritan sight (as simulated by
Machado et al. 2009, doi:10.1109/TVCG.2009.113). A test computes that."""


def colour_of(label: str | None) -> Colour:
    """A face without a label, and a label that is not in the table, are white."""
    return LIGHT if label is None else COLOURS.get(label, LIGHT)


def ink(colour: Colour) -> Colour:
    """Dark or light, whichever is read better on `colour`."""
    blue, green, red = colour
    return DARK if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else LIGHT


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` (0-1) of `other` in `one`."""
    blue, green, red = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return blue, green, red


class Look(NamedTuple):
    """Sizes in pixels. line: of a box, twice as thick in its corners; halo: the outline around it."""

    text: int
    line: int
    halo: int
    gap: int
    radius: int
    bar: int

    @classmethod
    def of(cls, height: int, width: int, thickness: int = 0) -> Look:
        """For a frame; `thickness` of the lines in pixels, 0 to follow the frame too."""
        text = text_size(height, width)
        return cls(
            text=text,
            line=thickness or max(1, round(text / 7)),
            halo=max(1, round(text / 20)),
            gap=max(3, round(text * 0.36)),
            radius=round(text * 0.25),
            bar=max(2, round(text * 0.2)),
        )

    @property
    def cap(self) -> int:
        """Height of a capital letter."""
        return round(CAP * self.text)
