"""The faces in pictures and their expressions, in a program of one's own, without a graph and its processes.

uv run python docs/examples/pictures.py PICTURE ...

A `Harness` runs one node in this process. The nodes' properties are those of configs/graphs/photos.yaml, the graph for
folders of pictures: each picture stands for itself, and comes a second after the one before.
"""

import os
import sys
from pathlib import Path

import cv2
import numpy as np

from nodes.capture.container import is_cut
from nodes.emotion.node import Emotion
from nodes.haardetect import HaarDetect
from pipeline import Harness

detector = HaarDetect(full_scan_interval=0, track_confirm=1, track_gap=0)
with Harness(detector) as faces, Harness(Emotion(smoothing=0)) as mood:
    for number, path in enumerate(map(Path, sys.argv[1:])):
        name = os.fsencode(path).decode(errors="backslashreplace")  # it need not be UTF-8, nor would cv2.imread take it
        data = path.read_bytes() if path.is_file() else b""
        whole = data and not is_cut(data)  # OpenCV fills up what is missing of a JPEG with grey
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if whole else None
        if frame is None:  # else uint8, height x width x 3, BGR
            print(f"{name}: no picture, or cut short")
            continue
        for picture in mood.push_all(faces.push(frame, pts=number * 1_000_000_000)):
            if not picture.regions:
                print(f"{name}: no face")
            for face in picture.regions:
                x, y, width, height = face.box
                # face.label is "uncertain" where none of face.scores reaches the node's `threshold`.
                score = max((face.scores or {}).values())
                print(f"{name}: {x:.0f},{y:.0f} {width:.0f}x{height:.0f} {face.label} {score:.2f}")
