"""What a person sees of a run: messages of the bus, live events, and at the end the ledger.

On a terminal with colour and tables, piped as plain lines. Messages go to stderr, events and ledger to stdout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Container
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import status
from pipeline.errors import printable
from pipeline.jsonlines import dumps
from pipeline.status import LEVELS, Column, drops
from pipeline.supervisor import Supervisor

_RANKS = (0, 0, 0, 1, 2, 4, 3)
"""Of the ledger's figures: those of the highest rank are left out first where there is little room."""


def out() -> Console:
    """Console for results."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def message_line(level: str, node: str, text: str, since: float) -> Text:
    """One line of the bus: seconds since the start, level, node, text; nothing that a terminal would obey."""
    at = f"{time.monotonic() - since:7.2f}s"
    return Text(printable(f"{at}  {level:<7}  {node}: {text}"), LEVELS.get(level, ""))


def print_ledger(supervisor: Supervisor, stream: TextIO | None = None) -> None:
    """The account of every camera, and what each node did."""
    ledgers = supervisor.ledgers
    end = supervisor.finished_at or time.monotonic()
    seconds = end - (supervisor.playing_at or end)
    rows = []
    for name, ledger in ledgers.items():
        latency = supervisor.figures[name].metrics.get("latency_ms")
        times = [f"{latency.percentile(p):.0f} ms" for p in (50, 95)] if latency else ["-", "-"]
        rows.append([
            name, str(ledger.captured), str(ledger.delivered), str(sum(ledger.dropped.values())),
            str(ledger.in_flight), f"{ledger.delivered / seconds:.1f}" if seconds > 0 else "-", *times,
            drops(ledger.as_dict()["dropped"]),
        ])  # fmt: skip
    head = [
        "camera",
        "captured",
        "delivered",
        "dropped",
        "in flight",
        "fps",
        "latency p50",
        "p95",
        "why dropped",
    ]
    console = Console(file=stream or sys.stdout, highlight=False)
    if console.is_terminal:  # where room is short: the reasons on lines of their own
        table = status.Table(
            [Column(head[0], left=True), *(Column(h, r) for h, r in zip(head[1:8], _RANKS, strict=True))]
        )
        for row in rows:
            table.add("", *row[:8])
        for line in table.lines(console.width, len(rows) + 1):
            console.print(line, soft_wrap=True)
        for row in rows:
            if row[8]:
                console.print(Text(f"{row[0]}: dropped {row[8]}"))
        return
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    print_table(head, rows, numbers=range(1, 8), stream=stream)


def print_table(
    head: list[str], rows: list[list[str]], numbers: Container[int] = (), stream: TextIO | None = None
) -> None:
    """A table: ruled on a terminal, aligned plain columns when piped. numbers: columns aligned to the right."""
    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False, markup=False)  # a cell may hold brackets of its own
    if console.is_terminal:
        table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for index, title in enumerate(head):
            table.add_column(title, justify="right" if index in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip(), file=stream)


def summary(supervisor: Supervisor, errors: list[str]) -> dict[str, Any]:
    """The run in figures, for `--json`."""
    nodes = {}
    for name, figures in supervisor.figures.items():
        nodes[name] = {
            "process": supervisor.plan.nodes[name].process, "in": figures.taken, "out": figures.done,
            "busy_s": round(figures.busy_ns / 1e9, 3), "dropped": figures.dropped,
            "metrics": {
                k: {"count": m.count, "mean": m.mean, "p50": m.percentile(50), "p95": m.percentile(95), "max": m.top}
                for k, m in figures.metrics.items()
            },
        }  # fmt: skip
    processes = {
        p.name: {"restarts": p.restarts_total, "cpu_s": round(p.cpu, 2), "rss_mb": round(p.rss / 1e6, 1)}
        for p in supervisor.processes.values()
    }
    return {
        "graph": supervisor.plan.name, "mode": supervisor.plan.mode,
        "cameras": {name: ledger.as_dict() for name, ledger in supervisor.ledgers.items()},
        "nodes": nodes, "processes": processes, "garbage": supervisor.garbage, "errors": errors,
        "stopped": supervisor.stop_reason,
    }  # fmt: skip


def print_json(value: Any) -> None:
    """One line of strict JSON."""
    print(dumps(value))
