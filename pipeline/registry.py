"""The registry: node types by name, found through the entry-point group `emograph.nodes`.

A package adds nodes by declaring entry points; nothing here or in `nodes/` changes for it. A node that is in no package
has the path of its file for a type: `./mirror.py`, or `./mirror.py:Mirror` where there are several in it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from pipeline import modules
from pipeline.errors import GraphError, UserError, did_you_mean
from pipeline.mishaps import told
from pipeline.node import BatchTransform, Node, Sink, Source, Transform

GROUP = "emograph.nodes"
_IMPORTING = (__file__, modules.__file__, importlib.__file__)
_PADS = {"source": ("src",), "sink": ("sink",)}
"""Kind -> the pads that it must have; all others have both."""
_METHODS = {
    Source: ("open(self)", "fill(self, buffer)"),
    Transform: ("transform(self, buffer)",),
    BatchTransform: ("transform_batch(self, buffers)",),
    Sink: ("consume(self, buffer)",),
}
"""What a node of that kind must define."""
_ELSEWHERE = {
    "tee": "link one node to several",
    "queue": "each node runs in a process of its own, and takes what waits for it",
}
"""Elements that a GStreamer user looks for, and what is done without them here."""


@dataclass(frozen=True)
class NodeType:
    """A node type. path: `module:Class`, or `/path/to/file.py:Class`; package: the distribution that brings it, empty
    for a file; rival: another one that brings a type of this name."""

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
        try:
            cls = modules.load(self.path)
        except (Exception, SystemExit) as error:
            raise UserError(f"{self} cannot be imported: {told(error, _IMPORTING)}") from error
        if not _is_node(cls):
            raise UserError(f"{self}: {self.path} is not a node class")
        pads = {"sink": cls.sink, "src": cls.src}
        missing = [name for name in _PADS.get(cls.kind, tuple(pads)) if pads[name] is None]
        if missing:
            needed = " and ".join(f"`{name} = pad(...)`" for name in missing)
            raise UserError(f"{self}: {self.path} is a {cls.kind}, which needs {needed}")
        if needed := " and ".join(f"`def {method}`" for method in _undefined(cls)):
            raise UserError(f"{self}: {self.path} is a {cls.kind}, which needs {needed}")
        return cls

    def __str__(self) -> str:
        return f"node type '{self.name}'" + (f" of package {self.package}" if self.package else "")


def _is_node(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Node) and bool(thing.kind)


def _undefined(cls: type[Node]) -> list[str]:
    """The methods that its kind needs and that it does not have, as they are to be written."""

    def same(base: type[Node], method: str) -> bool:
        name = method.partition("(")[0]
        return getattr(cls, name) is getattr(base, name)

    return [m for base, methods in _METHODS.items() if issubclass(cls, base) for m in methods if same(base, m)]


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


_FILE = re.compile(r"(.*\.py)(?::(\w+))?", re.DOTALL)
"""A type that is a file, and the class in it."""


def file_of(type_: str) -> tuple[str, str] | None:
    """The path, and the class or "", of a type that is a file; None for the name of a type."""
    found = _FILE.fullmatch(type_)
    return (found[1], found[2] or "") if found else None


def _in_file(name: str, file: str, cls: str) -> NodeType:
    path = Path(os.path.expanduser(file))
    with contextlib.suppress(FileNotFoundError):  # there may be no working folder any more
        path = path.absolute()
    if not os.path.isfile(path):  # Path's own raises an error for a name that is too long
        raise GraphError(f"no such file: '{path}', which is given as a node's type")
    found = NodeType(name, f"{path}:{cls}", "")
    try:
        module = modules.load_module(str(path))
    except (Exception, SystemExit) as error:
        raise UserError(f"{found} cannot be imported: {told(error, _IMPORTING)}") from error
    own = _own_nodes(module)
    if cls:
        if not hasattr(module, cls):
            raise GraphError(f"there is no '{cls}' in '{file}'{did_you_mean(cls, own)}")
        return found
    if len(own) != 1:
        which = f"write one of {', '.join(f'{file}:{other}' for other in own)}" if own else "it defines none"
        raise GraphError(f"'{file}' is given as a node's type, and holds {len(own)} node classes: {which}")
    return replace(found, path=f"{path}:{own[0]}")


def _own_nodes(module: ModuleType) -> list[str]:
    """Names of the node classes that a module defines itself, those left out that others in it are made of."""
    own: dict[type[Node], str] = {}
    for name, thing in vars(module).items():
        if _is_node(thing) and thing.__module__ == module.__name__:
            own.setdefault(thing, name)  # a second name is no second class
    return [name for cls, name in own.items() if not any(o is not cls and issubclass(o, cls) for o in own)]


def find(name: str) -> NodeType:
    """The type of that name, or in that file; GraphError with the nearest right name."""
    types = node_types()
    if name not in types and (place := file_of(name)):
        return _in_file(name, *place)
    if name in _ELSEWHERE and name not in types:
        raise GraphError(f"there is no '{name}', and none is needed: {_ELSEWHERE[name]}")
    if name not in types:
        raise GraphError(f"unknown node type '{name}'{did_you_mean(name, types)}")
    return types[name]
