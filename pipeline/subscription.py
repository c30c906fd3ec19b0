"""Subscribing to the events of a graph.

    for event in subscribe("tcp://127.0.0.1:5556", cameras=["door"], kinds=["change"]):
        print(event.time, event.camera, event.track, event.label, event.score)

A subscriber imports this file and the format in pipeline/events.py, so both must need nothing but pyzmq, msgpack and
the standard library. Garbage on the socket is counted, never an exception in somebody's loop.
"""

from __future__ import annotations

import math
import struct
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import zmq

from pipeline.endpoints import check_endpoint
from pipeline.errors import UserError, did_you_mean
from pipeline.events import KINDS, BadEvent, Event, EventRegion, NewerProtocol, decode_fields, topic

if TYPE_CHECKING:
    import pandas

_LONGEST_POLL = 3600.0
"""Seconds; libzmq counts milliseconds in 31 bits."""
_RESYNC_SECONDS = 1.0
"""A subscriber that is too slow asks for a snapshot at most this often per topic."""
_RECONNECT_MS = 20
"""Between two tries to connect, and up to twice that: a publisher of a few pictures is soon gone again."""


@dataclass(slots=True)
class _Heard:
    """What a subscriber knows of one topic."""

    run: str
    last: int
    complete: bool
    """Whether the state that the events tell is fully known, so that a snapshot brings nothing new."""
    asked: float
    """When a snapshot of it was last asked for, monotonic s."""


class Subscription:
    """An iterator over the events of one publisher; see `subscribe`.

    garbage: messages that were no events. lost: events known to be missed, all topics together.
    Belongs to the thread that made it. Close it, use it as a context manager, or let it go out of scope.
    """

    def __init__(
        self,
        endpoint: str,
        cameras: Iterable[str] | None = None,
        kinds: Iterable[str] | None = None,
        timeout: float | None = None,
        *,
        watched: bool = False,
    ) -> None:
        """watched: know whether the publisher is there (`absent`); ask for it now and then."""
        self.endpoint = endpoint
        self.timeout = timeout
        self.garbage = 0
        self.lost = 0
        self._began = time.time_ns()
        self._cameras = _names(cameras)
        self._kinds = _names(kinds)
        self._ready: deque[Event] = deque()
        self._untold: Counter[bytes] = Counter()
        """Events missed, by topic, that no event has told of yet: a snapshot of no faces gives none."""
        self._topics: dict[bytes, _Heard] = {}
        self._incomplete: dict[bytes, _Heard] = {}
        for kind in self._kinds or ():
            if kind not in KINDS:
                raise UserError(f"unknown kind of event '{kind}'{did_you_mean(kind, KINDS)}")
        try:
            check_endpoint(endpoint)
        except ValueError as error:
            raise UserError(str(error)) from None
        self._line: zmq.Socket[bytes] | None = None
        """Where ZeroMQ tells of the connection."""
        self._gone_at: float | None = None
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        # A publisher's host that vanishes without a word: the kernel finds out, the socket connects anew.
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 10)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        if "[" in endpoint:
            self._socket.setsockopt(zmq.IPV6, 1)
        for prefix in self._prefixes():
            self._socket.subscribe(prefix)
        if watched:  # from before the first connection on: a publisher may have gone before anybody asks
            self._line = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
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
            if not self._wait(end):
                return None
            self._take(self._socket.recv_multipart(zmq.NOBLOCK))
            self._ask_for_missing()
        return self._ready.popleft()

    def absent(self) -> float:
        """Seconds since the publisher went away; 0 while it is there, and before it ever was."""
        if self._line is None or self._socket.closed:
            return 0.0
        while self._line.poll(0):
            (event,) = struct.unpack("=H", self._line.recv_multipart()[0][:2])
            self._gone_at = time.monotonic() if event == zmq.EVENT_DISCONNECTED else None
        return 0.0 if self._gone_at is None else time.monotonic() - self._gone_at

    def _wait(self, end: float | None) -> bool:
        """Whether a message comes until `end` (monotonic s); asks meanwhile for the snapshots that are missing."""
        while True:
            self._ask_for_missing()
            until = min((heard.asked + _RESYNC_SECONDS for heard in self._incomplete.values()), default=None)
            if end is not None:
                until = end if until is None else min(until, end)
            left = _LONGEST_POLL if until is None else min(until - time.monotonic(), _LONGEST_POLL)
            if self._socket.poll(max(0, math.ceil(left * 1000))):
                return True
            if end is not None and time.monotonic() >= end:
                return False

    def _ask_for_missing(self) -> None:
        """An answer may get lost as well, so ask until it is there; but not all the time."""
        now = time.monotonic()
        for name, heard in self._incomplete.items():
            if now >= heard.asked + _RESYNC_SECONDS:
                heard.asked = now
                self._ask(name)

    def _take(self, frames: list[bytes]) -> None:
        try:
            camera, _, kind = frames[0].decode(errors="replace").removeprefix("emotion/").rpartition("/")
            if (self._cameras is not None and camera not in self._cameras) or (
                self._kinds is not None and kind not in self._kinds
            ):
                return
            fields, events = decode_fields(frames)
        except NewerProtocol as error:
            raise UserError(f"{self.endpoint}: {error}; update this program") from None
        except BadEvent:
            self.garbage += 1
            return
        lost = self._place(frames[0], fields)
        if lost is None:
            return
        self.lost += lost
        self._untold[frames[0]] += lost
        if events:
            events[0] = replace(events[0], lost=self._untold.pop(frames[0]))
            self._ready.extend(events)

    def _place(self, name: bytes, fields: dict[str, Any]) -> int | None:
        """How many events of the topic were missed before this one; None for a snapshot that is no news."""
        sequence, snapshot = fields["sequence"], fields["snapshot"]
        heard = self._topics.get(name)
        if heard is None or heard.run != fields["run"]:
            # Who was there when the run began should have heard all of it; who joined later has missed nothing yet.
            was_there = (fields.get("run_ns") or 0) > self._began
            # The first subscription is answered with a snapshot: it may just be on its way.
            heard = _Heard(fields["run"], 0 if was_there else sequence, False, time.monotonic())
            self._topics[name] = heard
        missed = max(0, sequence - heard.last - (not snapshot))
        if snapshot:
            if heard.complete and not missed:
                return None  # it answers another subscriber
            heard.complete = True
        elif fields["kind"] == "change":
            # One change tells of one face: only from the first on, without a gap, do they tell of all.
            heard.complete = sequence == 1 or (heard.complete and not missed)
        else:
            heard.complete = True
        if heard.complete:
            self._incomplete.pop(name, None)
        else:
            self._incomplete[name] = heard
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
        if self._line is not None and not self._socket.closed:
            self._socket.disable_monitor()
            self._line.close(0)
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


def to_dataframe(events: Iterable[Event], labels: Iterable[str] = ()) -> pandas.DataFrame:
    """A pandas table: a row for each face of each observation, for each change and each status.

    labels: expressions that have their columns also where none of them occurs.

    Columns: time (UTC), run (id of the publisher's process), camera, frame (its number, of an observation), picture
    (name of the file, of an observation of a folder of pictures), kind, what, track, label, score (0..1), previous, x,
    y, width, height (pixels), held, reused (of an observation), duration (s), pts (ns), sequence, lost, snapshot, then
    one column with the smoothed probability of each label that occurs, then one with that of the frame alone, `raw_`
    and the label (with a `?` behind it where another column has the name). An observation without faces gives no row. A
    column has the same dtype whatever comes, also when nothing does.

    The events must come to an end (`timeout`, `itertools.islice`). A subscription that brought none at all is a
    UserWarning: often nobody publishes at that address.

    >>> table = to_dataframe(subscribe("tcp://127.0.0.1:5556", timeout=5), labels=["happy"])
    >>> table[table.kind == "observation"].groupby("camera")["happy"].mean()
    """
    import pandas

    columns = (
        "time run camera frame picture kind what track label score previous x y width height held reused duration pts"
    )
    columns = [*columns.split(), "sequence", "lost", "snapshot"]
    rows: list[dict[str, Any]] = []
    smoothed: dict[str, str] = {}
    """Label -> its column."""
    raw: dict[str, str] = {}

    def add(label: str, prefix: str, found: dict[str, str]) -> str:
        if label not in found:
            found[label] = _free(prefix + label, [*columns, *smoothed.values(), *raw.values()])
        return found[label]

    for label in labels:
        add(label, "", smoothed)
    for label in tuple(smoothed):
        add(label, "raw_", raw)
    heard = False
    for event in events:
        heard = True
        common = {name: getattr(event, name) for name in columns if hasattr(event, name)}
        common["frame"] = event.fields.get("frame") if event.kind == "observation" else None
        for face in event.regions if event.kind == "observation" else (event,):
            row = {**common, "track": face.track, "label": face.label, "score": face.score}
            row |= dict(zip(("x", "y", "width", "height"), face.box or (), strict=False))
            for label, probability in face.probabilities.items():
                row[add(label, "", smoothed)] = probability
            if isinstance(face, EventRegion):
                row["held"], row["reused"] = face.held, face.reused
                for label, probability in face.raw.items():
                    row[add(label, "raw_", raw)] = probability
            rows.append(row)
    if not heard and isinstance(events, Subscription):
        more = ", and are cameras and kinds right" if events._cameras or events._kinds else ""
        warnings.warn(f"no event came from {events.endpoint}: did the graph run{more}?", UserWarning, stacklevel=2)
    table = pandas.DataFrame(rows, columns=pandas.Index([*columns, *smoothed.values(), *raw.values()]))
    for name in ("frame", "track", "pts"):  # by themselves they would become floats, which keep 53 bits
        whole = [value if value is not None and abs(value) < 1 << 63 else None for value in (r.get(name) for r in rows)]
        table[name] = pandas.array(whole, dtype="Int64")
    numbers = ("score", "x", "y", "width", "height", "duration", *smoothed.values(), *raw.values())
    text = pandas.Series(["as this pandas keeps text"]).dtype  # `object`, from pandas 3 on `str`
    types = dict.fromkeys(numbers, "float64") | {
        **dict.fromkeys(("run", "camera", "picture", "kind", "what", "label", "previous"), text),
        "time": "datetime64[us, UTC]",
        "held": "boolean",
        "reused": "boolean",
        "sequence": "int64",
        "lost": "int64",
        "snapshot": "bool",
    }
    return table.astype(types)


def _free(name: str, taken: list[str]) -> str:
    """`name`, with as many `?` behind it as it takes to be none of those taken."""
    while name in taken:
        name += "?"
    return name
