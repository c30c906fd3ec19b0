"""The form of a snapshot (docs/PROTOCOL.md, "Snapshots"): declared once, for who makes one and who reads one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

VERSION = 1
"""Rises when the meaning of a field changes or one goes away; new fields come without."""


class Drop(TypedDict):
    node: str
    reason: str
    count: int


class MetricNow(TypedDict):
    """A metric's samples of the last seconds; percentiles in the metric's own unit, per_s: samples/s."""

    mean: float
    p50: float
    p95: float
    max: float
    per_s: float


class Camera(TypedDict):
    """A ledger and how the camera does: fps frames/s delivered, since UTC ns."""

    captured: int
    delivered: int
    dropped: list[Drop]
    in_flight: int
    capture_fps: float
    fps: float
    latency_ms: MetricNow | None
    up: bool
    since: int
    reason: str
    ended: bool


_Counts = TypedDict("_Counts", {"in": int, "out": int})  # `in` is no name in Python


class NodeNow(_Counts):
    """One node of the expanded graph; in, out and dropped are sums over the run, the rest is of the last seconds."""

    type: str
    kind: str
    process: str
    base: str
    settings: dict[str, Any]
    streams: list[str]
    links: list[str]
    dropped: dict[str, int]
    in_fps: float
    fps: float
    busy: float
    metrics: dict[str, MetricNow]


class ProcessNow(TypedDict):
    """cpu: cores in use; rss_mb: memory, what is shared counted in part, 10^6 bytes."""

    nodes: list[str]
    pid: int | None
    state: str
    restarts: int
    cpu: float
    rss_mb: float


class Message(TypedDict):
    time: int
    level: str
    node: str
    text: str


class Snapshot(TypedDict):
    v: int
    graph: str
    mode: str
    latency_budget_ms: float
    pid: int
    time: int
    state: str
    uptime_s: Annotated[float, Field(allow_inf_nan=False)]
    cameras: dict[str, Camera]
    nodes: dict[str, NodeNow]
    processes: dict[str, ProcessNow]
    messages: list[Message]
    errors: list[str]
    garbage: int


_FORM = TypeAdapter(Snapshot)


def is_snapshot(value: Any) -> bool:
    """Whether something from a socket has all that a reader of snapshots of this version relies on."""
    if not isinstance(value, dict) or value.get("v") != VERSION:
        return False
    try:
        _FORM.validate_python(value, strict=True)  # a number, not a text that one could be read from
    except ValidationError:
        return False
    return True
