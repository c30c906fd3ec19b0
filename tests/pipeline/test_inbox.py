"""What comes to a process: in which order it is worked on, and what is none of ours."""

from __future__ import annotations

from types import SimpleNamespace

import zmq

from pipeline import Buffer, Mark
from pipeline.inbox import Inbox
from pipeline.wire import bundle


def test_a_frame_that_comes_late_takes_its_place_and_marks_come_last():
    """As when a process was killed: its successor's messages come between those of the dead one."""
    runners = {name: SimpleNamespace(name=name, homes={"a": None, "b": None}) for name in ("v", "w")}
    garbage: list[Exception] = []

    def frame(to: str, stream: str, sequence: int) -> bytes:
        return Buffer(stream, sequence, shape=(1, 1, 3), home=stream).pack(to)

    with zmq.Context() as context, context.socket(zmq.PULL) as into, context.socket(zmq.PUSH) as out:
        into.bind("inproc://in")
        out.connect("inproc://in")
        inbox = Inbox(into, runners, garbage.append)  # type: ignore[arg-type]
        for parts in (
            [frame("w", "a", 0), frame("w", "a", 3), Mark("flush", "a", 1, home="a").pack("w"), frame("w", "b", 7)],
            [frame("v", "a", 1), frame("w", "a", 2), frame("w", "a", 1), frame("nobody", "a", 1), frame("w", "c", 1)],
            [frame("w", "a", 4), frame("w", "b", 6)],
        ):
            out.send(bundle(parts))
        inbox.receive()
        waiting = [(runner.name, item.stream, getattr(item, "sequence", item)) for runner, item in inbox.waiting]
    assert [n for name, stream, n in waiting[:-1] if (name, stream) == ("w", "a")] == [0, 1, 2, 3, 4]
    assert [n for name, stream, n in waiting[:-1] if stream == "b"] == [6, 7]
    assert isinstance(waiting[-1][2], Mark)
    assert (len(waiting), len(garbage)) == (9, 2)
