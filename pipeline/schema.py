"""The JSON Schema of a graph file, for editors: what all installed node types declare, in one document.

It tells while one types what `emograph check` would tell of names, keys and values. What goes beyond a single value
(links, caps, properties that do not go together, files) only the check knows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from pipeline import registry
from pipeline.durations import Seconds
from pipeline.errors import UserError
from pipeline.node import Node
from pipeline.spec import DEFAULT_BUDGET, MAX_REPLICAS, MODES, NAME, WITH_CAMERA

_VARIABLE = {"type": "string", "pattern": r"\$\{[^}]*\}", "description": "from the environment"}
_FILE = {"type": "string", "pattern": r"\.py(:\w+)?$", "description": "a node in a file of one's own"}
_PLACE = "#/definitions/"


def graph_schema() -> dict[str, Any]:
    """JSON Schema, draft 7 (what editors know best). A plugin that cannot be imported is left out."""
    types = dict(_loadable())
    parts: dict[str, Any] = {}
    definitions = {f"node {name}": _node(name, cls, parts) for name, cls in types.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A graph of emograph",
        "type": "object",
        "required": ["nodes", "links"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": ["string", "number"], "description": "shown by launch and top; default: the file's name"},
            "mode": {
                "enum": list(MODES),
                "default": MODES[0],
                "description": "live: stay current, drop what is late, and count it. lossless: every frame",
            },
            "latency_budget": TypeAdapter(Seconds).json_schema()
            | {"default": DEFAULT_BUDGET, "description": "live: a buffer older than this is dropped, and counted"},
            "nodes": {
                "type": "object",
                "description": "name: {type: ..., property: value}",
                "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                "additionalProperties": {"$ref": f"{_PLACE}node"},
            },
            "links": {
                "type": "array",
                "description": "which way the frames go",
                "items": {"type": "string", "pattern": "!", "examples": ["camera ! faces ! mood"]},
            },
        },
        "definitions": {
            "node": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"anyOf": [{"enum": list(types)}, _FILE]}},
                "allOf": [
                    {
                        "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                        "then": {"$ref": f"{_PLACE}node {name}"},
                    }
                    for name in types
                ],
            },
            **definitions,
            **parts,
        },
    }


def _loadable() -> Iterator[tuple[str, type[Node]]]:
    for name, found in registry.node_types().items():
        try:
            yield name, found.load()
        except UserError:
            continue


def _node(name: str, cls: type[Node], parts: dict[str, Any]) -> dict[str, Any]:
    """One node type's keys; the definitions that its properties refer to are added to `parts`."""
    own = cls.Properties.model_json_schema(ref_template=f"{_PLACE}{name} {{model}}")
    parts |= {f"{name} {model}": schema for model, schema in own.pop("$defs", {}).items()}
    keys: dict[str, Any] = {
        "type": {"const": name, "description": inspect.getdoc(cls) or ""},
        "process": {
            "type": "string",
            "pattern": f"^{NAME.pattern}$",
            "description": "nodes with the same name here share a process",
        },
    }
    if cls.sink is not None and cls.src is not None:
        keys["process"]["pattern"] = f"^({NAME.pattern}|{re.escape(WITH_CAMERA)})$"
        keys["process"]["description"] += f"; {WITH_CAMERA}: each camera's frames stay in its process"
        keys["replicas"] = {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_REPLICAS}, {"const": "auto"}, _VARIABLE],
            "default": 1,
            "description": "so many processes, each camera always in the same; auto: one per camera",
        }
    for key, schema in own.get("properties", {}).items():
        about = {word: schema.pop(word) for word in ("description", "default") if word in schema}
        schema.pop("title", None)
        ways = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
        keys[key] = about | {"anyOf": [*ways, _VARIABLE]}
    return {
        "type": "object",
        "required": ["type", *own.get("required", [])],
        "additionalProperties": False,
        "properties": keys,
    }
