"""The faces in pictures and their expressions, in a program of one's own, without a graph and its processes.

uv run python docs/examples/pictures.py PICTURE ...

A `Harness` runs one node in this process. The nodes' properties are those of configs/graphs/photos.yaml, the graph for
folders of pictures: each picture stands for itself, and comes a second after the one before.
"""

import sys

import cv2

from nodes.emotion.node import Emotion
from nodes.haardetect import HaarDetect
from pipeline import Harness

detector = HaarDetect(full_scan_interval=0, track_confirm=1, track_gap=0)
with Harness(detector) as faces, Harness(Emotion(smoothing=0)) as mood:
    for number, path in enumerate(sys.argv[1:]):
        frame = cv2.imread(path)  # uint8, height x width x 3, BGR
        if frame is None:
            sys.exit(f"{path}: no picture")
        for picture in mood.push_all(faces.push(frame, pts=number * 1_000_000_000)):
            for face in picture.regions:
                x, y, width, height = face.box
                # face.label is "uncertain" where none of face.scores reaches the node's `threshold`.
                score = max((face.scores or {}).values())
                print(f"{path}: {x:.0f},{y:.0f} {width:.0f}x{height:.0f} {face.label} {score:.2f}")
