"""What FFmpeg does not tell of a server: why it gave no video, and whether what it sends has an end.

FFmpeg says only that it failed; which of the many causes it was, a person wants to know. And it opens a transport
stream from a web server in the same way whether that is a camera or a file.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from nodes.capture.uri import ENCODE, Place

LIMIT = 2.0
"""Seconds that each step of the finding out may take."""
_PLAYLISTS = ("mpegurl", "dash+xml")
"""In the content types of lists that a live stream keeps writing on: their length is not the stream's."""
_HEADERS = {"Range": "bytes=0-0", "User-Agent": "emograph"}


def why(place: Place, transport: str) -> str:
    """One line on why `place`, of rtsp or http, gave no video over `transport`; never with credentials in it."""
    where = f"{place.host}:{place.port}"
    try:
        with socket.create_connection((place.host, place.port), timeout=LIMIT) as connection:
            return _ask_rtsp(connection, place, where, transport) if place.kind == "rtsp" else _ask_http(place, where)
    except ConnectionRefusedError:
        return f"nothing listens on {where}"
    except socket.gaierror:
        login_and_host = urlsplit(place.address).netloc
        if "@" in login_and_host and "@" in place.address.partition(login_and_host)[2]:
            # What stands where the host should is a piece of the password.
            return f"its host's name cannot be resolved; {ENCODE}"
        return f"the name {place.host} cannot be resolved"
    except ssl.SSLError:
        return f"{where} answers, but does not speak TLS as it should"
    except TimeoutError:
        return f"{where} does not answer"
    except (OSError, http.client.HTTPException) as error:
        return f"{where}: {getattr(error, 'strerror', None) or 'it does not speak the protocol of the address'}"


def has_end(place: Place) -> bool:
    """Whether the server of an http place says that what it sends is a file: with a length, and no multipart stream.

    False where it does not say, and where it does not answer this question.
    """
    parts = urlsplit(place.address)
    login, _, host = parts.netloc.rpartition("@")
    request = Request(f"{parts.scheme}://{host}{_target(place)}", headers=_HEADERS)
    if login:  # as FFmpeg has sent it already; not to where the server sends on to
        basic = base64.b64encode(unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {basic}")
    try:
        with urlopen(request, timeout=LIMIT, context=_unverified()) as answer:
            kind = answer.headers.get_content_type()
            unknown = answer.headers.get("Content-Range", "").endswith("/*")
            sized = answer.headers.get("Content-Length", "").isdecimal() and not unknown
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return sized and not kind.startswith("multipart/") and not kind.endswith(_PLAYLISTS)


def _has_login(place: Place) -> bool:
    return "@" in urlsplit(place.address).netloc


def _target(place: Place) -> str:
    parts = urlsplit(place.address)
    return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/%?&=+,;:@!$'()*~[]")


def _ask_http(place: Place, where: str) -> str:
    parts = urlsplit(place.address)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(place.host, place.port, timeout=LIMIT, context=_unverified())
    else:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=LIMIT)
    try:
        connection.request("GET", _target(place), headers=_HEADERS)
        answer = connection.getresponse()
    finally:
        connection.close()
    if answer.status >= 400:
        return _refusal(where, answer.status, re.sub(r"[^ -~]", "", answer.reason), _has_login(place))
    if answer.status >= 300:
        return f"{where} sends on to another address, where FFmpeg finds no video"
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        return f"{where} sends a web page there, and no video: is the path right, and does it need a login?"
    ranges = answer.status == 206
    hint = "" if ranges else " (an MP4 whose index is at its end needs a server that knows ranges)"
    return f"{where} sends something, but FFmpeg finds no video in it{hint}"


def _ask_rtsp(connection: socket.socket, place: Place, where: str, transport: str) -> str:
    if place.address.lower().startswith("rtsps:"):
        connection = _unverified().wrap_socket(connection)
    with connection:
        connection.settimeout(LIMIT)
        address = re.sub(r"//[^/]*@", "//", place.address)
        connection.sendall(f"DESCRIBE {address} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode())
        said = re.match(rb"RTSP/\d\.\d (\d{3}) ([ -~]*)", connection.recv(4096))
    if not said:
        return f"{where} answers, but does not speak RTSP"
    status = int(said[1])
    if status >= 400:
        return _refusal(where, status, said[2].decode(), _has_login(place))
    other = "udp" if transport == "tcp" else "tcp"
    return f"{where} describes a stream, but it does not come over {transport}: try rtsp_transport: {other}"


def _unverified() -> ssl.SSLContext:
    """Cameras sign for themselves, and FFmpeg takes that too."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _refusal(where: str, status: int, reason: str, given: bool) -> str:
    if status in (401, 403):
        if given:  # this question was asked without them, so the answer says nothing of them
            asked = f"{where} wants a user and password ({status}), and gives no video for those given"
            return f"{asked}: are they right, and the path?"
        return f"{where} wants a user and password ({status}): they are missing"
    if status == 404:
        return f"{where} has nothing at this path (404)"
    return f"{where} says {status} {reason}".rstrip()
