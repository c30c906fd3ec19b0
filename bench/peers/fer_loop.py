"""The `fer` package on clips, frame by frame: `python fer_loop.py SECONDS CLIP ...` prints its frames/s."""

from __future__ import annotations

import sys
import time
from itertools import cycle

import cv2
from fer.fer import FER


def main() -> None:
    seconds, paths = float(sys.argv[1]), sys.argv[2:]
    detector = FER()
    videos = {path: cv2.VideoCapture(path) for path in paths}
    frames, start = 0, 0.0
    for path in cycle(paths):
        frame = videos[path].read()[1]
        if frame is None:
            videos[path] = cv2.VideoCapture(path)
            frame = videos[path].read()[1]
        detector.detect_emotions(frame)
        frames += 1
        if not start and frames == 2 * len(paths):  # the first ones load what was not loaded yet
            frames, start = 0, time.monotonic()
        if start and time.monotonic() - start >= seconds:
            break
    print(frames / (time.monotonic() - start))


if __name__ == "__main__":
    main()
