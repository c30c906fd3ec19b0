"""Addresses to listen at: which two of them no two nodes can have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.endpoints import check_endpoint, collide
from pipeline.errors import GraphError
from pipeline.graph import expand
from pipeline.load import load

FACES = "testsrc ! haardetect name=faces"


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:٥٥٥٦", f"ipc:///tmp/{103 * 'a'}", f"ipc:///tmp/{52 * 'é'}"])
def test_what_no_socket_could_listen_at_is_no_endpoint(endpoint: str):
    check_endpoint(f"ipc:///tmp/{102 * 'a'}")
    with pytest.raises(ValueError, match="is not an endpoint|has at most 107 bytes"):
        check_endpoint(endpoint)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5556", True),
        ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5557", False),
        ("tcp://127.0.0.1:5556", "tcp://127.0.0.2:5556", False),
        ("tcp://127.0.0.1:80", "tcp://LocalHost:080", True),
        ("tcp://*:5556", "tcp://127.0.0.1:5556", True),
        ("tcp://*:5556", "tcp://0.0.0.0:5556", True),
        ("tcp://0.0.0.0:5556", "tcp://[::1]:5556", False),
        ("tcp://[::]:5556", "tcp://[::1]:5556", True),
        ("tcp://[::]:5556", "tcp://127.0.0.1:5556", True),
        ("tcp://[0:0:0::1]:5556", "tcp://[::1]:5556", True),
        ("tcp://[0::0]:5556", "tcp://127.0.0.1:5556", True),
        ("tcp://CAMERAS:5556", "tcp://cameras:5556", True),
        ("tcp://[fe80::1%eth0]:5556", "tcp://[fe80::1%eth0]:5556", True),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", False),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", False),
        ("ipc:///tmp/a", "ipc:///tmp/x/../a", True),
        ("ipc:///tmp/a", "ipc:///tmp/b", False),
        ("ipc://@a", "ipc://@a", True),
        ("ipc:///tmp/a", "tcp://*:5556", False),
        ("nonsense", "nonsense", False),
    ],
)
def test_which_addresses_cannot_be_listened_at_together(one: str, other: str, expected: bool):
    assert collide(one, other) == collide(other, one) == expected


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            f"{FACES} ! publish name=a  faces. ! publish name=b",
            "b: it would listen at tcp://127.0.0.1:5556, where a listens; give one of them another address",
        ),
        (
            f"{FACES} ! webview name=a  faces. ! webview name=b host=localhost",
            "b: it would listen at tcp://localhost:8080, where a listens (tcp://127.0.0.1:8080); give one",
        ),
        (
            f"{FACES} ! publish name=a endpoint=tcp://*:5570  faces. ! send name=b",
            "b: it would listen at tcp://127.0.0.1:5570, where a listens (tcp://*:5570); give one",
        ),
        (f"{FACES} ! webview name=a host=::1  faces. ! publish name=b endpoint=tcp://[::1]:8080", "b: it would listen"),
    ],
)
def test_two_nodes_that_would_listen_at_one_address_are_named(graph: str, message: str):
    with pytest.raises(GraphError, match="^" + re.escape(f"launch string: {message}")):
        expand(load(graph))


def test_the_line_of_a_file_is_named(tmp_path: Path):
    file = tmp_path / "g.yaml"
    file.write_text(
        "nodes:\n  cam: {type: testsrc}\n  faces: {type: haardetect}\n  a: {type: publish}\n  b: {type: publish}\n"
        "links: ['cam ! faces ! [a, b]']\n"
    )
    with pytest.raises(GraphError, match=rf"^{file}:5: b: it would listen at .* where a listens"):
        expand(load(str(file)))


def test_an_address_of_each_node_s_own_is_right():
    graph = (
        f"{FACES} ! publish  faces. ! publish endpoint=tcp://127.0.0.1:*  faces. ! publish endpoint=tcp://127.0.0.1:*"
        "  faces. ! send  faces. ! webview port=0  faces. ! webview port=0  receive ! fakesink"
    )
    expand(load(graph), monitor="tcp://127.0.0.1:5557")


def test_the_monitor_s_address_is_no_node_s():
    with pytest.raises(GraphError, match=r"events: it would listen at tcp://127.0.0.1:5556, where --monitor listens;"):
        expand(load(f"{FACES} ! publish name=events"), monitor="tcp://127.0.0.1:5556")
