"""Faces in one grey picture by OpenCV's cascades; run by `emograph launch "testsrc ! haardetect ! fakesink"`.

    boxes, scores = FaceDetector().detect(grey)

The detector proper, without node, stream or memory: the `haardetect` node and the trainer's `evaluate
--through-detector` use the same object. It returns what `CascadeClassifier.detectMultiScale` would, with a score
and the number of agreeing windows for each face (the node needs both to tell a face from a one-frame false
alarm). Two things differ: of a box inside another one only one stays, since a face holds no second face; and a
picture of little contrast is stretched first, since the cascades see nobody in the dark.

Method: P. Viola and M. Jones, Rapid object detection using a boosted cascade of simple features, CVPR 2001.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nodes.motion import Area
from nodes.preprocess import DEFAULT, Preprocess, preprocess
from pipeline import UserError

CASCADES = {
    "frontal": "haarcascade_frontalface_default.xml",
    "alt2": "haarcascade_frontalface_alt2.xml",
    "profile": "haarcascade_profileface.xml",
}
"""Cascade files by the name that the property `cascade` uses; `a+b` runs both."""

ALIKE = 0.2
"""Windows whose sides differ by less than this fraction are one face: OpenCV's own GROUP_EPS."""

COARSE = 3
"""A sweep goes through the sizes in steps this many times as large as a scan's, and two windows are enough."""

FLAT, NORMAL = 25.0, 50.0
"""Standard deviation of the grey levels under which a picture is flat, and to which it is then stretched."""


class Detections(NamedTuple):
    """N faces. boxes: float32 (N, 4), x y w h in pixels of the picture. scores: float32 (N,), the sum of the
    cascade's last stage for the best window (frontal: about -1 for doubtful to 10 for plain faces).
    neighbors: int32 (N,), windows that agree on the face."""

    boxes: np.ndarray
    scores: np.ndarray
    neighbors: np.ndarray

    def take(self, index: np.ndarray) -> Detections:
        return Detections(self.boxes[index], self.scores[index], self.neighbors[index])


NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


class FaceDetector:
    """Cascades and the settings of a search. Sizes are sides in pixels of the picture given to `detect`.

    cascade: a name of `CASCADES`, or several joined by `+`. The profile cascade looks both ways.
    detect_width: a wider picture is searched shrunk to this width, 0 for never. The smallest face that can be
        found is then 24 pixels of the shrunk picture, however small `min_size` is.
    min_score: faces under it are left out, None for no limit.

    Raises UserError for an unknown cascade, or if this OpenCV comes without cascades.
    """

    def __init__(
        self,
        cascade: str = "frontal",
        *,
        scale_factor: float = 1.1,
        min_neighbors: int = 5,
        min_size: int = 30,
        max_size: int = 0,
        detect_width: int = 0,
        min_score: float | None = None,
    ) -> None:
        self.scale_factor = scale_factor
        self.min_neighbors = min_neighbors
        self.min_size = min_size
        self.max_size = max_size
        self.detect_width = detect_width
        self.min_score = min_score
        self._searches: list[tuple[cv2.CascadeClassifier, bool]] = []
        for name in cascade.split("+"):
            classifier = _load(name)
            self._searches.append((classifier, False))
            if name == "profile":  # trained on faces that look to the left of the picture
                self._searches.append((classifier, True))
        self.window = max(max(c.getOriginalWindowSize()) for c, _ in self._searches)
        """Side of the smallest face that the cascades can see, in pixels of the picture that is searched."""

    def scale(self, width: int) -> float:
        """By how much a picture of this width is shrunk for the search; 1 where it is searched as it is."""
        return self.detect_width / width if 0 < self.detect_width < width else 1.0

    def smallest(self, width: int) -> float:
        """Side of the smallest face that can be found in a picture of this width, in its pixels."""
        return max(self.min_size, self.window / self.scale(width))

    def detect(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All faces of a picture, uint8 (H, W): boxes float32 (N, 4), scores float32 (N,). See `Detections`.

        Raises ValueError if the picture is anything else. A picture smaller than a face has no faces.
        """
        found = self.scan(grey)
        return found.boxes, found.scores

    def scan(self, grey: np.ndarray, areas: Sequence[Area] | None = None) -> Detections:
        """The same as `detect`, with the neighbours of each face; `areas` as in `sweep`."""
        return merged(self._parts(grey, areas, self.scale_factor, self.min_neighbors))

    def sweep(
        self,
        grey: np.ndarray,
        areas: Sequence[Area] | None = None,
        known: Sequence[Sequence[float]] = (),
    ) -> Detections:
        """Places that may hold a face, for a third of the time of `scan`; `look` at each to know.

        areas: (left, top, right, bottom) of the parts to search, None for all. known: boxes (x, y, w, h) of faces
        that need not be found again; they are painted over, since a face keeps the cascade busier than anything else.
        """
        _check(grey)
        if known:
            grey = grey.copy()
            for x, y, w, h in known:
                left, top, right, bottom = (max(0, int(v)) for v in (x, y, x + w, y + h))
                face = grey[top:bottom, left:right]
                face[...] = round(face.mean()) if face.size else 0
        parts = self._parts(grey, areas, 1 + COARSE * (self.scale_factor - 1), 1)
        return _joined(parts) if parts else NOTHING

    def look(
        self,
        grey: np.ndarray,
        box: Sequence[float],
        *,
        size: float = 0.25,
        margin: float = 0.5,
        min_neighbors: int | None = None,
    ) -> Detections:
        """Faces near `box` (x, y, w, h): what `scan` finds there, for a twentieth of the time or less.

        size: how much larger or smaller than the box the face may be, margin: how far outside the box, both as
        fractions of its side. min_neighbors: another one than the detector's.
        """
        _check(grey)
        x, y, w, h = box
        side = max(w, h)
        # A large face is shrunk, but stays twice the window: from there on OpenCV tries every pixel, not every
        # second one, and the neighbours of a face are as many as in a scan.
        scale = min(1.0, 2.0 * self.window / (side * (1.0 - size)))
        x0, y0 = max(0, int(x - margin * w)), max(0, int(y - margin * h))
        x1, y1 = max(0, int(x + (1 + margin) * w)), max(0, int(y + (1 + margin) * h))
        cut = grey[y0:y1, x0:x1]
        if min(cut.shape) * scale < self.window:
            return NOTHING
        if scale < 1.0:
            cut = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        low = max(self.min_size, side * (1.0 - size)) * scale
        high = side * (1.0 + size) * scale
        if self.max_size:
            high = min(high, self.max_size * scale)
        neighbors = self.min_neighbors if min_neighbors is None else min_neighbors
        found = self._search(cut, self.scale_factor, neighbors, low, high, first=True)
        return found._replace(boxes=found.boxes / np.float32(scale) + np.array([x0, y0, 0, 0], np.float32))

    def _parts(
        self, grey: np.ndarray, areas: Sequence[Area] | None, scale_factor: float, min_neighbors: int
    ) -> list[Detections]:
        """A search of each area of a picture, None for all of it."""
        _check(grey)
        height, width = grey.shape
        parts = []
        for left, top, right, bottom in [(0, 0, width, height)] if areas is None else areas:
            found = self._scan(grey[top:bottom, left:right], scale_factor, min_neighbors, width)
            parts.append(found._replace(boxes=found.boxes + np.array([left, top, 0, 0], np.float32)))
        return parts

    def _scan(self, grey: np.ndarray, scale_factor: float, min_neighbors: int, width: int) -> Detections:
        """A search of a part of a picture that is `width` pixels wide."""
        scale = self.scale(width)
        if scale < 1.0:
            if round(min(grey.shape) * scale) < self.window:  # OpenCV refuses to shrink a thin picture to no height
                return NOTHING
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = self._search(grey, scale_factor, min_neighbors, self.min_size * scale, self.max_size * scale)
        return found._replace(boxes=found.boxes / np.float32(scale))

    def _search(
        self,
        grey: np.ndarray,
        scale_factor: float,
        min_neighbors: int,
        low: float,
        high: float,
        first: bool = False,
    ) -> Detections:
        """Faces with sides from `low` to `high` (0: any) pixels of `grey`, by all cascades or the first to find any.

        Cascades come in the order of trust: where two find the same face, the box is the earlier one's, so that it
        does not jump between theirs.
        """
        if min(grey.shape) < max(self.window, low):
            return NOTHING
        smallest = (max(1, round(low)),) * 2
        largest = (round(high),) * 2 if high else (0, 0)
        grey = _with_contrast(grey)
        found = NOTHING
        for classifier, mirrored in self._searches:
            if first and len(found.boxes):
                break
            picture = cv2.flip(grey, 1) if mirrored else grey
            windows, _, weights = classifier.detectMultiScale3(
                picture, scale_factor, 0, minSize=smallest, maxSize=largest, outputRejectLevels=True
            )
            more = without_nested(_group(np.asarray(windows), np.ravel(weights), min_neighbors))
            if mirrored:
                more.boxes[:, 0] = grey.shape[1] - more.boxes[:, 0] - more.boxes[:, 2]
            if self.min_score is not None:
                more = more.take(more.scores >= self.min_score)
            new = [not any(_nested(box, other) for other in found.boxes) for box in more.boxes]
            found = _joined([found, more.take(np.array(new, bool))])
        return found


def cut_patches(
    grey: np.ndarray, boxes: Sequence[Sequence[float]] | np.ndarray, spec: Preprocess = DEFAULT
) -> np.ndarray:
    """The network's pictures of some faces: uint8 (N, spec.size, spec.size) for N boxes (x, y, w, h)."""
    patches = np.empty((len(boxes), spec.size, spec.size), np.uint8)
    for patch, (x, y, w, h) in zip(patches, boxes, strict=True):
        patch[:] = preprocess(grey, (x, y, w, h), spec)
    return patches


def merged(parts: Sequence[Detections]) -> Detections:
    """Several searches of one picture as one, each face once."""
    return without_nested(_joined(parts)) if parts else NOTHING


def without_nested(found: Detections) -> Detections:
    """Of two faces that share more than half of the smaller one's area, only the one with more neighbours."""
    kept: list[int] = []
    for i in np.argsort(-found.neighbors, kind="stable"):
        if not any(_nested(found.boxes[i], found.boxes[j]) for j in kept):
            kept.append(int(i))
    return found if len(kept) == len(found.boxes) else found.take(np.array(kept, int))


def _nested(a: np.ndarray, b: np.ndarray) -> bool:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return across > 0 and down > 0 and across * down > 0.5 * min(a[2] * a[3], b[2] * b[3])


def _joined(parts: Sequence[Detections]) -> Detections:
    return Detections(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _group(windows: np.ndarray, weights: np.ndarray, min_neighbors: int) -> Detections:
    """Windows that lie alike -> faces, as OpenCV groups them, keeping the count and the best weight."""
    if not len(windows):
        return NOTHING
    boxes, counts = cv2.groupRectangles(windows.tolist(), min_neighbors, ALIKE)
    if not len(boxes):
        return NOTHING
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    # OpenCV does not say which windows made which group: each belongs to the nearest, if that is near enough.
    off = np.abs(_corners(windows.astype(np.float32))[:, None] - _corners(boxes)).max(axis=2) / boxes[:, 2]
    nearest = off.argmin(axis=1)
    near = off.min(axis=1) <= 2 * ALIKE
    scores = np.full(len(boxes), weights.min(), np.float32)
    np.maximum.at(scores, nearest[near], weights[near].astype(np.float32))
    return Detections(boxes, scores, np.asarray(counts, np.int32).ravel())


def _with_contrast(grey: np.ndarray) -> np.ndarray:
    """A flat picture stretched, any other as it is; one that is nothing but noise, too.

    OpenCV's cascades skip windows of little contrast, so that they find nobody in the dark. Stretching changes
    nothing else for them, while histogram equalisation would cost a quarter of the faces in good light.
    """
    mean, deviation = (float(v[0, 0]) for v in cv2.meanStdDev(grey))
    if not 1 < deviation < FLAT:
        return grey
    gain = NORMAL / deviation
    return cv2.addWeighted(grey, gain, grey, 0, 128 - gain * mean)


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _load(name: str) -> cv2.CascadeClassifier:
    if name not in CASCADES:
        raise UserError(f"unknown cascade {name!r}; known: {', '.join(CASCADES)}, or several joined by '+'")
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    path = Path(folder or "") / CASCADES[name]
    if not hasattr(cv2, "CascadeClassifier") or folder is None or not path.is_file():
        raise UserError(
            f"OpenCV {cv2.__version__} as installed has no {CASCADES[name]}; "
            "install a 4.x wheel, which has it: pip install 'opencv-python>=4.10,<5'"
        )
    classifier = cv2.CascadeClassifier()
    try:
        loaded = classifier.load(str(path))
    except cv2.error:
        loaded = False
    if not loaded:
        raise UserError(
            f"{path.name} of OpenCV {cv2.__version__} is damaged; "
            "install it again: pip install --force-reinstall 'opencv-python>=4.10,<5'"
        )
    return classifier


def _check(grey: np.ndarray) -> None:
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ValueError(f"a grey picture is uint8 (H, W), not {grey.dtype} {grey.shape}")
