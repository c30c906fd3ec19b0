"""The project as a whole: pins agree, imports run one way, pages link to what exists, node types declare themselves."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from pipeline.graph import expand
from pipeline.load import load
from pipeline.registry import node_types
from tests.support.graphs import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_pip_and_uv_are_pinned_to_the_same_versions():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == PYPROJECT["tool"]["uv"]["constraint-dependencies"]


def test_the_wheel_says_that_its_packages_are_typed(tmp_path: Path):
    """Without the marker a type checker takes nothing of what a plugin derives from."""
    builder = "from hatchling.builders.wheel import WheelBuilder; import sys; list(WheelBuilder('.').build(directory=sys.argv[1]))"
    subprocess.run([sys.executable, "-c", builder, str(tmp_path)], cwd=ROOT, check=True, timeout=200)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"{package}/py.typed" for package in ("pipeline", "nodes", "trainer")} <= set(names)


def test_a_batch_node_may_return_the_list_that_it_was_given(tmp_path: Path):
    """To a type checker a list of buffers is no list of buffers and None."""
    (tmp_path / "mine.py").write_text(
        "from pipeline import BatchTransform, Buffer\n\n\n"
        "class Mine(BatchTransform):\n"
        "    def transform_batch(self, buffers: list[Buffer]) -> list[Buffer]:\n"
        "        return buffers\n"
    )
    options = ["--pythonpath", sys.executable, "--project", str(tmp_path)]
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", *options], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("package", "forbidden"), [("pipeline", {"nodes", "trainer", "torch", "cv2"}), ("nodes", {"trainer"})]
)
def test_imports_run_one_way(package: str, forbidden: set[str]):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {n.split(".")[0] for n in names} & forbidden, f"{path} imports {names}"


def test_checking_a_graph_and_subscribing_import_no_torch():
    code = (
        "import sys; from pipeline.graph import expand; from pipeline.load import load; "
        "expand(load('configs/graphs/demo.yaml')); from pipeline import subscribe; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=100).returncode == 0


@pytest.mark.parametrize("name", sorted(node_types()))
def test_every_node_type_declares_itself(name: str):
    cls = node_types()[name].load()
    assert cls.__doc__
    assert (cls.sink is None) == (cls.kind == "source")
    assert (cls.src is None) == (cls.kind == "sink")
    for key, field in cls.Properties.model_fields.items():
        assert field.description, f"property {key} has no help"


@pytest.mark.parametrize("path", sorted((ROOT / "configs/graphs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_graph_that_ships_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAM_USER", "user")
    monkeypatch.setenv("CAM_PASSWORD", "password")
    assert expand(load(str(path))).sources


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_of_a_page_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            file, _, place = target.partition("#")
            other = page.parent / file if file else page
            assert other.exists(), f"{page.name} links to {target}"
            assert not place or place in anchors(other), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Places on a page that a link can name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
