"""A value as YAML has it, read within bounds: one of a graph file, or a word of a launch string and of `--set`.

PyYAML reads a few lines of aliases of aliases as millions of values, and answers some of what is no value with
exceptions of other kinds than its own.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_ITEMS = 10_000
"""Values in one property of a graph file."""
MAX_DIGITS = 1000
"""Of a whole number. Python refuses to write down one of more than 4300, `0xfff...` too."""
MAX_DEPTH = 100
"""Brackets inside each other. What Python itself stands differs from version to version."""
_LONG = 10_000
"""Characters of a text that count as one more value: an alias repeats them as well."""

_TOO_DEEP = "too many brackets inside each other"


class BadValue(ValueError):
    """YAML that is no value; its text says why, in a few words."""


class Loader(yaml.SafeLoader):
    """PyYAML's, without whole numbers that nobody can write down."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise BadValue(f"a number of more than {MAX_DIGITS:,} digits")
        return super().construct_yaml_int(node)


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def construct(node: yaml.Node) -> Any:
    """The value of what `yaml.compose` has made. Raises BadValue."""
    loader = Loader("")
    try:
        if _count(node, {}) > MAX_ITEMS:
            raise BadValue(f"more than {MAX_ITEMS:,} values, aliases included")
        return loader.construct_object(node, deep=True)
    except yaml.MarkedYAMLError as error:  # a tag that means nothing
        raise BadValue(str(error.problem)) from None
    except (ValueError, OverflowError) as error:  # no date, no number
        raise BadValue(str(error)) from None
    except RecursionError:
        raise BadValue(_TOO_DEEP) from None
    except (LookupError, AttributeError):  # `!!bool maybe`, `!!int ""`, `!!timestamp x`
        raise BadValue("its tag (!!...) does not go with it") from None
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], depth: int = 0) -> int:
    """How many values a node is, what an alias stands for counted each time. known: of nodes already, by id."""
    if depth > MAX_DEPTH:
        raise BadValue(_TOO_DEEP)
    if id(node) not in known:
        known[id(node)] = 1  # until it is known: what leads back to itself is told when it is constructed
        if isinstance(node, yaml.ScalarNode):
            inner = len(node.value) // _LONG
        elif isinstance(node, yaml.MappingNode):
            inner = sum(_count(part, known, depth + 1) for item in node.value for part in item)
        else:
            inner = sum(_count(value, known, depth + 1) for value in node.value)
        known[id(node)] = 1 + inner
    return known[id(node)]
