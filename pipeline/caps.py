"""Caps and pads: what may travel over a link, declared once per node and checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ANY = "ANY"
"""Media type of a pad that takes whatever comes (`fakesink`, `publish`)."""

FORMATS = {"BGR": 3, "GRAY8": 1}
"""Pixel formats of `video/raw` and their channels; samples are uint8, rows top to bottom."""

Access = Literal["none", "read", "write"]


@dataclass(frozen=True)
class Pad:
    """One end of a link.

    media, format: what travels, e.g. `video/raw` in `BGR`. An empty format means any.
    needs: (sink pads) metadata that must have been added upstream, e.g. `{"faces"}`.
    adds: (src pads) metadata that this node adds; everything from upstream passes through as well.
    access: (sink pads) what the node does with the pixels. `write` lets it draw on the frame; where another
        branch of a tee reads the same pixels, it gets a copy of its own to draw on.
    """

    media: str = "video/raw"
    format: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    adds: frozenset[str] = frozenset()
    access: Access = "read"

    def __str__(self) -> str:
        text = self.media
        if self.format:
            names = self.format[0] if len(self.format) == 1 else "{" + ",".join(self.format) + "}"
            text += f", format={names}"
        extra = self.needs | self.adds
        if extra:
            text += f", meta={'+'.join(sorted(extra))}"
        return text


def pad(
    media: str = "video/raw",
    *,
    format: str | tuple[str, ...] = (),
    needs: str | set[str] = frozenset(),  # type: ignore[assignment]
    adds: str | set[str] = frozenset(),  # type: ignore[assignment]
    access: Access = "read",
) -> Pad:
    """Declare a pad: `sink = pad("video/raw", format="BGR", needs="faces", access="none")`."""

    def names(value: str | set[str]) -> frozenset[str]:
        return frozenset({value} if isinstance(value, str) else value)

    formats = (format,) if isinstance(format, str) else tuple(format)
    return Pad(media, formats, names(needs), names(adds), access)


def mismatch(offered: Pad, metadata: frozenset[str], wanted: Pad) -> str | None:
    """Why `offered` (with the metadata gathered so far) cannot feed `wanted`; None when the caps meet."""
    have = Pad(offered.media, offered.format, adds=metadata)
    need = Pad(wanted.media, wanted.format, needs=wanted.needs)
    text = f"offered {have}; needed {need}"
    if wanted.media != ANY and offered.media not in (wanted.media, ANY):
        return text
    if offered.format and wanted.format and not set(offered.format) & set(wanted.format):
        return text
    missing = wanted.needs - metadata
    if missing:
        return f"{text} (no node upstream adds {' or '.join(repr(m) for m in sorted(missing))})"
    return None
