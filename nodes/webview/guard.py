"""Who may see the page: decided here for every request and WebSocket, before anything else looks at it.

- The Host header must name this machine's loopback interface (or one of `hosts`): a foreign site that lets its name
  point to 127.0.0.1 (DNS rebinding) gets nothing. Where there is a token it protects by itself: a browser sends the
  cookie to no other name.
- A WebSocket with an Origin must come from the page itself; browsers set that header, and no page can forge it.
- With a token: `Authorization: Bearer`, or the cookie that `?token=` or the form sets. The cookie holds a keyed hash,
  not the token. Whoever has neither gets a page that asks for it, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nodes.webview.addresses import is_loopback

LOGIN = "/login"
_MAX_FORM = 4096
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;display:grid;place-content:center;"
    "min-height:90vh;margin:0 1.5rem}form{display:grid;gap:.75rem;max-width:22rem}input,button{font:inherit;"
    "padding:.55rem .8rem;border:1px solid #8889;border-radius:.5rem}[role=alert]{color:#c33}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-cache",  # kept, but never used unasked: after an update the page is all new
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware; see the module. token: empty for none. hosts: further names that the page goes by."""

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str], port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {host.lower() for host in hosts}
        self._cookie = f"emograph-{port}"
        self._pass = hmac.new(self._token, b"emograph webview", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal = self._refuse_address(connection.headers, scope["type"])
        if scope["type"] == "websocket":
            if refusal or not self._knows(connection):
                await send({"type": "websocket.close", "code": 1008, "reason": refusal or "a token is needed"})
            else:
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = Headers(raw=message["headers"])
                extra = {k: v for k, v in HEADERS.items() if k not in own}
                message["headers"] = [
                    *message["headers"], *((k.lower().encode(), v.encode()) for k, v in extra.items()),
                ]  # fmt: skip
            await send(message)

        if refusal:
            answer: ASGIApp = PlainTextResponse(refusal + "\n", 403)
        elif self._token:
            answer = await self._judge(Request(scope, receive)) or self._app
        else:
            answer = self._app
        await answer(scope, receive, send_guarded)

    def _refuse_address(self, headers: Headers, kind: str) -> str:
        """Why this Host or Origin is not ours; empty when it is."""
        host = headers.get("host", "")
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        if not self._token and not is_loopback(name) and name not in self._hosts:
            return "this page is not known by that name (property `hosts` adds one)"
        origin = headers.get("origin")
        if kind == "websocket" and origin is not None:
            try:
                there = urlsplit(origin)
                same = there.scheme in ("http", "https") and there.netloc.lower() == host.lower()
                known = (there.hostname or "").lower() in self._hosts
            except ValueError:
                same = known = False
            if not same and not known:
                return "another site's page may not read this"
        return ""

    # The token -----------------------------------------------------------------------------------------

    def _knows(self, connection: HTTPConnection) -> bool:
        """Whether the request carries the token in one of its ways."""
        if not self._token:
            return True
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        # Starlette reads headers as Latin-1; a client may have meant UTF-8.
        if scheme.lower() == "bearer" and any(self._is_token(given.strip().encode(c)) for c in ("latin-1", "utf-8")):
            return True
        cookie = connection.cookies.get(self._cookie, "")
        return hmac.compare_digest(cookie.encode(), self._pass.encode())

    def _is_token(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._token)

    async def _judge(self, request: Request) -> Response | None:
        """The answer to a request that may not pass, or that brings the token; None lets it pass."""
        given = request.query_params.get("token")
        if request.url.path == LOGIN and request.method == "POST":
            body = b""
            try:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > _MAX_FORM:
                        return PlainTextResponse("too long\n", 413)
            except ClientDisconnect:
                return Response(status_code=408)  # to nobody
            return self._welcome(request, "/", parse_qs(body.decode(errors="replace")).get("token", [""])[0])
        if given is not None:
            rest = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
            # One slash: `//host/` would lead away from here.
            path = "/" + request.url.path.lstrip("/\\")
            return self._welcome(request, path + ("?" + urlencode(rest) if rest else ""), given)
        return None if self._knows(request) else self._ask(request, "")

    def _welcome(self, request: Request, to: str, given: str) -> Response:
        if not self._is_token(given.encode(errors="replace")):
            return self._ask(request, "That is not the token.")
        response: Response = RedirectResponse(to, 303)
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            # A link on another site: behind a plain redirect the browser would keep the strict cookie to itself.
            # The redirect has quoted the address, as headers hold Latin-1 alone.
            response = PlainTextResponse("", headers={"Refresh": f"0; url={response.headers['location']}"})
        secure = request.url.scheme == "https"
        response.set_cookie(self._cookie, self._pass, path="/", httponly=True, samesite="strict", secure=secure)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _ask(self, request: Request, problem: str) -> Response:
        headers = {"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"}
        if "text/html" not in request.headers.get("accept", ""):
            hint = "a token is needed: ?token=... or the header Authorization: Bearer ...\n"
            return PlainTextResponse(hint, 401, headers)
        headers["Content-Security-Policy"] = f"{_POLICY}; style-src 'sha256-{_STYLE_HASH}'"
        alert = f'<p role="alert">{problem}</p>' if problem else ""
        return HTMLResponse(
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>emograph: token needed</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><main>'
            f'<form method="post" action="{LOGIN}"><h1>emograph</h1><p>This page needs its token: the property '
            '<code>token</code> of the <code>webview</code> node.</p>'
            f'{alert}<label for="token">Token</label><input id="token" name="token" type="password" '
            'autocomplete="current-password" required autofocus><button>Open</button></form></main></html>',
            401, headers,
        )  # fmt: skip
