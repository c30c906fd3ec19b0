"""A third party's package adds a node: installed, found, checked, run; nothing in emograph knows of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.registry import node_types
from tests.support.command import emograph
from tests.support.graphs import ROOT, run_graph

EXAMPLE = ROOT / "docs/examples/emograph-mirror"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")
    target = folder / "site"
    options = ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    uv = shutil.which("uv")
    command = [uv, "pip", "install", "-q", "--python", sys.executable] if uv else pip
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_plugin_is_found_and_runs(site: Path, tmp_path: Path):
    graph = "testsrc name=a num_buffers=20 ! haardetect ! mirror ! fakesink"
    assert "unknown node type 'mirror'" in emograph("check", graph).stderr
    env = {**os.environ, "PYTHONPATH": str(site)}
    assert "emograph-mirror" in emograph("inspect", "mirror", env=env).stdout
    done = emograph("launch", graph, "--set", "mode=lossless", env=env)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^a +20 +20 +0 +0 ", done.stdout, re.MULTILINE), done.stdout
    wrong = emograph("check", graph.replace("mirror", "mirror axis=diagonal"), env=env)
    assert "property 'axis' of mirror is 'diagonal'" in wrong.stderr


@pytest.mark.parametrize("path", ["mymodule:Faster", "ours"])
def test_a_name_that_two_packages_bring_is_an_error_where_it_is_used(path: str, tmp_path: Path):
    """None of them replaces the other; the same code found twice (an installation on two paths) is no conflict."""
    same = path == "ours"
    info = tmp_path / "rival_nodes-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival-nodes\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[emograph.nodes]\nemotion = {node_types()['emotion'].path if same else path}\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = emograph("check", "testsrc ! haardetect ! emotion ! fakesink", env=env)
    if same:
        assert done.returncode == 0, done.stderr
        return
    assert "two packages bring a node type 'emotion', emograph and rival-nodes: remove one" in done.stderr
    assert emograph("check", "testsrc ! haardetect ! fakesink", env=env).returncode == 0
    listed = emograph("inspect", env=env)
    assert (listed.returncode, "broken" in listed.stdout) == (0, True)


BROKEN = """
from pydantic import field_validator
from pipeline import Properties, Sink, pad

class Base(Sink):
    sink = pad("video/raw")

    def consume(self, buffer):
        pass

class Strs(Base):
    @classmethod
    def writes(cls, props, streams):
        return "out.txt"

class Ears(Base):
    @classmethod
    def binds(cls, props):
        return "tcp://127.0.0.1:9"

class Eyes(Base):
    @classmethod
    def mentions(cls, props):
        return "door"

class Attr(Base):
    class Properties(Properties):
        a: int = 1

        @field_validator("a")
        @classmethod
        def check(cls, value):
            return value.nothing
"""


def test_a_package_that_is_broken_is_named_and_spoils_nothing_else(tmp_path: Path):
    info = tmp_path / "broken_nodes-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-nodes\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[emograph.nodes]\nleaves = broken_leaves:X\nstrs = broken_nodes:Strs\nears = broken_nodes:Ears\neyes = broken_nodes:Eyes\nattr = broken_nodes:Attr\n"
        "[emograph.commands]\ngone = broken_gone:app\n"
    )
    (tmp_path / "broken_leaves.py").write_text("raise SystemExit('no licence found')\n")
    (tmp_path / "broken_nodes.py").write_text(BROKEN)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for arguments, error in (
        (("check", "testsrc ! leaves"), "package broken-nodes cannot be imported: SystemExit: no licence found"),
        (("check", "testsrc ! strs"), "strs0: strs cannot say which files it uses: TypeError: reads and writes give lists"),
        (("check", "testsrc ! ears"), "ears0: ears cannot say at which addresses it listens: TypeError: binds gives a list"),
        (("check", "testsrc ! eyes"), "eyes0: eyes cannot say which cameras it mentions: TypeError: mentions gives a list"),
        (("check", "testsrc ! attr a=3"), "attr cannot say whether its properties are right: AttributeError: 'int' object"),
        (("gone",), "command 'gone' of package broken-nodes cannot be imported: ModuleNotFoundError: No module named 'br"),
    ):  # fmt: skip
        done = emograph(*arguments, env=env)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert error in done.stderr
    listed = emograph("inspect", env=env)
    assert (listed.returncode, "no licence found" in listed.stdout, "haardetect" in listed.stdout) == (0, True, True)
    assert '"haardetect"' in emograph("inspect", "--schema", env=env).stdout
    shown = emograph("--help", env=env)
    assert (shown.returncode, "broken: command" in shown.stdout) == (0, True), shown.stderr


def test_the_plugins_own_test_passes(site: Path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "test_mirror.py")],
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False, timeout=100,
        cwd=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_page_shows_the_code_that_runs():
    page = (ROOT / "docs/writing-a-node.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks[:2] == [(EXAMPLE / name).read_text() for name in ("emograph_mirror.py", "test_mirror.py")]


def test_the_pages_source_runs_as_it_stands_there(tmp_path: Path):
    page = (ROOT / "docs/writing-a-node.md").read_text()
    node, use = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[2:4]
    (tmp_path / "emograph_noise.py").write_text(node)
    (tmp_path / "use.py").write_text(use + "assert len(frames) == 5\nassert frames[0].frame.std() > 50\n")
    done = subprocess.run([sys.executable, "use.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_pages_sink_runs_as_it_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (ROOT / "docs/writing-a-node.md").read_text()
    node = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[4]
    (tmp_path / "headcount.py").write_text(node)
    monkeypatch.chdir(tmp_path)
    run = run_graph(
        "testsrc name=door num_buffers=10 ! haardetect ! ./headcount.py location=f.jsonl", ["mode=lossless"]
    )
    assert run.error is None
    first = json.loads((tmp_path / "f.jsonl").read_text().splitlines()[0])
    assert list(first) == ["camera", "unix_s", "faces"]
    assert (first["camera"], first["faces"]) == ("door", 1)
