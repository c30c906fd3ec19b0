"""emograph launch "testsrc ! haardetect ! emotion ! overlay ! webview"    and open http://127.0.0.1:8080

Shows all cameras on a page, live, with who is in view, timelines and the state of the graph; docs/webview.md.
"""

from __future__ import annotations

import importlib.util
import socket

from pydantic import Field, field_validator, model_validator

from nodes.narrator import Narrator, NarratorProperties
from nodes.rates import SLOWEST
from pipeline import Buffer, Mark, Seconds, Sink, UserError, pad
from pipeline.node import SECRET, Words

MIN_TOKEN = 8
_PACKAGES = ("starlette", "uvicorn", "websockets", "prometheus_client")


class WebView(Sink):
    """Shows all cameras, who is in view and the graph itself on a web page; serves /metrics, /healthz and /events.

    Nobody but this machine can reach the page unless `host` says otherwise, and then a `token` is needed.
    """

    sink = pad("video/raw", format="BGR", access="read")
    tick_interval = 0.1

    class Properties(NarratorProperties):
        host: str = Field("127.0.0.1", description="address to listen on; any but this machine's own needs a token")
        port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 for any free one")
        token: str = Field("", description="what a viewer must know, e.g. ${WEB_TOKEN}", json_schema_extra=SECRET)
        hosts: Words = Field([], description="further names the page goes by, behind a proxy")
        width: int = Field(
            640, ge=64, le=8192, description="of a picture in the mosaic, pixels; one alone is full size"
        )
        quality: int = Field(80, ge=1, le=100, description="of the JPEG pictures")
        fps: float = Field(15, ge=SLOWEST, le=120, description="pictures per second and viewer, at the most")
        history: Seconds = Field(300.0, le=3600, description="how far the timelines go back")
        max_viewers: int = Field(64, ge=1, le=10_000, description="connections to pictures, figures and events at once")

        @field_validator("host")
        @classmethod
        def _alone(cls, host: str) -> str:
            if "/" in host or host.count(":") == 1:  # an IPv6 address has more of them
                raise ValueError("it is an address or a name alone, such as 0.0.0.0; the port is the property 'port'")
            return host

        @model_validator(mode="after")
        def _safe(self) -> WebView.Properties:
            from nodes.webview.addresses import is_loopback

            if self.token and len(self.token) < MIN_TOKEN:
                raise ValueError(f"the token has less than {MIN_TOKEN} characters")
            if not self.token and not is_loopback(self.host):
                raise ValueError(
                    f'host {self.host} lets others see the cameras: give a token (token: "${{WEB_TOKEN}}"), or leave '
                    "host at 127.0.0.1"
                )
            return self

    @classmethod
    def binds(cls, props: WebView.Properties) -> list[str]:
        return [f"tcp://[{props.host}]:{props.port}" if ":" in props.host else f"tcp://{props.host}:{props.port}"]

    def open(self) -> None:
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            install = " ".join(name.replace("_", "-") for name in missing)
            raise UserError(f"the page needs more packages: pip install {install}")
        from nodes.webview.feed import Feed
        from nodes.webview.hub import Hub
        from nodes.webview.pictures import Pictures
        from nodes.webview.server import Server, bind

        props = self.props
        listener = bind("127.0.0.1" if props.host.lower() == "localhost" else props.host, props.port)
        self._feed = Feed(
            lambda tell: Narrator(props, clock=self.clock, lossless=self.lossless, tell=tell, cameras=self.streams),
            props.history,
        )
        self._pictures = Pictures(props.width, props.quality, self._on_picture)
        self._server: Server | None = None
        self._server = Server(
            listener,
            lambda: Hub(
                self.streams, self._feed, self._pictures, fps=props.fps, max_viewers=props.max_viewers, log=self.log
            ),
            token=props.token,
            hosts=props.hosts,
            monitor=self.monitor,
            log=self.log,
        )
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        """Where the page is."""
        said = self.url
        if host in ("0.0.0.0", "::"):  # every address of this machine: say one that others can open
            said = f"http://{socket.gethostname()}:{port}/"
        self.log("info", f"the page is at {said}" + (" (it asks for the token)" if props.token else ""))

    def _on_picture(self) -> None:
        if self._server is not None and (hub := self._server.hub) is not None:
            self._server.call(hub.picture.fire)

    def consume(self, buffer: Buffer) -> None:
        self._feed.frame(buffer)
        self._pictures.offer(buffer.stream, buffer.frame, buffer.wall)

    def on_mark(self, mark: Mark) -> None:
        self._feed.mark(mark)

    def tick(self) -> None:
        self._feed.tick()
        assert self._server is not None
        if not self._server.alive and not self.stopping.is_set():
            raise RuntimeError("the web server has ended")  # the process ends, and is started again
        if self._server.hub is not None:
            self.observe("viewers", len(self._server.hub.pages))

    def close(self) -> None:
        if (server := getattr(self, "_server", None)) is not None:
            server.close()
            self._pictures.close()
