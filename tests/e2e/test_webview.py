"""The page in a real browser, of real graphs: what a person sees, and what happens when things go wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute

from tests.support.browser import Launched, Visit, chromium, launched, visit
from tests.support.command import wait_until
from tests.support.graphs import ROOT
from tests.support.host import free_port

WEB = re.sub("port: 8080", "port: 0", (ROOT / "configs/graphs/web.yaml").read_text())

CAMERA = """
nodes:
  door: {type: capture, uri: "http://user:password@127.0.0.1:%d/secret"}
  page: {type: webview, port: 0}
links:
  - door ! page
"""

FACE = ".face:not(.gone)"  # one that is in view

LOCKED = """
nodes:
  door: {type: testsrc, fps: 5}
  page: {type: webview, port: 0, token: "${WEB_TOKEN}"}
links:
  - door ! page
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def graph() -> Iterator[Launched]:
    with launched(WEB) as run:
        yield run


def playing(page: Visit) -> None:
    """Wait until all nodes of the graph are green and pictures come."""
    page.wait("document.querySelectorAll('.node').length === 7")
    page.wait("[...document.querySelectorAll('.node')].every(node => node.dataset.state === 'good')")
    page.wait("[...document.querySelectorAll('.camera .screen canvas')].every(canvas => canvas.dataset.number > 0)")


def test_a_person_sees_all_of_it_live(graph: Launched, browser: Browser):
    with visit(browser, graph.url, viewport={"width": 1440, "height": 1600}) as seen:
        page = seen.page
        playing(seen)
        assert page.locator("#link").inner_text() == "Live"
        assert page.title() == "web · emograph"
        # The video moves.
        still = "[...document.querySelectorAll('.camera .screen canvas')].map(canvas => canvas.toDataURL())"
        before = page.evaluate(still)
        seen.wait(f"before => {still}.every((picture, n) => picture !== before[n])", before)
        # Faces, with expression and confidence; their timelines grow. (On a busy machine a track may break.)
        for camera, faces in (("door", 1), ("desk", 2)):
            seen.wait(f"document.querySelectorAll('[data-camera={camera}] {FACE} .timeline canvas').length === {faces}")
        line = page.evaluate(f"document.querySelector('[data-camera=door] {FACE} .face-line').innerText")
        assert re.search(r"#\d+\s+\w+\s+\d+ %", line)
        timeline = f"document.querySelector('[data-camera=door] {FACE} .timeline canvas')?.toDataURL()"
        seen.wait(f"first => {timeline} !== first", page.evaluate(timeline))
        box = page.locator(f"[data-camera=door] {FACE} .timeline").first.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 10)
        seen.wait("!document.getElementById('tip').hidden")
        assert (
            len(re.findall(r"(angry|disgust|fear|happy|sad|surprise|neutral) \d+ %", page.locator("#tip").inner_text()))
            == 7
        )
        # The system: figures at each node, the ledger of each camera.
        seen.wait("[...document.querySelectorAll('.node')].every(node => /[1-9]\\d*\\.\\d\\/s/.test(node.textContent))")
        assert "batch" in (page.locator('[data-node="mood"]').text_content() or "")
        cells = page.locator('#ledger [data-key="door"] td').all_inner_texts()
        captured, delivered, dropped, in_flight = map(int, cells)
        assert captured == delivered + dropped + in_flight
        assert delivered > 0
        assert page.locator('#messages li:has-text("resnet9")').count() == 1
        assert seen.hosts() == {graph.url.removeprefix("http://").rstrip("/")}
        assert seen.complaints == []


def test_one_camera_alone_with_the_keyboard(graph: Launched, browser: Browser):
    with visit(browser, graph.url) as seen:
        page = seen.page
        playing(seen)
        page.locator('[data-camera="door"] .screen').focus()
        page.keyboard.press("Enter")
        seen.wait("document.querySelector('#focus .screen canvas').dataset.number > 0")
        assert page.locator("#focus-title").inner_text() == "door"
        assert page.locator("#focus .screen canvas").get_attribute("width") == "640"
        seen.wait(f"document.querySelectorAll('#focus {FACE} .bars dt').length === 7")
        page.keyboard.press("ArrowRight")
        seen.wait(f"document.querySelectorAll('#focus {FACE}').length === 2")
        assert page.locator("#focus-title").inner_text() == "desk"
        assert page.url.endswith("#camera=desk")
        page.keyboard.press("Escape")
        seen.wait("!document.getElementById('focus').open && !location.hash")  # the browser tells of it a little later
        assert page.evaluate("document.activeElement.closest('.camera').dataset.camera") == "door"
        page.evaluate("location.hash = 'camera=desk'")  # as from a bookmark, in the page that is there
        seen.wait("document.getElementById('focus').open")
        assert page.locator("#focus-title").inner_text() == "desk"
        page.evaluate("location.hash = ''")
        seen.wait("!document.getElementById('focus').open")
        assert seen.complaints == []


def test_a_browser_that_keeps_nothing_shows_the_page_all_the_same(graph: Launched, browser: Browser):
    blocked = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('', 'SecurityError') }})"
    with visit(browser, graph.url, before=blocked) as seen:
        playing(seen)
        seen.page.locator("#as-wall").click()
        assert seen.page.locator("body.wall").count() == 1
        assert seen.complaints == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_fits_a_phone(graph: Launched, browser: Browser, scheme: str):
    with visit(browser, graph.url, viewport={"width": 390, "height": 844}, color_scheme=scheme) as seen:
        seen.wait("document.querySelectorAll('.node').length === 7")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        light = seen.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] > 128")
        assert light == (scheme == "light")
        # What a screen reader goes by: names of all that can be operated, landmarks, one main heading.
        unnamed = (
            "[...document.querySelectorAll('button, a, summary')].filter(e => !e.textContent.trim() && !e.ariaLabel)"
        )
        assert seen.page.evaluate(f"{unnamed}.length") == 0
        for landmark in ("header", "main", "aside[aria-label]", "footer", "section[aria-label]"):
            assert seen.page.locator(landmark).count()
        assert seen.page.locator("h1").count() == 1
        assert seen.complaints == []


def test_a_killed_node_is_red_and_then_green_again(graph: Launched, browser: Browser):
    with visit(browser, graph.url) as seen:
        playing(seen)
        seen.page.evaluate(
            """() => {
              const node = document.querySelector('[data-node="mood"]')
              window.states = []
              new MutationObserver(() => states.push(node.dataset.state)).observe(node, { attributes: true, attributeFilter: ["data-state"] })
            }"""
        )
        graph.worker("mood").send_signal(signal.SIGKILL)
        seen.wait("states.includes('bad') && states.at(-1) === 'good'")
        row = seen.page.locator('#processes [data-key="mood"]')
        assert re.search(r"playing\s+1\s", row.inner_text())
        seen.wait(
            "[...document.querySelectorAll('#messages .warning')].some(m => m.textContent.includes('killed by signal 9'))"
        )
        assert seen.complaints == []


def test_the_page_comes_back_when_its_own_process_dies(graph: Launched, browser: Browser):
    # A page whose port changes cannot be found again: this one has one of its own.
    port = graph.url.rstrip("/").rpartition(":")[2]
    free = str(int(port) + 1) if int(port) < 65000 else str(int(port) - 1)
    with (
        launched(LOCKED, "--set", f"page.port={free}", "--set", "page.token=", WEB_TOKEN="") as run,
        visit(browser, run.url) as seen,
    ):
        seen.wait("document.querySelector('canvas')?.dataset.number > 0")
        run.worker("page").send_signal(signal.SIGKILL)
        seen.wait("!document.getElementById('offline').hidden")
        assert "Disconnected since" in seen.page.locator("#offline").inner_text()
        seen.wait("document.getElementById('link-text').textContent === 'Live'")
        before = seen.page.evaluate("document.querySelector('canvas').toDataURL()")
        seen.wait("before => document.querySelector('canvas').toDataURL() !== before", before)
        # What the browser says of a server that is away differs: refused, reset, socket not connected.
        assert [text for text in seen.complaints if "net::ERR_" not in text and "WebSocket" not in text] == []


def test_a_silent_connection_is_given_up_at_once(graph: Launched, browser: Browser):
    with visit(browser, graph.url) as seen:
        replaced = seen.page.evaluate(
            """async () => {
              const { Channel } = await import("/static/js/channel.js")
              const told = []
              const channel = new Channel("/ws/live", { message: () => told.push("message"), down: () => told.push("down") })
              Object.assign(window, { channel, told })
              const first = channel.socket
              while (!told.length) await new Promise((resolve) => setTimeout(resolve, 20))
              told.length = 0
              channel.drop()
              return told.join() === "down" && channel.socket !== first
            }"""
        )
        assert replaced
        seen.wait("told.at(-1) === 'message'")
        assert seen.page.evaluate("told.filter(what => what === 'down').length") == 1


class Lines:
    """A page's WebSockets of one path, which can break without a word."""

    def __init__(self, page: Page, path: str) -> None:
        self.opened = 0
        self._silent = 0
        page.route_web_socket(re.compile(re.escape(path) + "$"), self._route)

    def _route(self, line: WebSocketRoute) -> None:
        self.opened += 1
        number = self.opened
        server = line.connect_to_server()
        server.on_message(lambda message: line.send(message) if number > self._silent else None)

    def fall_silent(self) -> None:
        """All that are open."""
        self._silent = self.opened


NUMBER = "+document.querySelector('[data-camera=door] canvas').dataset.number"


def test_pictures_come_back_after_a_silent_break(graph: Launched, browser: Browser):
    with visit(browser, "about:blank") as seen:
        lines = Lines(seen.page, "/ws/video")
        seen.page.goto(graph.url)
        playing(seen)
        lines.fall_silent()
        seen.page.wait_for_timeout(100)  # what was said before is here
        before = seen.page.evaluate(NUMBER)
        seen.wait(f"before => {NUMBER} > before", before)
        assert lines.opened == 2
        assert seen.page.locator("#link").inner_text() == "Live"


def test_with_the_figures_the_pictures_begin_anew(graph: Launched, browser: Browser):
    with visit(browser, "about:blank") as seen:
        video, live = Lines(seen.page, "/ws/video"), Lines(seen.page, "/ws/live")
        seen.page.goto(graph.url)
        playing(seen)
        assert (video.opened, live.opened) == (1, 1)
        live.fall_silent()
        wait_until(lambda: seen.page.evaluate("1") and live.opened == 2, "the page to notice")
        wait_until(lambda: seen.page.evaluate("1") and video.opened == 2, "new pictures")
        playing(seen)


def test_a_camera_that_is_away_says_since_when_and_why(browser: Browser, tmp_path: Path):
    def camera(port: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "tests/servers/http_server.py"), str(port)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with camera(0) as first:
        assert first.stdout
        port = int(first.stdout.readline().split()[1])
        with launched(CAMERA % port) as run, visit(browser, run.url) as seen:
            seen.wait("document.querySelector('[data-camera=door]')?.dataset.state === 'up'")
            seen.wait("document.querySelector('canvas').dataset.number > 0")
            first.kill()
            seen.wait("document.querySelector('[data-camera=door]').dataset.state === 'down'")
            text = seen.page.locator(".camera .away").inner_text()
            assert re.search(r"Down since \d+:\d+:\d+ \(\d+ s\)\n\S+", text)
            seen.wait("document.querySelector('[data-node=door]').dataset.state === 'bad'")
            assert json.load(urlopen(run.url + "healthz"))["cameras_away"]["door"]["since_ns"] > 0
            with camera(port) as second:
                seen.wait("document.querySelector('[data-camera=door]').dataset.state === 'up'")
                everything = seen.page.content() + urlopen(run.url + "metrics").read().decode() + run.log.read_text()
                assert "password" not in everything
                second.kill()


def test_the_token_opens_the_page(browser: Browser):
    with launched(LOCKED, WEB_TOKEN="open sesame") as run:
        with visit(browser, run.url) as seen:
            for token in ("open barley", "open sesame"):
                seen.page.get_by_label("Token").fill(token)
                seen.page.get_by_role("button", name="Open").click()
                if token == "open barley":
                    assert seen.page.get_by_role("alert").inner_text() == "That is not the token."
            seen.wait("document.querySelector('canvas')?.dataset.number > 0")
            cookies = seen.page.context.cookies()
            assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
        with visit(browser, run.url + "?token=open+sesame") as seen:
            seen.wait("document.querySelector('canvas')?.dataset.number > 0")
            assert seen.page.url == run.url
        assert "sesame" not in run.log.read_text()


def test_a_camera_shown_alone_that_the_next_graph_has_not_leaves_the_others_their_pictures(browser: Browser):
    """A page on a wall outlives its graph: it asked for that camera for ever, and no picture came any more."""

    def page(port: int, *cameras: str) -> str:
        sources = "".join(f"  {name}: {{type: testsrc, fps: 5}}\n" for name in cameras)
        node = f"  page: {{type: webview, port: {port}}}\n"
        return f"nodes:\n{sources}{node}links:\n  - '[{', '.join(cameras)}] ! page'\n"

    port = free_port()
    with launched(page(port, "constructor", "desk")) as run, visit(browser, "about:blank") as seen:
        seen.page.goto(run.url + "#camera=desk")
        seen.wait("document.querySelector('dialog[open]')")
        seen.wait("document.querySelector('[data-camera=constructor] canvas').dataset.number > 0")
        run.process.terminate()
        run.process.wait(60)
        with launched(page(port, "constructor")):
            seen.wait("!document.querySelector('dialog[open]')")
            before = seen.page.evaluate("+document.querySelector('[data-camera=constructor] canvas').dataset.number")
            seen.wait(
                "before => +document.querySelector('[data-camera=constructor] canvas').dataset.number != before", before
            )
            assert seen.page.locator("#link").inner_text() == "Live"
