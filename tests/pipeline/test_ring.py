"""Slots, weights and the ledger, also after a crash at any point of an update."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from pipeline import ring
from pipeline.buffer import WHOLE
from pipeline.errors import UserError
from pipeline.ring import DELIVERED, Reader, Writer, read_ledger

SHAPE = (12, 16, 3)


@pytest.fixture
def writer(fd: int) -> Writer:
    made = Writer(fd)
    made.allocate("cam", 3, SHAPE, 2)
    return made


def capture(writer: Writer, value: int = 0) -> tuple[int, int, int]:
    place = writer.acquire()
    assert place is not None
    slot, generation = place
    writer.frame(slot, 0, SHAPE, writable=True)[:] = value
    return writer.capture(slot), slot, generation


def test_a_frame_written_is_the_frame_read_and_planes_are_apart(fd: int, writer: Writer):
    reader = Reader(fd)
    _, slot, generation = capture(writer, 7)
    writer.frame(slot, 1, SHAPE, writable=True)[:] = 9
    assert reader.current(slot, generation)
    assert (reader.frame(slot, 0, SHAPE) == 7).all()
    assert (reader.frame(slot, 1, SHAPE) == 9).all()
    assert not reader.frame(slot, 0, SHAPE).flags.writeable


@pytest.mark.parametrize(("slot", "plane", "shape"), [(3, 0, SHAPE), (0, 2, SHAPE), (0, 0, (1000, 1000, 3))])
def test_places_outside_the_ring_are_refused(fd: int, writer: Writer, slot: int, plane: int, shape):
    with pytest.raises(ValueError, match="not in the ring"):
        Reader(fd).frame(slot, plane, shape)
    assert not Reader(fd).current(10_000, 1)


def test_a_slot_used_again_is_stale_for_its_old_reader(fd: int, writer: Writer):
    reader = Reader(fd)
    sequence, slot, generation = capture(writer)
    writer.come_home(sequence, WHOLE, DELIVERED)
    assert reader.current(slot, generation)
    slots = {capture(writer)[1] for _ in range(3)}
    assert slot in slots
    assert not reader.current(slot, generation)


def test_weights_add_up_in_any_split_and_the_first_drop_decides(fd: int, writer: Writer):
    rng = np.random.default_rng(0)
    fates = [DELIVERED, ("faces", "late"), DELIVERED, ("draw", "error")]
    for _ in range(50):
        sequence, *_ = capture(writer)
        cuts = sorted(rng.choice(np.arange(1, 10_000), 3, replace=False)) + [WHOLE]
        weights = np.diff([0, *cuts]).tolist()
        results = [writer.come_home(sequence, w, f) for w, f in zip(weights, fates, strict=True)]
        assert results == [None, None, None, ("faces", "late")]
    ledger = read_ledger(fd)
    assert (ledger.captured, ledger.delivered, ledger.dropped) == (50, 0, {("faces", "late"): 50})
    assert ledger.adds_up


def test_too_much_weight_and_unknown_buffers_are_refused(writer: Writer):
    sequence, *_ = capture(writer)
    with pytest.raises(KeyError):
        writer.come_home(sequence, WHOLE + 1, DELIVERED)
    with pytest.raises(KeyError):
        writer.come_home(sequence + 1, WHOLE, DELIVERED)
    assert writer.come_home(sequence, WHOLE, DELIVERED) == DELIVERED


def test_slots_run_out_and_come_back(writer: Writer):
    sequences = [capture(writer)[0] for _ in range(3)]
    assert writer.acquire() is None
    writer.lose(sequences[1], ("faces", "lost"))
    assert writer.acquire() is not None


def test_a_restarted_source_finds_its_ledger_and_what_is_out(fd: int, writer: Writer):
    first, *_ = capture(writer)
    second, *_ = capture(writer)
    writer.come_home(first, WHOLE, DELIVERED)
    writer.come_home(second, WHOLE // 2, ("faces", "late"))
    successor = Writer(fd)
    assert successor.fits(3, 12 * 16 * 3, 2)
    assert list(successor.out) == [second]
    assert successor.captured == 2
    assert successor.come_home(second, WHOLE // 2, DELIVERED) == ("faces", "late")
    ledger = read_ledger(fd)
    assert ledger.adds_up
    assert (ledger.captured, ledger.delivered, ledger.in_flight) == (2, 1, 0)


class _Killed(Exception):
    pass


class _DyingWords:
    """The ring's words, in a process that is killed before its n-th write."""

    def __init__(self, words: memoryview, writes: int) -> None:
        self.words = words
        self.writes = writes

    def __getitem__(self, index: int) -> int:
        return self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        if self.writes == 0:
            raise _Killed
        self.writes -= 1
        self.words[index] = value


@pytest.mark.parametrize("writes", range(14))
def test_a_kill_between_any_two_writes_leaves_a_ledger_that_adds_up(fd: int, writes: int):
    writer = Writer(fd)
    writer.allocate("cam", 3, SHAPE, 1)
    writer.fate_index(("faces", "late"))
    before, *_ = capture(writer)
    writer._words = _DyingWords(writer._words, writes)  # type: ignore[assignment]
    try:
        place = writer.acquire()
        assert place is not None
        writer.capture(place[0])
        writer.come_home(before, WHOLE, ("faces", "late"))
    except _Killed:
        pass
    alone = read_ledger(fd)  # nobody takes over: the graph was stopping
    assert alone.adds_up, alone
    successor = Writer(fd)
    ledger = read_ledger(fd)
    assert ledger == alone
    for sequence in list(successor.out):
        successor.lose(sequence, ("cam", "lost"))
    ledger = read_ledger(fd)
    assert ledger.adds_up
    assert ledger.in_flight == 0
    assert [successor.acquire() is not None for _ in range(4)] == [True, True, True, False]


def test_a_source_that_takes_over_is_told_the_shape_and_whether_it_was_a_camera(fd: int):
    writer = Writer(fd)
    assert (writer.shape, writer.live) == (None, False)
    writer.allocate("a", 2, (48, 64, 3), 1)
    writer.live = True
    again = Writer(fd)
    assert (again.shape, again.live) == ((48, 64, 3), True)
    again.shape = (64, 48, 3)  # turned: the memory is the same
    assert Writer(fd).shape == (64, 48, 3)


def test_more_fates_than_counters_are_counted_together(fd: int, writer: Writer):
    for number in range(200):
        sequence, *_ = capture(writer)
        writer.come_home(sequence, WHOLE, ("node", f"reason {number}"))
    ledger = read_ledger(fd)
    assert ledger.adds_up
    assert ledger.captured == 200
    assert ledger.dropped["", "other"] > 100
    assert Writer(fd).captured == 200


def test_too_little_memory_is_one_line_with_the_arithmetic(fd: int):
    with pytest.raises(UserError, match=r"cam: 5000 frame slots x 1 of 7680x4320x3 need 497,.* MB .* MB are left"):
        Writer(fd).allocate("cam", 5000, (4320, 7680, 3), 1)


def test_memory_is_taken_in_full_at_once(fd: int):
    writer = Writer(fd)
    writer.allocate("cam", 4, (480, 640, 3), 1)
    assert os.fstat(fd).st_blocks * 512 >= 4 * 480 * 640 * 3


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch):
    files = {
        "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n",
        "/sys/fs/cgroup/memory.max": "3000000\n",
        "/sys/fs/cgroup/memory.current": "2500000\n",
        "/sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 1000000\n",
    }
    monkeypatch.setattr(ring, "open", lambda path: io.StringIO(files[path]), raising=False)
    assert ring.available_memory() == 1_500_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert ring.available_memory() == 8000 * 1024
    files["/sys/fs/cgroup/memory.max"] = "1000000\n"
    assert ring.available_memory() == 0
