"""A node in a file of one's own: its path is the type."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.errors import UserError
from pipeline.graph import expand
from pipeline.graphfile import parse_yaml
from pipeline.launchstring import parse_launch
from pipeline.modules import load_module
from pipeline.registry import find
from pipeline.schema import graph_schema
from tests.support.command import emograph
from tests.support.graphs import ROOT

MIRROR = (ROOT / "docs/examples/emograph-mirror/emograph_mirror.py").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with the example's code in `mirror.py`."""
    (tmp_path / "mirror.py").write_text(MIRROR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_graph_runs_it(folder: Path) -> None:
    graph = 'testsrc name=a num_buffers=20 ! haardetect ! "my nodes/mirror.py" name=m axis=vertical ! fakesink'
    (folder / "my nodes").mkdir()
    (folder / "mirror.py").rename(folder / "my nodes" / "mirror.py")
    done = emograph("launch", graph, "--set", "mode=lossless", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cameras"]["a"]["delivered"] == 20
    wrong = emograph("check", graph.replace("vertical", "diagonal"), cwd=folder)
    assert "m: property 'axis' of mirror is 'diagonal': it must be 'horizontal' or 'vertical'" in wrong.stderr
    shown = emograph("inspect", "my nodes/mirror.py", cwd=folder)
    assert shown.stdout.startswith(
        f"my nodes/mirror.py  (transform, {folder}/my nodes/mirror.py:Mirror)\nFlips the frame"
    )


def test_workers_that_are_not_forked_find_it_too(folder: Path) -> None:
    """A thread keeps the spawner from forking; what lies beside the file can be imported."""
    (folder / "own.py").write_text(
        "import threading, time\n"
        "from mirror import Mirror\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "class Own(Mirror):\n    'Mine.'\n"
    )
    done = emograph("launch", "testsrc name=a num_buffers=5 ! haardetect ! own.py ! fakesink", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "a  " in done.stdout


def test_it_hides_no_installed_module_and_is_loaded_once(folder: Path) -> None:
    (folder / "json.py").write_text(MIRROR)
    module = load_module(str(folder / "json.py"))
    assert sys.modules["json"] is json
    assert load_module(str(folder / "." / "json.py")) is module
    assert load_module(str(folder / "mirror.py")).Mirror is not module.Mirror
    assert find("json.py").load() is module.Mirror


def test_a_link_to_it_does_too_whatever_the_file_is_called(folder: Path) -> None:
    (folder / "mirror.py").rename(folder / "3f9a2c")
    (folder / "mirror.py").symlink_to("3f9a2c")
    assert find("mirror.py").load().__name__ == "Mirror"


def test_a_plain_name_is_the_modules_own(folder: Path) -> None:
    """So that whoever imports it from beside, or in a process that was spawned, has the same classes."""
    (folder / "own.py").write_text("import mirror\nfrom mirror import Mirror\n\n\nclass Own(Mirror):\n    'Mine.'\n")
    own = load_module(str(folder / "own.py"))
    assert own.__name__ == "own"
    assert sys.modules["mirror"] is own.mirror is load_module(str(folder / "mirror.py"))
    (folder / "other").mkdir()
    (folder / "other" / "own.py").write_text(MIRROR)
    other = load_module(str(folder / "other" / "own.py"))
    assert sys.modules["own"] is own is not other


def test_names_and_pictures_go_by_the_class(folder: Path) -> None:
    (folder / 'a"b:c.py').write_text(MIRROR)
    plan = expand(parse_launch("testsrc ! haardetect ! ./mirror.py ! mirror.py:Mirror ! './a\"b:c.py' ! fakesink"))
    assert list(plan.nodes) == ["testsrc0", "haardetect0", "mirror0", "mirror1", "a_b_c0", "fakesink0"]
    assert {plan.nodes[name].type for name in ("mirror0", "mirror1", "a_b_c0")} == {"mirror"}
    assert plan.nodes["a_b_c0"].cls == f'{folder}/a"b:c.py:Mirror'


@pytest.mark.parametrize(
    ("file", "name"), [("2nd.py", "_2nd0"), ("größe.py", "gr__e0"), (f"{'long' * 20}.py", f"{'long' * 9}0")]
)
def test_its_name_need_not_be_one_of_a_node(folder: Path, file: str, name: str) -> None:
    (folder / "mirror.py").rename(folder / file)
    assert name in expand(parse_launch(f"testsrc ! haardetect ! ./{file} ! fakesink")).nodes


def test_it_may_lie_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert find("~/mirror.py").path == f"{folder}/mirror.py:Mirror"


@pytest.mark.parametrize(
    ("code", "type_", "words"),
    [
        (MIRROR, f"{'x' * 300}.py", "no such file: '{folder}/xxx"),
        (MIRROR, "miror.py", "no such file: '{folder}/miror.py', which is given as a node's type"),
        (MIRROR, "own.py:Miror", "there is no 'Miror' in 'own.py'; did you mean 'Mirror'?"),
        (MIRROR, "own.py:cv2", "node type 'own.py:cv2': {folder}/own.py:cv2 is not a node class"),
        ("x = 1", "own.py", "'own.py' is given as a node's type, and holds 0 node classes: it defines none"),
        ("from mirror import Mirror", "own.py", "holds 0 node classes: it defines none"),
        (
            f"{MIRROR}\nclass Two(Transform):\n    sink = src = pad('ANY')\n",
            "own.py",
            "holds 2 node classes: write one of own.py:Mirror, own.py:Two",
        ),
        ("def (", "own.py", "node type 'own.py' cannot be imported: SyntaxError: invalid syntax (own.py, line 1)"),
        ("\n1 / 0", "own.py", "cannot be imported: ZeroDivisionError: division by zero ({folder}/own.py:2)"),
        ("import nosuch", "own.py", "ModuleNotFoundError: No module named 'nosuch' ({folder}/own.py:1)"),
        ("raise SystemExit('no key')", "own.py", "cannot be imported: SystemExit: no key ({folder}/own.py:1)"),
        (
            MIRROR.replace('src = pad("video/raw", format="BGR")', ""),
            "own.py",
            "Mirror is a transform, which needs `src",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(folder: Path, code: str, type_: str, words: str) -> None:
    (folder / "own.py").write_text(code)
    with pytest.raises(UserError) as caught:
        find(type_).load()
    assert words.format(folder=folder) in str(caught.value)
    graph = f"nodes:\n  a: {{type: testsrc}}\n  m: {{type: '{type_}'}}\n  e: {{type: fakesink}}\nlinks: [a ! m ! e]\n"
    with pytest.raises(UserError, match="^g.yaml:3: m: "):
        expand(parse_yaml(graph, "g.yaml"))


def test_of_a_class_and_those_made_of_it_the_last_one_counts(folder: Path) -> None:
    (folder / "own.py").write_text(f"{MIRROR}\nclass Better(Mirror):\n    'Better.'\n")
    assert find("own.py").path == f"{folder}/own.py:Better"
    assert find("own.py:Mirror").load().__name__ == "Mirror"


def test_a_class_of_two_names_is_one(folder: Path) -> None:
    (folder / "own.py").write_text(f"{MIRROR}\nFlip = Mirror\n")
    assert find("own.py").path == f"{folder}/own.py:Mirror"


def test_its_folder_may_be_a_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODES", str(folder))
    file = "nodes:\n  a: {type: testsrc}\n  mirror0: {type: '${NODES}/mirror.py'}\nlinks: [a ! mirror0]\n"
    for spec in (parse_yaml(file, "g.yaml"), parse_launch("testsrc ! ${NODES}/mirror.py")):
        assert spec.nodes["mirror0"].type == f"{folder}/mirror.py"


def test_a_class_that_is_called_like_a_node_is_another(folder: Path) -> None:
    """The events of a graph's own `publish` nodes are shown; this has none, and no endpoint."""
    (folder / "own.py").write_text(
        "from pipeline import Properties, Sink, pad\n"
        "class Publish(Sink):\n"
        "    class Properties(Properties):\n        broker: str = ''\n"
        "    sink = pad('ANY', access='none')\n"
        "    def consume(self, buffer): pass\n"
    )
    done = emograph("launch", "testsrc name=a num_buffers=5 ! own.py broker=b", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_a_working_folder_that_is_gone_is_no_traceback(folder: Path) -> None:
    (folder / "gone").mkdir()
    os.chdir(folder / "gone")
    (folder / "gone").rmdir()
    with pytest.raises(UserError, match="^no such file: 'own.py', which is given as a node's type"):
        find("own.py")


def test_alone_it_is_no_graph(folder: Path) -> None:
    shown = emograph("check", "./mirror.py", cwd=folder)
    assert 'mirror.py is no graph, but may be a node of one: "testsrc ! mirror.py ! ..."' in shown.stderr


def test_an_editor_takes_it(folder: Path) -> None:
    graph = "nodes:\n  m: {type: TYPE, axis: vertical}\nlinks: [a ! m]\n"
    schema = graph_schema()
    for type_ in ("./mirror.py", "/x y/mirror.py:Mirror"):
        jsonschema.validate(yaml.safe_load(graph.replace("TYPE", f"'{type_}'")), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(graph.replace("TYPE", "mirror.pyc")), schema)
