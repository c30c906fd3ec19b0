"""Expansion: replicas, processes, every camera's way, planes to draw on; and the pictures of it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from pipeline import diagram
from pipeline.errors import GraphError
from pipeline.graph import expand
from pipeline.graphfile import parse_yaml
from pipeline.launchstring import parse_launch

pytestmark = pytest.mark.usefixtures("engine_nodes")

THREE = """
nodes:
  a: {type: numbers}
  b: {type: numbers}
  c: {type: numbers}
  w: {type: work, replicas: REPLICAS}
  g: {type: gather}
  n: {type: nothing}
links: ["[a, b, c] ! w ! g ! n"]
"""


@pytest.mark.parametrize(
    ("replicas", "streams"),
    [
        ("1", {"w": ["a", "b", "c"]}),
        ("2", {"w.0": ["a", "c"], "w.1": ["b"]}),
        ("auto", {"w.0": ["a"], "w.1": ["b"], "w.2": ["c"]}),
        ("9", {"w.0": ["a"], "w.1": ["b"], "w.2": ["c"]}),
    ],
)
def test_each_camera_is_wired_to_one_replica(replicas: str, streams: dict[str, list[str]]):
    plan = expand(parse_yaml(THREE.replace("REPLICAS", replicas), "g.yaml"))
    assert {n.name: n.streams for n in plan.nodes.values() if n.base == "w"} == streams
    for name, cameras in streams.items():
        for camera in cameras:
            assert plan.nodes[camera].routes == {camera: [name]}
            assert plan.nodes[name].routes[camera] == ["g"]
    assert plan.nodes["g"].streams == ["a", "b", "c"]
    assert plan.sources == ["a", "b", "c"]


def test_process_groups_share_a_process_and_the_rest_have_their_own():
    plan = expand(parse_launch("numbers name=a process=cam ! work name=w process=cam ! nothing name=n"))
    assert plan.processes == {"cam": ["a", "w"], "n": ["n"]}
    with pytest.raises(GraphError, match="'process' puts a node in one process"):
        expand(parse_launch("numbers ! work process=x replicas=2 ! nothing"))


@pytest.mark.parametrize("replicas", ["", "replicas=auto"])
def test_a_transform_may_be_where_each_camera_is(replicas: str):
    cameras = "numbers name=a ! w.  numbers name=b process=cams ! w."
    plan = expand(
        parse_launch(f"{cameras}  work name=w process={{camera}} {replicas} ! gather name=g ! nothing name=n")
    )
    assert plan.processes == {"a": ["a", "w.0"], "cams": ["b", "w.1"], "g": ["g"], "n": ["n"]}
    one = expand(parse_launch("numbers name=a ! work name=w process={camera} ! nothing name=n"))
    assert one.processes == {"a": ["a", "w"], "n": ["n"]}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("numbers ! nothing name=n process={camera}", "n: process: {camera} is for transforms; nothing is a sink"),
        ("numbers name=a process={camera} ! nothing", "a: process: {camera} is for transforms; numbers is a source"),
        ("numbers ! work process={camera} replicas=3 ! nothing", "is one for each camera, 'replicas' another number"),
    ],
)
def test_only_a_transform_can_be_with_each_camera(graph: str, message: str):
    with pytest.raises(GraphError, match=re.escape(message)):
        expand(parse_launch(graph))


@pytest.mark.parametrize(
    ("graph", "planes"),
    [
        ("numbers name=a ! invert ! record path=x", 1),
        ("numbers name=a ! work name=w ! invert ! record path=x  w. ! nothing", 1),
        ("numbers name=a ! work name=w ! invert ! record path=x  w. ! record path=y", 2),
        ("numbers name=a ! work name=w ! invert ! record path=x  w. ! invert ! record path=y", 3),
        ("numbers name=a ! invert name=i ! record path=x  i. ! invert ! record path=y", 2),
    ],
)
def test_who_draws_beside_a_reader_gets_a_plane_of_its_own(graph: str, planes: int):
    assert expand(parse_launch(graph)).planes == {"a": planes}


def test_pictures_show_every_node_and_link():
    plan = expand(parse_yaml(THREE.replace("REPLICAS", "auto"), "g.yaml"))
    links = 3 + 3 + 1
    mermaid, dot, svg = (draw(plan) for draw in diagram.FORMATS.values())
    assert mermaid.startswith("flowchart LR")
    assert mermaid.count("-->") == links
    assert dot.count("->") == links
    tree = ElementTree.fromstring(svg)
    texts = [t.text for t in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert set(plan.nodes) <= set(texts)
    assert len([p for p in tree.iter("{http://www.w3.org/2000/svg}path") if p.get("marker-end")]) == links


def test_pictures_of_a_graph_with_an_odd_name():
    name = r'"a\x01b\0\uD800\uFFFE<&\"\\\ncé"'
    plan = expand(parse_yaml(f"name: {name}\n" + THREE.replace("REPLICAS", "auto"), "g.yaml"))
    tree = ElementTree.fromstring(diagram.svg(plan).encode())
    assert tree.findtext("{http://www.w3.org/2000/svg}title") == 'a?b???<&"\\?cé'
    assert diagram.dot(plan).startswith(r'digraph "a?b???<&\"\\?cé" {')


def test_pictures_show_no_credentials():
    plan = expand(parse_launch('numbers name=a ! record path="rtsp://me:s3cret@host"'))
    assert not any("s3cret" in draw(plan) for draw in diagram.FORMATS.values())


def test_a_drawing_goes_from_left_to_right():
    nodes = {
        "door": ["faces"],
        "desk": ["mood"],
        "faces": ["mood"],
        "mood": ["draw", "events"],
        "draw": [],
        "events": [],
    }
    drawing = diagram.layout(nodes, box=(100, 40), gap=(50, 20))
    x = {name: place[0] for name, place in drawing.place.items()}
    assert all(x[a] + 100 < x[b] for a, targets in nodes.items() for b in targets)
    assert len(set(drawing.place.values())) == len(nodes)
    assert drawing.links.keys() == {(a, b) for a, targets in nodes.items() for b in targets}
    assert all(0 <= px <= drawing.width - 100 and 0 <= py <= drawing.height - 40 for px, py in drawing.place.values())


def test_metadata_that_only_one_of_two_links_brings_is_not_there(engine_nodes: None):
    with pytest.raises(GraphError, match=r"o ! picky0: the caps do not meet: .*no node upstream adds 'faces'"):
        expand(parse_launch("testsrc name=a ! haardetect ! odd name=o ! picky  testsrc name=b ! o."))
    expand(parse_launch("testsrc name=a ! haardetect name=d ! odd name=o ! picky  testsrc name=b ! d."))
