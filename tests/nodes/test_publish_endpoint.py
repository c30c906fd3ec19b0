"""`publish` and its endpoint: what can be bound, who has it, and what is left at the end."""

from __future__ import annotations

import socket
import stat
import threading
from pathlib import Path

import pytest
import zmq

from nodes import publish
from nodes.publish import Publish
from pipeline import Event, GraphError, Harness, UserError
from tests.nodes.publishing import endpoint, face, join, narrow, publishing
from tests.support.host import free_endpoint, patiently


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nonsense", "events: property 'endpoint' of publish is 'nonsense': 'nonsense' is not an endpoint such as"),
        ("tcp://127.0.0.1", "is not an endpoint"),
        ("tcp://127.0.0.1:x", "is not an endpoint"),
        ("tcp://127.0.0.1:70000", "a port is at most 65535"),
        ("udp://127.0.0.1:5556", "is not an endpoint"),
        ("ipc://*", "is not an endpoint"),
        ("ipc:///tmp/" + "x" * 120, "the path of a socket has at most 107 bytes"),
    ],
)
def test_a_malformed_endpoint_is_found_before_the_start(wrong, message):
    with pytest.raises(GraphError) as error:
        Publish(name="events", endpoint=wrong)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("tcp://no-such-host.invalid:5556", "no such device"),
        ("tcp://203.0.113.7:5556", "cannot assign requested address"),
        ("ipc:///no/such/folder/events", "no such file or directory"),
    ],
)
def test_what_cannot_be_bound_is_one_line(wrong, message):
    with pytest.raises(UserError) as error:
        Harness(Publish(name="events", endpoint=wrong))
    assert str(error.value) == f"events: cannot bind {wrong}: {message}"


@pytest.fixture(params=["tcp", "ipc"])
def place(request, tmp_path):
    if request.param == "ipc":
        return f"ipc://{tmp_path}/events"
    return free_endpoint()


def test_an_endpoint_in_use_is_refused_and_its_owner_goes_on(place):
    with publishing(endpoint=place) as h:
        h.push(regions=[face()])
        node = Publish(name="other", endpoint=place)
        with pytest.raises(UserError, match=f"^other: cannot bind {place}: address already in use") as caught:
            Harness(node)
        way_out = "; `endpoint: tcp://127.0.0.1:*` takes a free port"
        assert str(caught.value).endswith(way_out if place.startswith("tcp") else "in use")
        node.close()
        with join(h) as events:
            assert next(events).what == "up"


def test_subscribers_survive_a_restart_on_the_same_endpoint(place):
    with publishing(endpoint=place, observations=False) as h:
        h.push(regions=[face(track=1)])
        events = join(h)
        first = [next(events), next(events)]
    if place.startswith("ipc"):
        assert not Path(place.removeprefix("ipc://")).exists()
    with events, publishing(endpoint=place, observations=False) as h:
        h.push(regions=[face(track=1), face(track=2)])
        again: list[Event] = []

        def read() -> None:
            h.tick()
            again.extend(filter(None, [events.receive(0.02)]))

        patiently(lambda: len(again) == 3, read)
    assert [(e.what, e.track, e.lost) for e in again] == [("up", None, 1), ("present", 1, 2), ("present", 2, 0)]
    assert again[0].run != first[0].run


def test_the_socket_file_of_a_killed_run_is_taken_over(tmp_path):
    path = tmp_path / "events"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    with publishing(endpoint=f"ipc://{path}") as h:
        h.push(regions=[])
        with join(h) as events:
            assert next(events).what == "up"


def test_a_file_in_the_way_is_not_deleted(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(UserError, match=f"cannot bind ipc://{path}: file exists"):
        Harness(Publish(name="events", endpoint=f"ipc://{path}"))
    assert path.read_text() == "years of work"


@pytest.mark.parametrize(
    ("where", "warns"),
    [
        ("tcp://*:*", True),
        ("tcp://0.0.0.0:*", True),
        ("tcp://127.0.0.1:*", False),
        ("tcp://localhost:*", False),
        ("ipc://@emograph-test-abstract", False),
    ],
)
def test_warns_where_strangers_can_read(where, warns):
    with publishing(endpoint=where) as h:
        warnings = [text for level, text in h.logs if level == "warning"]
    assert bool(warnings) == warns
    assert all("can be read by anybody" in text for text in warnings)


def test_close_sends_what_is_queued(monkeypatch):
    monkeypatch.setattr(publish, "_LINGER_MS", publish._LINGER_MS * 60)  # however busy the machine is
    count, crowd = 1200, [face(track=n) for n in range(40)]
    with zmq.Context() as context:
        got: list[list[bytes]] = []
        with publishing(hwm=2 * count) as h:
            h.push(regions=crowd)
            peer = narrow(context, "emotion/door/observation", endpoint(h))
            patiently(lambda: peer.poll(10), h.tick)
            for _ in range(count):
                h.push(regions=crowd)

            def read() -> None:
                while peer.poll(1000):
                    got.append(peer.recv_multipart())

            reader = threading.Thread(target=read)
            reader.start()
        reader.join()
        peer.close()
    assert len(got) == 1 + count


def test_close_waits_for_nobody_for_long():
    context = zmq.Context()
    with context, publishing() as h:
        h.push(regions=[face()])
        with narrow(context, "emotion/", endpoint(h)) as stuck:
            patiently(lambda: stuck.poll(10), h.tick)
            for _ in range(1500):
                h.push(regions=[face(track=n) for n in range(40)])
            closing = threading.Thread(target=h.node.close)
            closing.start()
            closing.join(10)
            assert not closing.is_alive()
