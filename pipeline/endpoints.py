"""Addresses that sockets listen at: `tcp://HOST:PORT` or `ipc://PATH`."""

from __future__ import annotations

import ipaddress
import os
import re

_ENDPOINT = re.compile(
    r"tcp://(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\s/:\[\]@]+):(?P<port>[0-9]+|\*)|ipc://(?P<path>[^\s*](?:[^\r\n]*\S)?)"
)
_LONGEST_PATH = 107
"""Bytes, of a Unix socket; the system's limit."""


def check_endpoint(endpoint: str) -> str:
    """`endpoint` itself when it is `tcp://HOST:PORT` or `ipc://PATH`; raises ValueError otherwise."""
    match = _ENDPOINT.fullmatch(endpoint)
    if not match:
        raise ValueError(f"{endpoint!r} is not an endpoint such as tcp://127.0.0.1:5556 or ipc:///tmp/events")
    if match["port"] not in (None, "*") and int(match["port"]) > 65535:
        raise ValueError(f"{endpoint!r}: a port is at most 65535")
    if match["path"] and len(os.fsencode(match["path"])) > _LONGEST_PATH:
        raise ValueError(f"{endpoint!r}: the path of a socket has at most {_LONGEST_PATH} bytes")
    return endpoint


def is_local(endpoint: str) -> bool:
    """Whether only programs on this host can reach a socket bound at `endpoint`, whose host is an address."""
    if not endpoint.startswith("tcp://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]").partition("%")[0]
    return ipaddress.ip_address(host).is_loopback


def collide(one: str, other: str) -> bool:
    """Whether two sockets cannot listen at these endpoints at once, as far as their texts tell: names of hosts and of
    interfaces are not looked up but for `localhost`, and the ports of `*` and 0 are free ones."""
    a, b = _ENDPOINT.fullmatch(one), _ENDPOINT.fullmatch(other)
    if a is None or b is None:
        return False
    if a["path"] or b["path"]:
        return _file(a["path"]) == _file(b["path"])
    ports = {0 if match["port"] == "*" else int(match["port"]) for match in (a, b)}
    host, its = _host(a["host"]), _host(b["host"])
    return len(ports) == 1 and 0 not in ports and (host == its or _includes(host, its) or _includes(its, host))


def _host(text: str) -> str:
    """A host as it may be compared: `LOCALHOST` and `[0:0::1]` in one spelling each."""
    if text.lower() == "localhost":
        return "127.0.0.1"
    try:
        return f"[{ipaddress.IPv6Address(text[1:-1])}]" if text.startswith("[") else text.lower()
    except ValueError:
        return text.lower()


def _file(path: str | None) -> str | None:
    return path if path is None or path.startswith("@") else os.path.realpath(path)  # `@name` is no file


def _includes(host: str, other: str) -> bool:
    """Whether `host` stands for all addresses of the kind of `other`; IPv6's for those of IPv4 too."""
    return host == "[::]" or (host in ("*", "0.0.0.0") and not other.startswith("["))
