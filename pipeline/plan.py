"""The expanded graph: which node runs in which process, and the way of every camera through them.

Made by pipeline/graph.py, handed to every worker; nothing in it is looked up again at run time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from pipeline.wire import pack, unpack


@dataclass
class NodePlan:
    """One node of the expanded graph (one replica, where a node has several).

    base: its name in the graph file. cls: `module:Class`, or a file in place of the module. streams: the cameras that
    reach it. routes: camera -> the nodes its buffers go to next. plane: camera -> the plane of the slot that this node
    may draw on.
    """

    name: str
    base: str
    type: str
    cls: str
    kind: str
    process: str
    properties: dict[str, Any]
    streams: list[str] = field(default_factory=list)
    routes: dict[str, list[str]] = field(default_factory=dict)
    plane: dict[str, int] = field(default_factory=dict)


@dataclass
class Plan:
    """The whole graph. nodes are in the order of flow, sources first; planes: camera -> planes of its slots;
    pixels_wanted: camera -> whether any node behind it looks at pixels."""

    name: str
    mode: str
    latency_budget: float
    nodes: dict[str, NodePlan]
    planes: dict[str, int] = field(default_factory=dict)
    pixels_wanted: dict[str, bool] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        return [n.name for n in self.nodes.values() if n.kind == "source"]

    @property
    def processes(self) -> dict[str, list[str]]:
        """process -> its nodes, in order of flow."""
        found: dict[str, list[str]] = {}
        for node in self.nodes.values():
            found.setdefault(node.process, []).append(node.name)
        return found

    def reach(self, process: str) -> list[str]:
        """The cameras whose buffers pass a process, its own sources included."""
        names = {s for n in self.processes[process] for s in self.nodes[n].streams}
        return [s for s in self.sources if s in names]


@dataclass
class Assignment:
    """What one worker process is told when it starts."""

    process: str
    directory: str
    plan: Plan
    rings: dict[str, int]
    """camera -> inherited file descriptor of its ring, as the worker has it."""
    restarted: bool = False
    trace: bool = False
    debug: bool = False

    def pack(self) -> bytes:
        plan = dict(vars(self.plan), nodes=[vars(n) for n in self.plan.nodes.values()])
        return pack(dict(vars(self), plan=plan))

    @classmethod
    def unpack(cls, data: bytes) -> Assignment:
        raw = unpack(data, any_keys=True)  # a property may be a map of numbers
        plan = raw.pop("plan")
        nodes = [NodePlan(**n) for n in plan.pop("nodes")]
        return cls(plan=Plan(nodes={n.name: n for n in nodes}, **plan), **raw)

    def endpoint(self, process: str, what: str) -> str:
        """Where a process listens: `in` for buffers, `home` for weights of its sources."""
        index = list(self.plan.processes).index(process)
        return f"ipc://{self.directory}/{index}.{what}"

    @property
    def bus(self) -> str:
        return bus_endpoint(self.directory)

    @property
    def monitor(self) -> str:
        return monitor_endpoint(self.directory)


def bus_endpoint(directory: str) -> str:
    """Where the supervisor listens."""
    return f"ipc://{os.path.join(directory, 'bus')}"


def monitor_endpoint(directory: str) -> str:
    """Where the supervisor of the run in `directory` publishes its snapshots (pipeline/monitor.py)."""
    return f"ipc://{os.path.join(directory, 'monitor')}"
