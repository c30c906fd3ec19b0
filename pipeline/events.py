"""The events a graph tells to anybody who asks: their format.

`nodes/publish.py` writes what is read here, `pipeline/subscription.py` receives it; docs/PROTOCOL.md is the same
format for programs without our code. What comes out of a socket is checked field by field: garbage is
BadEvent, never another exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

VERSION = 1
"""Protocol version. New fields, kinds and `what`s do not raise it (readers skip what they do not know); a
changed meaning or a removed field does."""

KINDS = ("observation", "change", "status")

_INT, _STR, _NUMBER, _NONE = (int,), (str,), (float, int), (type(None),)

SCHEMA: dict[str, dict[str, tuple[type, ...]]] = {
    "every event": {
        "version": _INT, "kind": _STR, "camera": _STR, "run": _STR, "run_ns": _INT + _NONE,
        "sequence": _INT, "snapshot": (bool,), "time_ns": _INT, "pts_ns": _INT + _NONE, "latency_ns": _INT + _NONE,
    },
    "observation": {"frame": _INT, "width": _INT, "height": _INT, "regions": (list,), "picture": _STR + _NONE},
    "region": {
        "box": (list,), "track": _INT + _NONE, "label": _STR + _NONE, "score": _NUMBER + _NONE,
        "probabilities": (dict, *_NONE), "raw": (dict, *_NONE), "detection": _NUMBER, "held": (bool, *_NONE),
        "reused": (bool, *_NONE),
    },
    "change": {
        "what": _STR, "track": _INT, "label": _STR + _NONE, "previous": _STR + _NONE,
        "score": _NUMBER + _NONE, "probabilities": (dict, *_NONE), "box": (list,), "since_ns": _INT,
        "since_pts_ns": _INT + _NONE, "duration_ns": _INT + _NONE,
    },
    "present": {"what": _STR, "tracks": (list,)},
    "status": {"what": _STR, "reason": _STR, "since_ns": _INT, "cameras": (list, *_NONE)},
}  # fmt: skip
"""Every field on the wire and its types; a field that may be None may be missing. docs/PROTOCOL.md explains
them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (1 << 53) - 1
"""The highest number of an event. Sums of what was lost stay far below 64 bits, which tables have."""


class BadEvent(ValueError):
    """Bytes that are not an event."""


class NewerProtocol(BadEvent):
    """An event of a protocol version that this program does not know yet."""


@dataclass(frozen=True, slots=True)
class EventRegion:
    """One face in an `observation`.

    box: (x, y, width, height) in pixels of the frame, origin top left. track: the face's id within its
    camera, or None. label: its expression smoothed over time, `uncertain`, or None when nothing classified
    it. score: the label's probability, 0..1. probabilities: label -> smoothed probability; raw: the same for
    this frame alone. detection: the detector's own confidence, in its own scale. held: the detector missed the
    face in this frame, and the box is where it was expected. reused: the network was not asked anew, since the face
    looked as it had a moment before: `raw` is of that frame.
    """

    box: tuple[float, float, float, float]
    track: int | None
    label: str | None
    score: float | None
    probabilities: dict[str, float]
    raw: dict[str, float]
    detection: float
    held: bool = False
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a camera's graph told.

    time: when the frame was captured, UTC. camera: name of the source node. kind: `observation`, `change` or
    `status`. what: for a change `appeared`, `changed`, `left` or, in a snapshot, `present`; for a status
    `up`, `down` or `ended`; empty for an observation. track, label, score, probabilities, box: the face that
    a change is about, or the largest face of an observation; None (probabilities: empty) where there is none.
    regions: all faces of an observation. previous: the expression before a `changed`. since: when the told
    state began, UTC (for `left`: the last sight of the face). duration: seconds that what ended had lasted:
    the previous expression, or for `left` the visit. reason: why a camera went down. cameras: for a status,
    all cameras that its publisher tells of, as far as it says so. picture: for an observation of a picture in a folder,
    the name of its file. pts: presentation time, ns. latency:
    seconds from capture to publishing. sequence: number on the topic, from 1. lost: events on the topic that
    were missed just before this one, since the subscription was made. snapshot: True when this is the state on
    joining, not news. run: id of the publisher's process. fields: the event as it came over the wire
    (docs/PROTOCOL.md).
    """

    time: datetime
    camera: str
    kind: str
    what: str = ""
    track: int | None = None
    label: str | None = None
    score: float | None = None
    previous: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    box: tuple[float, float, float, float] | None = None
    regions: tuple[EventRegion, ...] = ()
    since: datetime | None = None
    duration: float | None = None
    reason: str = ""
    cameras: tuple[str, ...] = ()
    picture: str | None = None
    pts: int | None = None
    latency: float | None = None
    sequence: int = 0
    lost: int = 0
    snapshot: bool = False
    run: str = ""
    fields: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


def topic(camera: str, kind: str) -> bytes:
    """The topic on which events of a kind from a camera are sent."""
    return f"emotion/{camera}/{kind}".encode()


def encode(fields: dict[str, Any]) -> list[bytes]:
    """The two frames of one event; `fields` as in docs/PROTOCOL.md, plain types only."""
    payload: bytes = msgpack.packb(fields)  # type: ignore[assignment]
    return [topic(fields["camera"], fields["kind"]), payload]


def decode(frames: list[bytes]) -> list[Event]:
    """The events in one message: one, or for a snapshot of a camera's faces one for each of them.

    A kind that this version does not know gives none. Raises BadEvent for what is not an event, NewerProtocol
    for an event of a later protocol version.
    """
    return decode_fields(frames)[1]


def decode_fields(frames: list[bytes]) -> tuple[dict[str, Any], list[Event]]:
    """The checked payload, and the events in it."""
    if len(frames) != 2 or not frames[0].startswith(b"emotion/"):
        raise BadEvent("not a topic and a payload")
    try:
        fields = msgpack.unpackb(frames[1])
        if type(fields) is not dict or type(fields.get("version")) is not int or fields["version"] < 1:
            raise BadEvent("no version")
        if fields["version"] > VERSION:
            raise NewerProtocol(f"events are of protocol version {fields['version']}, this program reads {VERSION}")
        _check(fields, "every event")
        if not 0 <= fields["sequence"] <= _LAST:
            raise BadEvent("a sequence out of range")
        if topic(fields["camera"], fields["kind"]) != frames[0]:
            raise BadEvent("the topic is another than the payload's")
        if fields["kind"] not in KINDS:
            return fields, []
        if fields.get("what") != "present":
            return fields, [_event(fields)]
        _check(fields, "present")
        common = {key: value for key, value in fields.items() if key != "tracks"}
        # What has been checked counts: a face of another camera or kind would pass for one of these.
        return fields, [_event({**face, **common}) for face in fields["tracks"]]
    except BadEvent:
        raise
    except Exception as error:  # whatever msgpack or a conversion makes of garbage
        raise BadEvent(str(error)) from None


def _check(fields: dict[str, Any], part: str) -> None:
    for name, types in SCHEMA[part].items():
        if type(fields.get(name)) not in types:
            raise BadEvent(f"{part}: {name} is {type(fields.get(name)).__name__}")


def _event(fields: dict[str, Any]) -> Event:
    kind = fields["kind"]
    _check(fields, kind)
    regions = tuple(_region(raw) for raw in fields["regions"]) if kind == "observation" else ()
    if kind == "observation":
        main = max(regions, key=lambda region: region.box[2] * region.box[3], default=None)
    else:
        main = _region({**fields, "detection": 1.0}) if kind == "change" else None
    # What the kind has no such field for is not checked, and may be anything.
    own: dict[str, Any] = {name: fields.get(name) for name in SCHEMA["every event"] | SCHEMA[kind]}
    since, duration, latency = own.get("since_ns"), own.get("duration_ns"), own["latency_ns"]
    return Event(
        time=utc(fields["time_ns"]),
        camera=fields["camera"],
        kind=kind,
        what=own.get("what", ""),
        track=main.track if main else None,
        label=main.label if main else None,
        score=main.score if main else None,
        previous=own.get("previous"),
        probabilities=main.probabilities if main else {},
        box=main.box if main else None,
        regions=regions,
        since=None if since is None else utc(since),
        duration=None if duration is None else duration / 1e9,
        reason=own.get("reason", ""),
        cameras=_cameras(own.get("cameras")),
        picture=own.get("picture"),
        pts=own.get("pts_ns"),
        latency=None if latency is None else latency / 1e9,
        sequence=fields["sequence"],
        snapshot=fields["snapshot"],
        run=fields["run"],
        fields=fields,
    )


def _region(raw: dict[str, Any]) -> EventRegion:
    _check(raw, "region")
    x, y, width, height = (_number(value) for value in raw["box"])
    score = raw.get("score")
    return EventRegion(
        box=(x, y, width, height),
        track=raw.get("track"),
        label=raw.get("label"),
        score=None if score is None else float(score),
        probabilities=_probabilities(raw.get("probabilities")),
        raw=_probabilities(raw.get("raw")),
        detection=float(raw["detection"]),
        held=bool(raw.get("held")),
        reused=bool(raw.get("reused")),
    )


def _cameras(raw: list[Any] | None) -> tuple[str, ...]:
    if not all(type(name) is str for name in raw or ()):
        raise BadEvent("a camera's name is no text")
    return tuple(raw or ())


def _probabilities(raw: dict[str, Any] | None) -> dict[str, float]:
    return {} if raw is None else {str(label): _number(value) for label, value in raw.items()}


def _number(value: Any) -> float:
    if type(value) not in _NUMBER:
        raise BadEvent(f"{value!r} is no number")
    return float(value)


def utc(nanoseconds: int) -> datetime:
    """Nanoseconds since 1970 as a time, UTC, in whole microseconds."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
