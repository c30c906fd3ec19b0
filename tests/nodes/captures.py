"""What the tests of `capture` have in common."""

from __future__ import annotations

from pathlib import Path

import av
import cv2

from nodes.capture import Capture
from pipeline.harness import Harness
from tests.nodes.films import grey

SHARED = sorted((Path(__file__).parents[3] / "shared" / "videos").glob("*.m[kp][v4]"))
OPTIONAL = {"required": False, "width": 64, "height": 48}
"""Properties of a camera that may be away at the start."""


def count_by_av(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def harness(uri: Path | str | int, lossless: bool = True, **properties: object) -> Harness:
    value = uri if isinstance(uri, int) else str(uri)
    return Harness(Capture("door", uri=value, **properties), lossless=lossless)


def album(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), grey(index))
    return folder


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def halve(path: Path, share: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
