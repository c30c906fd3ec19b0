"""Prints events as they come: what `emograph events ENDPOINT` does.

    emograph events tcp://127.0.0.1:5556 --kind change
    emograph events tcp://127.0.0.1:5556 --json | jq 'select(.label == "happy")'

A line an event: aligned and coloured on a terminal, the same without colour when piped, or one JSON object
(docs/PROTOCOL.md, "JSON lines"). Ctrl-C and a reader that goes away are ordinary ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError, printable
from pipeline.events import Event
from pipeline.jsonlines import json_line
from pipeline.streams import silence
from pipeline.subscription import Subscription

if TYPE_CHECKING:
    from rich.text import Text

_QUIET_SECONDS = 3.0  # without any event, before a hint is given
_GONE_SECONDS = 10.0  # without a publisher, before it counts as gone for good: a restarted one is back sooner
_LOOK_SECONDS = 0.5  # between two looks whether it is gone
_STYLES = {
    "up": "green",
    "down": "bold red",
    "ended": "dim",
    "appeared": "bold green",
    "changed": "bold yellow",
    "left": "bold magenta",
    "present": "cyan",
}


def print_events(
    endpoint: str,
    cameras: Iterable[str] | None = None,
    kinds: Iterable[str] | None = None,
    as_json: bool = False,
    count: int | None = None,
    until_ended: bool = False,
) -> int:
    """Print events to stdout until Ctrl-C, `count` of them, or until nobody reads; returns how many.

    until_ended: also until all of the cameras (all that the publisher has) have ended. A hint goes to stderr when
    nothing comes in the first seconds. Raises UserError for a malformed endpoint, an unknown kind or a publisher of a
    later protocol version, and for one that is gone for good before its cameras have ended.
    """
    printed = 0
    cameras, kinds = list(cameras or ()) or None, list(kinds or ()) or None
    heard = [*kinds, "status"] if kinds and until_ended and "status" not in kinds else kinds
    with Subscription(endpoint, cameras, heard, watched=until_ended) as events:
        write = _json_writer() if as_json else line_writer()
        end = _End(cameras) if until_ended else None
        try:
            for event in _following(events, bool(cameras or kinds), until_ended):
                if kinds is None or event.kind in kinds:
                    write(event)
                    printed += 1
                if printed == count or (end is not None and end.is_told_by(event)):
                    break
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            silence()
    return printed


def _following(events: Subscription, narrowed: bool, until_ended: bool) -> Iterator[Event]:
    """The events, and a hint if none comes at first. until_ended: UserError once the publisher is gone for good."""
    hint_at: float | None = time.monotonic() + _QUIET_SECONDS
    while True:
        wait = None if hint_at is None else max(0.0, hint_at - time.monotonic())
        if until_ended:
            wait = _LOOK_SECONDS if wait is None else min(wait, _LOOK_SECONDS)
        event = events.receive(wait)
        if event is not None:
            hint_at = None
            yield event
            continue
        if until_ended and events.absent() > _GONE_SECONDS:
            lost = f"; {events.lost} events were lost on the way" if events.lost else ""
            raise UserError(f"{events.endpoint}: the publisher is gone, and did not say that its cameras ended{lost}")
        if hint_at is not None and time.monotonic() >= hint_at:
            hint_at = None
            more = ", and are --camera and --kind right" if narrowed else ""
            print(f"no such event yet from {events.endpoint}: is the graph running{more}?", file=sys.stderr, flush=True)


class _End:
    """Knows when all cameras have ended: those that the publisher names, or was heard of; of these only the wanted."""

    def __init__(self, wanted: list[str] | None) -> None:
        self._wanted = wanted
        self._all: set[str] = set()
        self._ended: set[str] = set()

    def is_told_by(self, event: Event) -> bool:
        """Take the next event; whether it tells of the end of the last camera."""
        if event.kind != "status":
            return False
        # A publisher that was restarted does not repeat which cameras had ended before.
        (self._ended.add if event.what == "ended" else self._ended.discard)(event.camera)
        self._all = {event.camera, *(event.cameras or self._all)}
        return all(camera in self._ended for camera in self._all if self._wanted is None or camera in self._wanted)


# JSON ------------------------------------------------------------------------------------------------------


def as_json_line(event: Event) -> str:
    """One event as a line of JSON: the fields of the wire, `time` (ISO 8601, UTC) and `lost`."""
    return json_line(event.fields, lost=event.lost)


def _json_writer() -> Any:
    return lambda event: print(as_json_line(event), flush=True)


# Lines -----------------------------------------------------------------------------------------------------


def describe(event: Event) -> str:
    """What an event says, in a few words."""
    if event.kind == "observation":
        faces = ", ".join(_face(r.track, r.label, r.score) for r in event.regions)
        return f"{len(event.regions)} face{'' if len(event.regions) == 1 else 's'}{': ' if faces else ''}{faces}"
    if event.kind == "status":
        return event.reason
    text = _face(event.track, event.label, event.score)
    if event.what == "changed":
        return f"{text}, after {_lasted(event)} {event.previous or 'unknown'}"
    if event.what == "left":
        return f"{text}, after {_lasted(event)}"
    if event.what == "present" and event.since:
        return f"{text}, since {event.since.astimezone():%H:%M:%S}"
    return text


def _face(track: int | None, label: str | None, score: float | None) -> str:
    who = "face" if track is None else f"#{track}"
    return f"{who} {label or 'unread'}" + ("" if score is None else f" {score:.2f}")


def _lasted(event: Event) -> str:
    return "a while" if event.duration is None else f"{event.duration:.1f} s"


def _columns(event: Event, media_time: bool) -> tuple[str, str, str, str]:
    """Time, camera, what, and the rest; whatever a publisher sends, no terminal codes."""
    lost = f"  ({event.lost} lost before this)" if event.lost else ""
    texts = (
        _place(event.pts) if media_time else f"{event.time.astimezone():%H:%M:%S.%f}"[:-3],
        event.camera,
        event.what or "seen",
        describe(event) + lost,
    )
    when, camera, what, rest = map(printable, texts)
    return when, f"{camera:<10}", f"{what:<8}", rest


def _place(pts: int | None) -> str:
    """A place in a recording, `0:01:07.480`; blank for what has none."""
    if pts is None:
        return " " * 11
    minutes, milliseconds = divmod(max(0, pts) // 1_000_000, 60_000)
    return f"{minutes // 60}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def line_writer(stream: Any = None, media_time: bool = False) -> Any:
    """Writes an event as a line to a text stream, stdout by default.

    media_time: with its place in the recording in place of the time of day, which in lossless mode says only when the
    frame was read.
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        return lambda event: print("  ".join(_columns(event, media_time)).rstrip(), file=stream, flush=True)

    from rich.console import Console

    console = Console(file=stream, highlight=False)
    return lambda event: console.print(event_line(event, media_time), no_wrap=True, overflow="ellipsis", crop=True)


def event_line(event: Event, media_time: bool = False) -> Text:
    """An event in one line of a terminal; see `line_writer`."""
    from rich.text import Text

    when, camera, what, rest = _columns(event, media_time)
    style = _STYLES.get(event.what, "")
    return Text("  ").join([Text(when, "dim"), Text(camera, "bold"), Text(what, style or "dim"), Text(rest)])
