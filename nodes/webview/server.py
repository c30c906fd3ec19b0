"""The web server in the node's process: on a thread of its own, so that no viewer can hold up the graph.

Starlette's routes behind the guard, served by uvicorn on a socket that the node has bound already (a port that is
taken is an error of the start). Ends within half a second, whatever viewers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import h11
import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from nodes.webview import channels
from nodes.webview.figures import Exposition, cameras_away, health
from nodes.webview.guard import Guard
from nodes.webview.hub import Hub
from nodes.webview.limits import SPARE, Limits, limited
from pipeline.errors import UserError
from pipeline.monitor import Watch

STATIC = Path(__file__).parent / "static"
TICK = 0.25
"""Seconds between two looks at what is new for the open pages."""
CLOSE_TIMEOUT = 0.4
"""Seconds that viewers have to take our goodbye."""
BACKLOG = 128
"""Connections that wait to be accepted, and that are accepted at one go."""
_MAX_TEXTS = 20
"""Different faults that are told of."""
MAX_MESSAGE = 16_384
"""Bytes of a message from a viewer; a longer one ends its connection."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError when the address is not there or the port is taken."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except UnicodeError:  # "a..b"
        raise UserError(f"cannot listen on {where}: that is no host's name") from None
    except OSError as error:
        raise UserError(f"cannot listen on {where}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot listen on {where}: {reason}; `port: 0` takes a free one") from None
    return listener


def application(hub: Hub, guard: Callable[[ASGIApp], ASGIApp]) -> ASGIApp:
    """All that the page consists of."""

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def metrics(request: Request) -> Response:
        healthy, _ = health(hub.snapshot, hub.snapshot_age)
        _, labels, faces = hub.feed.in_view()
        own = {"viewers": len(hub.pages), "pictures": hub.pictures.encoded}
        text = generate_latest(Exposition(hub.snapshot, healthy, faces, labels, own).registry())
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})

    async def healthz(request: Request) -> Response:
        healthy, problems = health(hub.snapshot, hub.snapshot_age)
        answer = {"healthy": healthy, "problems": problems, "cameras_away": cameras_away(hub.snapshot)}
        return JSONResponse(answer, 200 if healthy else 503, {"Cache-Control": "no-store"})

    async def events(socket: WebSocket) -> None:
        await channels.attend(hub, socket, channels.events)

    async def video(socket: WebSocket) -> None:
        await channels.attend(hub, socket, channels.video)

    async def live(socket: WebSocket) -> None:
        hub.pages.add(socket)
        try:
            await channels.attend(hub, socket, channels.live)
        finally:
            hub.pages.discard(socket)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            WebSocketRoute("/events", events),
            WebSocketRoute("/ws/live", live),
            WebSocketRoute("/ws/video", video),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
    )
    return guard(app)


class Server:
    """Serves a hub's page until `close`. make_hub: called on the server's thread, where the hub belongs."""

    def __init__(
        self,
        listener: socket.socket,
        make_hub: Callable[[], Hub],
        *,
        token: str,
        hosts: Collection[str],
        monitor: str,
        log: Callable[[str, str], None],
    ) -> None:
        self._listener = listener
        self._make_hub = make_hub
        self._token, self._hosts = token, hosts
        self._monitor = monitor
        self._log = log
        self._ready = threading.Event()
        self._closed = threading.Event()
        self.hub: Hub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()
        self._ready.wait(10)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def call(self, action: Callable[[], None]) -> None:
        """Let the server's thread do `action` soon; from any thread. Nothing happens once it has ended."""
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(action)

    def close(self) -> None:
        """End, with open viewers too."""
        self._closed.set()
        if self.hub is not None:
            self.call(self.hub.closing.set)
        self._thread.join(5 * CLOSE_TIMEOUT)
        self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._log("error", f"the page is gone: {type(error).__name__}: {error}")
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        hub = self.hub = self._make_hub()
        port = self._listener.getsockname()[1]
        app = application(hub, lambda inner: Guard(inner, self._token, self._hosts, port))
        _report_errors(self._log)
        limits = Limits(hub.max_viewers + SPARE, self._log)
        server = uvicorn.Server(
            uvicorn.Config(
                app, ws="websockets-sansio", http=limited(limits), backlog=BACKLOG, lifespan="off", log_config=None,
                access_log=False, server_header=False, proxy_headers=False, ws_max_size=MAX_MESSAGE,
                ws_per_message_deflate=False,
            )
        )  # fmt: skip
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        helpers = [asyncio.create_task(self._tick(hub, limits, server))]
        if self._monitor:
            helpers.append(asyncio.create_task(asyncio.to_thread(self._watch, hub)))
        self._ready.set()
        try:
            closing = asyncio.create_task(hub.closing.wait())
            await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await asyncio.wait({serving}, timeout=CLOSE_TIMEOUT)
            if not serving.done():  # a viewer that takes nothing
                server.force_exit = True
                for connection in list(server.server_state.connections):
                    if connection.transport is not None:
                        connection.transport.abort()
                await asyncio.wait({serving}, timeout=CLOSE_TIMEOUT)
        finally:
            self._closed.set()
            for task in (serving, closing, *helpers):
                task.cancel()

    async def _tick(self, hub: Hub, limits: Limits, server: uvicorn.Server) -> None:
        while True:
            await asyncio.sleep(TICK)
            limits.look(server.server_state.connections)
            hub.tick.fire()

    def _watch(self, hub: Hub) -> None:
        with Watch(self._monitor) as watch:
            while not self._closed.is_set():
                snapshot = watch.receive(0.1)
                if snapshot is not None:
                    self.call(lambda snapshot=snapshot: hub.see(snapshot))


def _report_errors(log: Callable[[str, str], None]) -> None:
    """What goes wrong in the server is said on the bus, in a line, and not again: whoever reaches the page could fill
    the log with it. A peer that breaks HTTP's rules is none of the server's faults."""
    said: set[str] = set()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cause = record.exc_info[1] if record.exc_info else None
            text = f"{record.getMessage().splitlines()[0]}{f': {cause!r}' if cause else ''}"
            if isinstance(cause, h11.ProtocolError) or text in said or len(said) >= _MAX_TEXTS:
                return
            said.add(text)
            log("warning", text)

    logger = logging.getLogger("uvicorn.error")
    logger.handlers = [Handler(logging.ERROR)]
    logger.propagate = False
