"""A recording as a pandas table: a row for each face of each frame, and one for a frame without a face.

uv run python docs/examples/recording.py talk.mp4 [FRAMES_PER_SECOND]

`analyse` can be called from a program or a notebook as it stands; columns: docs/watching.md#the-table.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

GRAPH = "capture name=video uri=- ! haardetect ! emotion ! table name=scores location=-"


def analyse(recording: str | Path, fps: float | None = None) -> pd.DataFrame:
    """All faces of all frames, or of `fps` frames a second. Raises CalledProcessError; why is on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "scores.csv"
        place = str(Path(recording).resolve()).replace("${", "$${")  # a name, whatever it looks like
        settings = ["mode=lossless", f"video.uri={place}", f"scores.location={table}"]
        settings += [f"video.fps={fps}"] if fps else []
        command = [sys.executable, "-m", "pipeline.cli", "launch", "-q", GRAPH, *(f"--set={s}" for s in settings)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return pd.read_csv(table)


if __name__ == "__main__":
    try:
        faces = analyse(sys.argv[1], *map(float, sys.argv[2:3]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    print(faces[["frame", "time", "track", "label", "score", "happy", "sad", "angry"]])
