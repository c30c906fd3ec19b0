"""Draws a piece of a trace of `emograph launch --trace`:  uv run python docs/images/trace.py TRACE.json OUT.png [MS]

The same slices that Perfetto shows, a row per node: enough to see who works when.
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"source": "#5b9bd5", "transform": "#e0b13c", "batch": "#e07a2d", "sink": "#62a957"}


def main() -> None:
    trace, out = Path(sys.argv[1]), Path(sys.argv[2])
    span = float(sys.argv[3]) if len(sys.argv) > 3 else 200.0
    events = json.loads(trace.read_text())["traceEvents"]
    slices = sorted((e for e in events if e["ph"] == "X"), key=lambda e: e["ts"])
    middle = slices[len(slices) // 2]["ts"]
    shown = [e for e in slices if middle <= e["ts"] <= middle + span * 1e3]
    rows = list(dict.fromkeys(e["cat"] for e in sorted(slices, key=lambda e: e["pid"])))
    batches = {e["cat"] for e in slices if "batch" in e["args"]}
    firsts, lasts = {e["name"].split()[1].split("#")[0] for e in slices}, {"sink", "events", "film", "web"}
    figure, axes = plt.subplots(figsize=(11, 0.36 * len(rows) + 1.1), dpi=110, layout="constrained")
    for e in shown:
        name = e["cat"]
        kind = "source" if name in firsts else "batch" if name in batches else "sink" if name in lasts else "transform"
        start, length = (e["ts"] - middle) / 1e3, e["dur"] / 1e3
        axes.barh(rows.index(name), max(length, 0.6), left=start, height=0.72, color=COLOURS[kind], linewidth=0)
        if "batch" in e["args"] and e["args"]["batch"]:
            where = (start + length / 2, rows.index(name))
            axes.annotate(str(e["args"]["batch"]), where, ha="center", va="center", fontsize=8, color="white")
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, span)
    axes.set_xlabel("milliseconds (a number in a bar: faces in the batch)")
    axes.grid(axis="x", color="#ddd")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(out)


if __name__ == "__main__":
    main()
