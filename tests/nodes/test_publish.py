"""`publish` with real sockets: what is told, to whom, and that nobody can slow it down or bring it down."""

import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from nodes import publish
from nodes.publish import Publish
from pipeline import Event, GraphError, Harness, Region, UserError, subscribe
from pipeline.subscription import Subscription

ANY_PORT = "tcp://127.0.0.1:*"


def face(label: str | None = "happy", track: int | None = 1, probability: float = 0.75) -> Region:
    if label is None:
        return Region((10, 20, 30, 40), track=track)
    scores = {label: probability, "neutral": 1 - probability}
    return Region((10, 20, 30, 40), 0.5, track, label, scores, raw={label: 1.0, "neutral": 0.0})


@contextmanager
def publishing(streams: tuple[str, ...] = ("door",), lossless: bool = False, **properties) -> Iterator[Harness]:
    properties = {"endpoint": ANY_PORT, **properties}
    with Harness(Publish(name="events", **properties), streams=streams, lossless=lossless) as h:
        yield h


def endpoint(h: Harness) -> str:
    assert isinstance(h.node, Publish)
    return h.node.endpoint


def patiently(condition: Callable[[], Any], meanwhile: Callable[[], Any]) -> None:
    """Do `meanwhile` until `condition`; what takes half a minute never comes."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        meanwhile()


def join(h: Harness, cameras=None, kinds=None) -> Subscription:
    """A subscriber that the node has answered; there must be something to answer with."""
    events = subscribe(endpoint(h), cameras, kinds, timeout=5)
    patiently(lambda: events._socket.poll(10), h.tick)
    return events


def narrow(context: zmq.Context, prefix: str, target: str) -> zmq.Socket:
    """A subscriber for which next to nothing fits into the network's buffers: events queue up in the node."""
    peer = context.socket(zmq.SUB)
    peer.setsockopt(zmq.RCVHWM, 5)
    peer.setsockopt(zmq.RCVBUF, 300_000)
    peer.subscribe(prefix)
    peer.connect(target)
    return peer


def drain(events: Subscription, until: str = "ended") -> list[Event]:
    """All events up to and with the first whose `what` is `until`."""
    got = []
    for event in events:
        got.append(event)
        if event.what == until:
            break
    return got


def brief(events: list[Event]) -> list[tuple]:
    return [(e.kind, e.what, e.track, e.label, e.snapshot) for e in events]


# What is told ----------------------------------------------------------------------------------------------


def test_tells_what_is_seen_and_what_changes():
    with publishing(hold="300ms") as h:
        h.mark("status", up=True, reason="", since=123_000)
        with join(h) as events:
            frame = np.zeros((48, 64, 3), np.uint8)
            buffer = h.buffer(frame, regions=[face("happy"), face("sad", track=None)], pts=5)
            h.clock += 0.04  # the way through the graph
            h.push_all([buffer])
            for _ in range(8):
                h.clock += 0.1
                h.push(frame, regions=[face("angry")])
            h.mark("eos")
            told = drain(events)
    assert brief([e for e in told if e.kind != "observation"]) == [
        ("status", "up", None, None, True),
        ("change", "appeared", 1, "happy", False),
        ("change", "changed", 1, "angry", False),
        ("change", "left", 1, "angry", False),
        ("status", "ended", None, None, False),
    ]
    seen = [e for e in told if e.kind == "observation"]
    assert len(seen) == 9
    assert [e.lost for e in told] == [0] * len(told)
    assert [e.sequence for e in seen] == list(range(1, 10))
    first = seen[0]
    assert first.fields["time_ns"] == buffer.wall
    assert (first.pts, first.latency, first.fields["frame"]) == (5, 0.04, 0)
    assert (first.fields["width"], first.fields["height"]) == (64, 48)
    assert first.regions[0].box == (10.0, 20.0, 30.0, 40.0)
    assert first.regions[0].raw == {"happy": 1.0, "neutral": 0.0}
    assert first.regions[0].probabilities == {"happy": 0.75, "neutral": 0.25}
    assert (first.regions[0].score, first.regions[0].detection) == (0.75, 0.5)
    assert first.regions[1].track is None
    assert told[0].since is not None
    assert told[0].since.timestamp() == 123e-6
    changed = next(e for e in told if e.what == "changed")
    assert (changed.previous, changed.probabilities["angry"]) == ("happy", 0.75)
    assert changed.since is not None
    assert 0.29 < (changed.time - changed.since).total_seconds() < 0.41


def test_numbers_of_numpys_types_are_told_too():
    region = Region(tuple(np.float32([1, 2, 3, 4])), np.float32(0.5), np.int64(3), "happy", {"happy": np.float32(1)})  # type: ignore[arg-type]
    with publishing() as h:
        h.push(regions=[region])
        with join(h) as events:
            told = [next(events) for _ in range(3)]
    assert (told[1].track, told[1].score, told[2].regions[0].box) == (3, 1.0, (1.0, 2.0, 3.0, 4.0))


def test_tells_which_faces_were_held_and_which_cameras_there_are():
    region = face()
    region.attrs["held"] = True
    with publishing(streams=("door", "desk")) as h:
        h.push(stream="door", regions=[])
        with join(h) as events:
            h.push(stream="door", regions=[face(track=2), region])
            h.mark("eos", "door")
            told = drain(events)
    [seen] = [event for event in told if event.regions]
    assert [r.held for r in seen.regions] == [False, True]
    assert [r["held"] for r in seen.fields["regions"]] == [False, True]
    assert [e.cameras for e in told if e.kind == "status"] == [("door", "desk")] * 2  # desk was not heard of


def test_observations_can_be_left_out():
    with publishing(observations=False) as h:
        h.push(regions=[face()])
        with join(h) as events:
            h.push(regions=[face(track=2)])
            h.mark("eos")
            assert {e.kind for e in drain(events)} == {"change", "status"}


def test_cameras_are_told_apart():
    with publishing(streams=("door", "desk")) as h:
        h.push(stream="door", regions=[face(track=1)])
        h.push(stream="desk", regions=[])
        with join(h) as events:
            h.push(stream="desk", regions=[face(track=1)])
            h.mark("eos", "door")
            h.mark("eos", "desk")
            told = [e for e in drain(events) + drain(events) if not e.snapshot and e.kind != "observation"]
    assert [(e.camera, e.what, e.sequence) for e in told] == [
        ("desk", "appeared", 1),
        ("door", "left", 2),
        ("door", "ended", 2),
        ("desk", "left", 2),
        ("desk", "ended", 2),
    ]


# Who left, and when ----------------------------------------------------------------------------------------


def empty_frames(h: Harness) -> None:
    for _ in range(10):
        h.clock += 0.1
        h.push(regions=[])


def silence(h: Harness) -> None:
    h.clock += 0.9
    h.tick()
    h.clock += 0.2
    h.tick()


@pytest.mark.parametrize(
    ("ending", "decided_after", "then"),
    [
        (empty_frames, 1.0, []),
        (silence, 1.1, []),
        (lambda h: h.mark("status", up=False, reason="unplugged"), 0.0, ["down"]),
        (lambda h: h.mark("eos"), 0.0, ["ended"]),
    ],
    ids=["frames without the face", "no frames at all", "camera down", "eos"],
)
def test_a_face_leaves(ending, decided_after, then):
    with publishing(observations=False, gone_after=1) as h:
        h.push(regions=[face()])
        with join(h) as events:
            ending(h)
            h.mark("status", up=False, reason="end of test")
            told = drain(events, "down" if then != ["ended"] else "ended")
    left = next(e for e in told if e.what == "left")
    assert [e.what for e in told][: 3 + len(then)] == ["up", "present", "left", *then]
    assert left.duration == 0.0
    assert left.since is not None
    assert (left.time - left.since).total_seconds() == pytest.approx(decided_after, abs=0.01)


def test_a_lossless_graph_takes_its_time():
    """There the machine may need seconds for a frame: only the stream's own time counts."""
    with publishing(observations=False, gone_after=1, hold=0.3, lossless=True) as h:
        h.push(regions=[face()], pts=0)
        with join(h) as events:
            h.clock += 100
            h.tick()
            h.push(regions=[face("sad")], pts=100_000_000)
            h.clock += 100
            h.push(regions=[face("sad")], pts=300_000_000)
            h.push(regions=[face("sad")], pts=400_000_000)  # all at once on the clock
            h.push(regions=[], pts=1_300_000_000)
            h.push(regions=[], pts=1_400_000_000)
            h.mark("eos")
            told = drain(events)
    assert [(e.what, e.pts) for e in told if e.kind == "change"] == [
        ("present", 0),
        ("changed", 400_000_000),
        ("left", 1_400_000_000),
    ]
    assert told[-2].duration == 0.4


# Status ----------------------------------------------------------------------------------------------------


def test_status_is_told_when_it_is_news():
    with publishing(observations=False) as h:
        h.push(regions=[])  # a frame: the camera is up, though nobody said so
        with join(h, kinds="status") as events:
            h.mark("status", up=True)
            h.mark("flush")
            h.push(regions=[])
            h.mark("status", up=False, reason="cannot open rtsp://user:secret@10.0.0.5/stream1: timed out")
            h.mark("status", up=False, reason="cannot open rtsp://user:secret@10.0.0.5/stream1: timed out")
            h.mark("status", up=False, reason="connection refused")
            h.push(regions=[])
            h.mark("eos")
            h.push(regions=[])  # the source was started again
            h.mark("status", up=False, reason="bye")
            told = [next(events) for _ in range(7)]
    assert [(e.what, e.reason) for e in told] == [
        ("up", ""),
        ("down", "cannot open rtsp://***@10.0.0.5/stream1: timed out"),
        ("down", "connection refused"),
        ("up", ""),
        ("ended", ""),
        ("up", ""),
        ("down", "bye"),
    ]


# Late joiners ----------------------------------------------------------------------------------------------

SNAPSHOT = {
    "door/status": [("status", "up", None, None, True)],
    "door/change": [("change", "present", 1, "happy", True), ("change", "present", 2, "sad", True)],
    "door/observation": [("observation", "", 1, "happy", True)],
    "desk/status": [("status", "down", None, None, True)],
}


@pytest.mark.parametrize(
    ("cameras", "kinds", "parts"),
    [
        (None, None, ["door/status", "door/change", "door/observation", "desk/status"]),
        (["door"], None, ["door/status", "door/change", "door/observation"]),
        (["door"], ["change"], ["door/change"]),
        (["door", "desk"], ["status"], ["door/status", "desk/status"]),
        (None, ["change"], ["door/change"]),
    ],
)
def test_who_joins_in_the_middle_knows_at_once_who_is_there(cameras, kinds, parts):
    with publishing(streams=("door", "desk")) as h:
        h.push(stream="door", regions=[face("happy", 1), face("neutral", 2), face("fear", 3)])
        h.clock += 2
        h.push(stream="door", regions=[face("happy", 1), face("sad", 2)])
        h.clock += 2
        h.push(stream="door", regions=[face("happy", 1), face("sad", 2)])
        h.push(stream="desk", regions=[face("angry")])
        h.mark("status", stream="desk", up=False, reason="unplugged")
        expected = [row for part in parts for row in SNAPSHOT[part]]
        with join(h, cameras, kinds) as events:
            assert brief([next(events) for _ in expected]) == expected
            assert events.receive(0.05) is None


def test_a_snapshot_before_the_next_event():
    with publishing(observations=False) as h:
        h.push(regions=[face("happy", 1)])
        for _ in range(20):
            with subscribe(endpoint(h), kinds="change", timeout=5) as events:
                time.sleep(0.02)  # the subscription is on its way; no tick serves it
                h.push(regions=[face("happy", 1), face("sad", 2)])
                h.clock += 2
                h.push(regions=[face("happy", 1)])
                assert brief(drain(events, "left")) == [
                    ("change", "present", 1, "happy", True),
                    ("change", "appeared", 2, "sad", False),
                    ("change", "left", 2, "sad", False),
                ]


def test_who_was_there_before_is_not_disturbed_by_joiners():
    """On the wire the others get a joiner's snapshot too: flagged, and without a number of its own."""
    context = zmq.Context()
    raw = context.socket(zmq.SUB)
    with publishing() as h, context, raw:
        h.push(regions=[face()])
        with join(h) as events:
            raw.subscribe("emotion/door/change")
            raw.connect(endpoint(h))
            patiently(lambda: raw.poll(10), h.tick)
            for track in range(2, 6):
                join(h, kinds="change").close()
                join(h, cameras=["door"], kinds=["change"]).close()  # the same prefix as another's
                h.push(regions=[face(track=n) for n in range(1, track + 1)])
            h.mark("eos")
            told = drain(events)
        wire = [msgpack.unpackb(raw.recv_multipart()[1]) for _ in range(18)]
    assert [e.lost for e in told] == [0] * len(told)
    assert [e.snapshot for e in told] == [True] * 3 + [False] * (len(told) - 3)
    assert [e.sequence for e in told if e.kind == "change"] == list(range(1, 11))
    numbers = [event["sequence"] for event in wire if not event["snapshot"]]
    assert numbers == list(range(2, 11))
    # Every snapshot stands exactly where its number says.
    last = 1
    for event in wire:
        assert event["sequence"] == (last if event["snapshot"] else last + 1)
        last = event["sequence"]
        if event["snapshot"]:
            assert [t["track"] for t in event["tracks"]] == list(range(1, last + 1))


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# Slow, stuck and hostile peers -----------------------------------------------------------------------------


def test_a_stuck_subscriber_costs_nobody_anything_but_itself():
    count, crowd = 2500, [face(track=n) for n in range(40)]  # about 6 kB an event, 15 MB in all
    with publishing(hwm=50) as h:
        h.push(regions=crowd)
        context = zmq.Context()
        stuck = narrow(context, "emotion/door/observation", endpoint(h))
        with context, stuck, join(h, kinds="observation") as awake:
            patiently(lambda: stuck.poll(10), h.tick)
            stuck_first = msgpack.unpackb(stuck.recv_multipart()[1])
            memory = resident()
            read = 1
            next(awake)
            for number in range(2, count + 1):
                h.push(regions=crowd)
                while number - read > 20:  # it reads along, a little behind
                    read = next(awake).sequence
            while read < count:
                read = next(awake).sequence
            assert awake.lost == 0
            assert resident() - memory < 8e6  # the stuck one's queue is bounded
            # It wakes up: a few old events, then a gap that its numbers show.
            got: list[int] = []

            def wake() -> None:
                if stuck.poll(100):
                    got.append(msgpack.unpackb(stuck.recv_multipart()[1])["sequence"])
                else:
                    h.push(regions=crowd)

            patiently(lambda: got and got[-1] > count, wake)
    assert stuck_first["snapshot"]
    assert got == sorted(set(got))
    assert got[:40] == list(range(2, 42))
    assert len(got) < count


def raw_bytes(target: str) -> None:
    host, port = target.removeprefix("tcp://").split(":")
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 5000,
        os.urandom(2000),
        b"\xff" + b"\x00" * 8 + b"\x7f",
    ):
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(data)


def wrong_messages(target: str) -> None:
    with zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.connect(target)
        peer.send(b"\x01emotion/")
        peer.recv_multipart()  # answered: the connection stands
        peer.send_multipart([b"\x01emotion/door", b"more"])
        for _ in range(300):
            peer.send(b"hello")
        peer.send(b"\x02" * 1000)


def endless_topic(target: str) -> None:
    with zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.linger = 100
        peer.connect(target)
        peer.send(b"\x01" + b"emotion/" * 1000)


@pytest.mark.parametrize("attack", [raw_bytes, wrong_messages, endless_topic])
def test_garbage_from_a_peer_is_ignored(attack):
    with publishing(observations=False) as h:
        h.push(regions=[face()])
        with join(h) as events:
            peer = threading.Thread(target=attack, args=(endpoint(h),))
            peer.start()
            while peer.is_alive():
                h.tick()
                peer.join(0.01)
            h.tick()
            if attack is wrong_messages:
                patiently(lambda: len(h.metrics.get("garbage", [])) == 302, h.tick)
            h.push(regions=[face(), face(track=2)])
            h.mark("eos")
            told = drain(events)
    assert [e.what for e in told if e.kind == "change"] == ["present", "appeared", "left", "left"]
    assert [e.lost for e in told] == [0] * len(told)
    if attack is wrong_messages:
        warnings = [text for level, text in h.logs if level == "warning"]
        assert warnings == ["a peer sent something that is no subscription; it is ignored"]


@pytest.mark.parametrize("kind", [b"\x01", b"\x02"], ids=["a subscription", "anything else"])
def test_a_message_that_is_too_long_ends_its_senders_connection(kind: bytes):
    with publishing() as h, zmq.Context() as context, context.socket(zmq.XSUB) as peer:
        peer.linger = 0
        monitor = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.connect(endpoint(h))
        peer.send(b"\x01emotion/")
        peer.send(kind + bytes(1000))
        assert not monitor.poll(300)
        peer.send(kind + bytes(1100))
        assert monitor.poll(10_000)
        peer.disable_monitor()


# The endpoint ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nonsense", "events: property 'endpoint' of publish is 'nonsense': 'nonsense' is not an endpoint such as"),
        ("tcp://127.0.0.1", "is not an endpoint"),
        ("tcp://127.0.0.1:x", "is not an endpoint"),
        ("tcp://127.0.0.1:70000", "a port is at most 65535"),
        ("udp://127.0.0.1:5556", "is not an endpoint"),
        ("ipc://*", "is not an endpoint"),
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
        ("ipc:///tmp/" + "x" * 120, "file name too long"),
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


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
    assert [(e.what, e.track, e.lost) for e in again] == [("up", None, 0), ("present", 1, 0), ("present", 2, 0)]
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
