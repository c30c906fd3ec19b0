"""What a capture `uri` means (`emograph launch "capture uri=rtsp://10.0.0.5/stream1 ! fakesink"`), and how to show it.

Nothing is opened here. A password must never get past this file: whatever is shown, logged or sent is the
redacted text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from pipeline.errors import UserError, did_you_mean, redact_parameters

SCHEMES = ("file", "http", "https", "rtsp", "rtsps", "v4l2")
RELAYED = ("rtmp", "rtmps", "rtp", "srt", "udp", "webrtc", "whep")
"""Streams that a relay can offer as rtsp."""
PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}

ENCODE = "@ / ? # and % in a login must be percent-encoded: %40 %2F %3F %23 %25"

_BEGIN = re.compile(r":/*")


def redact(uri: str) -> str:
    """`uri` with its credentials as `***`: `user:password@`, and parameters such as `pwd=`.

    Everything up to the last `@` goes, for passwords do hold unescaped `@`, `/` and blanks, and sometimes the
    `//` was forgotten. So a harmless part may go too; a secret one never stays.
    """
    login, at, place = uri.rpartition("@")
    begin = _BEGIN.search(login)
    shown = f"{login[: begin.end()]}***@{place}" if at and begin else uri
    scheme, separator, rest = shown.partition("://")
    return scheme + separator + (redact_parameters(rest) if separator else rest)


@dataclass(frozen=True)
class Place:
    """Where frames come from.

    kind: `camera` (a V4L2 device), `path` (a file or a folder), `rtsp` or `http`.
    address: what is opened; holds the credentials. shown: the same for people, without them.
    host, port: of rtsp and http.
    """

    kind: Literal["camera", "path", "rtsp", "http"]
    address: str
    shown: str
    host: str = ""
    port: int = 0

    def __repr__(self) -> str:
        return f"Place({self.kind}, {self.shown})"


def is_live(place: Place) -> str:
    """What is wrong with playing a part of it."""
    return f"'{place.shown}' is live: it has no 'start' and 'end', and cannot 'loop'"


def parse(uri: str) -> Place:
    """The place that `uri` names. Raises UserError (redacted) for an unknown scheme or a malformed address."""
    shown = redact(uri)
    if uri.isdecimal():
        return Place("camera", f"/dev/video{int(uri)}", f"/dev/video{int(uri)}")
    if re.match(r"/dev/v(ideo|4l)", uri):
        return Place("camera", uri, uri)
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return Place("path", os.path.expanduser(uri), shown)
    if scheme == "v4l2":
        return Place("camera", rest, rest)
    if scheme == "file":
        host, _, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise UserError(f"'{shown}' names the host '{redact(host)}'; a file URI is file:///path")
        return Place("path", "/" + unquote(path), "/" + unquote(path))
    if scheme not in SCHEMES:
        hint = did_you_mean(scheme, SCHEMES, likeness=0.7)
        if scheme in RELAYED:
            hint = "; a relay such as MediaMTX or go2rtc offers it as rtsp://"
        raise UserError(f"cannot read '{scheme}://' in '{shown}'{hint}")
    hint = f"; {ENCODE}" if "@" in rest else ""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may quote the password
        raise UserError(f"'{shown}' is not a valid address{hint}") from None
    if not host:
        raise UserError(f"'{shown}' names no host")
    return Place("rtsp" if scheme.startswith("rtsp") else "http", uri, shown, host, port or PORTS[scheme])
