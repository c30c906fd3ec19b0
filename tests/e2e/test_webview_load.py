"""Many viewers of one page at once, one of them stuck: the graph loses nothing, the memory stays flat.

For a minute, by hand:  uv run python -c "from tests.e2e.test_webview_load import *; watched_by_twenty(60)"
"""

from __future__ import annotations

import asyncio
import time
from urllib.request import urlopen

from websockets.asyncio.client import connect

from tests.support.browser import launched
from tests.support.command import wait_until
from tests.support.page import numb

CROWDED = """
latency_budget: 20s
nodes:
  door: {type: testsrc, fps: 10, window: 100}
  desk: {type: testsrc, fps: 10, window: 100}
  page: {type: webview, port: 0}
links:
  - [door, desk] ! page
"""


async def look(url: str, seconds: float) -> int:
    """Watch as a page does; gives the pictures that came."""
    socket = url.replace("http", "ws").rstrip("/")
    count = 0
    async with (
        connect(f"{socket}/ws/video", proxy=None, max_size=None) as video,
        connect(f"{socket}/ws/live", proxy=None, max_size=None) as live,
    ):
        await video.send('{"watch": {"door": "tile", "desk": "tile"}}')
        end = asyncio.get_running_loop().time() + seconds
        drain = asyncio.create_task(_drain(live))
        while asyncio.get_running_loop().time() < end:
            await video.send('{"ready": 1}')
            await video.recv()
            count += 1
        drain.cancel()
    return count


async def _drain(live) -> None:
    async for _ in live:
        pass


async def crowd(url: str, viewers: int, seconds: float) -> list[int]:
    return await asyncio.gather(*(look(url, seconds) for _ in range(viewers)))


def figures(url: str) -> dict[str, float]:
    lines = urlopen(url + "metrics").read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def dropped(found: dict[str, float]) -> float:
    return sum(value for name, value in found.items() if name.startswith("emograph_frames_dropped_total"))


def test_twenty_viewers_and_one_that_is_stuck():
    watched_by_twenty(10)


def watched_by_twenty(seconds: float) -> None:
    """Twenty viewers at once for so long; asserts that the graph does not mind, and says what it measured."""
    memory = 'emograph_process_private_memory_bytes{process="page"}'
    with launched(CROWDED) as run, numb(run.url) as stuck:
        request = "GET /ws/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        stuck.sendall(f"{request}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'x' * 22}==\r\n\r\n".encode())
        wait_until(lambda: figures(run.url).get('emograph_frames_delivered_total{camera="door"}', 0) > 0, "frames")
        asyncio.run(crowd(run.url, 20, 2))  # buffers and caches are made now
        before = figures(run.url)
        counts = asyncio.run(crowd(run.url, 20, seconds))
        after = figures(run.url)
        assert min(counts) > 0
        assert dropped(after) == 0
        time.sleep(1)  # snapshots of the run come twice a second
        found = figures(run.url)
        frames = sum(found[f'emograph_frames_captured_total{{camera="{c}"}}'] for c in ("door", "desk"))
        pictures = after["emograph_webview_pictures_total"]
        assert pictures <= frames
        assert sum(counts) > frames
        assert after[memory] - before[memory] < 30e6
        print(
            f"\n20 viewers, {seconds:.0f} s: {min(counts)} to {max(counts)} messages each, {pictures:.0f} pictures of "
            f"{frames:.0f} frames, {before[memory] / 1e6:.1f} -> {after[memory] / 1e6:.1f} MB"
        )
