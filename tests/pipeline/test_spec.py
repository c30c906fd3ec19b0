"""What may be written in a graph, and how each mistake is told: file, line, names, the way out."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from pipeline.errors import GraphError
from pipeline.graph import expand
from pipeline.graphfile import parse_yaml
from pipeline.launchstring import parse_launch
from pipeline.load import load

pytestmark = pytest.mark.usefixtures("engine_nodes")

GOOD = """\
name: lobby
mode: lossless
latency_budget: 300ms
nodes:
  door:  {type: numbers, fps: 5}
  desk:  {type: numbers}
  faces: {type: work, delay: 2ms, replicas: auto}
  end:   {type: nothing}
links:
  - [door, desk] ! faces   # both
  - faces ! end
"""


def test_a_graph_file_is_read_in_full():
    spec = parse_yaml(GOOD, "lobby.yaml")
    assert (spec.name, spec.mode, spec.latency_budget) == ("lobby", "lossless", 0.3)
    assert [(k.source, k.target) for k in spec.links] == [("door", "faces"), ("desk", "faces"), ("faces", "end")]
    assert spec.nodes["faces"].where == "lobby.yaml:7"
    assert spec.nodes["door"].properties == {"fps": 5}
    assert spec.nodes["faces"].replicas == "auto"


def test_a_launch_string_is_the_same_graph():
    spec = parse_launch(
        "numbers name=a fps=5 ! work name=w delay=2ms ! nothing name=n  numbers name=b ! w.  w. ! odd ! n."
    )
    links = [(k.source, k.target) for k in spec.links]
    assert links == [("a", "w"), ("w", "n"), ("b", "w"), ("w", "odd0"), ("odd0", "n")]
    assert spec.nodes["a"].properties == {"fps": 5}
    assert spec.nodes["w"].properties == {"delay": "2ms"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("uri=rtsp://u:p@h/1", "rtsp://u:p@h/1"),
        ('uri="a b.mp4"', "a b.mp4"),
        ("uri=true", True),
        ("uri=a=b", "a=b"),
        ("uri=[1,b]", [1, "b"]),
        ("'uri={a: [1, 2]}'", {"a": [1, 2]}),
        ("uri=[0, 0.5, [1, b]]", [0, 0.5, [1, "b"]]),
        ("uri={a: [1, 2], b: 3}", {"a": [1, 2], "b": 3}),
        ("uri=[1", "[1"),
        ("uri={camera}", "{camera}"),
        ("uri={camera}.mp4", "{camera}.mp4"),
        ("'uri=[1] b.mp4'", "[1] b.mp4"),
        ("'uri=a: b'", "a: b"),
    ],
)
def test_words_of_a_launch_string(text: str, value: object):
    assert parse_launch(f"numbers {text} num_buffers=3 ! nothing").nodes["numbers0"].properties == {
        "uri": value,
        "num_buffers": 3,
    }


def test_the_environment_is_expanded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAM_PASSWORD", "s3cret")
    spec = parse_yaml(GOOD.replace("fps: 5", 'path: "rtsp://me:${CAM_PASSWORD}@host/"'), "g.yaml")
    assert spec.nodes["door"].properties["path"] == "rtsp://me:s3cret@host/"


@pytest.mark.parametrize(
    ("text", "value"),
    [("x$${Y}.mkv", "x${Y}.mkv"), ("$${Y}${SET}", "${Y}5"), ("$$${Y}", "$${Y}"), ("$$ {", "$$ {"), ("$${", "${")],
)
def test_two_dollars_stand_for_one_that_begins_no_variable(text: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SET", "5")
    assert parse_yaml(GOOD.replace("fps: 5", f'path: "{text}"'), "g.yaml").nodes["door"].properties["path"] == value
    assert load("numbers name=n ! nothing", [f"n.path={text}"]).nodes["n"].properties["path"] == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("${PASSWORD:-12345}", "write ${PASSWORD} and nothing else in its braces: no default is known here"),
        ("${ PASSWORD:-12345}", "in ${...} stands the name of an environment variable, and nothing else"),
        ("${-12345}", "in ${...} stands the name of an environment variable, and nothing else"),
    ],
)
def test_a_default_is_not_known_and_not_told(value: str, told: str):
    with pytest.raises(GraphError) as caught:
        load("numbers name=n ! nothing", [f"n.path={value}"])
    assert str(caught.value) == f"--set n.path: {told}"


@pytest.mark.parametrize("value", ["${FPS}", "[1, ${FPS}]", "rtsp://${FPS}@host", "${FPS:-12345}"])
def test_a_variable_that_lacks_its_quotes_is_told_to_need_them(value: str):
    with pytest.raises(
        GraphError, match=r"^g.yaml:5: YAML syntax: .*; a value with \$\{FPS\} in it needs quotes there$"
    ):
        parse_yaml(GOOD.replace("fps: 5", f"fps: {value}"), "g.yaml")
    with pytest.raises(GraphError, match=r"^g.yaml:5: YAML syntax: .*, but got '\{'$"):
        parse_yaml(GOOD.replace("fps: 5", "fps: 5 {}"), "g.yaml")


def test_a_launch_string_may_end_as_a_graph_files_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert list(load("numbers name=a ! record name=r path=x.yml").nodes) == ["a", "r"]
    monkeypatch.chdir(tmp_path)
    Path("hey! you.yml").write_text(GOOD)
    assert list(load("hey! you.yml").nodes) == ["door", "desk", "faces", "end"]


def test_words_of_a_launch_string_are_what_they_look_like(monkeypatch: pytest.MonkeyPatch):
    """Numbers and truth values as in YAML, text where it is quoted, and a variable's value is text whatever it is."""
    monkeypatch.setenv("TOKEN", "12345678")
    monkeypatch.setenv("ODD", "a: [b")
    text = "work name=on a=5 b=1.5 c=true d='\"7\"' e=\"'x'\" f=${TOKEN} g='\"${TOKEN}\"' h=${ODD} i=7x j='\"' process=yes ! work"
    spec = parse_launch(text)
    assert spec.nodes["on"].process == "yes"
    assert spec.nodes["on"].properties == {
        "a": 5, "b": 1.5, "c": True, "d": "7", "e": "x", "f": "12345678", "g": "12345678", "h": "a: [b", "i": "7x",
        "j": '"',
    }  # fmt: skip


def test_cameras_may_have_their_properties_from_another_one():
    """YAML's merge key: what a node says itself counts, then the first of several that say it."""
    text = """nodes:
  door: &camera {type: numbers, fps: 5, num_buffers: 7}
  desk: {<<: *camera, num_buffers: 9}
  hall: &slow
    <<: *camera
    fps: 1
  yard: {num_buffers: 2, <<: [*slow, {window: 3, fps: 8}]}
  end: {type: nothing}
links:
  - [door, desk, hall, yard] ! end
"""
    nodes = parse_yaml(text, "g.yaml").nodes
    assert nodes["desk"].properties == {"fps": 5, "num_buffers": 9}
    assert nodes["hall"].properties == {"fps": 1, "num_buffers": 7}
    assert nodes["yard"].properties == {"fps": 1, "num_buffers": 2, "window": 3}
    assert {nodes[name].type for name in ("door", "desk", "hall", "yard")} == {"numbers"}


def test_merges_of_merges_take_no_longer_for_it():
    """A screen of YAML that would be ten billion keys; and the order is the file's on every run."""
    lines = ["nodes:", "  a0: &a0 {type: numbers, fps: 5}"]
    lines += [f"  a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}" for level in range(1, 11)]
    lines += ["  <<: {z: {type: nothing}, y: {type: nothing}, x: {type: nothing}}", "links: []"]
    begin = time.process_time()
    spec = parse_yaml("\n".join(lines), "g.yaml")
    assert time.process_time() - begin < 20
    assert spec.nodes["a10"].properties == {"fps": 5}
    assert list(spec.nodes) == [f"a{level}" for level in range(11)] + ["z", "y", "x"]


def test_many_blanks_lines_and_links_take_no_longer_for_it():
    began = time.process_time()
    for text in (GOOD + 100_000 * "\n", GOOD.replace("! faces   #", "!" + 100_000 * " " + "faces   #")):
        assert [(k.source, k.target) for k in parse_yaml(text, "g.yaml").links][:2] == [
            ("door", "faces"),
            ("desk", "faces"),
        ]
    names = [f"n{n}" for n in range(600)]
    nodes = "".join(f"  {name}: {{type: numbers}}\n" for name in names)
    spec = parse_yaml(f"nodes:\n{nodes}links:\n  - [{', '.join(names[:300])}] ! [{', '.join(names[300:])}]\n", "g.yaml")
    assert len(spec.links) == 90_000
    assert time.process_time() - began < 20


@pytest.mark.parametrize("place", ["name", "mode", "latency_budget", "fps", "a dict", "merges"])
def test_aliases_of_aliases_take_no_longer_for_it(place: str):
    """A few lines that stand for millions of values are refused before anything is made of them."""
    first, word = ("{x: 1}", "<<: ") if place == "merges" else ("[x, x, x, x, x, x, x, x, x, x]", "")
    bomb = f"&a0 {first}"
    for n in range(9):
        again = f"[{', '.join([f'*a{n}'] * 10)}]"
        bomb += f", &a{n + 1} " + (f"{{{word}{again}}}" if word else again)
    value = f"{{k: [{bomb}]}}" if place == "a dict" else f"[{bomb}]"
    top = f"{place}: {value}\n" if place in ("name", "mode", "latency_budget") else ""
    fps = "1" if top else value
    text = f"{top}nodes:\n  door: {{type: numbers, fps: {fps}}}\n  end: {{type: nothing}}\nlinks: [door ! end]\n"
    began = time.process_time()
    with pytest.raises(GraphError, match="more than 10,000 values, aliases included"):
        expand(parse_yaml(text, "g.yaml"))
    assert time.process_time() - began < 20


def test_set_overrides_what_the_file_says(tmp_path: Path):
    file = tmp_path / "g.yaml"
    file.write_text(GOOD)
    spec = load(str(file), ["door.fps=12", "mode=live", "latency_budget=1s", "faces.replicas=1"])
    assert spec.nodes["door"].properties["fps"] == 12
    assert (spec.mode, spec.latency_budget, spec.nodes["faces"].replicas) == ("live", 1.0, 1)
    assert list(spec.nodes) == ["door", "desk", "faces", "end"]  # their order decides tiles and replicas


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("", ""), r"^g.yaml: the file is empty"),
        (("nodes:", "nods:"), r"^g.yaml:4: unknown key 'nods'; did you mean 'nodes'\?"),
        (("type: nothing}", "type: nothing"), r"^g.yaml:\d+: YAML syntax: "),
        (("  desk:", "  door:"), r"^g.yaml:6: duplicate name 'door' in 'nodes'; first at g.yaml:5"),
        (("type: work", "type: wrok"), r"^g.yaml:7: faces: unknown node type 'wrok'; did you mean 'work'\?"),
        (("delay: 2ms", "dealy: 2ms"), r"^g.yaml:7: faces: unknown property 'dealy' of work; did you mean 'delay'\?"),
        (("delay: 2ms", "fps: 5"), r"^g.yaml:7: faces: unknown property 'fps' of work; door \(numbers\) has one$"),
        (("delay: 2ms", "delay.door: 2ms"), r"^g.yaml:7: faces: unknown property 'delay.door' of work; write delay={door"),
        (("delay: 2ms", "delay: soon"), r"^g.yaml:7: faces: property 'delay' of work is 'soon': .*duration"),
        (("fps: 5", "fps: fast"), r"^g.yaml:5: door: property 'fps' of numbers is 'fast': "),
        (("fps: 5", "fps: -1"), r"property 'fps' of numbers is -1: it must be at least 0"),
        (("type: nothing", "type: record"), r"^g.yaml:8: end: record needs the property 'path'"),
        (("{type: nothing}", "{}"), r"^g.yaml:8: end: 'type' is missing"),
        (("{type: nothing}", "nothing"), r"^g.yaml:8: node 'end' must be a map"),
        (("mode: lossless", "mode: fast"), r"^g.yaml:2: mode is 'fast': one of live, lossless"),
        (("300ms", "never"), r"^g.yaml:3: latency_budget: 'never' is not a duration"),
        (("faces ! end", "faces ! edn"), r"^g.yaml:11: no node named 'edn'; did you mean 'end'\?"),
        (("faces ! end", "faces"), r"^g.yaml:11: 'faces' links nothing"),
        (("[door, desk] !", "[door] !"), r"^g.yaml:6: desk: its src pad is not linked; add a link 'desk ! ...'"),
        (("  - faces ! end\n", ""), r"^g.yaml:7: faces: its src pad is not linked"),
        (("faces ! end", "end ! faces"), r"^g.yaml:11: end ! faces: end is a nothing, a sink: it has no src pad"),
        (("faces ! end", "faces ! end\n  - faces ! door"), r"^g.yaml:12: faces ! door: door is a numbers, a source"),
        (("faces ! end", "faces ! faces ! end"), r"^g.yaml:11: the links go round in a cycle: faces ! faces"),
        (("faces   #", r"fa\d \x63   #"), r"^g.yaml:10: 'fa\\d \\x63' is no name of a node"),
        (("faces ! end", "faces ! end\n  - faces ! end"), r"^g.yaml:12: faces ! end is linked twice"),
        (("type: nothing", "type: picky"), r"^g.yaml:11: faces ! end: the caps do not meet: offered video/raw, "
         r"format=BGR, meta=worked; needed video/raw, meta=faces \(no node upstream adds 'faces'\)"),
        (("replicas: auto", "replicas: many"), r"^g.yaml:7: faces: replicas is 'many'"),
        (("type: nothing}", "type: nothing, replicas: 2}"), r"^g.yaml:8: end: replicas is for transforms"),
        (("fps: 5", 'fps: "${NO_SUCH_VARIABLE}"'), r"^g.yaml:5: door: fps: the environment variable 'NO_SUCH_VARIABLE'"),
        (("fps: 5", r'fps: [a, "b\0c"]'), r"^g.yaml:5: door: fps: a NUL \(\\0\) stands in the text"),
        (("  end:", "  e!nd:"), r"^g.yaml:8: 'e!nd' is no name for a node"),
        (("faces ! end", "faces ! end\n  - door ! end"), r"^end: the frames of door reach it on two ways, from door and from"),
        (("  end:", "  " + 60 * "e" + ":"), r"is no name for a node: up to 41 letters"),
        (("nodes:", "nodes: 3\nx:"), r"^g.yaml:4: 'nodes' must be a map"),
        (("fps: 5", "fps: .inf"), r"^g.yaml:5: door: property 'fps' of numbers is inf: .*finite"),
        (("fps: 5", "num_buffers: 1" + "0" * 30), r"^g.yaml:5: door: property 'num_buffers' of numbers is 10{30}: no such"),
        (("fps: 5", "fps: 2024-13-45"), r"^g.yaml:5: door: fps: month must be in"),
        (("fps: 5", "fps: !foo 3"), r"^g.yaml:5: door: fps: could not determine a constructor for the tag '!foo'"),
        (("fps: 5", "fps: &x [*x]"), r"^g.yaml:5: door: fps: found unconstructable recursive node"),
        (("fps: 5", f"fps: {'[' * 3000}"), r"^g.yaml: YAML syntax: too many brackets"),
        (("fps: 5", f"fps: {'[' * 300}1{']' * 300}"), r"^g.yaml:5: door: fps: too many brackets inside each other"),
        (("name: lobby", f"name: {'[' * 300}1{']' * 300}"), r"^g.yaml:1: too many brackets inside each other"),
        (("fps: 5", "fps: !!bool maybe"), r"^g.yaml:5: door: fps: its tag \(!!...\) does not go with it"),
        (("fps: 5", "fps: !!int ''"), r"^g.yaml:5: door: fps: its tag \(!!...\) does not go with it"),
        (("fps: 5", "fps: [!!timestamp soon]"), r"^g.yaml:5: door: fps: its tag \(!!...\) does not go with it"),
        (("fps: 5", f"fps: 0x{'f' * 5000}"), r"^g.yaml:5: door: fps: a number of more than 1,000 digits"),
        (("name: lobby", f"name: 0x{'f' * 5000}"), r"^g.yaml:1: a number of more than 1,000 digits"),
        (("auto", f"'{'1' * 5000}'"), r"^g.yaml:7: faces: replicas is '1111"),
        (("fps: 5", r'fps: "\UFFFFFFFF"'), r"^g.yaml:5: YAML syntax: a number that is too large"),
        (("name: lobby", f"%YAML {'9' * 5000}.1\n---\nname: lobby"), r"^g.yaml:1: YAML syntax: a number that is too"),
        (("fps: 5", "fps: \x01"), r"^g.yaml:5: YAML syntax: unacceptable character #x0001$"),
        (("300ms", ".nan"), r"^g.yaml:3: latency_budget: nan is no duration"),
        (("300ms", "99999999h"), r"^g.yaml:3: latency_budget: '99999999h' is longer than ten years"),
        (("delay: 2ms", "delay: 99999999h"), r"property 'delay' of work is '99999999h': .*longer than ten years"),
        (("name: lobby", "name: [a, b]"), r"^g.yaml:1: name is \['a', 'b'\]: text is needed"),
        (("name: lobby", "name:"), r"^g.yaml:1: name is None: text is needed"),
        (("name: lobby", 'name: " "'), r"^g.yaml:1: name is ' ': text is needed"),
        (("name: lobby", "name: on"), r"^g.yaml:1: name is True: text is needed"),
        (("fps: 5", "fps: &a [1,1,1,1,1,1,1,1,1,1], g: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], h: &c [*b,*b,*b,*b,*b,*b,*b,*b], "
          "i: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c], j: [*d,*d,*d,*d,*d,*d]"), r"^g.yaml:5: door: j: more than 10,000 values"),
        (("  desk:  {type: numbers}", "  desk:  &a {type: numbers}\n  hall: &a {type: numbers}"),
         r"^g.yaml:7: YAML syntax: found duplicate anchor 'a'; first occurrence \(line 6\) second occurrence"),
        (("desk:  {type: numbers}", "desk:  {type: numbers, <<:*a , fps: 1}"), r"^g.yaml:6: '<<:\*a' in node 'desk': to merge"),
        (("desk:  {type: numbers}", "desk:  &a {type: numbers}\n  hall: {*a , fps: 1}"),
         r"^g.yaml:7: a key of node 'hall' must be a plain word; to merge: '<<: \*name'"),
        (("fps: 5", "<<: 5"), r"^g.yaml:5: '<<' in node 'door' needs a map that has an anchor: '<<: \*name'"),
        (("door:  {type: numbers", "door: &d {type: numbers, <<: *d"), r"^g.yaml:5: '<<' in node 'door' leads back to"),
        (("fps: 5", "fps: 5, <<: {fsp: 3}"), r"^g.yaml:5: door: unknown property 'fsp' of numbers; did you mean 'fps'\?"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_file_is_one_clear_line(change: tuple[str, str], message: str):
    text = GOOD.replace(*change, 1) if change[0] else ""
    assert text != GOOD
    with pytest.raises(GraphError) as caught:
        expand(parse_yaml(text, "g.yaml"))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("numbers ! ! nothing", "'!' with nothing before it"),
        ("! nothing", "'!' with nothing before it"),
        ("numbers !", "'!' with nothing behind it"),
        ("fps=3 numbers ! nothing", "'fps=3' belongs to no node"),
        ("numbers ! nosuch.", "no node named 'nosuch'"),
        ("my_nodes:Beacon ! nothing", "launch string: unknown node type 'my_nodes:Beacon'; known: "),
        ("test/src ! nothing", "launch string: unknown node type 'test/src'; did you mean 'testsrc'?"),
        ("numbers!nothing", "launch string: unknown node type 'numbers!nothing'; a '!' stands between blanks"),
        ("numbers, fps=10 ! nothing", "launch string: unknown node type 'numbers,'; blanks part a node's type and its"),
        ("numbers ! nosuch", "launch string: nosuch0: unknown node type 'nosuch'"),
        ("numbers name=a ! nothing numbers name=a ! nothing", "launch string: duplicate name 'a'"),
        ('numbers path="a ! nothing', "No closing quotation"),
        ("numbers ! nothing nothing", "nothing1: its sink pad is not linked"),
        ("work name=a ! work name=b ! a.", "the graph has no source"),
        (f"numbers ! {'work ! ' * 1200} nothing", "launch string: too many nodes one behind the other"),
        ("numbers num_buffers=99999999999999999999 ! nothing", "property 'num_buffers' of numbers is 9"),
    ],
)
def test_each_mistake_in_a_launch_string_is_one_clear_line(text: str, message: str):
    with pytest.raises(GraphError) as caught:
        expand(parse_launch(text))
    assert message in str(caught.value)
    assert "first at launch string" not in str(caught.value)  # where else


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("door.fps", "write node.property=value"),
        ("dor.fps=3", "no node named 'dor'; did you mean 'door'?"),
        ("=", "--set: write node.property=value"),
        ("speed=3", "write node.property=value"),
        ("mode=slow", "mode is 'slow'"),
        ("faces.replicas=²", "replicas is '²'"),
        ("end.process=2024-13-45", "process is '2024-13-45': a name is needed, or {camera}"),
        ("latency_budget=.nan", "'.nan' is not a duration"),
        ("end.process=!!bool maybe", "process is '!!bool maybe': a name is needed"),
        ("end.process=!!int ''", "process is \"!!int ''\": a name is needed"),
        (f"door.fps=0x{'f' * 5000}", "property 'fps' of numbers is '0xffff"),
    ],
)
def test_each_mistake_in_set_is_one_clear_line(tmp_path: Path, setting: str, message: str):
    file = tmp_path / "g.yaml"
    file.write_text(GOOD)
    with pytest.raises(GraphError, match=re.escape(message)):
        expand(load(str(file), [setting]))


@pytest.mark.parametrize(
    ("type_", "prop"), [("capture", "uri"), ("record", "path"), ("videosink", "location"), ("numbers", "fps")]
)
def test_a_name_that_is_not_utf_8_is_told_with_its_bytes(type_: str, prop: str):
    """Also where pydantic has nothing against it: in the node's process it would be another name."""
    given = os.fsdecode(b"talk-\xe9.mkv")
    spec = load(f"numbers ! {type_} name=n {prop}=x", [f"n.{prop}={given}"])
    with pytest.raises(GraphError) as caught:
        expand(spec)
    told = rf"launch string: n: property '{prop}' of {type_} is 'talk-\xe9.mkv': "
    assert str(caught.value) == told + "it is not UTF-8; if it names a file or a folder, rename that"


@pytest.mark.parametrize("name", ["a graph.yaml", "wow!.yml"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str):
    (tmp_path / name).write_text(GOOD)
    assert load(str(tmp_path / name)).name == "lobby"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such graph file"),
        (lambda p: p.mkdir(), "cannot read"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00\x80"), "not a text file"),
    ],
)
def test_unreadable_files(tmp_path: Path, make, message: str):
    file = tmp_path / "g.yaml"
    make(file)
    with pytest.raises(GraphError, match=message):
        load(str(file))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (
            "talk.mkv",
            'a recording goes into a graph: configs/graphs/file.yaml --set video.uri={}, or "capture uri={} ! ',
        ),
        (
            "my talk",
            'a recording goes into a graph: configs/graphs/file.yaml --set video.uri={}, or "capture uri={} ! ',
        ),
        ("one.jpg", 'pictures go into a graph: configs/graphs/photos.yaml --set photos.uri={}, or "capture uri={} ! '),
        ("party/", 'pictures go into a graph: configs/graphs/photos.yaml --set photos.uri={}, or "capture uri={} ! '),
    ],
)
def test_what_a_graph_reads_is_no_graph(tmp_path: Path, name: str, way: str):
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.write_bytes(b"\x1aE\xdf\xa3\xff" * 10_000)
    with pytest.raises(GraphError) as caught:
        load(str(tmp_path) + "/" + name)
    quoted = f"'{path}'" if " " in name else path
    assert way.format(quoted, quoted) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "way"),
    [("talk.mp4", "; a recording goes into a graph: "), ("one.png", "; pictures go into a graph: "), ("g.txt", "")],
)
def test_nor_is_it_where_it_is_misspelt(tmp_path: Path, name: str, way: str):
    with pytest.raises(GraphError) as caught:
        load(f"{tmp_path}/{name}")
    before, _, hint = str(caught.value).partition(name)
    assert before == f"no such graph file: {tmp_path}/"
    assert hint.startswith(way)
    assert bool(hint) == bool(way)


def test_of_a_file_that_is_too_long_for_a_graph_only_the_beginning_is_read(tmp_path: Path):
    file = tmp_path / "g.yaml"
    with file.open("wb") as made:
        made.write(b"a" * 11_000_000 + b"\xff")
    with pytest.raises(GraphError, match=r"cannot read .*g.yaml: more than 10,000,000 characters"):
        load(str(file))


def test_a_variable_may_stand_in_a_list_and_for_replicas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COPIES", "2")
    text = GOOD.replace("replicas: auto", 'replicas: "${COPIES}"')
    spec = parse_yaml(text.replace("fps: 5", 'paths: ["${COPIES}", [1, "x${COPIES}"], {a: "${COPIES}"}]'), "g.yaml")
    assert spec.nodes["faces"].replicas == 2
    assert spec.nodes["door"].properties["paths"] == ["2", [1, "x2"], {"a": "2"}]


def test_a_key_that_is_given_twice_and_a_budget_of_nothing():
    with pytest.raises(GraphError, match=r"^launch string: numbers: 'fps' is given twice$"):
        parse_launch("numbers fps=1 fps=2 ! nothing")
    with pytest.raises(GraphError, match=r"^g.yaml:3: latency_budget: 0 is not a duration"):
        parse_yaml(GOOD.replace("300ms", "0"), "g.yaml")
