"""A snapshot as a person reads it: tables of cameras, nodes and processes, for `emograph top` and `emograph launch`.

What to show is decided here once; how much of it fits into a terminal too. Whatever a snapshot holds, no control
character of it reaches the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from pipeline.errors import printable

LEVELS = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}
"""Level of a message -> how it looks."""
_GAP = 2
_TROUBLE = {"RESTARTING": "bold red", "NULL": "dim", "READY": "cyan"}
_STATES = {"PLAYING": "bold green", "STARTING": "bold cyan", "STOPPING": "bold yellow", "ENDED": "bold"}


class Column(NamedTuple):
    """rank: where there is little room, the columns of the highest rank go first; 0 stays."""

    title: str
    rank: int = 0
    left: bool = False


@dataclass
class Table:
    """Rows of text under columns; a style for each row."""

    columns: Sequence[Column]
    rows: list[list[str]] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def add(self, style: str, *cells: str) -> None:
        self.rows.append([printable(cell) for cell in cells])
        self.styles.append(style)

    @property
    def head(self) -> list[str]:
        return [column.title for column in self.columns]

    @property
    def numbers(self) -> set[int]:
        """Columns that are aligned to the right."""
        return {index for index, column in enumerate(self.columns) if not column.left}

    def lines(self, width: int, height: int) -> list[Text]:
        """The table in so many columns and lines of a terminal: less important columns and the last rows go."""
        rows, styles = self.rows, self.styles
        more = 0
        if len(rows) + 1 > height:
            more = len(rows) - max(0, height - 2)
            rows, styles = rows[: len(rows) - more], styles[: len(rows) - more]
        shown = self._fit(width)
        widths = {i: max(cell_len(r[i]) for r in [self.head, *self.rows]) for i in shown}

        def line(cells: list[str], style: str) -> Text:
            texts = []
            for i in shown:
                space = " " * (widths[i] - cell_len(cells[i]))
                texts.append(cells[i] + space if self.columns[i].left else space + cells[i])
            return cut(Text((" " * _GAP).join(texts).rstrip(), style), width)

        found = [line(self.head, "bold dim")]
        found += [line(row, style) for row, style in zip(rows, styles, strict=True)]
        if more:
            found.append(cut(Text(f"… {more} more", "dim"), width))
        return found[:height]

    def _fit(self, width: int) -> list[int]:
        """The columns that fit. The last one, if it is text, need not fit as a whole."""
        shown = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows) or i == 0]

        def needed() -> int:
            sizes = [max(cell_len(r[i]) for r in [self.head, *self.rows]) for i in shown]
            if shown and shown[-1] == len(self.columns) - 1 and self.columns[shown[-1]].left:
                sizes[-1] = min(sizes[-1], 20)
            return sum(sizes) + _GAP * (len(shown) - 1)

        while needed() > width:
            rank, index = max((self.columns[i].rank, i) for i in shown)
            if rank == 0:
                break
            shown.remove(index)
        return shown


def cut(text: Text, width: int) -> Text:
    """At most `width` cells of `text`, an ellipsis where something is missing."""
    text.truncate(width, overflow="ellipsis")
    return text


def duration(seconds: float) -> str:
    """`0:00:07`, `26:10:00`."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def drops(dropped: Iterable[dict[str, Any]]) -> str:
    """`late 3 (faces), window full 12 (door)`: where a camera's frames went and why."""
    return ", ".join(f"{drop['reason']} {drop['count']} ({drop['node']})" for drop in dropped)


def headline(snapshot: dict[str, Any]) -> Text:
    """The run in one line."""
    state = snapshot["state"]
    parts = [duration(snapshot["uptime_s"]), snapshot["mode"]]
    if snapshot["mode"] == "live":
        parts.append(f"budget {snapshot['latency_budget_ms']:.0f} ms")
    parts.append(f"process {snapshot['pid']}")
    if snapshot["garbage"]:
        parts.append(f"garbage {snapshot['garbage']}")
    name = Text(printable(snapshot["graph"]), "bold")
    return Text("  ").join([name, Text(state, _STATES.get(state, "")), Text(printable("  ".join(parts)))])


def camera_table(snapshot: dict[str, Any]) -> Table:
    """A row for each camera: its state, rates and latency of now, and its ledger."""
    table = Table([
        Column("camera", left=True), Column("state", left=True), Column("fps"), Column("latency p50", 1),
        Column("p95", 2), Column("captured", 5), Column("delivered", 4), Column("dropped", 1),
        Column("in flight", 6), Column("why", 3, left=True),
    ])  # fmt: skip
    for name, camera in snapshot["cameras"].items():
        latency = camera["latency_ms"]
        times = [f"{latency[p]:.0f} ms" for p in ("p50", "p95")] if latency else ["-", "-"]
        dropped = sum(drop["count"] for drop in camera["dropped"])
        state, style = "up", ""
        if camera["ended"]:
            state, style = "ended", "dim"
        elif not camera["up"]:
            away = f" {duration((snapshot['time'] - camera['since']) / 1e9)}" if camera["since"] else ""
            state, style = (f"down{away}", "bold red") if away else ("starting", "cyan")
        reason = camera["reason"] if state.startswith("down") else ""
        table.add(
            style, name, state, f"{camera['fps']:.1f}", *times, str(camera["captured"]), str(camera["delivered"]),
            str(dropped), str(camera["in_flight"]), "; ".join(filter(None, [reason, drops(camera["dropped"])])),
        )  # fmt: skip
    return table


def node_table(snapshot: dict[str, Any]) -> Table:
    """A row for each node: buffers/s in and out, how long its work takes, what waits for it, what it drops."""
    table = Table([
        Column("node", left=True), Column("type", 4, left=True), Column("in/s", 3), Column("out/s"),
        Column("work p50", 1), Column("p95", 2), Column("busy"), Column("wait p50", 6), Column("batch", 5),
        Column("dropped", 3, left=True),
    ])  # fmt: skip

    def metric(node: dict[str, Any], name: str, key: str, form: str) -> str:
        found = node["metrics"].get(name)
        return form.format(found[key]) if found else ""

    for name, node in snapshot["nodes"].items():
        dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(node["dropped"].items()))
        table.add(
            "", name, node["type"], f"{node['in_fps']:.1f}", f"{node['fps']:.1f}",
            metric(node, "work_ms", "p50", "{:.1f} ms"), metric(node, "work_ms", "p95", "{:.1f} ms"),
            f"{node['busy']:.0%}", metric(node, "wait_ms", "p50", "{:.1f} ms"),
            metric(node, "batch_items", "mean", "{:.1f}"), dropped,
        )  # fmt: skip
    return table


def process_table(snapshot: dict[str, Any]) -> Table:
    """A row for each process: state, restarts, what it takes of the machine."""
    table = Table([
        Column("process", left=True), Column("state", left=True), Column("restarts", 1), Column("cpu"),
        Column("memory"), Column("pid", 2), Column("nodes", 3, left=True),
    ])  # fmt: skip
    for name, process in snapshot["processes"].items():
        nodes = "" if process["nodes"] == [name] else ", ".join(process["nodes"])
        style = _TROUBLE.get(process["state"], "yellow" if process["restarts"] else "")
        pid = "-" if process["pid"] is None else str(process["pid"])
        table.add(
            style, name, process["state"], str(process["restarts"]), f"{process['cpu']:.0%}",
            f"{process['rss_mb']:.0f} MB", pid, nodes,
        )  # fmt: skip
    return table


def message_lines(messages: Sequence[dict[str, Any]], width: int, height: int) -> list[Text]:
    """The newest messages of the bus, a line each."""
    found = []
    for message in list(messages)[-height:] if height > 0 else ():
        at = datetime.fromtimestamp(message["time"] / 1e9).strftime("%H:%M:%S")
        text = f"{at}  {message['level']:<7}  {message['node']}: {message['text']}"
        found.append(cut(Text(printable(text), LEVELS.get(message["level"], "")), width))
    return found


def pad(line: Text, width: int, right: str) -> Text:
    """`line` with `right` at the end of the row, if there is room for both."""
    space = width - line.cell_len - cell_len(right)
    return Text.assemble(line, " " * space, (right, "dim")) if space >= _GAP else line


def allot(wanted: Sequence[int], room: int, least: int = 4) -> list[int]:
    """Lines for each of several sections: first up to `least` for each, then the rest, the first ones first."""
    given = [0] * len(wanted)
    for limit in (least, max(wanted, default=0)):
        for index, want in enumerate(wanted):
            more = min(want, limit) - given[index]
            more = min(more, room)
            if more > 0 and given[index] + more >= 2:  # a heading alone says nothing
                given[index] += more
                room -= more
    return given
