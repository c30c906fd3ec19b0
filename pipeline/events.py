"""The events a graph tells to anybody who asks: their format, and how to subscribe.

    for event in subscribe("tcp://127.0.0.1:5556", cameras=["door"], kinds=["change"]):
        print(event.time, event.camera, event.track, event.label, event.score)

`nodes/publish.py` writes what is read here; docs/PROTOCOL.md is the same format for programs without our
code. A subscriber imports this file alone, so it must need nothing but pyzmq, msgpack and the standard
library. What comes out of a socket is checked field by field: garbage is counted, never an exception in
somebody's loop.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgpack
import zmq

from pipeline.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas

VERSION = 1
"""Protocol version. New fields, kinds and `what`s do not raise it (readers skip what they do not know); a
changed meaning or a removed field does."""

KINDS = ("observation", "change", "status")

_INT, _STR, _NUMBER, _NONE = (int,), (str,), (float, int), (type(None),)

SCHEMA: dict[str, dict[str, tuple[type, ...]]] = {
    "every event": {
        "version": _INT, "kind": _STR, "camera": _STR, "run": _STR, "sequence": _INT, "snapshot": (bool,),
        "time_ns": _INT, "pts_ns": _INT + _NONE, "latency_ns": _INT + _NONE,
    },
    "observation": {"frame": _INT, "width": _INT, "height": _INT, "regions": (list,)},
    "region": {
        "box": (list,), "track": _INT + _NONE, "label": _STR + _NONE, "score": _NUMBER + _NONE,
        "probabilities": (dict, *_NONE), "raw": (dict, *_NONE), "detection": _NUMBER,
    },
    "change": {
        "what": _STR, "track": _INT, "label": _STR + _NONE, "previous": _STR + _NONE,
        "score": _NUMBER + _NONE, "probabilities": (dict, *_NONE), "box": (list,), "since_ns": _INT,
        "since_pts_ns": _INT + _NONE, "duration_ns": _INT + _NONE,
    },
    "present": {"what": _STR, "tracks": (list,)},
    "status": {"what": _STR, "reason": _STR, "since_ns": _INT},
}  # fmt: skip
"""Every field on the wire and its types; a field that may be None may be missing. docs/PROTOCOL.md explains
them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESYNC_SECONDS = 1.0  # a subscriber that is too slow asks for a snapshot at most this often per topic


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
    this frame alone. detection: the detector's own confidence, in its own scale.
    """

    box: tuple[float, float, float, float]
    track: int | None
    label: str | None
    score: float | None
    probabilities: dict[str, float]
    raw: dict[str, float]
    detection: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a camera's graph told.

    time: when the frame was captured, UTC. camera: name of the source node. kind: `observation`, `change` or
    `status`. what: for a change `appeared`, `changed`, `left` or, in a snapshot, `present`; for a status
    `up`, `down` or `ended`; empty for an observation. track, label, score, probabilities, box: the face that
    a change is about, or the largest face of an observation; None (probabilities: empty) where there is none.
    regions: all faces of an observation. previous: the expression before a `changed`. since: when the told
    state began, UTC (for `left`: the last sight of the face). duration: seconds that what ended had lasted:
    the previous expression, or for `left` the visit. reason: why a camera went down. pts: presentation time,
    ns. latency: seconds from capture to publishing. sequence: number on the topic, from 1. lost: events on
    the topic that were missed just before this one. snapshot: True when this is the state on joining, not
    news. run: id of the publisher's process. fields: the event as it came over the wire (docs/PROTOCOL.md).
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
    return _decode(frames)[1]


def _decode(frames: list[bytes]) -> tuple[dict[str, Any], list[Event]]:
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
        if topic(fields["camera"], fields["kind"]) != frames[0]:
            raise BadEvent("the topic is another than the payload's")
        if fields["kind"] not in KINDS:
            return fields, []
        if fields.get("what") != "present":
            return fields, [_event(fields)]
        _check(fields, "present")
        common = {key: value for key, value in fields.items() if key != "tracks"}
        return fields, [_event({**common, **face}) for face in fields["tracks"]]
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
    since, duration, latency = fields.get("since_ns"), fields.get("duration_ns"), fields["latency_ns"]
    return Event(
        time=_time(fields["time_ns"]),
        camera=fields["camera"],
        kind=kind,
        what=fields.get("what", ""),
        track=main.track if main else None,
        label=main.label if main else None,
        score=main.score if main else None,
        previous=fields.get("previous"),
        probabilities=main.probabilities if main else {},
        box=main.box if main else None,
        regions=regions,
        since=None if since is None else _time(since),
        duration=None if duration is None else duration / 1e9,
        reason=fields.get("reason", ""),
        pts=fields.get("pts_ns"),
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
    )


def _probabilities(raw: dict[str, Any] | None) -> dict[str, float]:
    return {} if raw is None else {str(label): _number(value) for label, value in raw.items()}


def _number(value: Any) -> float:
    if type(value) not in _NUMBER:
        raise BadEvent(f"{value!r} is no number")
    return float(value)


def _time(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


# Subscribing -----------------------------------------------------------------------------------------------

_ENDPOINT = re.compile(
    r"tcp://(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\s/:\[\]@]+):(?P<port>\d+|\*)|ipc://(?P<path>[^\s*]\S*)"
)


def check_endpoint(endpoint: str) -> str:
    """`endpoint` itself when it is `tcp://HOST:PORT` or `ipc://PATH`; raises ValueError otherwise."""
    match = _ENDPOINT.fullmatch(endpoint)
    if not match:
        raise ValueError(f"{endpoint!r} is not an endpoint such as tcp://127.0.0.1:5556 or ipc:///tmp/events")
    if match["port"] not in (None, "*") and int(match["port"]) > 65535:
        raise ValueError(f"{endpoint!r}: a port is at most 65535")
    return endpoint


@dataclass(slots=True)
class _Heard:
    """What a subscriber knows of one topic."""

    run: str
    last: int
    complete: bool
    """Whether the state that the events tell is fully known, so that a snapshot brings nothing new."""
    asked: float


class Subscription:
    """An iterator over the events of one publisher; see `subscribe`.

    garbage: messages that were no events. lost: events known to be missed, all topics together.
    Belongs to the thread that made it. Close it, use it as a context manager, or let it go out of scope.
    """

    def __init__(
        self, endpoint: str, cameras: Iterable[str] | None, kinds: Iterable[str] | None, timeout: float | None
    ) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self.garbage = 0
        self.lost = 0
        self._cameras = _names(cameras)
        self._kinds = _names(kinds)
        self._ready: deque[Event] = deque()
        self._topics: dict[bytes, _Heard] = {}
        for kind in self._kinds or ():
            if kind not in KINDS:
                raise UserError(f"unknown kind of event '{kind}'{did_you_mean(kind, KINDS)}")
        try:
            check_endpoint(endpoint)
        except ValueError as error:
            raise UserError(str(error)) from None
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.linger = 0
        # A publisher's host that vanishes without a word: the kernel finds out, the socket connects anew.
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        if "[" in endpoint:
            self._socket.setsockopt(zmq.IPV6, 1)
        for prefix in self._prefixes():
            self._socket.subscribe(prefix)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise UserError(f"cannot subscribe to {endpoint}: {zmq.strerror(error.errno or 0)}") from None

    def _prefixes(self) -> list[bytes]:
        """The fewest topic prefixes that cover what is wanted; `receive` sorts out the rest."""
        if self._cameras is None:
            return [b"emotion/"]
        if self._kinds is None:
            return [f"emotion/{camera}/".encode() for camera in self._cameras]
        return [topic(camera, kind) for camera in self._cameras for kind in self._kinds]

    def receive(self, timeout: float | None = None) -> Event | None:
        """The next event; None after `timeout` seconds without one (None: wait for ever) or once closed.

        Raises UserError when the publisher speaks a later version of the protocol.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            if self._socket.closed:
                return None
            wait = None if end is None else max(0, int((end - time.monotonic()) * 1000))
            if not self._socket.poll(wait):
                return None
            self._take(self._socket.recv_multipart(zmq.NOBLOCK))
        return self._ready.popleft()

    def _take(self, frames: list[bytes]) -> None:
        try:
            camera, _, kind = frames[0].decode(errors="replace").removeprefix("emotion/").rpartition("/")
            if (self._cameras is not None and camera not in self._cameras) or (
                self._kinds is not None and kind not in self._kinds
            ):
                return
            fields, events = _decode(frames)
        except NewerProtocol as error:
            raise UserError(f"{self.endpoint}: {error}; update this program") from None
        except BadEvent:
            self.garbage += 1
            return
        lost = self._place(frames[0], fields)
        if lost is None:
            return
        self.lost += lost
        if events:
            events[0] = replace(events[0], lost=lost)
            self._ready.extend(events)

    def _place(self, name: bytes, fields: dict[str, Any]) -> int | None:
        """How many events of the topic were missed before this one; None for a snapshot that is no news."""
        sequence, snapshot, now = fields["sequence"], fields["snapshot"], time.monotonic()
        heard = self._topics.get(name)
        if heard is None or heard.run != fields["run"]:
            heard = self._topics[name] = _Heard(fields["run"], sequence, False, now)
            missed = 0
        else:
            missed = max(0, sequence - heard.last - (not snapshot))
        if snapshot:
            if heard.complete and not missed:
                return None  # it answers another subscriber
            heard.complete = True
        elif fields["kind"] == "change":
            # One change tells of one face: only from the first on, without a gap, do they tell of all.
            heard.complete = sequence == 1 or (heard.complete and not missed)
            if not heard.complete and now - heard.asked > _RESYNC_SECONDS:
                heard.asked = now
                self._ask(name)
        else:
            heard.complete = True
        heard.last = max(heard.last, sequence)
        return missed

    def _ask(self, name: bytes) -> None:
        """Have a snapshot of one topic sent: the publisher answers each new subscription with one. It must be
        a prefix other than those in use, and it is given up again at once."""
        self._socket.subscribe(name[:-1])
        self._socket.unsubscribe(name[:-1])

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self.receive(self.timeout)
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Leave the publisher. Iteration then ends."""
        self._socket.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _names(names: Iterable[str] | None) -> tuple[str, ...] | None:
    """A single name is taken as a list of one: `kinds="change"`."""
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


def subscribe(
    endpoint: str,
    cameras: Iterable[str] | None = None,
    kinds: Iterable[str] | None = None,
    timeout: float | None = None,
) -> Subscription:
    """Iterate over the events that a `publish` node sends from now on, after a snapshot of how things stand.

    endpoint: as in the node's property, `tcp://HOST:PORT` or `ipc://PATH`. cameras, kinds: only these (None:
    all). timeout: iteration ends after so many seconds without an event (None: never).

    The publisher need not run yet, and may restart: the subscription connects again by itself. Then, and
    after events were lost because this program was slow, a snapshot says how things stand: events with
    `snapshot` set, for faces with `what == "present"`. Raises UserError for a malformed endpoint or an
    unknown kind.

    >>> from pipeline import subscribe
    >>> with subscribe("tcp://127.0.0.1:5556", cameras=["door"], kinds=["change"]) as events:
    ...     for event in events:
    ...         print(event.time, event.what, event.track, event.label, event.score)
    """
    return Subscription(endpoint, cameras, kinds, timeout)


# Tables ----------------------------------------------------------------------------------------------------


def to_dataframe(events: Iterable[Event]) -> pandas.DataFrame:
    """A pandas table: a row for each face of each observation, for each change and each status.

    Columns: time (UTC), camera, kind, what, track, label, score (0..1), previous, x, y, width, height
    (pixels), duration (s), pts (ns), sequence, lost, snapshot, then one column with the smoothed probability
    of each label that occurs. An observation without faces gives no row. The events must come to an end
    (`timeout`, `itertools.islice`).

    >>> table = to_dataframe(subscribe("tcp://127.0.0.1:5556", timeout=5))
    >>> table[table.kind == "observation"].groupby("camera")["happy"].mean()
    """
    import pandas

    columns = "time camera kind what track label score previous x y width height duration pts sequence lost"
    columns = [*columns.split(), "snapshot"]
    rows: list[dict[str, Any]] = []
    labels: dict[str, None] = {}
    for event in events:
        common = {name: getattr(event, name) for name in columns if hasattr(event, name)}
        for face in event.regions if event.kind == "observation" else (event,):
            box = dict(zip(("x", "y", "width", "height"), face.box or (), strict=False))
            about = {"track": face.track, "label": face.label, "score": face.score}
            rows.append({**common, **about, **box, **face.probabilities})
            labels |= dict.fromkeys(face.probabilities)
    table = pandas.DataFrame(rows, columns=pandas.Index([*columns, *labels]))
    numbers = ("score", "x", "y", "width", "height", "duration", *labels)
    types = dict.fromkeys(numbers, "float64") | {
        "time": "datetime64[us, UTC]",
        "track": "Int64",
        "pts": "Int64",
        "sequence": "int64",
        "lost": "int64",
        "snapshot": "bool",
    }
    return table.astype(types)
