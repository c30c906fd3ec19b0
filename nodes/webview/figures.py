"""The run's figures for machines: `/metrics` in Prometheus' text format, `/healthz`. Made of the newest snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from nodes.preprocess import UNCERTAIN

Snapshot = dict[str, Any]

STALE_AFTER = 5.0
"""Seconds after which a snapshot says nothing of the present."""
QUANTILES = {"0.5": "p50", "0.95": "p95"}


def health(snapshot: Snapshot | None, age: float) -> tuple[bool, list[str]]:
    """(whether all is well, what is not). age: seconds since the snapshot came. A camera that is away is told but
    is no failure: the graph does what it can, and starting it again would not help."""
    if snapshot is None:
        return False, ["no figures of the run yet"]
    problems = []
    if age > STALE_AFTER:
        problems.append(f"no figures of the run for {age:.0f} s")
    if snapshot["state"] != "PLAYING":
        problems.append(f"the graph is {snapshot['state']}")
    problems += [
        f"{name} is {process['state']}"
        for name, process in snapshot["processes"].items()
        if process["state"] != "PLAYING"
    ]
    return not problems, problems


def cameras_away(snapshot: Snapshot | None) -> dict[str, dict[str, Any]]:
    """camera -> since (UTC ns), reason; of those that are down."""
    cameras = snapshot["cameras"] if snapshot else {}
    return {
        name: {"since_ns": camera["since"], "reason": camera["reason"]}
        for name, camera in cameras.items()
        if not camera["up"] and not camera["ended"]
    }


class Exposition:
    """A prometheus_client collector: the families of one scrape."""

    def __init__(
        self,
        snapshot: Snapshot | None,
        healthy: bool,
        faces: dict[str, Any],
        labels: Sequence[str],
        own: dict[str, int],
    ) -> None:
        """faces, labels: as History has them. own: the node's own figures: viewers, pictures."""
        self._snapshot, self._healthy, self._faces, self._own = snapshot, healthy, faces, own
        self._expressions = [*labels, UNCERTAIN, "none"] if labels else ["none"]

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)  # type: ignore[arg-type]
        return registry

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("emograph_healthy", "1 when /healthz says 200", value=float(self._healthy))
        yield GaugeMetricFamily("emograph_webview_viewers", "Open pages", value=self._own["viewers"])
        yield CounterMetricFamily("emograph_webview_pictures", "Pictures encoded for the page", self._own["pictures"])
        yield self._in_view()
        if self._snapshot is not None:
            yield from self._run(self._snapshot)
            yield from _cameras(self._snapshot["cameras"])
            yield from _nodes(self._snapshot["nodes"])
            yield from _processes(self._snapshot["processes"])

    def _in_view(self) -> Metric:
        family = GaugeMetricFamily(
            "emograph_faces_in_view", "Faces in the newest frame, by shown expression", labels=("camera", "expression")
        )
        for camera, seen in self._faces.items():
            # With those that nobody shows: a series that comes and goes has an average of its peaks alone.
            count = Counter(dict.fromkeys(self._expressions, 0))
            count.update(face["label"] or "none" for face in seen["faces"])
            for label, number in count.items():
                family.add_metric((camera, label), number)
        return family

    def _run(self, snapshot: Snapshot) -> Iterator[Metric]:
        info = GaugeMetricFamily("emograph_run_info", "The graph that runs", labels=("graph", "mode", "state"))
        info.add_metric((snapshot["graph"], snapshot["mode"], snapshot["state"]), 1)
        yield info
        yield GaugeMetricFamily("emograph_uptime_seconds", "Seconds since the start", value=snapshot["uptime_s"])
        yield CounterMetricFamily("emograph_garbage_messages", "Messages that were none of ours", snapshot["garbage"])


def _cameras(cameras: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    captured = CounterMetricFamily("emograph_frames_captured", "Frames captured", labels=("camera",))
    delivered = CounterMetricFamily("emograph_frames_delivered", "Frames that reached every sink", labels=("camera",))
    dropped = CounterMetricFamily(
        "emograph_frames_dropped", "Frames dropped, by where and why", labels=("camera", "node", "reason")
    )
    in_flight = GaugeMetricFamily("emograph_frames_in_flight", "Frames on their way", labels=("camera",))
    up = GaugeMetricFamily("emograph_camera_up", "1 when frames come", labels=("camera",))
    latency = GaugeMetricFamily(
        "emograph_frame_latency_seconds", "Capture to delivery, recent seconds", labels=("camera", "quantile")
    )
    for name, camera in cameras.items():
        captured.add_metric((name,), camera["captured"])
        delivered.add_metric((name,), camera["delivered"])
        in_flight.add_metric((name,), camera["in_flight"])
        up.add_metric((name,), float(camera["up"] and not camera["ended"]))
        for drop in camera["dropped"]:
            dropped.add_metric((name, drop["node"], drop["reason"]), drop["count"])
        _add_quantiles(latency, name, camera["latency_ms"], 1e-3)
    yield from (captured, delivered, dropped, in_flight, up, latency)


def _nodes(nodes: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    taken = CounterMetricFamily("emograph_node_buffers_in", "Buffers taken", labels=("node", "type"))
    done = CounterMetricFamily("emograph_node_buffers_out", "Buffers passed on", labels=("node", "type"))
    dropped = CounterMetricFamily("emograph_node_buffers_dropped", "Buffers dropped", labels=("node", "reason"))
    busy = GaugeMetricFamily("emograph_node_busy_ratio", "Share of a core spent in the node", labels=("node",))
    latency = GaugeMetricFamily(
        "emograph_node_latency_seconds", "Time the node spends on a call, recent seconds", labels=("node", "quantile")
    )
    batch = GaugeMetricFamily(
        "emograph_node_batch_items", "Items in a batch, recent seconds", labels=("node", "quantile")
    )
    for name, node in nodes.items():
        taken.add_metric((name, node["type"]), node["in"])
        done.add_metric((name, node["type"]), node["out"])
        busy.add_metric((name,), node["busy"])
        for reason, count in node["dropped"].items():
            dropped.add_metric((name, reason), count)
        _add_quantiles(latency, name, node["metrics"].get("work_ms"), 1e-3)
        _add_quantiles(batch, name, node["metrics"].get("batch_items"), 1)
    yield from (taken, done, dropped, busy, latency, batch)


def _processes(processes: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    up = GaugeMetricFamily("emograph_process_up", "1 when the process is PLAYING", labels=("process",))
    restarts = CounterMetricFamily("emograph_process_restarts", "Restarts", labels=("process",))
    cpu = GaugeMetricFamily("emograph_process_cpu_cores", "Cores in use", labels=("process",))
    memory = GaugeMetricFamily(
        "emograph_process_private_memory_bytes", "Its share of memory, without frames", labels=("process",)
    )
    for name, process in processes.items():
        up.add_metric((name,), float(process["state"] == "PLAYING"))
        restarts.add_metric((name,), process["restarts"])
        cpu.add_metric((name,), process["cpu"])
        memory.add_metric((name,), process["rss_mb"] * 1e6)
    yield from (up, restarts, cpu, memory)


def _add_quantiles(family: GaugeMetricFamily, name: str, metric: dict[str, float] | None, scale: float) -> None:
    if metric is not None:
        for quantile, key in QUANTILES.items():
            family.add_metric((name, quantile), metric[key] * scale)
