"""A launched graph with a page, and a real browser that looks at it (Debian's chromium, driven by Playwright)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.command import wait_until, workers
from tests.support.graphs import ROOT

PATIENCE = 60_000
"""Milliseconds until what does not come never comes."""


@dataclass
class Launched:
    """A running `emograph launch`. url: of its page."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def worker(self, name: str) -> psutil.Process:
        return workers(self.process.pid)[name]


@contextmanager
def launched(graph: str, *arguments: str, **environment: str) -> Iterator[Launched]:
    """Launch YAML text; ends with Ctrl-C, and that must end well. `port: 0` in it."""
    folder = Path(tempfile.mkdtemp(prefix="eg-"))
    (folder / "graph.yaml").write_text(graph)
    command = [sys.executable, "-m", "pipeline.cli", "launch", str(folder / "graph.yaml"), *arguments]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), **environment}
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=env) as process:
        run = Launched(process, log)

        def is_told() -> bool:
            assert process.poll() is None, log.read_text()
            found = re.search(r"the page is at ([^\s?]+)", log.read_text())
            run.url = found[1] if found else ""
            return bool(found)

        try:
            wait_until(is_told, "the page's address")
            yield run
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()
            assert "Traceback" not in log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
    shutil.rmtree(folder)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    # The sandbox of a browser does not work for root, as which CI runs.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@dataclass
class Visit:
    """An open page, and what it did: requests (addresses) and complaints (console errors, exceptions)."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def wait(self, expression: str, argument: Any = None) -> None:
        """Wait until a JavaScript expression, or a function of `argument`, is true."""
        # Playwright's own waiting evaluates strings inside the page, which the page's policy forbids.
        wait_until(lambda: self.page.evaluate(expression, argument), f"{expression} in the page")

    def hosts(self) -> set[str]:
        """Where the page's requests went to, but for what it made itself."""
        return {urlsplit(url).netloc for url in self.requests if not url.startswith(("blob:", "data:"))}


@contextmanager
def visit(browser: Browser, url: str, before: str = "", **options: Any) -> Iterator[Visit]:
    """Open a page in a profile of its own. before: JavaScript to run before the page's own. options: Playwright's, of
    the profile (viewport, color_scheme)."""
    context = browser.new_context(**options)
    context.add_init_script(before)
    context.set_default_timeout(PATIENCE)
    seen = Visit(context.new_page())
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.on("websocket", lambda channel: seen.requests.append(channel.url))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("console", lambda m: seen.complaints.append(m.text) if m.type in ("error", "warning") else None)
    seen.page.goto(url)
    try:
        yield seen
    finally:
        context.close()
