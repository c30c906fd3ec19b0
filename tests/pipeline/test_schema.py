"""The JSON Schema for editors takes what the check takes, and refuses of keys and values what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from pipeline.commands import inspect
from pipeline.errors import GraphError, UserError
from pipeline.graph import expand
from pipeline.graphfile import parse_yaml
from pipeline.schema import graph_schema
from tests.support.graphs import register_plugin

GRAPHS = sorted((Path(__file__).parents[2] / "configs/graphs").glob("*.yaml"))

GRAPH = """\
name: lobby
mode: live
latency_budget: 250ms
nodes:
  door:  {type: capture, uri: 0, fps: 15, timeout: 2s}
  faces: {type: haardetect, replicas: auto}
  mood:  {type: emotion, threshold: 0.5, mirror: true, process: one}
  sink:  {type: fakesink}
links:
  - door ! faces ! mood ! sink
"""

PLUGIN = """
from enum import Enum
from pipeline.caps import pad
from pipeline.node import Properties, Sink

class Colour(Enum):
    RED = "red"
    BLUE = "blue"

class Plugin(Sink):
    sink = pad("video/raw")
    class Properties(Properties):
        colour: Colour = Colour.RED
    def consume(self, buffer): ...
"""


def problems(text: str, schema: dict | None = None) -> list[str]:
    """What an editor would underline. A list on the left of a link must be quoted to be YAML."""
    content = yaml.safe_load(re.sub(r"^(\s*- )(\[.*)$", r"\1'\2'", text, flags=re.MULTILINE))
    return [error.message for error in Draft7Validator(schema or graph_schema()).iter_errors(content)]


def test_it_is_a_json_schema(capsys: pytest.CaptureFixture[str]):
    inspect(None, schema=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(graph_schema()))
    Draft7Validator.check_schema(printed)
    with pytest.raises(UserError, match="all node types together"):
        inspect("capture", schema=True)


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.name)
def test_it_takes_every_graph_that_ships(path: Path):
    assert problems(path.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fps: 15", "fps: '${FPS}'"),
        ("fps: 15", "fps: null"),
        ("uri: 0", "uri: /dev/video0"),
        ("timeout: 2s", "timeout: 30"),
        ("250ms", ".5"),
        ("name: lobby", "name: 7"),
        ("replicas: auto", "replicas: 3"),
        ("replicas: auto", 'process: "{camera}"'),
        ("  - door ! faces", "  - [door, door] ! faces"),
    ],
)
def test_it_takes_what_the_check_takes(old: str, new: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FPS", "12")
    text = GRAPH.replace(old, new)
    assert text != GRAPH
    if "[door, door]" not in new:  # this one fails for what no schema knows: a link that stands twice
        expand(parse_yaml(text, "g.yaml"))
    assert problems(text) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("mode: live", "mode: fast", "'fast' is not one of"),
        ("mode: live", "modus: live", "'modus' was unexpected"),
        ("250ms", "250 parsecs", "250 parsecs"),
        ("type: capture", "type: catpure", "'catpure' is not valid under any"),
        ("type: capture, ", "", "'type' is a required property"),
        ("uri: 0, ", "", "'uri' is a required property"),
        ("fps: 15", "fsp: 15", "'fsp' was unexpected"),
        ("fps: 15", "fps: 0", "0 is not valid"),
        ("fps: 15", "fps: [15]", "[15] is not valid"),
        ("timeout: 2s", "timeout: 7200", "7200 is not valid"),
        ("timeout: 2s", "timeout: 2 sec", "'2 sec' is not valid"),
        ("timeout: 2s", "end: -1", "-1 is not valid"),
        ("threshold: 0.5", "threshold: 1.5", "1.5 is not valid"),
        ("replicas: auto", "replicas: 0", "0 is not valid"),
        ("replicas: auto", "replicas: many", "'many' is not valid"),
        ("type: fakesink", "type: fakesink, replicas: 2", "'replicas' was unexpected"),
        ("process: one", "process: 'one two'", "'one two' does not match"),
        ("type: fakesink", "type: fakesink, process: '{camera}'", "'{camera}' does not match"),
        ("replicas: auto", "process: {camera}", "{'camera': None} is not of type 'string'"),
        ("  sink:", "  my sink:", "'my sink' does not match"),
        ("  - door ! faces ! mood ! sink", "  - door", "'door' does not match"),
        ("links:", "lines:", "'links' is a required property"),
    ],
)
def test_it_refuses_what_the_check_refuses(old: str, new: str, told: str):
    text = GRAPH.replace(old, new)
    with pytest.raises(GraphError):
        expand(parse_yaml(text, "g.yaml"))
    assert any(told in problem for problem in problems(text)), problems(text)


def test_the_graph_of_these_tests_is_a_good_one():
    expand(parse_yaml(GRAPH, "g.yaml"))
    assert problems(GRAPH) == []


def test_it_knows_plugins_and_leaves_broken_ones_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    register_plugin(monkeypatch, tmp_path, "painter", PLUGIN)
    register_plugin(monkeypatch, tmp_path, "broken", "import a_module_that_is_not_there")
    schema = graph_schema()
    Draft7Validator.check_schema(schema)
    types = schema["definitions"]["node"]["properties"]["type"]["anyOf"][0]["enum"]
    assert "painter" in types
    assert "broken" not in types
    painted = GRAPH.replace("type: fakesink", "type: painter, colour: blue")
    assert problems(painted, schema) == []
    assert problems(painted.replace("blue", "mauve"), schema)
