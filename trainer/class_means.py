"""python -m trainer.class_means --data fer2013.csv: the faces that the synthetic camera draws.

Writes nodes/testsrc_faces.png, uint8 (48, 336): one face per class side by side, in label order. Each is the mean of
every picture of its class in the Training split, so it shows no person. Plain means look alike and soft; three steps
make them readable, for the Haar cascade and for the network: each picture is first normalised to mean 0 and
deviation 1, each class mean is exaggerated away from the mean of all classes (a caricature, by EXAGGERATION), and an
unsharp mask brings back edges. The contrast is then stretched to 10..245. The cascade finds all seven, and
the packaged network reads five as what they are; the means of all fears and of all neutral faces are nothing much.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

import nodes
from nodes.preprocess import LABELS
from pipeline.errors import UserError
from trainer.checkpoint import write_whole
from trainer.commandline import location
from trainer.dataset import FaceSet, load
from trainer.folders import TRAINING

EXAGGERATION = 0.2
SHARPEN = 1.0
OUTPUT = Path(nodes.__file__).parent / "testsrc_faces.png"


def class_faces(faces: FaceSet) -> np.ndarray:
    """One face per class, uint8 (7, 48, 48). Constant pictures are left out. UserError if a class has no other."""
    flat = faces.images.reshape(len(faces), -1).astype(np.float32)
    deviation = flat.std(axis=1, keepdims=True)
    kept = deviation[:, 0] > 0
    flat = (flat[kept] - flat[kept].mean(axis=1, keepdims=True)) / deviation[kept]
    of = [flat[faces.labels[kept] == label] for label in range(len(LABELS))]
    if missing := [name for name, pictures in zip(LABELS, of, strict=True) if not len(pictures)]:
        raise UserError(f"{faces.source} has no Training pictures of {', '.join(missing)}")
    means = np.stack([pictures.mean(axis=0) for pictures in of])
    means += EXAGGERATION * (means - means.mean(axis=0))
    return np.stack([_finish(mean.reshape(48, 48)) for mean in means])


def _finish(face: np.ndarray) -> np.ndarray:
    """Unsharp mask and contrast stretch: float (48, 48) -> uint8 (48, 48)."""
    face = face + SHARPEN * (face - cv2.GaussianBlur(face, (0, 0), 1.5))
    low, high = np.percentile(face, [1, 99])
    return np.clip(10 + (face - low) / (high - low) * 235, 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=location, required=True, help="fer2013.csv or the image folder")
    parser.add_argument("--out", type=location, default=OUTPUT)
    arguments = parser.parse_args()
    try:
        strip = np.hstack(list(class_faces(load(arguments.data, [TRAINING]).split(TRAINING))))
        write_whole(arguments.out, cv2.imencode(".png", strip)[1].tobytes())
    except UserError as error:
        sys.exit(f"class_means: error: {error}")
    print(f"wrote {arguments.out} ({strip.shape[1]} x {strip.shape[0]})")


if __name__ == "__main__":
    main()
