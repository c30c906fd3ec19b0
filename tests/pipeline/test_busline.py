"""What a worker hears from its supervisor comes as it was said and in order, also when it looks in the middle of
something else."""

from __future__ import annotations

from pathlib import Path

import zmq

from pipeline.busline import BusLine
from pipeline.plan import Assignment, NodePlan, Plan
from pipeline.wire import pack, unpack


def test_what_comes_while_something_is_done_is_heard_in_its_order(tmp_path: Path):
    plan = Plan("graph", "live", 0, {})
    with zmq.Context() as context, context.socket(zmq.ROUTER) as supervisor:
        assignment = Assignment("w", str(tmp_path), plan, {})
        supervisor.bind(assignment.bus)
        line = BusLine(context, assignment)
        line.say("ready")
        name, said = supervisor.recv_multipart()
        assert unpack(said) == {"say": "ready"}

        def tell(what: str) -> None:
            supervisor.send_multipart([name, pack({"do": what})])

        heard: list[str] = []
        tell("play")
        while len(heard) < 4:
            for message in line.hear():
                heard.append(message["do"])
                if message["do"] == "play":  # a node that works on and on, and looks up now and then
                    tell("one")
                    while not line.waiting:
                        assert not line.look()
                    tell("two")
                    tell("quit")
                    while not line.look():
                        pass
        assert heard == ["play", "one", "two", "quit"]
        line.socket.close()


def test_a_property_may_be_a_map_of_numbers(tmp_path: Path):
    node = NodePlan("n", "n", "own", "own:Own", "sink", "w", {"names": {1: "one", 0.5: "half"}})
    assignment = Assignment("w", str(tmp_path), Plan("graph", "live", 0, {"n": node}), {"camera": 3})
    assert Assignment.unpack(assignment.pack()) == assignment
