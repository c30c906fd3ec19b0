"""From the command to the first event: what a person waits for.

`emograph launch` in a process of its own, on the synthetic camera, with a subscriber that was there before. The first
frame is the capture time of the first event that comes. Files are in memory and modules compiled, as at everybody's
second start.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from bench.record import Result, Settings, middle, percentile, usual_environment
from pipeline.errors import UserError
from pipeline.subscription import subscribe

LIMIT = 120.0


GRAPHS = {
    "one camera": "testsrc ! haardetect ! emotion ! publish endpoint={}",
    "one camera, weights=resnet9-s": "testsrc ! haardetect ! emotion weights=resnet9-s ! publish endpoint={}",
    "one camera, no classifier": "testsrc ! haardetect ! publish endpoint={}",
    "four cameras": "testsrc name=a ! haardetect name=f replicas=auto ! emotion name=m ! publish endpoint={} "
    "testsrc name=b ! f. testsrc name=c ! f. testsrc name=d ! f.",
}


def contestants(settings: Settings) -> list[str]:
    return list(GRAPHS)


def run(settings: Settings) -> Result:
    """Seconds to the first frame and to the first event, by graph."""
    result = Result("startup")
    for name, graph in GRAPHS.items():
        if not settings.wants(name):
            continue
        times = [_start(graph) for _ in range(settings.runs + 1)][1:]  # the first one warms the caches
        frames, events = [t[0] for t in times], [t[1] for t in times]
        result.add(
            "seconds from the command", graph=name,
            **{"first frame": middle(frames), "first event": middle(events), "slowest": percentile(events, 100)},
        )  # fmt: skip
    return result


def _start(graph: str) -> tuple[float, float]:
    """Seconds from the command to (the capture of the first frame told of, the event in a subscriber's hands)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with subscribe(endpoint, kinds=["observation"]) as subscription:
        began = time.time()
        command = [sys.executable, "-m", "pipeline.cli", "launch", graph.format(endpoint), "-q"]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=usual_environment(), **pipes) as process:
            try:
                end = time.monotonic() + LIMIT
                while (event := subscription.receive(0.2)) is None:
                    if process.poll() is not None or time.monotonic() > end:
                        assert process.stderr is not None
                        process.kill()
                        raise UserError(f"no event came: {process.stderr.read().strip()[-200:]}")
                held = time.time()
            finally:
                process.terminate()
    return event.time.timestamp() - began, held - began
