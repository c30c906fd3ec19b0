"""The figures of a run: what a worker's nodes count between two reports, and the supervisor's sums of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

SAMPLES_PER_REPORT = 64
"""Samples of a metric that one report carries; count, sum and maximum are of all."""


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
        value = float(value)
        count, total, top, samples = self.metrics.get(metric) or (0, 0.0, value, [])
        if len(samples) < SAMPLES_PER_REPORT:
            samples.append(value)
        self.metrics[metric] = (count + 1, total + value, max(top, value), samples)

    def report(self) -> dict[str, object]:
        """The figures as plain types, and start anew."""
        figures = dict(vars(self))
        self.__init__()
        return figures


@dataclass
class Metric:
    """A metric over a run: count, sum, maximum, and the newest samples for percentiles."""

    count: int = 0
    total: float = 0.0
    top: float = 0.0
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

    def add(self, report: dict[str, Any]) -> None:
        self.taken += report["taken"]
        self.done += report["done"]
        self.busy_ns += report["busy_ns"]
        for reason, count in report["dropped"].items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        for name, (count, total, top, samples) in report["metrics"].items():
            metric = self.metrics.setdefault(name, Metric())
            metric.count += count
            metric.total += total
            metric.top = max(metric.top, top)
            metric.samples.extend(samples)
