"""Why a camera on the network gave no video: asks its server the simplest question that it must answer.

FFmpeg says only that it failed; which of the many causes it was, a person wants to know.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from urllib.parse import quote, urlsplit

from nodes.capture.uri import Place

LIMIT = 2.0
"""Seconds that each step of the finding out may take."""


def why(place: Place, transport: str) -> str:
    """One line on why `place`, of rtsp or http, gave no video over `transport`; never with credentials in it."""
    where = f"{place.host}:{place.port}"
    try:
        with socket.create_connection((place.host, place.port), timeout=LIMIT) as connection:
            return _ask_rtsp(connection, place, where, transport) if place.kind == "rtsp" else _ask_http(place, where)
    except ConnectionRefusedError:
        return f"nothing listens on {where}"
    except socket.gaierror:
        return f"the name {place.host} cannot be resolved"
    except ssl.SSLError:
        return f"{where} answers, but does not speak TLS as it should"
    except TimeoutError:
        return f"{where} does not answer"
    except (OSError, http.client.HTTPException) as error:
        return f"{where}: {getattr(error, 'strerror', None) or 'it does not speak the protocol of the address'}"


def _ask_http(place: Place, where: str) -> str:
    parts = urlsplit(place.address)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(place.host, place.port, timeout=LIMIT, context=_unverified())
    else:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=LIMIT)
    try:
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/%?&=+,;:@!$'()*~[]")
        connection.request("GET", target, headers={"Range": "bytes=0-0", "User-Agent": "emograph"})
        answer = connection.getresponse()
    finally:
        connection.close()
    if answer.status >= 400:
        return _refusal(where, answer.status, re.sub(r"[^ -~]", "", answer.reason))
    if answer.status >= 300:
        return f"{where} sends on to another address, where FFmpeg finds no video"
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
        return _refusal(where, status, said[2].decode())
    other = "udp" if transport == "tcp" else "tcp"
    return f"{where} describes a stream, but it does not come over {transport}: try rtsp_transport: {other}"


def _unverified() -> ssl.SSLContext:
    """Cameras sign for themselves, FFmpeg takes that too, and no credentials are sent from here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _refusal(where: str, status: int, reason: str) -> str:
    if status in (401, 403):
        return f"{where} wants a user and password ({status}): are they there, and right?"
    if status == 404:
        return f"{where} has nothing at this path (404)"
    return f"{where} says {status} {reason}".rstrip()
