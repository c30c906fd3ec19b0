"""Finds and follows faces: `emograph launch "testsrc faces=2 ! haardetect ! emotion ! overlay ! display"`.

Adds a Region (box, score, track id, 48x48 grey patch) to a buffer for each face in it. The patch is cut by the
`preprocess` that the network was trained with, so what comes after needs no pixels of the frame. How faces are
found in one picture is in nodes/facedetector.py, how they are followed in nodes/tracker.py; here is what ties
them together for several cameras at once.
"""

from __future__ import annotations

import math
import zlib
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, field_validator, model_validator

from nodes.facedetector import NOTHING, Detections, FaceDetector, cut_patches, merged
from nodes.motion import Area, ChangeMap
from nodes.preprocess import DEFAULT, Preprocess
from nodes.shortage import Shortage
from nodes.tracker import Track, Tracker, iou
from nodes.zones import Rectangle, RectanglesByCamera, common, inside, named, of_camera
from pipeline import Buffer, Mark, Properties, Region, Seconds, Transform, UserError, pad

__all__ = ["FaceDetector", "HaarDetect", "cut_patches"]

SURE = 3
"""A face on which this many times `min_neighbors` windows agree needs no second frame to be believed. (Real
clips: false alarms have 6 to 8 windows, frontal faces from 48 pixels up 10 to 60.)"""

SAME = 0.3
"""IoU from which a place that a sweep brings up is a face that is known already."""

IDS_PER_FRAME = 1000
"""More than faces that one frame can bring."""

LARGEST = 16384
"""Side of a frame in pixels, the most that any source gives."""

SMALLEST = 24
"""Side in pixels of what the cascades were trained on: nothing smaller is a face to them."""

TICK = 0.001
"""Seconds by which a time may be rounded: Matroska's are whole milliseconds."""

CLOSE = 0.15
"""Fraction of its side by which a face is expected to move or grow from one frame to the next; who does more costs a
wider look."""


class HaarDetectProperties(Properties):
    cascade: Literal["frontal", "alt2", "profile", "frontal+profile", "alt2+profile"] = Field(
        "frontal", description="OpenCV's frontalface_default, frontalface_alt2 or profileface (both ways)"
    )
    scale_factor: float = Field(1.1, ge=1.01, le=2.0, description="ratio of one searched face size to the next")
    min_neighbors: int = Field(5, ge=1, le=100, description="windows that must agree on a face (more than)")
    min_size: int = Field(30, ge=1, le=LARGEST, description="smallest face, side in pixels of the frame")
    max_size: int = Field(0, ge=0, le=LARGEST, description="largest face, side in pixels of the frame; 0 for any")
    detect_width: int = Field(
        0,
        ge=0,
        le=LARGEST,
        description="search wider frames shrunk to this width; 0: at full size. Faces under 24 pixels of the "
        "shrunk frame are not found",
    )
    min_score: float | None = Field(None, description="leave out faces with a lower score; unset: none")
    roi: RectanglesByCamera = Field(
        {},
        description="look for faces only here: one or several [x, y, width, height] in fractions of the frame, or a "
        "map with those of each camera. A face is found once all of it lies inside, and kept while its middle does",
    )
    ignore: RectanglesByCamera = Field(
        {}, description="leave out faces whose middle lies here, such as a poster's or a screen's; given like roi"
    )
    track_confirm: int = Field(
        2, ge=1, le=100, description="frames in which a doubtful face must be found before it is reported"
    )
    track_gap: Seconds = Field(
        0.5,
        description="a face that is missed stays where it was for this long; 0: each picture stands alone",
    )
    full_scan_interval: Seconds = Field(
        0.25,
        description="look for new faces this often, wherever the picture has changed, and in between only where "
        "faces are known to be; 0: search every frame in full, at fifteen times the cost",
    )
    still_scan_interval: Seconds = Field(
        2.0, description="look for new faces this often where nothing has changed, too; 0: every full_scan_interval"
    )
    busy_scan_interval: Seconds = Field(
        1.0,
        description="look for new faces no more often than this while there is too little time for all frames of live "
        "cameras; 0: as often as ever, which costs frames. Without effect where full_scan_interval is 0",
    )
    margin: float = Field(
        DEFAULT.margin,
        gt=-0.5,
        le=2.0,
        description="added around the face when the patch is cut, fraction of its side; as the weights were trained",
    )

    @field_validator("detect_width")
    @classmethod
    def _holds_a_face(cls, width: int) -> int:
        if 0 < width < SMALLEST:
            raise ValueError(f"in less than {SMALLEST} pixels no face is found; 0: search at full size")
        return width

    @model_validator(mode="after")
    def _sizes_in_order(self) -> HaarDetectProperties:
        if 0 < self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        return self


class HaarDetect(Transform):
    """Face detector: OpenCV's Haar cascades, with a light tracker. Adds a region per face, with its patch.

    A region's `track` is stable through the life of a face in the picture and unique per camera within a run: 1, 2, 3
    ...; should this process die, ids go on from 1000 times the number of the next frame (3412001, 3412002 ...). Its
    score is the sum of the cascade's last stage. A face missed in this frame is reported where it is expected to be,
    with `attrs["held"]` true. `meta["margin"]` is the margin that the patches were cut with; `meta["roi"]` and
    `meta["ignore"]` are, where these are set, the areas in pixels: left, top, right, bottom.
    """

    Properties = HaarDetectProperties
    sink = pad("video/raw", format="BGR", access="read")
    src = pad("video/raw", format="BGR", adds="faces")

    @classmethod
    def mentions(cls, props: HaarDetectProperties) -> list[str]:
        return [*named(props.roi), *named(props.ignore)]

    def open(self) -> None:
        p = self.props
        self._spec = Preprocess(margin=p.margin)
        self._detector = FaceDetector(
            p.cascade,
            scale_factor=p.scale_factor,
            min_neighbors=p.min_neighbors,
            min_size=p.min_size,
            max_size=p.max_size,
            detect_width=p.detect_width,
            min_score=p.min_score,
        )
        self._shortage = Shortage()
        self._streams: dict[str, _Stream] = {}

    def transform(self, buffer: Buffer) -> Buffer:
        stream = self._streams.get(buffer.stream)
        if stream is None:
            tracker = Tracker(self.props.track_confirm, self.props.track_gap, self._first_id(buffer))
            # No camera's name may decide what is found in a recording.
            phase = 0.0 if self.lossless else zlib.crc32(buffer.stream.encode()) / 2**32
            props = self.props
            intervals = props.full_scan_interval, props.still_scan_interval, props.busy_scan_interval
            zones = _Zones(of_camera(props.roi, buffer.stream), of_camera(props.ignore, buffer.stream))
            stream = _Stream(self._detector, tracker, zones, *intervals, phase)
            self._streams[buffer.stream] = stream
            self._announce(buffer, zones)
        grey = _grey(buffer.frame, self.name)
        now = stream.seconds(buffer)
        short = not self.lossless and self._shortage.seen(buffer, self.clock())
        tracks = stream.follow(grey, now, short, "picture" in buffer.meta)
        patches = cut_patches(grey, [t.box for t in tracks], self._spec)
        for track, patch in zip(tracks, patches, strict=True):
            attrs = {"held": True} if track.held else {}
            buffer.regions.append(Region(track.box, track.score, track.id, patch=patch, attrs=attrs))
        if tracks:
            buffer.meta["margin"] = self._spec.margin
        buffer.meta |= {key: list(areas) for key, areas in stream.zones.told.items()}
        self.observe("faces", len(tracks))
        return buffer

    def on_mark(self, mark: Mark) -> None:
        if mark.kind == "eos" and mark.stream in self._streams:
            self._streams[mark.stream].restart()

    def _first_id(self, buffer: Buffer) -> int:
        """An id that no face in the frames of the camera before `buffer` can have been given.

        A process that died took its count with it, but the frames go on being numbered.
        """
        return 1 + IDS_PER_FRAME * buffer.sequence if self.restarted else 1

    def _announce(self, buffer: Buffer, zones: _Zones) -> None:
        """Say once per camera what cannot be found in it."""
        height, width, _ = buffer.shape
        smallest = self._detector.smallest(width)
        zones.fit(height, width)
        what = f"{buffer.stream}: {width}x{height} is searched for faces from {smallest:.0f} pixels up"
        if zones.roi is not None:
            what += " in its roi"
        areas = zones.roi or [(0, 0, width, height)]
        if all(smallest > min(right - left, bottom - top) for left, top, right, bottom in areas):
            self.log("warning", f"{what}: none can be found")
        elif smallest > self.props.min_size:
            self.log("info", f"{what}; for those from min_size={self.props.min_size} up set detect_width=0")


class _Zones:
    """Which faces of one camera count, by where they are."""

    def __init__(self, roi: list[Rectangle], ignore: list[Rectangle]) -> None:
        self._given = roi, ignore
        self.roi: list[Area] | None = None
        """Where to look, in pixels; None for everywhere."""
        self._ignore: list[Area] = []
        self.told: dict[str, list[Area]] = {}
        """For the metadata of a buffer."""

    def fit(self, height: int, width: int) -> None:
        """Frames have this size from now on."""
        roi, self._ignore = ([part.area(height, width) for part in parts] for parts in self._given)
        self.roi = roi or None
        self.told = {key: areas for key, areas in (("roi", roi), ("ignore", self._ignore)) if areas}

    def of(self, areas: list[Area]) -> list[Area]:
        """What of some areas shall be searched."""
        return areas if self.roi is None else common(areas, self.roi)

    def counting(self, found: Detections) -> Detections:
        """Those that count."""
        if not self.told or not len(found.boxes):
            return found
        count = ~inside(found.boxes, self._ignore)
        return found.take(count if self.roi is None else count & inside(found.boxes, self.roi))


class _Stream:
    """One camera: the faces known in it, and when to search all of it again.

    scan_interval, still_interval, busy_interval: seconds between searches of what has changed, of everything, and of
    either while frames are dropped. phase: 0 to 1, when within an interval its searches fall due, so that cameras which
    started together do not all search at the same moment.
    """

    def __init__(
        self,
        detector: FaceDetector,
        tracker: Tracker,
        zones: _Zones,
        scan_interval: float,
        still_interval: float,
        busy_interval: float,
        phase: float,
    ) -> None:
        self.tracker = tracker
        self.zones = zones
        self._detector = detector
        self._changes = ChangeMap()
        self._interval = scan_interval
        self._still_interval = still_interval
        self._busy_interval = busy_interval
        self._phase = phase
        self._last_sweep = self._next_sweep = self._next_full_sweep = self._now = -math.inf
        self._shape: tuple[int, ...] = ()
        self._seconds = 0.0
        self._pts = self._captured = -1

    def follow(self, grey: np.ndarray, now: float, short: bool, alone: bool) -> list[Track]:
        """The faces of the frame at `now` seconds. short: there is too little time for all frames. alone: it is a
        picture, such as a photograph."""
        if now < self._now or grey.shape != self._shape:  # what was seen in a frame of another size was elsewhere
            self.restart()
        if grey.shape != self._shape:
            self.zones.fit(*grey.shape)
        self._now, self._shape = now, grey.shape
        self.tracker.advance(now, alone)
        found = self._search(grey, now, short) if self._interval else self._detector.scan(grey, self.zones.roi)
        found = self.zones.counting(found)
        sure = found.neighbors >= SURE * self._detector.min_neighbors
        return self.tracker.update(found.boxes, found.scores, sure)

    def restart(self) -> None:
        """The stream ended or began anew: forget its faces, search all of the next frame."""
        self.tracker.clear()
        self._last_sweep = self._next_sweep = self._next_full_sweep = self._now = -math.inf

    def _search(self, grey: np.ndarray, now: float, short: bool) -> Detections:
        """Known faces where they are expected; now and then what has changed, more seldom everything."""
        parts = [self._look(grey, track) for track in self.tracker.tracks]
        # A search takes the time of several frames: where there is too little, following who is there goes first.
        put_off = short and now < self._last_sweep + self._busy_interval
        if now >= self._next_sweep and not put_off:
            self._last_sweep = now
            self._next_sweep = self._due(now, self._interval)
            known = [box for part in parts for box in part.boxes]
            everything = now >= self._next_full_sweep
            if everything:
                self._next_full_sweep = self._due(now, self._still_interval)
            smallest = self._detector.smallest(grey.shape[1])
            areas = self.zones.of(self._changes.take(grey, known, smallest=smallest, all_of_it=everything))
            found = self._detector.sweep(grey, areas, known) if areas else NOTHING
            places = self.zones.counting(found).boxes  # a poster would be looked at closely each time
            new = [box for box in places if all(iou(box, other) < SAME for other in known)]
            parts += [self._detector.look(grey, box) for box in new]
        return merged(parts)

    def _due(self, now: float, interval: float) -> float:
        """The next moment of the stream's own rhythm, at most `interval` seconds from now."""
        if interval < TICK:  # no camera is that fast
            return now
        return (math.floor((now + TICK) / interval - self._phase) + 1 + self._phase) * interval - TICK

    def _look(self, grey: np.ndarray, track: Track) -> Detections:
        """A face that was there a moment ago: a close look, and if that fails a wider one."""
        needed = self._detector.min_neighbors
        if track.id is not None:
            needed = math.ceil(needed / 2)  # believed already: less evidence will do
        found = self._detector.look(grey, track.box, size=CLOSE, margin=CLOSE, min_neighbors=needed)
        return found if len(found.boxes) else self._detector.look(grey, track.box, min_neighbors=needed)

    def seconds(self, buffer: Buffer) -> float:
        """The stream's time at `buffer`: its PTS, but the clock where a source gives every frame the same."""
        if buffer.pts == self._pts:
            self._seconds += max(0, buffer.captured - self._captured) / 1e9
        else:
            self._seconds = buffer.pts / 1e9
        self._pts, self._captured = buffer.pts, buffer.captured
        return self._seconds


def _grey(frame: np.ndarray, name: str) -> np.ndarray:
    """uint8 (H, W) of a frame, uint8 (H, W) or (H, W, 1, 3 or 4); raises UserError for anything else."""
    channels = frame.shape[2] if frame.ndim == 3 else frame.ndim - 1
    if frame.dtype == np.uint8 and frame.size and frame.ndim in (2, 3):
        if channels == 1:
            return frame.reshape(frame.shape[:2])
        if channels in (3, 4):
            return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY if channels == 3 else cv2.COLOR_BGRA2GRAY)
    raise UserError(f"{name}: a frame must be uint8 (height, width, 3), not {frame.dtype} {frame.shape}")
