"""`emograph graph`: the expanded graph as Mermaid, Graphviz dot, or an SVG of its own that needs no program.

Only names, types and processes are drawn; properties stay out, since they may hold credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from pipeline.errors import printable
from pipeline.plan import NodePlan, Plan

_FILL = {"source": "#d7ecff", "transform": "#fff1cf", "batch": "#ffdfc2", "sink": "#dff3dc"}
_LINE = {"source": "#2b6ca3", "transform": "#a67c00", "batch": "#b3560b", "sink": "#3c7d35"}


def _links(plan: Plan) -> list[tuple[str, str, list[str]]]:
    """(from, to, cameras) once per pair."""
    found: dict[tuple[str, str], list[str]] = {}
    for node in plan.nodes.values():
        for camera, targets in node.routes.items():
            for target in targets:
                found.setdefault((node.name, target), []).append(camera)
    return [(a, b, cameras) for (a, b), cameras in found.items()]


def _shared(plan: Plan) -> dict[str, list[NodePlan]]:
    """Processes that hold several nodes."""
    groups = {p: [plan.nodes[n] for n in names] for p, names in plan.processes.items()}
    return {p: nodes for p, nodes in groups.items() if len(nodes) > 1}


def mermaid(plan: Plan) -> str:
    """A Mermaid flowchart; GitHub renders it in Markdown."""
    ids = {name: f"n{index}" for index, name in enumerate(plan.nodes)}
    lines = ["flowchart LR"]
    shared = _shared(plan)
    for node in plan.nodes.values():
        label = f'{ids[node.name]}["{node.name}<br/><i>{node.type}</i>"]:::{node.kind}'
        if node.process not in shared:
            lines.append(f"  {label}")
    for index, (process, nodes) in enumerate(shared.items()):
        lines.append(f'  subgraph p{index}["process {process}"]')
        lines += [f'    {ids[n.name]}["{n.name}<br/><i>{n.type}</i>"]:::{n.kind}' for n in nodes]
        lines.append("  end")
    lines += [f"  {ids[a]} --> {ids[b]}" for a, b, _ in _links(plan)]
    lines += [f"  classDef {kind} fill:{_FILL[kind]},stroke:{_LINE[kind]},color:#222" for kind in _FILL]
    return "\n".join(lines)


def dot(plan: Plan) -> str:
    """Graphviz."""
    quoted = printable(plan.name).replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f'digraph "{quoted}" {{',
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="sans"];',
    ]

    def box(node: NodePlan) -> str:
        return (
            f'"{node.name}" [label="{node.name}\\n{node.type}", '
            f'fillcolor="{_FILL[node.kind]}", color="{_LINE[node.kind]}"];'
        )

    shared = _shared(plan)
    lines += [f"  {box(n)}" for n in plan.nodes.values() if n.process not in shared]
    for index, (process, nodes) in enumerate(shared.items()):
        lines.append(f'  subgraph "cluster_{index}" {{ label="process {process}"; style=dashed;')
        lines += [f"    {box(n)}" for n in nodes]
        lines.append("  }")
    lines += [f'  "{a}" -> "{b}";' for a, b, _ in _links(plan)]
    return "\n".join([*lines, "}"])


@dataclass(frozen=True)
class Layout:
    """A drawing of a graph in columns by distance from the sources. All numbers are in pixels.

    place: node -> (x, y) of its box's upper left corner. links: (from, to) -> an SVG path between the two boxes.
    """

    width: float
    height: float
    box: tuple[float, float]
    place: dict[str, tuple[float, float]]
    links: dict[tuple[str, str], str]


def layout(
    nodes: Mapping[str, Sequence[str]], box: tuple[float, float] = (132, 46), gap: tuple[float, float] = (64, 22)
) -> Layout:
    """Lay out `nodes`: name -> the nodes it feeds, in order of flow, so that what feeds a node comes before it."""
    (width, height), (gap_x, gap_y), margin = box, gap, 18
    column = dict.fromkeys(nodes, 0)
    for name, targets in nodes.items():
        for target in targets:
            column[target] = max(column[target], column[name] + 1)
    columns: list[list[str]] = [[] for _ in range(max(column.values(), default=0) + 1)]
    for name, index in column.items():
        columns[index].append(name)
    tallest = max(len(names) for names in columns)
    total_h = 2 * margin + tallest * (height + gap_y) - gap_y + 10
    total_w = 2 * margin + len(columns) * (width + gap_x) - gap_x
    place: dict[str, tuple[float, float]] = {}
    for index, names in enumerate(columns):
        top = (total_h - len(names) * (height + gap_y) + gap_y) / 2
        for row, name in enumerate(names):
            place[name] = (margin + index * (width + gap_x), top + row * (height + gap_y))
    links: dict[tuple[str, str], str] = {}
    for a, targets in nodes.items():
        for b in targets:
            (x1, y1), (x2, y2) = place[a], place[b]
            x1, y1, y2 = x1 + width, y1 + height / 2, y2 + height / 2
            bend = (x2 - x1) / 2
            links[a, b] = f"M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2 - 1:.0f} {y2:.0f}"
    return Layout(total_w, total_h, box, place, links)


def svg(plan: Plan) -> str:
    """A drawing in columns by distance from the sources; readable on light and dark pages."""
    links = _links(plan)
    drawing = layout({name: [b for a, b, _ in links if a == name] for name in plan.nodes})
    total_w, total_h, (width, height), place = drawing.width, drawing.height, drawing.box, drawing.place
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_w} {total_h:.0f}" width="{total_w}" '
        f'height="{total_h:.0f}" font-family="system-ui, sans-serif" role="img">',
        f"<title>{escape(printable(plan.name))}</title>",
        f'<rect width="{total_w}" height="{total_h:.0f}" rx="10" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>',
    ]
    for process, nodes in _shared(plan).items():
        xs = [place[n.name][0] for n in nodes]
        ys = [place[n.name][1] for n in nodes]
        x, y = min(xs) - 9, min(ys) - 9
        w, h = max(xs) + width + 9 - x, max(ys) + height + 9 - y
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="12" fill="none" stroke="#889" '
            f'stroke-dasharray="5 4"><title>process {escape(process)}</title></rect>'
        )
    for a, b, cameras in links:
        parts.append(
            f'<path d="{drawing.links[a, b]}" '
            f'fill="none" stroke="#667" stroke-width="{1.2 + 0.5 * (len(cameras) > 1)}" marker-end="url(#tip)">'
            f"<title>{escape(', '.join(cameras))}</title></path>"
        )
    for node in plan.nodes.values():
        x, y = place[node.name]
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width}" height="{height}" rx="8" fill="{_FILL[node.kind]}" '
            f'stroke="{_LINE[node.kind]}"/>'
            f'<text x="{x + width / 2:.0f}" y="{y + 20:.0f}" text-anchor="middle" font-size="14" font-weight="600" '
            f'fill="#222">{escape(node.name)}</text>'
            f'<text x="{x + width / 2:.0f}" y="{y + 36:.0f}" text-anchor="middle" font-size="11" '
            f'fill="#555">{escape(node.type)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


FORMATS: dict[str, Callable[[Plan], str]] = {"mermaid": mermaid, "dot": dot, "svg": svg}
