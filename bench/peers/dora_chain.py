"""source -> hop -> hop -> sink as a dora-rs dataflow, with its defaults.

    python bench/peers/dora_chain.py FOLDER/MARKS SECONDS CAMERAS FPS

The same file is the dataflow's every node: `ROLE` in the environment says which.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from meter import HEIGHT, WIDTH, Meter, first_moment, pace, touch


def source() -> None:
    import numpy as np
    import pyarrow as pa
    from dora import Node

    node, fps = Node(), float(os.environ["FPS"])
    pixels = pa.array(np.full(HEIGHT * WIDTH * 3, 7, np.uint8))
    start, sequence = first_moment(fps, int(os.environ["INDEX"]), int(os.environ["CAMERAS"])), 0
    while True:
        pace(fps, start, sequence)
        node.send_output("frame", pixels, {"stamps": [time.monotonic_ns()]})
        sequence += 1


def hop() -> None:
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            stamps = [*event["metadata"]["stamps"], time.monotonic_ns()]
            node.send_output("frame", event["value"], {"stamps": [*stamps, time.monotonic_ns()]})


def sink() -> None:
    from dora import Node

    node, meter = Node(), Meter(os.environ["MARKS"], float(os.environ["SECONDS"]))
    for event in node:
        if event["type"] == "INPUT":
            stamps = [*event["metadata"]["stamps"], time.monotonic_ns()]
            touch(event["value"].to_numpy().reshape(HEIGHT, WIDTH, 3))
            meter.frame(stamps)


def find_dora(python: str) -> str | None:
    """The command `dora` of an interpreter's environment, or of the PATH."""
    return shutil.which("dora", path=f"{Path(shutil.which(python) or python).parent}:{os.environ.get('PATH', '')}")


def main() -> None:
    marks, seconds, cameras, fps = sys.argv[1:]
    names = [f"camera{index}" for index in range(int(cameras))]
    chain = {
        **{name: ("source", []) for name in names}, "hop0": ("hop", names), "hop1": ("hop", ["hop0"]),
        "sink": ("sink", ["hop1"]),
    }  # fmt: skip
    lines = ["nodes:"]
    for name, (role, inputs) in chain.items():
        lines += [f"  - id: {name}", f"    path: {sys.executable}", f"    args: {Path(__file__).resolve()}"]
        lines += ["    env:", f"      ROLE: {role}", f"      MARKS: {marks}"]
        lines += [f"      SECONDS: '{seconds}'", f"      FPS: '{fps}'", f"      CAMERAS: '{cameras}'"]
        lines += [f"      INDEX: '{names.index(name) if name in names else 0}'"]
        if inputs:
            lines += ["    inputs:", *(f"      {other}: {other}/frame" for other in inputs)]
        if role != "sink":
            lines += ["    outputs:", "      - frame"]
    folder = Path(marks).parent
    (folder / "dataflow.yml").write_text("\n".join(lines) + "\n")
    parent = os.getppid()
    dora = subprocess.Popen([find_dora(sys.executable) or "dora", "run", "dataflow.yml"], cwd=folder, stdout=sys.stderr)
    while dora.poll() is None and os.getppid() == parent:  # or until whoever measures is gone
        time.sleep(0.2)
    dora.terminate()


if __name__ == "__main__":
    {"source": source, "hop": hop, "sink": sink}.get(os.environ.get("ROLE", ""), main)()
