"""The `fer` package on single faces: `python fer_faces.py COUNT SIDE FRAME` prints a JSON list of what it says of each.

From stdin come COUNT pairs, a face of SIDE x SIDE grey bytes and the same face in a larger frame, FRAME x FRAME.
`face`: its network's label of the face as it is, prepared as the package prepares it. `frame`: the faces that it finds
in the frame, each as [box, label].
"""

from __future__ import annotations

import json
import sys
from typing import Any

import cv2
import numpy as np
from fer.fer import FER


def main() -> None:
    count, side, frame_side = (int(number) for number in sys.argv[1:])
    package = FER()
    said = []
    for _ in range(count):
        face, frame = _grey(side), _grey(frame_side)
        found = package.detect_emotions(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
        said.append({"face": _label(package, face), "frame": [_named(one) for one in found]})
    print(json.dumps(said))


def _grey(side: int) -> np.ndarray:
    return np.frombuffer(sys.stdin.buffer.read(side * side), np.uint8).reshape(side, side)


def _label(package: FER, face: np.ndarray) -> str:
    prepared = (cv2.resize(face, (64, 64)).astype(np.float32) / 255 - 0.5) * 2
    names = package._get_labels()
    return names[int(np.argmax(package._classify_emotions(prepared[None])[0]))]


def _named(found: dict[str, Any]) -> tuple[list[int], str]:
    return [int(value) for value in found["box"]], max(found["emotions"], key=found["emotions"].get)


if __name__ == "__main__":
    main()
