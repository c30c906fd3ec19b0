"""Prints events as they come: what `emograph events ENDPOINT` does.

    emograph events tcp://127.0.0.1:5556 --kind change
    emograph events tcp://127.0.0.1:5556 --json | jq 'select(.label == "happy")'

A line an event: aligned and coloured on a terminal, the same without colour when piped, or one JSON object
(docs/PROTOCOL.md, "JSON lines"). Ctrl-C and a reader that goes away are ordinary ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.events import Event
from pipeline.jsonlines import json_line
from pipeline.streams import silence
from pipeline.subscription import Subscription, subscribe

if TYPE_CHECKING:
    from rich.text import Text

_QUIET_SECONDS = 3.0  # without any event, before a hint is given
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
) -> int:
    """Print events to stdout until Ctrl-C, `count` of them, or until nobody reads; returns how many.

    A hint goes to stderr when nothing comes in the first seconds. Raises UserError for a malformed endpoint,
    an unknown kind or a publisher of a later protocol version.
    """
    printed = 0
    with subscribe(endpoint, cameras or None, kinds or None) as events:
        write = _json_writer() if as_json else line_writer()
        try:
            for event in _with_hint(events, narrowed=bool(cameras or kinds)):
                write(event)
                printed += 1
                if printed == count:
                    break
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            silence()
    return printed


def _with_hint(events: Subscription, narrowed: bool) -> Iterable[Event]:
    first = events.receive(_QUIET_SECONDS)
    if first is None:
        more = ", and are --camera and --kind right" if narrowed else ""
        print(f"no such event yet from {events.endpoint}: is the graph running{more}?", file=sys.stderr, flush=True)
    else:
        yield first
    yield from events


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
    when, camera, what, rest = ("".join(c if c.isprintable() else "?" for c in text) for text in texts)
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
