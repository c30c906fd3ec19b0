"""The messages on a link: what goes in comes out, and garbage is told from messages."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from pipeline import wire
from pipeline.buffer import UNREADABLE, WHOLE, BadMessage, Buffer, Mark, Region, unpack


def full_buffer() -> Buffer:
    patch = np.arange(48 * 48, dtype=np.uint8).reshape(48, 48)
    region = Region((1.5, 2, 30, 31), 4.2, 7, "happy", {"happy": 0.9}, {"happy": 0.7}, patch, {"held": True})
    return Buffer(
        "door", 3, 100, 200, 300, 400, (480, 640, 3), [region], {"truth": [1]}, 2, 9, 1, 77, "door",
        [["door", 1, 2, 1]],
    )  # fmt: skip


def test_a_buffer_survives_the_wire():
    sent = full_buffer()
    to, got = unpack(sent.pack("faces"))
    assert to == "faces"
    assert isinstance(got, Buffer)
    np.testing.assert_array_equal(got.regions[0].patch, sent.regions[0].patch)
    got.regions[0].patch = sent.regions[0].patch = None
    assert got == sent


ENDLESS: dict = {}
ENDLESS["more"] = ENDLESS


@pytest.mark.parametrize(
    "wrong",
    [
        {"box": (1, 2)}, {"box": "face"}, {"box": (1, 2, 3, 4, 5)}, {"box": None}, {"score": "high"}, {"track": "seven"},
        {"track": 1.5}, {"label": 5}, {"scores": [0.5]}, {"raw": "happy"}, {"attrs": None}, {"attrs": {3: 1}},
        {"scores": {0: 0.3, 1: 0.7}}, {"raw": {0: 0.3}}, {"attrs": {"a": np.array([{1: 2}], dtype=object)}},
        {"attrs": {"a": {"b": [{(1, 2): 3}]}}}, {"patch": np.zeros((48, 48, 3), np.uint8)},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_next_node_could_not_read_is_not_sent(wrong: dict):
    buffer = full_buffer()
    for name, value in wrong.items():
        setattr(buffer.regions[0], name, value)
    with pytest.raises((TypeError, ValueError)):
        buffer.pack("x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"pts": 0.5}, {"wall": "now"}, {"meta": {1: 2}}, {"meta": {"a": {b"x": 1}}}, {"regions": [1]}, {"meta": None},
        {"meta": [1]}, {"meta": "x"}, {"captured": 1.5}, {"shape": None}, {"shape": (1, 2)}, {"shape": (0, 2, 3)},
        {"sequence": "x"}, {"wall": -5}, {"stream": None}, {"weight": 0}, {"trace": None}, {"regions": None},
        {"pts": 1 << 70}, {"meta": ENDLESS},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_the_next_node_could_not_read_is_not_sent(wrong: dict):
    buffer = full_buffer()
    for name, value in wrong.items():
        setattr(buffer, name, value)
    with pytest.raises(UNREADABLE):
        buffer.pack("x")


def test_numpys_numbers_are_numbers():
    buffer = full_buffer()
    buffer.pts = np.int64(100)  # type: ignore[assignment]
    buffer.wall = True
    buffer.shape = [np.int64(480), 640, 3]  # type: ignore[assignment]
    (region,) = buffer.regions
    region.track, region.scores = np.int32(7), {"happy": np.float32(0.5)}  # type: ignore[assignment]
    region.box = np.float32([1, 2, 3, 4])  # type: ignore[assignment]
    _, sent = unpack(buffer.pack("x"))
    assert isinstance(sent, Buffer)
    assert (sent.wall, sent.shape) == (1, (480, 640, 3))
    assert (sent.pts, sent.regions[0].track, sent.regions[0].scores) == (100, 7, {"happy": 0.5})
    assert sent.regions[0].box == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "field", ["sequence", "captured", "wall", "deadline", "slot", "generation", "plane", "weight", "pts"]
)
@pytest.mark.parametrize("kind", [bool, np.int64, np.uint8])
def test_a_number_of_another_kind_arrives_as_a_number(field: str, kind: type):
    """`deadline = False`, say: the next node would take it for garbage, and the frame would be lost there."""
    buffer = full_buffer()
    setattr(buffer, field, kind(1))
    _, sent = unpack(buffer.pack("x"))
    assert getattr(sent, field) == 1
    assert type(getattr(sent, field)) is int


def test_a_frame_may_be_smaller_than_its_slot():
    buffer = Buffer("door", 0, shape=(4, 6, 3), _frame=np.zeros((4, 6, 3), np.uint8))
    slot = buffer.frame
    buffer.resize(3, 5)
    buffer.frame[...] = 7
    assert buffer.shape == buffer.frame.shape == (3, 5, 3)
    assert (slot.reshape(-1) == 7).sum() == 45  # the first bytes of the slot, as a reader of that shape sees them
    _, sent = unpack(buffer.pack("x"))
    assert isinstance(sent, Buffer)
    assert sent.shape == (3, 5, 3)
    for height, width in ((4, 4), (0, 3), (-1, -1)):
        with pytest.raises(ValueError, match="in a slot for 5x3"):
            buffer.resize(height, width)


def test_text_that_is_no_utf_8_is_told_without_what_is_none():
    """A file's name may be any bytes."""
    assert wire.unpack(wire.pack({"text": "caf\udce9.png"})) == {"text": "caf?.png"}


def test_a_mark_survives_the_wire():
    sent = Mark("status", "door", 5, 123, "door", {"up": False, "reason": "away"})
    assert unpack(sent.pack("faces")) == ("faces", sent)


def test_a_branch_has_regions_of_its_own():
    buffer = full_buffer()
    branch = buffer.branch(WHOLE // 2)
    branch.regions[0].label = "sad"
    branch.meta["x"] = 1
    assert buffer.regions[0].label == "happy"
    assert "x" not in buffer.meta
    assert branch.weight == WHOLE // 2


def _broken(index: int, value: object) -> bytes:
    fields = msgpack.unpackb(full_buffer().pack("faces"))
    fields[index] = value
    return msgpack.packb(fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff",
        b"hello",
        msgpack.packb(None),
        msgpack.packb([]),
        msgpack.packb([1, 2]),
        msgpack.packb([99, "faces"]),
        full_buffer().pack("faces")[:-5],
        full_buffer().pack("faces") + b"x",
        _broken(3, "three"),
        _broken(8, [1, 2]),
        _broken(8, ["a", "b", "c"]),
        _broken(9, -1),
        _broken(4, "now"),
        _broken(14, 7),
        _broken(14, [["faces", 1, 2]]),
        _broken(8, [0, 640, 3]),
        _broken(15, [[["a", 2, 3, 4], 1.0, None, None, None, None, None, {}]]),
        _broken(12, 0),
        _broken(12, -5),
        _broken(15, [[1, 2]]),
        _broken(15, [[[1, 2, 3, 4], 1.0, None, None, None, None, [48, 48, b"short"], {}]]),
        _broken(16, "meta"),
    ],
)
def test_garbage_is_a_bad_message(data: bytes):
    with pytest.raises(BadMessage):
        unpack(data)


def test_random_bytes_never_raise_anything_else():
    rng = np.random.default_rng(1)
    good = full_buffer().pack("faces")
    for _ in range(3000):
        data = bytearray(good)
        for position in rng.integers(0, len(data), 4):
            data[position] = rng.integers(256)
        try:
            unpack(bytes(data))
        except BadMessage:
            continue


def test_a_branch_has_attributes_of_its_own():
    buffer = Buffer("a", 0, regions=[Region((1, 2, 3, 4), attrs={"held": True})])
    buffer.branch(1).regions[0].attrs["drawn"] = True
    assert buffer.regions[0].attrs == {"held": True}
