"""The figures of a run: what a worker's nodes count between two reports, and the supervisor's sums of them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

SAMPLES_PER_REPORT = 64
"""Samples of a metric that one report carries; count, sum and maximum are of all."""
RECENT = 5.0
"""Seconds that "now" means in the figures of a running graph."""
SILENT = 1.5
"""Seconds without a report (there are two a second) after which a worker counts as silent."""


class Stats:
    """What a node has done since the last report; the supervisor adds reports up."""

    def __init__(self) -> None:
        self.taken = 0
        self.done = 0
        self.busy_ns = 0
        self.dropped: dict[str, int] = {}
        self.metrics: dict[str, tuple[int, float, float, list[float]]] = {}

    def observe(self, metric: str, value: float) -> None:
        """Keep count, sum and maximum of a metric's samples, and the first of them for percentiles."""
        metric, value = str(metric), float(value)
        count, total, top, samples = self.metrics.get(metric) or (0, 0.0, value, [])
        if len(samples) < SAMPLES_PER_REPORT:
            samples.append(value)
        self.metrics[metric] = (count + 1, total + value, max(top, value), samples)

    def worked(self, duration_ns: int) -> None:
        """The node worked so long on a buffer or a batch."""
        self.busy_ns += duration_ns
        self.observe("work_ms", duration_ns / 1e6)

    def report(self) -> dict[str, object]:
        """The figures as plain types, and start anew."""
        figures = dict(vars(self))
        self.__init__()
        return figures


def checked(report: dict[str, Any]) -> dict[str, Any]:
    """A report as it came over the bus, of the types that it must have; an exception of any kind where it has not."""
    return {
        **{name: int(report[name]) for name in ("taken", "done", "busy_ns")},
        "dropped": {str(reason): int(count) for reason, count in report["dropped"].items()},
        "metrics": {
            str(name): (int(count), float(total), float(top), list(map(float, samples)))
            for name, (count, total, top, samples) in report["metrics"].items()
        },
    }


@dataclass
class Metric:
    """A metric over a run: count, sum, maximum, and the newest samples for percentiles."""

    count: int = 0
    total: float = 0.0
    top: float = -math.inf
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


@dataclass
class NodeFigures:
    """Sums over a run of what a node's workers reported."""

    taken: int = 0
    done: int = 0
    busy_ns: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    reports: deque[tuple[float, dict[str, Any]]] = field(default_factory=deque)
    """(monotonic seconds, report) of the last `RECENT` seconds and the one before."""

    def add(self, report: dict[str, Any], now: float) -> None:
        self.reports.append((now, report))
        while len(self.reports) > 2 and self.reports[1][0] < now - RECENT:
            self.reports.popleft()
        self.taken += report["taken"]
        self.done += report["done"]
        self.busy_ns += report["busy_ns"]
        for reason, count in report["dropped"].items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        _add_metrics(self.metrics, report)

    def recent(self, now: float) -> dict[str, Any]:
        """The last `RECENT` seconds in plain types: in_fps and fps (buffers/s in and out), busy (share of one core's
        time spent in the node), metrics: name -> mean, p50, p95, max, per_s (samples/s)."""
        reports = [(at, r) for at, r in self.reports if at >= now - RECENT - 1]
        if len(reports) < 2:
            return {"in_fps": 0.0, "fps": 0.0, "busy": 0.0, "metrics": {}}
        last = reports[-1][0]
        # A worker that has fallen silent (killed, hanging) does nothing meanwhile.
        span = max((now if now - last > SILENT else last) - reports[0][0], 1e-3)
        counted = [r for _, r in reports[1:]]  # the first only says where the span begins
        metrics: dict[str, Metric] = {}
        for report in counted:
            _add_metrics(metrics, report)
        return {
            "in_fps": sum(r["taken"] for r in counted) / span,
            "fps": sum(r["done"] for r in counted) / span,
            "busy": sum(r["busy_ns"] for r in counted) / span / 1e9,
            "metrics": {
                name: {
                    "mean": m.mean, "p50": m.percentile(50), "p95": m.percentile(95), "max": m.top,
                    "per_s": m.count / span,
                }
                for name, m in metrics.items()
            },
        }  # fmt: skip


def _add_metrics(metrics: dict[str, Metric], report: dict[str, Any]) -> None:
    for name, (count, total, top, samples) in report["metrics"].items():
        metric = metrics.setdefault(name, Metric())
        metric.count += count
        metric.total += total
        metric.top = max(metric.top, top)
        metric.samples.extend(samples)
