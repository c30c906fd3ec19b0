"""The graph that a command is given, a file or a launch string, with what its `--set` options change.

spec = load("configs/graphs/demo.yaml", ["mode=lossless", "faces.min_size=48"])
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import GraphError, did_you_mean
from pipeline.graphfile import SUFFIXES, parse_file
from pipeline.launchstring import parse_launch, scalar
from pipeline.spec import GraphSpec, fill_in_variables, make_node


def load(what: str, settings: list[str] | None = None) -> GraphSpec:
    """A graph from a file's path or a launch string, with `--set` settings applied. Raises GraphError."""
    is_name = what.endswith(SUFFIXES) or ("!" not in what and _looks_like_a_path(what))
    if "!" in what and not (is_name and os.path.exists(what)):
        spec = parse_launch(what)
    elif is_name:
        spec = parse_file(Path(what))
    else:
        raise GraphError(f"neither a graph file nor a launch string with links ('a ! b'): {what!r}")
    for setting in settings or []:
        _set(spec, setting)
    return spec


def _looks_like_a_path(what: str) -> bool:
    return os.path.exists(what) or (bool(what.strip()) and " " not in what.strip())


def _set(spec: GraphSpec, setting: str) -> None:
    """One `--set node.property=value` (or `mode=...`, `latency_budget=...`)."""
    key, equals, text = setting.partition("=")
    where = f"--set {key}".rstrip()  # without the value, which may be a secret
    if not equals or not key:
        raise GraphError(f"{where}: write node.property=value")
    name, dot, prop = key.partition(".")
    if not dot:
        if key not in ("name", "mode", "latency_budget"):
            raise GraphError(f"{where}: write node.property=value, mode=..., latency_budget=... or name=...")
        spec.set(key, text, where)
        return
    if name not in spec.nodes:
        raise GraphError(f"{where}: no node named '{name}'{did_you_mean(name, spec.nodes)}")
    node = spec.nodes[name]
    values = {"type": node.type, "process": node.process, "replicas": node.replicas, **node.properties}
    values[prop] = fill_in_variables(scalar(text), where)
    spec.nodes[name] = make_node(name, node.where, {k: v for k, v in values.items() if v is not None})
