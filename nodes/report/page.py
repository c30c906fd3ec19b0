"""The report's page: one HTML file that needs nothing else, readable without colour, JavaScript or a network.

What the template shows is worked out here; Jinja escapes every text, for a camera's name is what somebody typed.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from nodes.location import replace_file
from nodes.overlay.look import COLOURS, colour_of, ink
from nodes.report.timeline import Lane, axis, lanes
from nodes.report.tracks import Camera, Track
from pipeline.status import drops

SHOWN_TRACKS = 60
"""Tracks with a lane and a row of their own, of each camera; the longest ones."""


@dataclass
class Facts:
    """What a report is made of. begin: UTC ns; account: the run's last snapshot (docs/PROTOCOL.md), if there is one."""

    cameras: list[Camera]
    begin: int
    lossless: bool
    restarted: bool
    account: dict[str, Any] | None


def write_page(path: Path, facts: Facts) -> None:
    """Write the page, whole or not at all. Raises OSError."""
    replace_file(path, render(facts).encode())


def render(facts: Facts) -> str:
    """The page's HTML."""
    labels = _labels(facts.cameras)
    account = facts.account
    return _template().render(
        version=version("emograph"),
        begin=datetime.fromtimestamp(facts.begin / 1e9).astimezone(),
        facts=facts,
        account=account,
        labels=[{"name": name, "fill": _hex(name), "ink": _ink(name)} for name in labels],
        cameras=[_camera(camera, labels) for camera in facts.cameras],
        drops=drops,
        warnings=[m for m in account["messages"] if m["level"] in ("warning", "error")] if account else [],
        when=lambda ns: datetime.fromtimestamp(ns / 1e9).strftime("%H:%M:%S"),
    )


@cache
def _template() -> Any:
    loader = PackageLoader("nodes.report", "")
    environment = Environment(
        loader=loader, autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["clock"] = clock
    return environment.get_template("page.html.jinja")


def clock(seconds: float) -> str:
    """`0:07.5`, `12:30.0`, `1:02:03.0`."""
    tenths = max(0, round(seconds * 10))
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02}:{rest // 10:02}.{rest % 10}" if hours else f"{minutes}:{rest // 10:02}.{rest % 10}"
    return f"{hours}:{text}" if hours else text


def _labels(cameras: Iterable[Camera]) -> list[str]:
    """All expressions that there are, in the order of their colours, strange ones last."""
    found = {name for camera in cameras for name in camera.labels}
    for camera in cameras:
        for track in camera.tracks.values():
            found |= {name for bin_ in track.bins.values() for name in bin_.sums}
    return [n for n in COLOURS if n in found] + sorted(found - set(COLOURS))


def _camera(camera: Camera, labels: list[str]) -> dict[str, Any]:
    tracks = sorted(camera.tracks.values(), key=lambda t: t.frames, reverse=True)
    shown = sorted(tracks[:SHOWN_TRACKS], key=lambda t: (t.first, t.number or 0))
    drawn: list[Lane] = lanes([t for t in shown if t.number is not None], camera, labels, _hex, _ink)
    return {
        "camera": camera,
        "axis": axis(camera),
        "lanes": drawn,
        "rows": [_row(track, labels) for track in shown],
        "all": _shares(camera.labels, labels),
        "count": len(tracks) + camera.others,
        "more": len(tracks) - len(shown) + camera.others,
    }


def _row(track: Track, labels: list[str]) -> dict[str, Any]:
    return {"track": track, "shares": _shares(track.labels, labels), "picture": _picture(track)}


def _shares(counts: Counter[str], labels: list[str]) -> list[dict[str, Any]]:
    total = sum(counts.values())
    return [{"name": n, "fill": _hex(n), "share": counts[n] / total if total else 0.0} for n in labels]


def _picture(track: Track) -> str:
    """A data URI, "" where no picture was kept."""
    if track.patch is None:
        return ""
    png = cv2.imencode(".png", track.patch)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _hex(label: str) -> str:
    blue, green, red = colour_of(label)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _ink(label: str) -> str:
    blue, green, red = ink(colour_of(label))
    return f"#{red:02x}{green:02x}{blue:02x}"
