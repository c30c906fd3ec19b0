"""Runs graphs in tests: real supervisor, real worker processes, ledgers at the end."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import registry
from pipeline.errors import UserError
from pipeline.graph import expand
from pipeline.graphfile import parse_yaml
from pipeline.load import load
from pipeline.registry import NodeType
from pipeline.ring import Ledger
from pipeline.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
VIDEOS = SHARED / "videos"


def register_engine_nodes(monkeypatch: Any) -> None:
    """Add tests/support/enginenodes.py to the registry of this process and to the path of the workers."""
    names = ("Numbers", "Work", "Invert", "Odd", "Gather", "Record", "Nothing", "Picky", "Trouble", "Away")
    module = "tests.support.enginenodes"
    types = {n.lower(): NodeType(n.lower(), f"{module}:{n}", "tests") for n in names}
    merged = {**registry.node_types(), **types}
    monkeypatch.setattr(registry, "node_types", lambda: merged)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))


def register_plugin(monkeypatch: Any, folder: Path, name: str, code: str) -> None:
    """Make a module of a folder a plugin, known here and to the workers; it has a node class `Plugin`."""
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)  # of another test's plugin with that name
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
    merged = {**registry.node_types(), name: NodeType(name, f"{name}:Plugin", "tests")}
    monkeypatch.setattr(registry, "node_types", lambda: merged)


@dataclass
class Run:
    """What came of a graph."""

    supervisor: Supervisor
    ledgers: dict[str, Ledger]
    error: str | None
    logs: list[tuple[str, str, str]] = field(default_factory=list)
    traces: list[Any] = field(default_factory=list)

    def said(self, text: str) -> bool:
        return any(text in line[2] for line in self.logs)


def run_graph(
    graph: str,
    settings: list[str] | None = None,
    on_tick: Callable[[Supervisor], None] | None = None,
    trace: bool = False,
) -> Run:
    """Run a graph (YAML text or a launch string) until it ends; `on_tick` is called about 20 times a second."""
    spec = parse_yaml(graph, "test.yaml") if "nodes:" in graph else load(graph, settings)
    logs: list[tuple[str, str, str]] = []
    traces: list[Any] = []

    def on_event(what: str, fields: dict[str, Any]) -> None:
        if what == "log":
            logs.append((fields["level"], fields["node"], fields["text"]))
        elif what == "trace":
            traces.extend(fields["buffers"])
        elif what == "tick" and on_tick is not None:
            on_tick(supervisor)

    supervisor = Supervisor(expand(spec), on_event, trace=trace)
    # A graph that does not end is a failed test, not a hung one.
    watchdog = threading.Timer(120, lambda: (supervisor.stop("test too long"), supervisor.stop("now")))
    watchdog.start()
    error = None
    try:
        supervisor.run()
    except UserError as failure:
        error = str(failure)
    finally:
        watchdog.cancel()
    run = Run(supervisor, supervisor.ledgers, error, logs, traces)
    supervisor.close()
    return run


def records(path: Path) -> dict[str, list[list[str]]]:
    """Camera -> its lines (without the name) as `record` wrote them."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        camera, *rest = line.split()
        found[camera].append(rest)
    return found


def stop_after(frames: int) -> Callable[[Supervisor], None]:
    """Ask once for the end when sink `r` has had so many."""

    def tick(supervisor: Supervisor) -> None:
        if supervisor.figures["r"].done > frames and supervisor.stop_reason is None:
            supervisor.stop("enough")

    return tick
