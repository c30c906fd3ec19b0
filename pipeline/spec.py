"""A graph as it is written: from a YAML file or a launch string to nodes and links, each with its place.

Nothing is known here of what the node types can do; pipeline/graph.py checks that. Errors name file and line.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pipeline.durations import seconds
from pipeline.errors import GraphError, did_you_mean

GRAPH_KEYS = ("name", "mode", "latency_budget", "nodes", "links")
NODE_KEYS = ("type", "process", "replicas")
MODES = ("live", "lossless")
DEFAULT_BUDGET = 0.25
MAX_REPLICAS = 256
MAX_ITEMS = 10_000
"""Values in one property of a graph file."""
WITH_CAMERA = "{camera}"
"""As a transform's `process`: each camera's frames are worked on in its own process."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,40}")
_MERGE = "tag:yaml.org,2002:merge"
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
# `- [door, desk] ! faces` is no YAML (a flow sequence with something behind it), yet the natural way to write it.
_LIST_LINK = re.compile(r"^(\s*-\s+)(\[[^\]\n]*\]\s*!.*?)(\s+#.*)?$", re.MULTILINE)


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


def load(what: str, settings: list[str] | None = None) -> GraphSpec:
    """A graph from a file's path or a launch string, with `--set` settings applied. Raises GraphError."""
    is_name = what.endswith((".yaml", ".yml")) or ("!" not in what and " " not in what.strip() and what.strip())
    if "!" in what and not (is_name and os.path.exists(what)):
        spec = parse_launch(what)
    elif is_name:
        spec = parse_file(Path(what))
    else:
        raise GraphError(f"neither a graph file nor a launch string with links ('a ! b'): {what!r}")
    for setting in settings or []:
        _set(spec, setting)
    return spec


# YAML -----------------------------------------------------------------------------------------------------


def parse_file(path: Path) -> GraphSpec:
    """A graph file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GraphError(f"no such graph file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise GraphError(f"cannot read {path}: {reason}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, file: str) -> GraphSpec:
    """A graph from YAML text; `file` is for messages."""
    try:
        root = yaml.compose(_LIST_LINK.sub(_quoted, text), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _syntax_error(error, file) from None
    except RecursionError:
        raise GraphError(f"{file}: YAML syntax: too many brackets inside each other") from None
    if root is None:
        raise GraphError(f"{file}: the file is empty; a graph has 'nodes' and 'links'")
    spec = GraphSpec(os.fsencode(Path(file).stem).decode(errors="replace"), file)
    found = _mapping(root, file, "a graph")
    for key, (where, node) in found.items():
        if key not in GRAPH_KEYS:
            raise GraphError(f"{where}: unknown key '{key}'{did_you_mean(key, GRAPH_KEYS)}")
        if key == "nodes":
            for name, (place, body) in _mapping(node, file, "'nodes'").items():
                _add_node(spec, name, place, _mapping(body, file, f"node '{name}'"))
        elif key != "links":
            _set_graph(spec, key, _value(node, where), where)
    for key in ("nodes", "links"):
        if key not in found:
            raise GraphError(f"{file}: '{key}' is missing")
    where, links = found["links"]
    if not isinstance(links, yaml.SequenceNode):
        raise GraphError(f"{where}: 'links' is a list of lines such as '- camera ! faces ! mood'")
    for item in links.value:
        place = _where(file, item)
        if not isinstance(item, yaml.ScalarNode):
            raise GraphError(f"{place}: a link is a line such as 'camera ! faces ! mood'")
        _add_links(spec, item.value, place)
    return spec


def _syntax_error(error: yaml.YAMLError, file: str) -> GraphError:
    if not isinstance(error, yaml.MarkedYAMLError):
        return GraphError(f"{file}: YAML syntax: {error}")
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    context, first = error.context, error.context_mark
    if context and first and mark and first.line != mark.line:
        context += f" (line {first.line + 1})"
    return GraphError(f"{file}{line}: YAML syntax: {' '.join(filter(None, (context, error.problem)))}")


def _quoted(match: re.Match[str]) -> str:
    link = match[2].replace('"', '\\"')
    return f'{match[1]}"{link}"{match[3] or ""}'


def _where(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


Entries = dict[str, tuple[str, yaml.Node]]
"""key -> (place, value)."""


def _mapping(node: yaml.Node, file: str, what: str, known: dict[int, Entries] | None = None) -> Entries:
    """The entries of a map; a key that stands twice is an error, where YAML would take the last.

    What is merged (`<<: *door`) comes after a map's own keys and does not replace them (https://yaml.org/type/merge.html).
    known: what was found of nodes already, since a few lines of merges of merges lead to one many times.
    """
    if not isinstance(node, yaml.MappingNode):
        raise GraphError(f"{_where(file, node)}: {what} must be a map of 'key: value'")
    known = {} if known is None else known
    found: Entries = {}
    merged: list[tuple[str, yaml.Node]] = []
    for key_node, value in node.value:
        place = _where(file, key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            # An alias is where its anchor is.
            raise GraphError(f"{_where(file, node)}: a key of {what} must be a plain word; to merge: '<<: *name'")
        key = key_node.value
        if key in found or (key_node.tag == _MERGE and merged):
            first = merged[0][0] if key_node.tag == _MERGE else found[key][0]
            raise GraphError(f"{place}: duplicate name '{key}' in {what}; first at {first}")
        if key_node.tag == _MERGE:
            others = value.value if isinstance(value, yaml.SequenceNode) else [value]
            merged += [(place, other) for other in others]
        elif key.startswith("<"):
            raise GraphError(f"{place}: '{key}' in {what}: to merge another node's keys write '<<: *name'")
        else:
            found[key] = place, value
    for place, other in merged:
        if not isinstance(other, yaml.MappingNode):
            raise GraphError(f"{place}: '<<' in {what} needs a map that has an anchor: '<<: *name'")
        try:
            if id(other) not in known:
                known[id(other)] = _mapping(other, file, what, known)
        except RecursionError:
            raise GraphError(f"{place}: '<<' in {what} leads back to itself") from None
        found |= {key: entry for key, entry in known[id(other)].items() if key not in found}
    return found


def _value(node: yaml.Node, where: str) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a tag that means nothing; no date, no number
        reason = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        raise GraphError(f"{where}: {reason}") from None
    finally:
        loader.dispose()


def _add_node(spec: GraphSpec, name: str, where: str, body: dict[str, tuple[str, yaml.Node]]) -> None:
    values: dict[str, Any] = {}
    for key, (place, node) in body.items():
        at = f"{place}: {name}: {key}"
        value = _value(node, at)
        if _is_huge(value):
            raise GraphError(f"{at}: more than {MAX_ITEMS:,} values, aliases included")
        values[key] = _expand(value, at)
    _define(spec, name, where, values)


def _is_huge(value: Any) -> bool:
    """Whether lists in lists have more than MAX_ITEMS values: a few lines of aliases of aliases are millions."""
    count, left = 0, [value]
    while left and count <= MAX_ITEMS:
        item = left.pop()
        count += 1
        if isinstance(item, list):
            left += item[: MAX_ITEMS + 1]
    return count > MAX_ITEMS


def _define(spec: GraphSpec, name: str, where: str, values: dict[str, Any]) -> None:
    if not NAME.fullmatch(name):
        raise GraphError(
            f"{where}: '{name}' is no name for a node: up to 41 letters, digits, '_' and '-', a letter or '_' first"
        )
    if name in spec.nodes:
        first = spec.nodes[name].where
        raise GraphError(f"{where}: duplicate name '{name}'" + (f"; first at {first}" if first != where else ""))
    spec.nodes[name] = _node(name, where, values)


def _node(name: str, where: str, values: dict[str, Any]) -> NodeSpec:
    type_ = values.pop("type", None)
    if not isinstance(type_, str):
        raise GraphError(f"{where}: {name}: 'type' is missing")
    process, replicas = values.pop("process", None), values.pop("replicas", 1)
    if process == {"camera": None}:
        raise GraphError(f'{where}: {name}: {WITH_CAMERA} is a mapping in YAML: write process: "{WITH_CAMERA}"')
    if process not in (None, WITH_CAMERA) and (not isinstance(process, str) or not NAME.fullmatch(process)):
        raise GraphError(f"{where}: {name}: process is {process!r}: a name is needed, or {WITH_CAMERA}")
    if isinstance(replicas, str) and replicas.isdecimal():
        replicas = int(replicas)
    if replicas != "auto" and (type(replicas) is not int or not 1 <= replicas <= MAX_REPLICAS):
        raise GraphError(f"{where}: {name}: replicas is {replicas!r}: a number from 1 to {MAX_REPLICAS}, or auto")
    return NodeSpec(name, type_, where, values, process, replicas)


def _expand(value: Any, where: str) -> Any:
    """`${NAME}` in strings becomes the environment's value. GraphError for a NUL, which no path, address or name holds
    and which the system's calls answer with a ValueError."""
    if isinstance(value, list):
        return [_expand(v, where) for v in value]
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise GraphError(f"{where}: a NUL (\\0) stands in the text")

    def variable(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise GraphError(f"{where}: the environment variable '{match[1]}' is not set")
        return os.environ[match[1]]

    return _VARIABLE.sub(variable, value)


def _set_graph(spec: GraphSpec, key: str, value: Any, where: str) -> None:
    if key == "mode":
        if value not in MODES:
            raise GraphError(f"{where}: mode is {value!r}: one of {', '.join(MODES)}")
        spec.mode = value
    elif key == "latency_budget":
        try:
            budget = seconds(value)
            if isinstance(budget, bool) or not isinstance(budget, (int, float)) or budget <= 0:
                raise ValueError(f"{value!r} is not a duration such as 250ms")
        except ValueError as error:
            raise GraphError(f"{where}: latency_budget: {error}") from None
        spec.latency_budget = float(budget)
    else:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise GraphError(f"{where}: name is {value!r}: text is needed")
        spec.name = str(value)


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
        _set_graph(spec, key, text, where)
        return
    if name not in spec.nodes:
        raise GraphError(f"{where}: no node named '{name}'{did_you_mean(name, spec.nodes)}")
    node = spec.nodes[name]
    values = {"type": node.type, "process": node.process, "replicas": node.replicas, **node.properties}
    values[prop] = _expand(_scalar(text), where)
    spec.nodes[name] = _node(name, node.where, {k: v for k, v in values.items() if v is not None})


# Links and launch strings ---------------------------------------------------------------------------------


def _add_links(spec: GraphSpec, text: str, where: str) -> None:
    """One line of links: `[a, b] ! c ! d`."""
    parts = [part.strip() for part in text.split("!")]
    if len(parts) < 2 or not all(parts):
        raise GraphError(f"{where}: '{text}' links nothing; write 'a ! b'")
    chain = [_names(part, where) for part in parts]
    for names in chain:
        for name in names:
            if name not in spec.nodes:
                raise GraphError(f"{where}: no node named '{name}'{did_you_mean(name, spec.nodes)}")
    _connect(spec, chain, where)


def _names(part: str, where: str) -> list[str]:
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


def _connect(spec: GraphSpec, chain: list[list[str]], where: str) -> None:
    for sources, targets in pairwise(chain):
        for source in sources:
            for target in targets:
                if any((link.source, link.target) == (source, target) for link in spec.links):
                    raise GraphError(f"{where}: {source} ! {target} is linked twice")
                spec.links.append(LinkSpec(source, target, where))


def parse_launch(text: str) -> GraphSpec:
    """A graph from a launch string: `type name=n prop=value ! type ! n.`, as in gst-launch."""
    where = "launch string"
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise GraphError(f"{where}: {error}") from None
    spec = GraphSpec("launch", where)
    # First the elements, then the links: a reference may stand before what it refers to.
    chains: list[list[list[str]]] = []
    wants_link = False
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "!":
            if wants_link or not chains:
                raise GraphError(f"{where}: '!' with nothing before it")
            wants_link = True
            continue
        if word.startswith("["):
            while not word.endswith("]") and position < len(words):
                word += " " + words[position]
                position += 1
            element = _names(word, where)
        elif word.endswith("."):
            element = _names(word, where)
        elif "=" in word:
            raise GraphError(f"{where}: '{word}' belongs to no node; a property follows its node's type")
        else:
            values: dict[str, Any] = {"type": word}
            while position < len(words) and re.match(r"[A-Za-z_]\w*=", words[position]):
                key, _, value = words[position].partition("=")
                position += 1
                if key in values:
                    raise GraphError(f"{where}: {word}: '{key}' is given twice")
                given = _scalar(value)
                if key in ("name", "process") and isinstance(given, bool):
                    given = value  # a camera may be called `yes` or `on`
                values[key] = _expand(given, f"{where}: {word}: {key}")
            name = str(values.pop("name", "")) or _number(spec, word)
            _define(spec, name, where, values)
            element = [name]
        if wants_link:
            chains[-1].append(element)
        else:
            chains.append([element])
        wants_link = False
    if wants_link:
        raise GraphError(f"{where}: '!' with nothing behind it")
    for chain in chains:
        for name in (n for names in chain for n in names):
            if name not in spec.nodes:
                raise GraphError(f"{where}: no node named '{name}'{did_you_mean(name, spec.nodes)}")
        _connect(spec, chain, where)
    return spec


def _number(spec: GraphSpec, type_: str) -> str:
    index = sum(1 for node in spec.nodes.values() if node.type == type_)
    while f"{type_}{index}" in spec.nodes:
        index += 1
    return f"{type_}{index}"


def _scalar(text: str) -> Any:
    """A word of the command line as YAML would read it: numbers, true/false, text in quotes; else the word itself.

    What a variable of the environment then puts into it is text, as in a file.
    """
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return text  # `2024-13-45` is no date, but may be a name
    quoted = text[:1] in ("'", '"')
    return value if isinstance(value, (int, float, bool)) or (quoted and isinstance(value, str)) else text
