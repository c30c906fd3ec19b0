"""Who may see the page of `webview`, and who may not."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from nodes.webview import WebView
from pipeline import GraphError
from tests.support.command import emograph
from tests.support.page import get, listen, viewing

TOKEN = "a long & strange tökén"
OURS = {"Accept": "text/html"}
CHANNELS = ("/events", "/ws/live", "/ws/video")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("[::1]:{port}", True),
        ("localhost:1234", True),  # a forwarded port
        ("LOCALHOST", True),
        ("cams.example", True),
        ("evil.example", False),
        ("evil.example:{port}", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("10.0.0.5", False),
        ("[", False),
        ("", False),
    ],
)
def test_a_name_that_is_not_ours_gets_nothing(host: str, allowed: bool):
    with viewing(hosts=["cams.example"]) as (_, url):
        host = host.format(port=url.rstrip("/").rpartition(":")[2])
        for path in ("/", "/metrics", "/static/js/main.js"):
            status, _, body = get(url, path, Host=host)
            assert status == (200 if allowed else 403)
            assert allowed or "emograph" not in body
        if allowed:
            return
        with pytest.raises(InvalidStatus) as refused, listen(url, "/events", additional_headers={"Host": host}):
            pass
        assert refused.value.response.status_code in (400, 403)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),  # no browser
        ("http://{address}", True),
        ("https://cams.example", True),
        ("http://127.0.0.1:1", False),  # another program's page on this machine
        ("http://evil.example", False),
        ("null", False),
        ("file://", False),
        ("http://[", False),
    ],
)
def test_another_sites_page_may_not_listen(origin: str | None, allowed: bool):
    with viewing(hosts=["cams.example"]) as (_, url):
        origin = origin and origin.format(address=url.removeprefix("http://").rstrip("/"))
        for path in CHANNELS:
            if allowed:
                with listen(url, path, origin=origin):
                    continue
            with pytest.raises(InvalidStatus) as refused, listen(url, path, origin=origin):
                pass
            assert refused.value.response.status_code == 403


def test_what_is_sent_forbids_other_sites_to_use_it():
    with viewing() as (_, url):
        for path in ("/", "/metrics", "/healthz", "/static/js/main.js", "/nothing"):
            _, headers, _ = get(url, path, Origin="http://evil.example")
            assert not [name for name in headers if name.startswith("access-control")]
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"


# The token -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": TOKEN.encode().decode("latin-1")},
        {"Cookie": "emograph-{port}=x"},
    ],
)
def test_without_the_token_there_is_nothing(given: dict[str, str]):
    with viewing(token=TOKEN) as (_, url):
        port = url.rstrip("/").rpartition(":")[2]
        headers = {name: value.format(port=port) for name, value in given.items()}
        for path in ("/", "/metrics", "/healthz", "/static/js/main.js", "/static/css/base.css", "/x"):
            status, answered, body = get(url, path, **headers)
            assert status == 401
            assert answered["www-authenticate"] == "Bearer"
            assert body.startswith("a token is needed")


def test_without_the_token_nobody_listens():
    with viewing(token=TOKEN) as (_, url):
        for path in CHANNELS:
            for wrong in (path, path + "?token=wrong"):
                with pytest.raises(InvalidStatus), listen(url, wrong):
                    pass
            with listen(url, path, additional_headers={"Authorization": f"Bearer {TOKEN}"}):
                pass


def as_header(token: str) -> str:
    """http.client encodes headers as Latin-1; these are the token's bytes."""
    return token.encode().decode("latin-1")


def test_a_bearer_gets_everything():
    with viewing(token=TOKEN) as (_, url):
        for path in ("/", "/metrics", "/static/js/main.js"):
            assert get(url, path, Authorization="Bearer " + as_header(TOKEN))[0] == 200


QUERY = "token=a+long+%26+strange+t%C3%B6k%C3%A9n"


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/?" + QUERY, "/"),
        ("/metrics?" + QUERY + "&x=1", "/metrics?x=1"),
        ("//evil.example/?" + QUERY, "/evil.example/"),
    ],
)
def test_the_token_in_the_address_becomes_a_cookie(path: str, to: str):
    with viewing(token=TOKEN) as (_, url):
        status, headers, _ = get(url, path)
        assert (status, headers["location"]) == (303, to)
        cookie = headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert not re.search("strange|t%C3%B6k", cookie)
        own = cookie.partition(";")[0]
        assert get(url, "/", Cookie=own)[0] == 200
        with listen(url, "/ws/live", additional_headers={"Cookie": own}):
            pass


def test_a_link_on_another_site_works_too():
    """Behind a redirect from there a browser would not send the strict cookie: the page refreshes itself."""
    with viewing(token=TOKEN) as (_, url):
        status, headers, _ = get(url, "/?" + QUERY, Sec_Fetch_Site="cross-site")
        assert status == 200
        assert headers["refresh"] == "0; url=/"
        assert "set-cookie" in headers
        _, headers, _ = get(url, "/%E2%82%AC?" + QUERY, Sec_Fetch_Site="cross-site")
        assert headers["refresh"] == "0; url=/%E2%82%AC"


def test_who_has_no_token_is_asked_for_it():
    with viewing(token=TOKEN) as (_, url):
        status, headers, page = get(url, "/", **OURS)
        assert status == 401
        assert '<label for="token">' in page
        assert "sha256-" in headers["content-security-policy"]
        form = {"Content_Type": "application/x-www-form-urlencoded", **OURS}
        status, _, page = get(url, "/login", "POST", "token=wrong", **form)
        assert status == 401
        assert "not the token" in page
        status, headers, _ = get(url, "/login", "POST", QUERY, **form)
        assert (status, headers["location"]) == (303, "/")
        assert get(url, "/login", "POST", "token=" + 10_000 * "x", **form)[0] == 413


def test_another_tokens_cookie_is_worth_nothing():
    with viewing(token="another one") as (_, url):
        theirs = get(url, "/?token=another+one")[1]["set-cookie"].partition(";")[0]
    with viewing(token=TOKEN) as (_, url):
        name = f"emograph-{url.rstrip('/').rpartition(':')[2]}"
        assert get(url, "/", Cookie=f"{name}={theirs.partition('=')[2]}")[0] == 401


# Properties ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0:8080", "localhost:80", "http://127.0.0.1", "https://cams.example/"])
def test_a_host_with_more_than_an_address_is_refused(host: str):
    with pytest.raises(GraphError, match="^page: property 'host' of webview is '.*': it is an address or a name alone"):
        WebView("page", host=host, token=TOKEN)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "cams.example", "128.0.0.1"])
def test_any_other_address_needs_a_token(host: str):
    with pytest.raises(GraphError, match=f"page: host {re.escape(host)} lets others see the cameras: give a token"):
        WebView("page", host=host)
    WebView("page", host=host, token=TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machines_own_addresses_need_none(host: str):
    WebView("page", host=host)


def test_a_rate_that_is_none_is_refused():
    with pytest.raises(GraphError, match="property 'fps' of webview is 1e-09"):
        WebView("page", fps=1e-9)


@pytest.mark.parametrize("token", ["secret", 5318008, ["secret"]])
def test_no_error_shows_the_token(token: Any):
    with pytest.raises(GraphError) as caught:
        WebView("page", token=token)
    assert "token" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "5318008" not in str(caught.value)


GRAPH = """
nodes:
  door: {type: testsrc, num_buffers: 1}
  page: {type: webview, port: %s, host: "%s", token: "${WEB_TOKEN}"}
links:
  - door ! page
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("check",), 0),
        (("graph", "--format", "svg"), 0),
        (("graph", "--format", "dot"), 0),
        (("launch",), 0),
        (("launch", "--set", "page.tokn=opensesame"), 1),
        (("launch", "--set", "nobody.token=opensesame"), 1),
        (("launch", "--set", "page.port=x", "--set", "page.token=opensesame"), 1),
    ],
)
def test_no_command_shows_the_token(
    tmp_path: Path, command: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WEB_TOKEN", "opensesame")
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH % (0, "127.0.0.1"))
    done = emograph(command[0], str(path), *command[1:])
    assert done.returncode == code
    assert "opensesame" not in done.stdout + done.stderr


def test_an_empty_token_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WEB_TOKEN", "")
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH % (0, "0.0.0.0"))
    done = emograph("launch", str(path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "give a token" in done.stderr


def test_who_breaks_the_rules_of_http_fills_no_log():
    """Whoever reaches the page could, without its token."""
    with viewing(token="a secret word") as (h, url):
        at = urlsplit(url)
        for _ in range(30):
            with socket.create_connection((at.hostname, at.port)) as peer:
                peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
                peer.settimeout(10)
                while peer.recv(4096):
                    pass
        assert get(url)[0] in (200, 303, 401)
    assert len([text for level, text in h.logs if level == "warning"]) <= 1
