"""emograph's engine: a graph of plugin nodes in processes of their own, over ZeroMQ and shared memory.

Knows nothing of faces or torch. What is imported here by name is public; the rest is the engine's own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.buffer import Buffer, Mark, Region
    from pipeline.caps import Pad, pad
    from pipeline.durations import Seconds
    from pipeline.errors import GraphError, UserError
    from pipeline.events import Event
    from pipeline.harness import Harness
    from pipeline.node import (
        BatchTransform,
        Node,
        Properties,
        Sink,
        Source,
        SourceProperties,
        Transform,
        VideoInfo,
    )
    from pipeline.subscription import subscribe, to_dataframe

_HOME = {
    "Buffer": "buffer", "Mark": "buffer", "Region": "buffer", "Pad": "caps", "pad": "caps",
    "GraphError": "errors", "UserError": "errors", "Harness": "harness",
    "Event": "events", "subscribe": "subscription", "to_dataframe": "subscription",
    "BatchTransform": "node", "Node": "node", "Properties": "node", "Seconds": "durations", "Sink": "node",
    "Source": "node", "SourceProperties": "node", "Transform": "node", "VideoInfo": "node",
}  # fmt: skip

__all__ = [
    "BatchTransform",
    "Buffer",
    "Event",
    "GraphError",
    "Harness",
    "Mark",
    "Node",
    "Pad",
    "Properties",
    "Region",
    "Seconds",
    "Sink",
    "Source",
    "SourceProperties",
    "Transform",
    "UserError",
    "VideoInfo",
    "pad",
    "subscribe",
    "to_dataframe",
]


def __getattr__(name: str) -> Any:
    # Names are imported when first used: a subscriber needs no pydantic, a worker no pandas.
    if name in _HOME:
        value = getattr(importlib.import_module(f"pipeline.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
