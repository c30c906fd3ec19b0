"""A graph file: YAML with the line of everything in it.

    spec = parse_file(Path("configs/graphs/demo.yaml"))

docs/graphs.md says what may stand in one.
"""

from __future__ import annotations

import mimetypes
import os
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import GraphError, did_you_mean
from pipeline.spec import GraphSpec, fill_in_variables, names_in
from pipeline.values import BadValue, construct

GRAPH_KEYS = ("name", "mode", "latency_budget", "nodes", "links")
SUFFIXES = (".yaml", ".yml")
MAX_CHARACTERS = 10_000_000
"""In a graph file."""
_MERGE = "tag:yaml.org,2002:merge"
# `- [door, desk] ! faces` is no YAML (a flow sequence with something behind it), yet the natural way to write it.
# No two neighbouring parts may take the same blanks, or a file with many of them takes the square of their number.
_LIST_LINK = re.compile(r"^([ \t]*-\s+)(\[[^\]\n]*\]\s*!.*?)((?<=\s)#.*)?$", re.MULTILINE)


def parse_file(path: Path) -> GraphSpec:
    """A graph file."""
    if path.suffix == ".py":
        raise GraphError(f'{path} is no graph, but may be a node of one: "testsrc ! {path} ! ..."')
    try:
        with path.open(encoding="utf-8") as file:  # not all at once: it may be a film
            text = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        kind = _kind(path)
        hint = _way_in(path, "photos" if kind == "image" else "file") if kind in ("image", "video") else ""
        raise GraphError(f"no such graph file: {path}{hint}") from None
    except IsADirectoryError:
        raise GraphError(f"cannot read {path}: it is a folder{_way_in(path, 'photos')}") from None
    except UnicodeDecodeError:
        hint = _way_in(path, "photos" if _kind(path) == "image" else "file") if path.suffix not in SUFFIXES else ""
        raise GraphError(f"cannot read {path}: not a text file{hint}") from None
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error.strerror}") from None
    if len(text) > MAX_CHARACTERS:
        raise GraphError(f"cannot read {path}: more than {MAX_CHARACTERS:,} characters")
    return parse_yaml(text, str(path))


def _kind(path: Path) -> str:
    """`image`, `video`, ..., by the suffix; empty where that says nothing."""
    return (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]


def _way_in(path: Path, graph: str) -> str:
    """What to do with `path`, which was given in the place of a graph that reads it: `graph` is one of ours."""
    what, node = {"photos": ("pictures go", "photos"), "file": ("a recording goes", "video")}[graph]
    quoted = shlex.quote(str(path))
    return (
        f"; {what} into a graph: configs/graphs/{graph}.yaml --set {node}.uri={quoted}, "
        f'or "capture uri={quoted} ! haardetect ! ..."'
    )


def parse_yaml(text: str, file: str) -> GraphSpec:
    """A graph from YAML text; `file` is for messages."""
    text = _LIST_LINK.sub(_quoted, text)
    root = _compose(text, file)
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
            spec.set(key, _value(node, where), where)
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


def _compose(text: str, file: str) -> yaml.Node | None:
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        return loader.get_single_node()
    except yaml.YAMLError as error:
        raise _syntax_error(error, file, text) from None
    except RecursionError:
        raise GraphError(f"{file}: YAML syntax: too many brackets inside each other") from None
    except (ValueError, OverflowError):  # of `"\UFFFFFFFF"`, of thousands of digits after `%YAML`
        line = loader.get_mark().line + 1 if loader is not None else 1
        raise GraphError(
            f"{file}:{line}: YAML syntax: a number that is too large, in an escape or a directive"
        ) from None


def _syntax_error(error: yaml.YAMLError, file: str, text: str) -> GraphError:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return GraphError(f"{file}:{line}: YAML syntax: unacceptable character #x{ord(text[error.position]):04x}")
    if not isinstance(error, yaml.MarkedYAMLError):
        return GraphError(f"{file}: YAML syntax: {error}")
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    context, first = error.context, error.context_mark
    if context and first and mark and first.line != mark.line:
        context += f" (line {first.line + 1})"
    hint = ""
    if mark and (variable := re.match(r"\$\{(\w*)[^}\n]*\}", text[max(0, mark.index - 1) :])):
        hint = f"; a value with ${{{variable[1]}}} in it needs quotes there"
    return GraphError(f"{file}{line}: YAML syntax: {' '.join(filter(None, (context, error.problem)))}{hint}")


def _quoted(match: re.Match[str]) -> str:
    link = match[2].rstrip().replace("\\", r"\\").replace('"', r"\"")
    return f'{match[1]}"{link}" {match[3] or ""}'


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
    try:
        return construct(node)
    except BadValue as error:
        raise GraphError(f"{where}: {error}") from None


def _add_node(spec: GraphSpec, name: str, where: str, body: dict[str, tuple[str, yaml.Node]]) -> None:
    values: dict[str, Any] = {}
    for key, (place, node) in body.items():
        at = f"{place}: {name}: {key}"
        values[key] = fill_in_variables(_value(node, at), at)
    spec.define(name, where, values)


def _add_links(spec: GraphSpec, text: str, where: str) -> None:
    """One line of links: `[a, b] ! c ! d`."""
    parts = [part.strip() for part in text.split("!")]
    if len(parts) < 2 or not all(parts):
        raise GraphError(f"{where}: '{text}' links nothing; write 'a ! b'")
    spec.connect([names_in(part, where) for part in parts], where)
