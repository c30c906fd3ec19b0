"""Caps and pads: what may travel over a link, declared once per node and checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import did_you_mean

ANY = "ANY"
"""Media type of a pad that takes whatever comes (`fakesink`, `publish`)."""

MEDIA = ("video/raw", ANY)
"""All media types."""

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
    format: str | Iterable[str] = (),
    needs: str | Iterable[str] = (),
    adds: str | Iterable[str] = (),
    access: Access = "read",
) -> Pad:
    """Declare a pad: `sink = pad("video/raw", format="BGR", needs="faces", access="none")`.

    Several names are one text with commas between them, or a set, list or tuple: `adds="faces,emotions"`.
    ValueError for a media type, format or access that there is not, and for a name that is empty.
    """
    formats = _names("format", format)
    for what, given, known in (
        ("media type", (media,), MEDIA), ("format", formats, FORMATS), ("access", (access,), get_args(Access)),
    ):  # fmt: skip
        for name in given:
            if name not in known:
                raise ValueError(f"pad(): unknown {what} {name!r}{did_you_mean(str(name), known)}")
    return Pad(media, formats, frozenset(_names("needs", needs)), frozenset(_names("adds", adds)), access)


def _names(what: str, given: str | Iterable[str]) -> tuple[str, ...]:
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str) or not name.strip() or "," in name:
            raise ValueError(f"pad(): {what}={given!r}: {name!r} is no name")
    return tuple(names)


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
