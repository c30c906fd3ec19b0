"""Addresses that sockets listen at: `tcp://HOST:PORT` or `ipc://PATH`."""

from __future__ import annotations

import ipaddress
import re

_ENDPOINT = re.compile(
    r"tcp://(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\s/:\[\]@]+):(?P<port>\d+|\*)|ipc://(?P<path>[^\s*](?:[^\r\n]*\S)?)"
)


def check_endpoint(endpoint: str) -> str:
    """`endpoint` itself when it is `tcp://HOST:PORT` or `ipc://PATH`; raises ValueError otherwise."""
    match = _ENDPOINT.fullmatch(endpoint)
    if not match:
        raise ValueError(f"{endpoint!r} is not an endpoint such as tcp://127.0.0.1:5556 or ipc:///tmp/events")
    if match["port"] not in (None, "*") and int(match["port"]) > 65535:
        raise ValueError(f"{endpoint!r}: a port is at most 65535")
    return endpoint


def is_local(endpoint: str) -> bool:
    """Whether only programs on this host can reach a socket bound at `endpoint`, whose host is an address."""
    if not endpoint.startswith("tcp://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]").partition("%")[0]
    return ipaddress.ip_address(host).is_loopback
