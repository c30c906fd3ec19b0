"""The page's WebSockets: what happens on `/events`, `/ws/live` and `/ws/video` once somebody is let in.

Each viewer has a task of its own and its own pace: it gets the newest there is when it can take it, and nothing waits
for it. What is sent to all is made once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from nodes.webview.pictures import SIZES
from pipeline.events import KINDS

if TYPE_CHECKING:
    from nodes.webview.hub import Hub

GOING_AWAY, POLICY, TRY_LATER = 1001, 1008, 1013
MAX_REASON = 123
"""Bytes of the reason that a WebSocket may be closed with."""


class Garbage(ValueError):
    """A viewer sent what the page never sends."""


async def attend(hub: Hub, socket: WebSocket, serve: Callable[[Hub, WebSocket], Coroutine[Any, Any, None]]) -> None:
    """Serve one viewer until it leaves, misbehaves or the node closes. Never raises for what a viewer does.

    serve: one of the channels below; it accepts the connection itself.
    """
    if len(hub.viewers) >= hub.max_viewers:
        await socket.close(TRY_LATER, "too many viewers")
        return
    hub.viewers.add(socket)
    work = asyncio.create_task(serve(hub, socket))
    closing = asyncio.create_task(hub.closing.wait())
    code = 1000
    try:
        await asyncio.wait({work, closing}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            try:
                work.result()
            except Garbage as error:
                code = POLICY
                hub.count_garbage(str(error))
            except (WebSocketDisconnect, RuntimeError):  # RuntimeError: Starlette's word for a send after the close
                pass
        else:
            code = GOING_AWAY
    finally:
        hub.viewers.discard(socket)
        for task in (work, closing):
            task.cancel()
        await asyncio.gather(work, closing, return_exceptions=True)
        if socket.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(code)


async def _receive(socket: WebSocket) -> dict[str, Any]:
    """The next message, a JSON object. Raises Garbage, WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    try:
        content = json.loads(message.get("text") or "")
    except (ValueError, RecursionError):
        raise Garbage("no JSON") from None
    if not isinstance(content, dict):
        raise Garbage("no JSON object")
    return content


async def _until_gone(socket: WebSocket) -> None:
    """A channel that only tells: whatever a viewer says there is too much."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        raise Garbage("this channel takes no messages")


async def _both(*parts: Coroutine[Any, Any, None]) -> None:
    """Run until the first ends, and end the others; raises what it raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# Events ----------------------------------------------------------------------------------------------------


async def events(hub: Hub, socket: WebSocket) -> None:
    """`/events?camera=door&kind=change`: every event as one JSON text (docs/webview.md)."""
    cameras = set(socket.query_params.getlist("camera"))
    kinds = set(socket.query_params.getlist("kind"))
    unknown = sorted((kinds - set(KINDS)) | (cameras - set(hub.streams)))
    if unknown:
        await socket.accept()  # a reason can only be told to somebody who was let in
        reason = f"unknown: {', '.join(unknown)}".encode()[:MAX_REASON]
        await socket.close(POLICY, reason.decode(errors="ignore"))
        return
    news = asyncio.Event()
    loop = asyncio.get_running_loop()
    subscriber = hub.feed.subscribe(cameras, kinds, lambda: _wake(loop, news))

    async def tell() -> None:
        while True:
            await news.wait()
            news.clear()
            while subscriber.queue:
                await socket.send_text(subscriber.queue.popleft().text)

    try:
        await socket.accept()  # after subscribing: whoever is connected misses nothing
        await _both(tell(), _until_gone(socket))
    finally:
        hub.feed.unsubscribe(subscriber)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(event.set)


# The page's figures and faces --------------------------------------------------------------------------------


async def live(hub: Hub, socket: WebSocket) -> None:
    """`/ws/live`: who is in view, samples for the timelines, the run's snapshot; the newest of each."""

    async def tell() -> None:
        await socket.send_text(hub.hello())
        position, faces, snapshot = 0, -1, -1
        while True:
            tick = hub.tick.event
            text, after = hub.samples_text(position)
            while after != position and text:
                await socket.send_text(text)
                position = after
                text, after = hub.samples_text(position)
            if hub.snapshot_number != snapshot:
                snapshot = hub.snapshot_number
                await socket.send_text(hub.snapshot_text())
            number, text = hub.faces_text()
            if number != faces:
                faces = number
                await socket.send_text(text)
            await tick.wait()

    await socket.accept()
    await _both(tell(), _until_gone(socket))


# Video -------------------------------------------------------------------------------------------------------


async def video(hub: Hub, socket: WebSocket) -> None:
    """`/ws/video`: one binary message with the newest pictures each time the viewer says that it is ready.

    A viewer says {"watch": {"door": "tile", "desk": "full"}} and {"ready": 1}. A message is a 32-bit big-endian
    length, as many bytes of JSON (a list of camera, size, number, wall, bytes), and the JPEGs one after the other.
    """
    watched: dict[str, str] = {}
    have: dict[str, tuple[str, int]] = {}
    ready = asyncio.Event()

    async def hear() -> None:
        while True:
            message = await _receive(socket)
            if "watch" in message:
                wish = message["watch"]
                if not isinstance(wish, dict) or any(c not in hub.streams or s not in SIZES for c, s in wish.items()):
                    raise Garbage("no such camera or size")
                watched.clear()
                watched.update(wish)
                hub.picture.fire()  # who waits has to look anew
            if message.get("ready"):
                ready.set()
            elif "watch" not in message:
                raise Garbage("neither watch nor ready")

    async def show() -> None:
        due = 0.0
        while True:
            await ready.wait()
            ready.clear()
            # All cameras' pictures of one turn go together: the pace is the viewer's, not each camera's.
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 1 / hub.fps) + 1 / hub.fps
            hub.pictures.want(watched.items())
            while True:
                changed = hub.picture.event
                new = []
                for camera, size in watched.items():
                    picture = hub.pictures.newest(camera, size)
                    if picture and have.get(camera) != (size, picture.number):
                        have[camera] = size, picture.number
                        new.append((picture, size))
                if new:
                    break
                await changed.wait()
                hub.pictures.want(watched.items())
            index = [
                {
                    "camera": p.camera,
                    "size": size,
                    "number": p.number,
                    "wall": p.wall // 1_000_000,
                    "bytes": len(p.jpeg),
                }
                for p, size in new
            ]
            head = json.dumps(index).encode()
            await socket.send_bytes(b"".join((struct.pack("!I", len(head)), head, *(p.jpeg for p, _ in new))))

    await socket.accept()
    await _both(hear(), show())
