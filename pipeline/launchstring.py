"""A launch string: a graph in one line, as in gst-launch.

spec = parse_launch("testsrc name=a ! haardetect name=f ! fakesink  testsrc name=b ! f.")
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import GraphError, did_you_mean
from pipeline.registry import file_of, node_types
from pipeline.spec import NAME, GraphSpec, fill_in_variables, names_in
from pipeline.values import construct


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
            element = names_in(word, where)
        elif word.endswith("."):
            element = names_in(word, where)
        elif "=" in word:
            raise GraphError(f"{where}: '{word}' belongs to no node; a property follows its node's type")
        else:
            word = fill_in_variables(word, f"{where}: {word}")
            values: dict[str, Any] = {"type": word}
            while position < len(words) and re.match(r"[A-Za-z_]\w*=", words[position]):
                key, _, value = words[position].partition("=")
                position += 1
                value, position = _whole(value, words, position)
                if key in values:
                    raise GraphError(f"{where}: {word}: '{key}' is given twice")
                given = scalar(value)
                if key in ("name", "process") and isinstance(given, bool):
                    given = value  # a camera may be called `yes` or `on`
                values[key] = fill_in_variables(given, f"{where}: {word}: {key}")
            name = str(values.pop("name", "")) or _number(spec, word, where)
            spec.define(name, where, values)
            element = [name]
        if wants_link:
            chains[-1].append(element)
        else:
            chains.append([element])
        wants_link = False
    if wants_link:
        raise GraphError(f"{where}: '!' with nothing behind it")
    for chain in chains:
        spec.connect(chain, where)
    return spec


def _whole(value: str, words: list[str], position: int) -> tuple[str, int]:
    """A list or a map to its end, with blanks in it, and where the next word is; other words as they are."""
    if value[:1] in ("[", "{"):
        end_of_node = words.index("!", position) if "!" in words[position:] else len(words)
        for end in range(position, end_of_node + 1):
            whole = " ".join([value, *words[position:end]])
            if sum(map(whole.count, "[{")) <= sum(map(whole.count, "]}")):
                return whole, end
    return value, position


def _number(spec: GraphSpec, type_: str, where: str) -> str:
    """A name for a node that has none: its type, of a file's the class or the file's own name, and a number."""
    known = type_ in node_types()
    if (place := file_of(type_)) and not known:
        stem = re.sub(r"^(?=\d)|\W", "_", place[1].lower() or Path(place[0]).stem, flags=re.ASCII)[:36]
    elif NAME.fullmatch(type_) or known:
        stem = type_
    else:
        hint = did_you_mean(type_, node_types())
        if "!" in type_:
            hint = "; a '!' stands between blanks"
        elif "," in type_:
            hint = "; blanks part a node's type and its properties, no commas"
        raise GraphError(f"{where}: unknown node type '{type_}'{hint}")
    index = sum(1 for node in spec.nodes.values() if node.type == type_)
    while f"{stem}{index}" in spec.nodes:
        index += 1
    return f"{stem}{index}"


def scalar(text: str) -> Any:
    """A word of the command line as YAML would read it: numbers, true/false, text in quotes, lists and maps in their
    brackets; else the word itself.

    What a variable of the environment then puts into it is text, as in a file.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        value = construct(node) if isinstance(node, yaml.ScalarNode) or text[:1] in ("[", "{") else text
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return text  # `2024-13-45` is no date, but may be a name
    quoted = text[:1] in ("'", '"')
    if isinstance(value, dict) and None in value.values():
        return text  # `{camera}` is no map
    return value if isinstance(value, (int, float, bool, list, dict)) or (quoted and isinstance(value, str)) else text
