"""`emograph inspect`: what the nodes declare of themselves, as a table or as JSON with the JSON Schema."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.console import out, print_json, print_table
from pipeline.durations import seconds
from pipeline.errors import UserError
from pipeline.node import Node
from pipeline.registry import find, node_types


def _first_line(cls: type[Node]) -> str:
    return (inspect.getdoc(cls) or "").split("\n", 1)[0]


def print_registry(as_json: bool) -> None:
    """All node types: name, kind, package, one line each. A broken plugin is shown as broken."""
    rows = []
    for name, found in node_types().items():
        try:
            cls = found.load()
            rows.append([name, cls.kind, found.package, _first_line(cls)])
        except UserError as error:
            rows.append([name, "broken", found.package, str(error)])
    if as_json:
        print_json([dict(zip(("type", "kind", "package", "help"), row, strict=True)) for row in rows])
    else:
        print_table(["type", "kind", "package", ""], rows)


def print_node(name: str, as_json: bool) -> None:
    """One type: docstring, pads with caps, properties with type, default and help."""
    found = find(name)
    cls = found.load()
    if as_json:
        pads = {which: str(pad) for which in ("sink", "src") if (pad := getattr(cls, which)) is not None}
        print_json({
            "type": name, "kind": cls.kind, "package": found.package, "class": found.path, "pads": pads,
            "help": inspect.getdoc(cls) or "", "properties": cls.Properties.model_json_schema(),
        })  # fmt: skip
        return
    console = out()
    where = f"package {found.package}, {found.path}" if found.package else found.path
    console.print(f"[bold]{name}[/bold]  ({cls.kind}, {where})")
    console.print(inspect.getdoc(cls) or "", markup=False)
    console.print("\n[bold]pads[/bold]")
    for which in ("sink", "src"):
        pad = getattr(cls, which)
        if pad is not None:
            extra = f"   (pixels: {pad.access})" if which == "sink" else ""
            console.print(f"  {which:<4}  {pad}{extra}", markup=False)
    console.print("\n[bold]properties[/bold]")
    rows = [_property(key, field) for key, field in cls.Properties.model_fields.items()]
    print_table(["name", "type", "default", ""], rows or [["(none)", "", "", ""]])
    also = "process" if cls.kind in ("source", "sink") else "process, replicas"
    console.print(f"\nA duration is a number of seconds, or 250ms, 1.5s, 2min. In a graph also: {also}.", markup=False)


def _property(key: str, field: FieldInfo) -> list[str]:
    default = "required" if field.is_required() else _written(field.get_default(call_default_factory=True))
    limits = list(dict.fromkeys(limit for constraint in field.metadata for limit in _limits(constraint)))
    if _is_duration(field):
        limits = [limit for limit in limits if limit != ">= 0"]
        return [key, "duration", f"{default} s" if default[:1].isdigit() else default, _help(field, limits)]
    return [key, _type(field.annotation), default, _help(field, limits)]


def _written(value: Any) -> str:
    """A value as it would stand in a graph file; nothing where a property is just not set."""
    if isinstance(value, Enum):
        return _written(value.value)
    if isinstance(value, tuple):
        value = list(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_duration(field: FieldInfo) -> bool:
    """Whether it is `Seconds`, or `Seconds | None`."""
    parts = [field.metadata, *(getattr(part, "__metadata__", ()) for part in get_args(field.annotation))]
    return any(getattr(m, "func", None) is seconds for part in parts for m in part)


def _help(field: FieldInfo, limits: list[str]) -> str:
    text = field.description or ""
    return f"{text} ({', '.join(limits)})" if limits else text


_LIMITS = {
    "ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "multiple_of": "multiple of {}",
    "min_length": "length >= {}", "max_length": "length <= {}", "pattern": "like {}",
}  # fmt: skip


def _limits(constraint: Any) -> list[str]:
    found = {form: getattr(constraint, attribute, None) for attribute, form in _LIMITS.items()}
    return [form.format(getattr(x, "pattern", x)) for form, x in found.items() if x is not None]


def _type(annotation: Any) -> str:
    """What one writes in a graph file, where the name of a Python type would not say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None and isinstance(annotation, type):
        if fields := getattr(annotation, "_fields", ()):  # a NamedTuple
            return f"[{', '.join(fields)}]"
        return " | ".join(map(_written, annotation)) if issubclass(annotation, Enum) else annotation.__name__
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " | ".join(map(_written, arguments))
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(_type(a) for a in arguments if a is not type(None)))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(_type, arguments))}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "{" + ": ".join(map(_type, arguments)) + "}"
    if isinstance(origin, type) and issubclass(origin, Collection):
        return f"list of {_type(arguments[0])}"
    return str(annotation)
