"""Checks a graph and expands it: replicas, processes, the way of every camera, planes to draw on.

Everything that can be wrong without opening a file or a camera is found here, before anything starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from pipeline.caps import mismatch
from pipeline.endpoints import collide
from pipeline.errors import GraphError, UserError, did_you_mean, explain, redact_setting, spelt
from pipeline.node import Node, check_properties, is_secret
from pipeline.plan import NodePlan, Plan
from pipeline.registry import NodeType, find
from pipeline.spec import WITH_CAMERA, GraphSpec, LinkSpec, NodeSpec
from pipeline.wire import pack


def expand(spec: GraphSpec, monitor: str | None = None) -> Plan:
    """The plan of a checked graph. Raises GraphError with file, line, names and the way out.

    monitor: where the run publishes its snapshots besides; no node can listen there.
    """
    classes = {node.name: _check_node(node, spec) for node in spec.nodes.values()}
    _check_pads(spec, classes)
    try:
        order = _topological(spec)
        _check_caps(spec, classes, order)
        plan = _expand(spec, classes, order)
    except RecursionError:
        raise GraphError(f"{spec.where}: too many nodes one behind the other") from None
    _check_addresses(plan, spec, classes, monitor)
    return plan


def missing_files(spec: GraphSpec) -> dict[str, str]:
    """Node -> a line about what it would read and what is not there, of a checked graph. No mistake of the graph, which
    may be meant for another machine."""
    found = {}
    for node in spec.nodes.values():
        cls = find(node.type).load()
        for path in cls.reads(check_properties(cls, node.properties, node.name)):
            if not os.path.exists(path):
                found.setdefault(node.name, f"{node.where}: {node.name}: no such file or folder: '{path}'")
    return found


def attach(spec: GraphSpec, type_: str, properties: dict[str, Any]) -> None:
    """Add a sink of a type to a graph, behind the nodes that first bring what its pad needs; every camera once.

    A node that brings it and is linked to nothing comes before those: the sink is the link that it lacks. What the
    graph has of that type stays as it is. Raises GraphError.
    """
    sink = find(type_).load().sink
    assert sink is not None
    classes = {node.name: _check_node(node, spec) for node in spec.nodes.values()}
    _check_ends(spec, classes)
    order = _topological(spec)
    metadata = _check_caps(spec, classes, order)
    cameras = _cameras(spec, classes, order)
    bring = [n for n in order if (src := classes[n][1].src) and mismatch(src, metadata[n], sink) is None]
    first = [n for n in bring if not any(k.target == n and k.source in bring for k in spec.links)]
    if not first:
        raise GraphError(f"--{type_}: no node of this graph adds {' and '.join(sorted(sink.needs))}")
    taken = {*spec.nodes, *(node.process for node in spec.nodes.values())}
    name = next(n for n in chain([type_], (f"{type_}{i}" for i in count(2))) if n not in taken)
    where = f"--{type_}"
    spec.nodes[name] = NodeSpec(name, type_, where, dict(properties))
    linked_from = {link.source for link in spec.links}
    covered: set[str] = set()
    for source in [*(n for n in bring if n not in linked_from), *first]:
        if not covered & set(cameras[source]):
            covered |= set(cameras[source])
            spec.links.append(LinkSpec(source, name, where))
    if missing := sorted({camera for n in first for camera in cameras[n]} - covered):
        raise GraphError(
            f"{where}: there is no place for it that each frame passes once, those of {', '.join(missing)} too; "
            f"put a node of type {type_} into the graph"
        )


def _check_node(node: NodeSpec, spec: GraphSpec) -> tuple[NodeType, type[Node]]:
    try:
        found = find(node.type)
        cls = found.load()
        _check_owners(cls, node, spec)
        check_properties(cls, node.properties, node.name)
        _check_values(cls, node)
    except UserError as error:
        text = str(error)
        prefix = "" if text.startswith(f"{node.name}:") else f"{node.name}: "
        raise GraphError(f"{node.where}: {prefix}{text}") from None
    several = "replicas" if node.replicas != 1 else f"process: {WITH_CAMERA}" if node.process == WITH_CAMERA else ""
    if several and cls.kind in ("source", "sink"):
        raise GraphError(f"{node.where}: {node.name}: {several} is for transforms; {node.type} is a {cls.kind}")
    if node.replicas != 1:
        if node.process == WITH_CAMERA and node.replicas != "auto":
            raise GraphError(
                f"{node.where}: {node.name}: 'process: {WITH_CAMERA}' is one for each camera, 'replicas' another number"
            )
        if node.process and node.process != WITH_CAMERA:
            raise GraphError(f"{node.where}: {node.name}: 'process' puts a node in one process, 'replicas' in several")
    return found, cls


def _check_owners(cls: type[Node], node: NodeSpec, spec: GraphSpec) -> None:
    """A property that it has not and another node has: that one is meant, and not what is spelt like it."""
    for key in node.properties:
        if key not in cls.Properties.model_fields and (owner := _owner(key, spec)):
            raise GraphError(f"unknown property '{key}' of {cls.type_name()}; {owner.name} ({owner.type}) has one")


def _owner(key: str, spec: GraphSpec) -> NodeSpec | None:
    for node in spec.nodes.values():
        with suppress(UserError):  # told when it is this one's turn
            if key in find(node.type).load().Properties.model_fields:
                return node
    return None


def _check_values(cls: type[Node], node: NodeSpec) -> None:
    """What a property holds can be handed to another process."""
    for key, value in node.properties.items():
        if not _is_utf8(value):
            reason = explain({"type": "string_unicode"})
        else:
            try:
                pack(value)
                continue
            except (TypeError, ValueError, OverflowError):  # a date, a number of more than 64 bits
                reason = "no such value"
        shown = "" if is_secret(cls, key) else f" is {spelt(redact_setting(key, value))}"
        raise GraphError(f"{node.name}: property '{key}' of {node.type}{shown}: {reason}")


def _is_utf8(value: Any) -> bool:
    """Whether all text in a value is: what is not would arrive with other letters in the node's process."""
    if isinstance(value, dict):
        return all(_is_utf8(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return all(map(_is_utf8, value))
    return not (isinstance(value, str) and re.search("[\ud800-\udfff]", value))


def _check_pads(spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]]) -> None:
    """Every pad is linked, and only pads that exist."""
    _check_ends(spec, classes)
    linked_from = {link.source for link in spec.links}
    linked_to = {link.target for link in spec.links}
    for name, (_, cls) in classes.items():
        where = spec.nodes[name].where
        if cls.kind != "source" and name not in linked_to:
            raise GraphError(f"{where}: {name}: its sink pad is not linked; add a link '... ! {name}'")
        if cls.kind != "sink" and name not in linked_from:
            raise GraphError(f"{where}: {name}: its src pad is not linked; add a link '{name} ! ...'")


def _check_ends(spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]]) -> None:
    """Links are between pads that exist, and there is a source."""
    for link in spec.links:
        source, target = spec.nodes[link.source], spec.nodes[link.target]
        both = f"{link.where}: {source.name} ! {target.name}"
        if classes[source.name][1].kind == "sink":
            raise GraphError(f"{both}: {source.name} is a {source.type}, a sink: it has no src pad to link from")
        if classes[target.name][1].kind == "source":
            raise GraphError(f"{both}: {target.name} is a {target.type}, a source: it has no sink pad to link to")
    if not any(cls.kind == "source" for _, cls in classes.values()):
        raise GraphError(f"{spec.where}: the graph has no source")


def _topological(spec: GraphSpec) -> list[str]:
    """Node names in the order of flow; GraphError names the cycle."""
    order: list[str] = []
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> None:
        if state.get(name) == 2:
            return
        if state.get(name) == 1:
            cycle = " ! ".join([*path[path.index(name) :], name])
            where = next(k.where for k in spec.links if k.target == name and k.source == path[-1])
            raise GraphError(f"{where}: the links go round in a cycle: {cycle}")
        state[name] = 1
        for link in reversed(spec.links):
            if link.source == name:
                visit(link.target, [*path, name])
        state[name] = 2
        order.append(name)

    # Backwards twice: what the file names first comes first.
    for name in reversed(spec.nodes):
        visit(name, [])
    return order[::-1]


def _check_caps(
    spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]], order: list[str]
) -> dict[str, frozenset[str]]:
    """Every link's caps meet. Metadata gathers along the flow; where links join, only what all of them bring.

    Returns the metadata that each node's buffers have behind it.
    """
    metadata: dict[str, frozenset[str]] = {}
    for name in order:
        cls = classes[name][1]
        gathered: frozenset[str] | None = None
        for link in spec.links:
            if link.target != name or cls.sink is None:
                continue
            offered = classes[link.source][1].src
            assert offered is not None
            reason = mismatch(offered, metadata[link.source], cls.sink)
            if reason:
                raise GraphError(f"{link.where}: {link.source} ! {name}: the caps do not meet: {reason}")
            have = metadata[link.source]
            gathered = have if gathered is None else gathered & have
        metadata[name] = (gathered or frozenset()) | (cls.src.adds if cls.src else frozenset())
    return metadata


def _cameras(
    spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]], order: list[str]
) -> dict[str, list[str]]:
    """node -> the sources whose buffers reach it."""
    cameras: dict[str, list[str]] = {name: [] for name in order}
    for source in (n for n in spec.nodes if classes[n][1].kind == "source"):
        reached, stack = set(), [source]
        while stack:
            name = stack.pop()
            if name not in reached:
                reached.add(name)
                cameras[name].append(source)
                stack += [link.target for link in spec.links if link.source == name]
    return cameras


def _expand(spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]], order: list[str]) -> Plan:
    targets = {name: [link.target for link in spec.links if link.source == name] for name in order}
    cameras = _cameras(spec, classes, order)

    def instance(name: str, camera: str) -> str:
        copies = _replicas(spec.nodes[name], cameras[name])
        return name if copies == 1 else f"{name}.{cameras[name].index(camera) % copies}"

    nodes: dict[str, NodePlan] = {}
    for name in order:
        node, (found, cls) = spec.nodes[name], classes[name]
        copies = _replicas(node, cameras[name])
        for index in range(copies):
            own = name if copies == 1 else f"{name}.{index}"
            streams = [c for c in cameras[name] if instance(name, c) == own]
            routes = {c: [instance(t, c) for t in targets[name]] for c in streams} if targets[name] else {}
            nodes[own] = NodePlan(
                own,
                name,
                node.type if found.package else cls.type_name(),  # of a file the class: its path may hold anything
                found.path,
                cls.kind,
                nodes[streams[0]].process if node.process == WITH_CAMERA else node.process or own,
                node.properties,
                streams,
                routes,
            )
    plan = Plan(spec.name, spec.mode, spec.latency_budget, nodes)
    _check_one_way(plan)
    _check_cameras(plan, spec, classes)
    _check_files(plan, spec, classes)
    node_classes = {n: classes[p.base][1] for n, p in nodes.items()}
    for camera in plan.sources:
        plan.planes[camera] = _give_planes(plan, camera, node_classes)
        plan.pixels_wanted[camera] = any(
            (sink := node_classes[n.name].sink) is not None and sink.access != "none"
            for n in nodes.values()
            if camera in n.streams
        )
    return plan


def _check_one_way(plan: Plan) -> None:
    """A node gets each of a camera's frames once: two ways to it would double frames, and end the stream twice."""
    for camera in plan.sources:
        fed_by: dict[str, str] = {}
        for node in plan.nodes.values():
            for target in node.routes.get(camera, ()):
                if target in fed_by:
                    raise GraphError(
                        f"{target}: the frames of {camera} reach it on two ways, from {fed_by[target]} and from "
                        f"{node.name}; link it to one of them"
                    )
                fed_by[target] = node.name


def _check_cameras(plan: Plan, spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]]) -> None:
    """A camera that a node is told something about is one whose frames it gets; else a misspelt name has no effect."""
    for node in spec.nodes.values():
        cls = classes[node.name][1]
        reached = [camera for copy in plan.nodes.values() if copy.base == node.name for camera in copy.streams]
        with _asking(node.where, node, "which cameras it mentions"):
            named = cls.mentions(check_properties(cls, node.properties, node.name))
            if isinstance(named, str):
                raise TypeError("mentions gives a list of text")
            for camera in named:
                if camera not in reached:
                    raise GraphError(f"no camera '{camera}' reaches it{did_you_mean(camera, reached)}")


def _check_files(plan: Plan, spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]]) -> None:
    """No node writes what another reads or writes: a recording would be gone before its first frame is read."""
    taken: dict[object, str] = {}
    written: list[tuple[str, str, Path]] = []
    if os.path.isfile(spec.where):
        taken[_identity(Path(spec.where))] = "is the graph file"
    for node in plan.nodes.values():
        cls, where = classes[node.base][1], spec.nodes[node.base].where
        props = check_properties(cls, node.properties, node.name)
        with _asking(where, node, "which files it uses"):
            reads, writes = cls.reads(props), cls.writes(props, node.streams)
            if not all(isinstance(path, Path) for path in (*reads, *writes)):
                raise TypeError("reads and writes give lists of Path")
            taken |= {_identity(path): f"{node.name} reads" for path in reads}
            written += [(where, node.name, path) for path in writes]
    for where, name, path in written:
        other = taken.get(_identity(path))
        if other is not None:
            raise GraphError(f"{where}: {name}: it would write to '{path}', which {other}")
        taken[_identity(path)] = f"{name} writes"


def _check_addresses(
    plan: Plan, spec: GraphSpec, classes: dict[str, tuple[NodeType, type[Node]]], monitor: str | None
) -> None:
    """No node listens where another does: at the start the system would say that the address is in use, not by whom."""
    taken = [("--monitor", monitor)] if monitor else []
    for node in plan.nodes.values():
        cls, where = classes[node.base][1], spec.nodes[node.base].where
        with _asking(where, node, "at which addresses it listens"):
            own = cls.binds(check_properties(cls, node.properties, node.name))
            if isinstance(own, str) or not all(isinstance(address, str) for address in own):
                raise TypeError("binds gives a list of text")
        for address in own:
            for other, its in taken:
                if collide(address, its):
                    there = f"where {other} listens" + (f" ({its})" if its != address else "")
                    raise GraphError(
                        f"{where}: {node.name}: it would listen at {address}, {there}; give one of them another address"
                    )
        taken += [(node.name, address) for address in own]


@contextmanager
def _asking(where: str, node: NodeSpec | NodePlan, what: str) -> Iterator[None]:
    """Errors of a class method that a plugin has written, told with their place."""
    try:
        yield
    except UserError as error:
        raise GraphError(f"{where}: {node.name}: {error}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise GraphError(f"{where}: {node.name}: {node.type} cannot say {what}: {reason}") from error


def _identity(path: Path) -> object:
    """The same for two paths to one file, by whatever links."""
    try:
        real = os.path.realpath(path)  # also of `new/../talk.mp4`, whose folder `new` is yet to be made
    except OSError:  # no working folder to begin at
        return os.fspath(path)
    try:
        found = os.stat(real)
    except OSError:  # not there yet
        return real
    return found.st_dev, found.st_ino


def _replicas(node: NodeSpec, cameras: list[str]) -> int:
    wanted = len(cameras) if node.replicas == "auto" or node.process == WITH_CAMERA else int(node.replicas)
    return max(1, min(wanted, len(cameras)))


def _give_planes(plan: Plan, camera: str, classes: dict[str, type[Node]]) -> int:
    """Give a plane of its own to every node that draws on frames which another branch looks at.

    Returns how many planes a slot of this camera needs. Plane 0 is the camera's own picture.
    """
    below: dict[str, set[str]] = {}

    def descend(name: str) -> set[str]:
        if name not in below:
            below[name] = set()
            for target in plan.nodes[name].routes.get(camera, ()):
                below[name] |= {target} | descend(target)
        return below[name]

    reached = descend(camera)
    planes = 1
    for name in sorted(reached, key=list(plan.nodes).index):
        sink = classes[name].sink
        if sink is None or sink.access != "write":
            continue
        above = {other for other in reached if name in below[other]}
        aside = reached - above - below[name] - {name}
        if any((s := classes[other].sink) is not None and s.access != "none" for other in aside):
            plan.nodes[name].plane[camera] = planes
            planes += 1
    return planes
