"""Does the X server let us in? Asked without a window library, for OpenCV's Qt aborts the process when it does not.

This is the connection set-up of the X protocol and nothing more (X Window System Protocol, version 11, section 8
and appendix B), with the cookie from the user's Xauthority file as libXau looks it up.
"""

from __future__ import annotations

import io
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

COOKIE = b"MIT-MAGIC-COOKIE-1"
FAMILY_IPV4, FAMILY_IPV6, FAMILY_LOCAL, FAMILY_ANY = 0, 6, 256, 65535
ACCEPTED = 1


class Refused(Exception):
    """Why there is no connection to the X server, in a few words."""


def connect(display: str, timeout: float = 3.0) -> socket.socket:
    """A connection to the server at `display` (as in $DISPLAY: `:0`, `host:10.0`) that has let us in.

    Close it after the real client has connected: a server whose only client goes may reset itself and refuse the
    next one meanwhile. timeout: seconds to wait for a server that does not answer. Raises Refused.
    """
    match = re.fullmatch(r"(?:\w+/)?(.*):(\d+)(?:\.\d+)?", display)
    if not match:
        raise Refused(f"DISPLAY is {display!r}, which names no display")
    host, number = match[1], int(match[2])
    try:
        server = _connect(host, number, timeout)
        try:
            _set_up(server, _cookie(server, number))
        except (OSError, Refused):
            server.close()
            raise
    except UnicodeError:  # "a..b"
        raise Refused(f"DISPLAY is {display!r}, which names no host") from None
    except OSError as error:
        raise Refused(f"no X server answers at DISPLAY={display} ({error.strerror or error})") from None
    return server


def _connect(host: str, number: int, timeout: float) -> socket.socket:
    if host not in ("", "unix"):
        return socket.create_connection((host.strip("[]"), 6000 + number), timeout)
    path = f"/tmp/.X11-unix/X{number}"
    for address in ("\0" + path, path):
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.settimeout(timeout)
        try:
            server.connect(address)
        except OSError:
            server.close()
            if address == path:
                raise
        else:
            return server
    raise AssertionError("the last address either connects or raises")


def _cookie(server: socket.socket, number: int) -> bytes:
    """The cookie for this server, or nothing."""
    host, local = socket.gethostname().encode(), True
    if server.family in (socket.AF_INET, socket.AF_INET6):
        peer = server.getpeername()[0]
        local = peer in ("127.0.0.1", "::1")
        address = socket.inet_pton(server.family, peer)
    else:
        address = host
    for family, entry, display, name, data in _authority():
        known = family == FAMILY_ANY or (family == FAMILY_LOCAL and local and entry == host)
        known = known or (family in (FAMILY_IPV4, FAMILY_IPV6) and entry == address)
        if known and name == COOKIE and display in (b"", str(number).encode()):
            return data
    return b""


def _authority() -> Iterator[tuple[int, bytes, bytes, bytes, bytes]]:
    """Entries of the Xauthority file: family, address, display number, protocol, secret."""
    path = Path(os.environ.get("XAUTHORITY") or Path.home() / ".Xauthority")
    try:
        content = path.read_bytes()
    except OSError:
        return
    file = io.BytesIO(content)

    def field() -> bytes:
        return file.read(int.from_bytes(file.read(2)))

    while len(family := file.read(2)) == 2:
        yield int.from_bytes(family), field(), field(), field(), field()


def _set_up(server: socket.socket, cookie: bytes) -> None:
    name = COOKIE if cookie else b""

    def padded(value: bytes) -> bytes:
        return value + bytes(-len(value) % 4)

    little_endian = ord("l")
    server.sendall(
        struct.pack("<BxHHHHxx", little_endian, 11, 0, len(name), len(cookie)) + padded(name) + padded(cookie)
    )
    reply = server.recv(8, socket.MSG_WAITALL)
    if len(reply) < 8:
        raise Refused("the X server hung up")
    status, length = reply[0], reply[1]
    if status != ACCEPTED:
        reason = server.recv(length, socket.MSG_WAITALL).decode(errors="replace").strip()
        raise Refused(f"the X server refused: {reason or 'access denied'}")
