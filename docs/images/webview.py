"""Makes the picture of the page with the project itself:  uv run python docs/images/webview.py

Debian's chromium takes it, of configs/graphs/web.yaml after a minute and a half.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
GRAPH = HERE.parents[1] / "configs/graphs/web.yaml"
SIZE = {"width": 1440, "height": 1010}
SECONDS = 90  # of timelines


def main() -> None:
    command = [sys.executable, "-m", "pipeline.cli", "launch", str(GRAPH), "--set", "page.port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as graph, sync_playwright() as playwright:
        assert graph.stderr is not None
        url = next(found[1] for line in graph.stderr if (found := re.search(r"the page is at (\S+)", line)))
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="dark")
        page.goto(url)
        time.sleep(SECONDS)
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        browser.close()
        graph.send_signal(signal.SIGINT)
    # 256 colours, dithered: a third of the size, and nobody sees it.
    palette = picture.quantize(256, method=Image.Quantize.MEDIANCUT)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(HERE / "webview.png", optimize=True)


if __name__ == "__main__":
    main()
