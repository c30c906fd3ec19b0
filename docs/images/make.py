"""Makes the pictures of the docs with the project itself:  uv run python docs/images/make.py [NAME ...]

`report` needs Chromium (Debian package chromium).
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import cv2
from PIL import Image
from rich.console import Console

from pipeline.monitor import locate, watch
from pipeline.top import render

HERE = Path(__file__).parent
GRAPH = HERE.parents[1] / "configs/graphs/demo.yaml"
CLIP_FPS, CLIP_SECONDS, CLIP_WIDTH = 7.5, 8, 720
COMMAND = [sys.executable, "-m", "pipeline.cli"]


def emograph(*arguments: str) -> str:
    return subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def graph() -> None:
    (HERE / "demo-graph.svg").write_text(emograph("graph", str(GRAPH), "--format", "svg"))


def demo() -> None:
    """A clip of the annotated video."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "demo.mp4"
        emograph("launch", str(GRAPH), "-q", "--set", f"film.location={film}", "--set", "mode=lossless")
        video = cv2.VideoCapture(str(film))
        rate = video.get(cv2.CAP_PROP_FPS)
        frames = []
        while (read := video.read())[0]:
            frames.append(read[1])
    size = (CLIP_WIDTH, round(CLIP_WIDTH * frames[0].shape[0] / frames[0].shape[1]))
    wanted = [frames[round(i * rate / CLIP_FPS)] for i in range(int(CLIP_FPS * CLIP_SECONDS))]
    clip = [
        Image.fromarray(cv2.cvtColor(cv2.resize(f, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB))
        for f in wanted
    ]
    clip[0].save(
        HERE / "demo.webp",
        save_all=True,
        append_images=clip[1:],
        duration=round(1000 / CLIP_FPS),
        loop=0,
        quality=55,
        method=4,
    )


def top() -> None:
    """What `emograph top` shows after six seconds of the demo."""
    launcher = subprocess.Popen(
        [*COMMAND, "launch", str(GRAPH), "-q"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert launcher.stderr is not None
    launcher.stderr.readline()  # it has said what it starts: the run is there
    for snapshot in watch(locate(str(launcher.pid)), timeout=60):
        if snapshot["uptime_s"] > 6:
            break
    launcher.communicate()
    console = Console(record=True, width=100, file=StringIO(), force_terminal=True)
    for line in render(snapshot, 100, 40):
        console.print(line)
    svg = console.export_svg(title="emograph top")
    # Rich's template loads its font from the network; the reader's own monospace font will do.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
    (HERE / "top.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


def report() -> None:
    with tempfile.TemporaryDirectory() as folder:
        page, film = Path(folder) / "report.html", Path(folder) / "demo.mp4"
        lossless = ("--set", "mode=lossless", "--set", f"film.location={film}")
        emograph("launch", str(GRAPH), "-q", *lossless, "--report", str(page))
        picture = HERE / "report.png"
        browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        subprocess.run([*browser, "--window-size=1100,1060", f"--screenshot={picture}", page.as_uri()], check=True)
    colours = Image.open(picture).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    colours.save(picture, optimize=True)


def roi() -> None:
    """A frame of which parts are masked, not searched, and ignored."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ("-q", "--set", "mode=lossless")
        emograph("launch", f"testsrc faces=3 seed=4 duration=3s ! videosink location={folder}/door.mp4", *quiet)
        camera = f"capture name=door uri={folder}/door.mp4 mask=0.85,0.75,0.15,0.25"
        faces = "haardetect roi=0.35,0.05,0.65,0.9 ignore=0.72,0.1,0.2,0.26 ! emotion ! overlay roi=true latency=false"
        emograph("launch", f"{camera} ! {faces} ! picturesink format=png location={folder}/pictures", *quiet)
        frame = sorted(Path(folder, "pictures").iterdir())[40]
        Image.open(frame).save(HERE / "roi.webp", quality=85, method=6)


PICTURES: dict[str, Callable[[], None]] = {"graph": graph, "demo": demo, "top": top, "report": report, "roi": roi}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()
