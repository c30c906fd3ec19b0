"""Makes the pictures of the docs with the project itself:  uv run python docs/images/make.py"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

HERE = Path(__file__).parent
GRAPH = HERE.parents[1] / "configs/graphs/demo.yaml"
FRAME = 20  # all three faces in view, each with another expression


def emograph(*arguments: str) -> str:
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    (HERE / "demo-graph.svg").write_text(emograph("graph", str(GRAPH), "--format", "svg"))
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "demo.mp4"
        emograph("launch", str(GRAPH), "-q", "--set", f"film.location={film}")
        video = cv2.VideoCapture(str(film))
        for _ in range(FRAME):
            video.grab()
        frame = video.retrieve()[1]
    cv2.imwrite(str(HERE / "demo.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
