"""What a node is: the base classes a plugin derives from.

A node declares itself once (pads, properties, docstring); `emograph inspect`, the checks, the JSON Schema and
the docs come from that. It does its work in one method and knows nothing of processes or sockets: the same
object runs in a graph (pipeline/worker.py) and in a test (pipeline/harness.py).
"""

from __future__ import annotations

import math
import numbers
import reprlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.buffer import Buffer, Mark
from pipeline.caps import Pad
from pipeline.errors import GraphError, did_you_mean, explain, redact_setting, spelt

SECRET: dict[str, Any] = {"writeOnly": True}
"""`Field(json_schema_extra=SECRET)`: the property's value is shown to nobody (JSON Schema's word for passwords)."""

LEVELS = ("debug", "info", "warning", "error")
RESERVED = frozenset({"name", "streams", "type", "process", "replicas"})
"""Keys of a node in a graph file that are not its own properties."""


class Properties(BaseModel):
    """Base of every node's `Properties`: typed fields with default, range and help.

    Unknown keys, NaN and infinity are errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _split(value: Any) -> Any:
    """A launch string and `--set` know no lists: `labels=calm,tense`."""
    return value.split(",") if isinstance(value, str) else value


Words = Annotated[list[str], BeforeValidator(_split, json_schema_input_type=list[str] | str)]
"""Property type: a list of words; in a launch string with commas between them."""


class SourceProperties(Properties):
    """What every source has."""

    window: int = Field(4, ge=1, le=4096, description="frames that may be out in the graph at once")


@dataclass(frozen=True)
class VideoInfo:
    """What a source delivers from now on: the size of its frames, or of the largest; fps is the nominal rate in
    frames/s, 0 when unknown."""

    height: int
    width: int
    channels: int = 3
    fps: float = 0.0

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels"):
            if not isinstance(value := getattr(self, name), int | np.integer) or value < 1:
                raise TypeError(
                    f"VideoInfo(height, width, channels, fps): {name} is {value!r}, no whole number above 0"
                )
        if not isinstance(self.fps, numbers.Real) or not 0 <= self.fps < math.inf:
            raise TypeError(f"VideoInfo(height, width, channels, fps): fps is {self.fps!r}, no number from 0 on")


class Node:
    """Base of all nodes. Derive from Source, Transform, BatchTransform or Sink."""

    kind: ClassVar[str] = ""
    sink: ClassVar[Pad | None] = None
    src: ClassVar[Pad | None] = None
    Properties: ClassVar[type[Properties]] = Properties
    tick_interval: ClassVar[float | None] = None
    """Seconds between calls of `tick`, also while no buffer comes; None for never."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        base = SourceProperties if cls.kind == "source" else Properties
        if not issubclass(cls.Properties, base):
            raise TypeError(f"{cls.__name__}: its properties are a `class Properties({base.__name__})`")
        taken = RESERVED & set(cls.Properties.model_fields)
        if taken:
            raise TypeError(f"{cls.__name__}: a property cannot be called {', '.join(sorted(taken))}")

    def __init__(self, name: str = "", streams: tuple[str, ...] = (), **properties: Any) -> None:
        """Raises GraphError when a property is unknown or has a wrong value."""
        self.name = name or type(self).type_name()
        self.streams = streams
        """Cameras whose buffers reach this node (for a source: its own name)."""
        self.lossless = False
        """True in `mode: lossless`: wait for what is late in place of dropping it."""
        self.properties = check_properties(type(self), properties, self.name)
        self.props = self.properties
        self.clock: Callable[[], int] = time.monotonic_ns
        """The time, monotonic ns. A test sets its own."""
        self.stopping = threading.Event()
        """Set when the graph stops; a node that waits for something waits on this too."""
        self.restarted = False
        """True in the process that takes over after this node's process died in the same run."""
        self.monitor = ""
        """Address of the run's snapshots (pipeline/monitor.py), for a node that shows the graph itself."""
        self._log: Callable[[str, str], None] = lambda level, text: None
        self._request_stop: Callable[[str], None] = lambda reason: None
        self._observe: Callable[[str, float], None] = lambda metric, value: None
        self._breathe: Callable[[], None] = lambda: None

    @classmethod
    def type_name(cls) -> str:
        """The name the node goes by in a graph when its entry point gives none: the class's, in lower case."""
        return cls.__name__.lower()

    # What a plugin overrides ---------------------------------------------------------------------------

    @classmethod
    def reads(cls, props: Any) -> list[Path]:
        """The files that a node with these properties reads; the check of a graph asks, before anything starts.

        This and `writes` may raise UserError for what is wrong with a path as such.
        """
        return []

    @classmethod
    def writes(cls, props: Any, streams: list[str]) -> list[Path]:
        """The files that it writes for these cameras. None may be another node's too."""
        return []

    @classmethod
    def binds(cls, props: Any) -> list[str]:
        """The addresses that it listens at, `tcp://HOST:PORT` or `ipc://PATH`. None may be another node's too."""
        return []

    @classmethod
    def mentions(cls, props: Any) -> list[str]:
        """The cameras that a node's properties name. The frames of each must reach the node."""
        return []

    def open(self) -> Any:
        """NULL -> READY: acquire what is needed (files, models, sockets). UserError here stops the start."""

    def close(self) -> None:
        """READY -> NULL: give back what `open` took. Called once, also after an error."""

    def on_mark(self, mark: Mark) -> None:
        """A mark (`eos`, `status`, `flush`) of one stream passes, in order with its buffers.

        UserError stops the graph, from here and from `tick`; any other exception is told, and the graph goes on.
        """

    def tick(self) -> None:
        """Called every `tick_interval` seconds."""

    # What a plugin may call ----------------------------------------------------------------------------

    def log(self, level: str, text: str) -> None:
        """Post a message on the bus. level: `debug`, `info`, `warning` or `error`. Nodes never print."""
        self._log(level if level in LEVELS else "warning", str(text))

    def breathe(self) -> None:
        """Let the engine look for the graph's end, from within a call that waits for something: `stopping` is then set.

        From then on wait for nothing outside any more; but frames that are on their way still come, and are worked on
        as ever. A call that takes long without this holds the end up, and is killed in the end.
        """
        self._breathe()

    def observe(self, metric: str, value: float) -> None:
        """Add one sample to a metric of this node (mean and maximum are reported about twice a second)."""
        self._observe(metric, value)

    def request_stop(self, reason: str) -> None:
        """Ask for an orderly end of the whole graph (the window was closed)."""
        self._request_stop(reason)


class Source(Node):
    """Yields buffers: `open` says what they look like, `fill` makes the next one in place."""

    kind = "source"
    Properties = SourceProperties
    live: bool = False
    """True when frames come at their own pace from outside (a camera): they are read on a thread of their
    own, and the newest is kept. May be set per instance in `open`, where it is as it was before a restart."""
    pixels_wanted: bool = True
    """False when no node downstream looks at pixels: a source may then leave `buffer.frame` as it is."""
    shape_before: tuple[int, int, int] | None = None
    """(height, width, channels) of the frames before a restart, for `open`; None where there were none."""
    last_before: tuple[int, int] | None = None
    """PTS and capture time (monotonic ns) of the last frame that a live source sent before a restart, for `open`: its
    PTS go on from there; None where there was none."""
    paced: bool = False
    """True when the engine shall hold each frame until its PTS is due on the clock (a file played in real time)."""

    def open(self) -> VideoInfo:
        raise NotImplementedError(f"{type(self).__name__} must say what its frames look like")

    def seek(self, sequence: int) -> None:
        """Go to the frame after `sequence` earlier ones (the process was restarted). Cameras need not."""

    def fill(self, buffer: Buffer) -> bool:
        """Write the next frame into `buffer.frame` (uint8, height x width x channels of `open`) and set
        `buffer.pts`, and `regions`, `meta` or `wall` (UTC ns, else the time of the call) where there are any. A frame
        that is smaller than the others says so first: `buffer.resize(height, width)`.
        False means EOS."""
        raise NotImplementedError

    def status(self, up: bool, reason: str = "") -> None:
        """Tell everybody downstream, in order with the frames, that the camera went up or down."""
        self._status(up, reason)

    _status: Callable[[bool, str], None] = staticmethod(lambda up, reason: None)


def open_source(node: Source) -> VideoInfo:
    """Open it; TypeError where it does not say what its frames look like."""
    info = node.open()
    if not isinstance(info, VideoInfo):
        raise TypeError(f"open() of {type(node).__name__} must return a VideoInfo, and returned {reprlib.repr(info)}")
    return info


def gave_frame(node: Source, more: object) -> bool:
    """What `fill` has returned, as True or False; TypeError for anything else, which a `return` was forgotten for."""
    if isinstance(more, bool | np.bool_):
        return bool(more)
    returned = reprlib.repr(more)
    raise TypeError(f"fill() of {type(node).__name__} must return True, or False at the end, and returned {returned}")


class Transform(Node):
    """Maps one buffer to one (itself, changed) or to None (it ends here)."""

    kind = "transform"

    def transform(self, buffer: Buffer) -> Buffer | None:
        """`buffer.frame` is uint8 (height, width, channels) in shared memory, and valid during the call alone.

        UserError stops the graph; any other exception drops this buffer, counted as `error`.
        """
        raise NotImplementedError


class BatchTransform(Node):
    """Maps a list of buffers, from all cameras, to as many; `None` in a place ends that buffer."""

    kind = "batch"
    max_batch: int = 64
    """Items (see `items`) in a call, at the most. May be set per instance."""
    max_wait: float = 0.0
    """Seconds that a partial batch may wait for more."""

    def items(self, buffer: Buffer) -> int:
        """How much of a batch this buffer takes; 0 lets it pass without filling the batch."""
        return 1

    def transform_batch(self, buffers: list[Buffer]) -> Sequence[Buffer | None]:
        """As `Transform.transform`, for many at once: result i is of buffer i. An exception drops them all."""
        raise NotImplementedError


class Sink(Node):
    """Consumes buffers."""

    kind = "sink"

    def consume(self, buffer: Buffer) -> None:
        """Use a buffer; when the call returns it is delivered. Errors as in `Transform.transform`."""
        raise NotImplementedError


def check_properties(cls: type[Node], given: dict[str, Any], name: str) -> Any:
    """The node's validated properties; GraphError names the property, what was given and what is right."""
    type_name = cls.type_name()
    known = cls.Properties.model_fields
    for key in given:
        if key not in known:
            owner, dot, part = key.partition(".")
            hint = f"; write {owner}={{{part}: ...}}" if dot and owner in known else did_you_mean(key, known)
            raise GraphError(f"{name}: unknown property '{key}' of {type_name}{hint}")
    try:
        properties = cls.Properties(**given)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        message = explain(first)
        if first["type"] == "string_type":
            number = given.get(key)
            shown = number if type(number) in (int, float) and not is_secret(cls, key) else 7
            shown = "[...]" if isinstance(number, list) else shown
            message = f"""it must be text: "{shown}" in a file, '"{shown}"' in a launch string"""
        if first["type"] == "missing":
            raise GraphError(f"{name}: {type_name} needs the property '{key}'") from None
        if not key:  # the properties do not go together
            raise GraphError(f"{name}: {message}") from None
        value = "" if is_secret(cls, key) else f" is {spelt(redact_setting(key, given.get(key)))}"
        raise GraphError(f"{name}: property '{key}' of {type_name}{value}: {message}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise GraphError(f"{name}: {type_name} cannot say whether its properties are right: {reason}") from error
    for key, value in given.items():
        if isinstance(value, bool) and not isinstance(getattr(properties, key), bool):
            shown = "true" if value else "false"
            raise GraphError(f"{name}: property '{key}' of {type_name} is {shown}, and that is no number")
    return properties


def is_secret(cls: type[Node], key: str) -> bool:
    extra = cls.Properties.model_fields[key].json_schema_extra if key in cls.Properties.model_fields else None
    return isinstance(extra, dict) and extra.get("writeOnly") is True
