"""A graph as it is written: nodes and links, each with its place, and how they are put together.

    spec = GraphSpec("lobby", "lobby.yaml")
    spec.define("door", "lobby.yaml:2", {"type": "capture", "uri": "door.mp4"})

graphfile.py reads them from YAML, launchstring.py from a launch string, load.py from whichever the command line names.
Nothing is known here of what the node types can do; graph.py checks that. Errors name file and line.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pipeline.durations import seconds
from pipeline.errors import GraphError, did_you_mean

MODES = ("live", "lossless")
DEFAULT_BUDGET = 0.25
MAX_REPLICAS = 256
WITH_CAMERA = "{camera}"
"""As a transform's `process`: each camera's frames are worked on in its own process."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,40}")
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}")


@dataclass
class NodeSpec:
    """A node as written. where: `file:line` for messages."""

    name: str
    type: str
    where: str
    properties: dict[str, Any] = field(default_factory=dict)
    process: str | None = None
    replicas: int | str = 1


@dataclass
class LinkSpec:
    source: str
    target: str
    where: str


@dataclass
class GraphSpec:
    """A graph as written, syntax checked only."""

    name: str
    where: str
    mode: str = "live"
    latency_budget: float = DEFAULT_BUDGET
    nodes: dict[str, NodeSpec] = field(default_factory=dict)
    links: list[LinkSpec] = field(default_factory=list)
    _linked: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False, compare=False)
    """What `connect` has linked."""

    def define(self, name: str, where: str, values: dict[str, Any]) -> None:
        """Add a node; `values` are its keys, properties included."""
        if not NAME.fullmatch(name):
            raise GraphError(
                f"{where}: '{name}' is no name for a node: up to 41 letters, digits, '_' and '-', a letter or '_' first"
            )
        if name in self.nodes:
            first = self.nodes[name].where
            raise GraphError(f"{where}: duplicate name '{name}'" + (f"; first at {first}" if first != where else ""))
        self.nodes[name] = make_node(name, where, values)

    def set(self, key: str, value: Any, where: str) -> None:
        """Set `name`, `mode` or `latency_budget`."""
        if key == "mode":
            if value not in MODES:
                raise GraphError(f"{where}: mode is {value!r}: one of {', '.join(MODES)}")
            self.mode = value
        elif key == "latency_budget":
            try:
                budget = seconds(value)
                if isinstance(budget, bool) or not isinstance(budget, (int, float)) or budget <= 0:
                    raise ValueError(f"{value!r} is not a duration such as 250ms")
            except ValueError as error:
                raise GraphError(f"{where}: latency_budget: {error}") from None
            self.latency_budget = float(budget)
        else:
            if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
                raise GraphError(f"{where}: name is {value!r}: text is needed")
            self.name = str(value)

    def connect(self, chain: list[list[str]], where: str) -> None:
        """Link the nodes that a line such as `[a, b] ! c ! d` names, each to each of the next."""
        for name in (name for names in chain for name in names):
            if name not in self.nodes:
                raise GraphError(f"{where}: no node named '{name}'{did_you_mean(name, self.nodes)}")
        for sources, targets in pairwise(chain):
            for source in sources:
                for target in targets:
                    if (source, target) in self._linked:
                        raise GraphError(f"{where}: {source} ! {target} is linked twice")
                    self._linked.add((source, target))
                    self.links.append(LinkSpec(source, target, where))


def make_node(name: str, where: str, values: dict[str, Any]) -> NodeSpec:
    """A node from its keys; what is neither `type`, `process` nor `replicas` is a property."""
    type_ = values.pop("type", None)
    if not isinstance(type_, str):
        raise GraphError(f"{where}: {name}: 'type' is missing")
    process, replicas = values.pop("process", None), values.pop("replicas", 1)
    if process == {"camera": None}:
        raise GraphError(f'{where}: {name}: {WITH_CAMERA} is a mapping in YAML: write process: "{WITH_CAMERA}"')
    if process not in (None, WITH_CAMERA) and (not isinstance(process, str) or not NAME.fullmatch(process)):
        raise GraphError(f"{where}: {name}: process is {process!r}: a name is needed, or {WITH_CAMERA}")
    if isinstance(replicas, str) and replicas.isdecimal() and len(replicas) < 100:  # `int` takes some thousands
        replicas = int(replicas)
    if replicas != "auto" and (type(replicas) is not int or not 1 <= replicas <= MAX_REPLICAS):
        raise GraphError(f"{where}: {name}: replicas is {replicas!r}: a number from 1 to {MAX_REPLICAS}, or auto")
    return NodeSpec(name, type_, where, values, process, replicas)


def fill_in_variables(value: Any, where: str) -> Any:
    """`${NAME}` in strings becomes the environment's value, `$${` becomes `${`. GraphError for a NUL, which no
    path, address or name holds and which the system's calls answer with a ValueError."""
    if isinstance(value, list):
        return [fill_in_variables(v, where) for v in value]
    if isinstance(value, dict):
        return {key: fill_in_variables(v, where) for key, v in value.items()}
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise GraphError(f"{where}: a NUL (\\0) stands in the text")

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if name in os.environ:
            return os.environ[name]
        plain = re.fullmatch(r"([A-Za-z_]\w*)(:?[-=?+].*)?", name, re.DOTALL)
        if plain and plain[2]:  # `${PASSWORD:-12345}`: what follows the name is told to nobody
            raise GraphError(f"{where}: write ${{{plain[1]}}} and nothing else in its braces: no default is known here")
        if plain:
            raise GraphError(f"{where}: the environment variable '{name}' is not set")
        raise GraphError(f"{where}: in ${{...}} stands the name of an environment variable, and nothing else")

    return _VARIABLE.sub(variable, value)


def names_in(part: str, where: str) -> list[str]:
    """The names in one part of a link: `a`, `a.` or `[a, b]`."""
    if part.startswith("["):
        if not part.endswith("]"):
            raise GraphError(f"{where}: '{part}': the bracket is not closed")
        names = [name.strip().removesuffix(".") for name in part[1:-1].split(",")]
    else:
        names = [part.removesuffix(".")]
    for name in names:
        if not NAME.fullmatch(name):
            raise GraphError(f"{where}: '{name}' is no name of a node; write 'a ! b' or '[a, b] ! c'")
    return names
