"""The registry: node types by name, found through the entry-point group `emograph.nodes`.

A package adds nodes by declaring entry points; nothing here or in `nodes/` changes for it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pipeline.errors import GraphError, UserError, did_you_mean
from pipeline.node import Node

GROUP = "emograph.nodes"
_PADS = {"source": ("src",), "sink": ("sink",)}
"""Kind -> the pads that it must have; all others have both."""
_ELSEWHERE = {
    "tee": "link one node to several",
    "queue": "each node runs in a process of its own, and takes what waits for it",
}
"""Elements that a GStreamer user looks for, and what is done without them here."""


@dataclass(frozen=True)
class NodeType:
    """A registered node type. path: `module:Class`; package: the distribution that brings it; rival: another one that
    brings a type of this name."""

    name: str
    path: str
    package: str
    rival: str = ""

    def load(self) -> type[Node]:
        """Import the class; UserError when the plugin is broken, or its name is not its own."""
        if self.rival:
            raise UserError(
                f"two packages bring a node type '{self.name}', {self.package} and {self.rival}: remove one"
            )
        module, _, attribute = self.path.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"node type '{self.name}' of package {self.package} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, Node) and cls.kind):
            raise UserError(f"node type '{self.name}' of package {self.package}: {self.path} is not a node class")
        pads = {"sink": cls.sink, "src": cls.src}
        missing = [name for name in _PADS.get(cls.kind, tuple(pads)) if pads[name] is None]
        if missing:
            raise UserError(
                f"node type '{self.name}' of package {self.package}: {self.path} is a {cls.kind}, which needs "
                + " and ".join(f"`{name} = pad(...)`" for name in missing)
            )
        return cls


@cache
def node_types() -> dict[str, NodeType]:
    """All registered types by name."""

    def package(entry: EntryPoint) -> str:
        return entry.dist.name if entry.dist is not None else "?"

    types: dict[str, NodeType] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, package(e))):
        known = types.get(entry.name)
        if known is None:
            types[entry.name] = NodeType(entry.name, entry.value, package(entry))
        elif known.path != entry.value:  # the same one again is an installation that is found twice
            types[entry.name] = replace(known, rival=package(entry))
    return types


def find(name: str) -> NodeType:
    """The type of that name; GraphError with the nearest right name."""
    types = node_types()
    if name in _ELSEWHERE and name not in types:
        raise GraphError(f"there is no '{name}', and none is needed: {_ELSEWHERE[name]}")
    if name not in types:
        raise GraphError(f"unknown node type '{name}'{did_you_mean(name, types)}")
    return types[name]
