"""A source's frame slots and its ledger, in one piece of shared memory.

The memory is a memfd that the supervisor creates and every process of the graph inherits. It has no name, so
nothing is left behind however a run ends, and no mount (`/dev/shm`) is too small for it. It outlives the
source's process: a source that is started again after a crash finds its ledger and what is still out.

Layout, in 64-bit words (native order, one host):

    page 0-1   magic, layout, counters, the names and counts of the fates
    then       eight words per slot: generation, state, sequence, weight still out, fate, ...
    then       the frames: slot after slot, in each slot `planes` frames of equal size

One process writes (the source); every update that a `kill -9` may cut in half is either ordered so that
`recover` can tell, or goes through the one-entry journal.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.buffer import WHOLE
from pipeline.errors import UserError

_MAGIC = 0x656D6F67_72617068  # "emograph"
_TABLE_BYTES = 8192
_PAGE = mmap.PAGESIZE
_SLOT_WORDS = 8
_MAX_FATES = 63
_NAME_BYTES = 96
# Words of page 0.
(_W_MAGIC, _W_SLOTS, _W_FRAME_BYTES, _W_PLANES, _W_DATA, _W_CAPTURED, _W_FATES,
 _W_JOURNAL, _W_JOURNAL_FATE, _W_JOURNAL_VALUE, _W_HEIGHT, _W_WIDTH, _W_CHANNELS, _W_LIVE,
 _W_LAST_PTS, _W_LAST_CAPTURED) = range(16)  # fmt: skip
_W_COUNTS = 16
_NAMES_AT = (_W_COUNTS + _MAX_FATES + 1) * 8
# Words of a slot.
_S_GENERATION, _S_STATE, _S_SEQUENCE, _S_WEIGHT, _S_FATE = range(5)
_FREE, _OUT = 0, 1

DELIVERED = ("", "delivered")
Fate = tuple[str, str]
"""(node, reason) of a drop, or DELIVERED."""


@dataclass
class Ledger:
    """What became of a camera's frames: `captured == delivered + sum(dropped) + in_flight`, always."""

    captured: int = 0
    delivered: int = 0
    dropped: dict[Fate, int] = field(default_factory=dict)
    in_flight: int = 0

    @property
    def adds_up(self) -> bool:
        return self.captured == self.delivered + sum(self.dropped.values()) + self.in_flight

    def as_dict(self) -> dict[str, Any]:
        dropped = [{"node": n, "reason": r, "count": c} for (n, r), c in sorted(self.dropped.items())]
        return {
            "captured": self.captured, "delivered": self.delivered, "dropped": dropped,
            "in_flight": self.in_flight,
        }  # fmt: skip


def create() -> int:
    """A new ring without slots; returns its file descriptor (inheritable)."""
    fd = os.memfd_create("emograph-ring", 0)
    os.set_inheritable(fd, True)
    os.posix_fallocate(fd, 0, _TABLE_BYTES)
    return fd


def read_ledger(fd: int) -> Ledger:
    """The ledger as it stands now, from any process that holds the ring's descriptor."""
    size = os.fstat(fd).st_size
    words = _stable_table(fd, size).copy()
    slots = words[_TABLE_BYTES // 8 :].reshape(-1, _SLOT_WORDS)
    if words[_W_JOURNAL]:  # cut in half, and nobody has taken over
        words[_W_COUNTS + int(words[_W_JOURNAL_FATE])] = words[_W_JOURNAL_VALUE]
        slots[int(words[_W_JOURNAL]) - 1, _S_STATE] = _FREE
    out = slots[slots[:, _S_STATE] == _OUT]
    captured = int(words[_W_CAPTURED])
    ledger = Ledger(max(captured, int(out[:, _S_SEQUENCE].max()) + 1) if len(out) else captured, in_flight=len(out))
    raw = words.tobytes()
    for index in range(int(words[_W_FATES])):
        count = int(words[_W_COUNTS + index])
        at = _NAMES_AT + index * _NAME_BYTES
        node, _, reason = raw[at : at + _NAME_BYTES].rstrip(b"\0").decode(errors="replace").partition("\t")
        if (node, reason) == DELIVERED:
            ledger.delivered = count
        elif count:
            ledger.dropped[node, reason] = count
    return ledger


def _stable_table(fd: int, size: int) -> np.ndarray:
    """All words before the frames, read twice alike: a consistent picture while the source goes on writing."""
    head = np.frombuffer(os.pread(fd, _TABLE_BYTES, 0), np.uint64)
    length = min(size, _TABLE_BYTES + int(head[_W_SLOTS]) * _SLOT_WORDS * 8)
    before = os.pread(fd, length, 0)
    for _ in range(50):
        after = os.pread(fd, length, 0)
        if after == before and not np.frombuffer(after, np.uint64)[_W_JOURNAL]:
            break
        before = after
    return np.frombuffer(before, np.uint64)


def available_memory() -> int:
    """Bytes that can still be allocated: the kernel's MemAvailable, or what the container has left of its limit."""
    available = 1 << 62
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            text = limit.read().strip()
            if text != "max":
                available = min(available, int(text) - int(used.read()) + _reclaimable())
    except OSError:
        pass  # no cgroup v2: the kernel's figure stands
    return max(available, 0)


def _reclaimable() -> int:
    """Bytes of page cache that count as the container's use and that the kernel gives up on demand."""
    with open("/sys/fs/cgroup/memory.stat") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


class Reader:
    """Views of a ring's frames, in any process. Generations tell whether a slot is still the buffer's own."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("Q")

    def _remap(self) -> None:
        # An older, smaller map stays alive as long as a frame still looks into it.
        # Populated at once: else each page of each slot costs this process a fault when a frame first comes there.
        self._map = mmap.mmap(self.fd, os.fstat(self.fd).st_size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self._words = memoryview(self._map).cast("Q")

    def current(self, slot: int, generation: int) -> bool:
        """Whether `slot` still holds the frame of `generation`."""
        index = _TABLE_BYTES // 8 + slot * _SLOT_WORDS + _S_GENERATION
        if index >= len(self._words):
            self._remap()
            if index >= len(self._words):
                return False
        return self._words[index] == generation

    def frame(self, slot: int, plane: int, shape: tuple[int, int, int], writable: bool = False) -> np.ndarray:
        """uint8 view of `shape`; ValueError when the ring has no such place."""
        for _ in range(2):
            if self._map is not None:
                words = self._words
                frame_bytes, planes = words[_W_FRAME_BYTES], words[_W_PLANES]
                size = shape[0] * shape[1] * shape[2]
                offset = words[_W_DATA] + (slot * planes + plane) * _aligned(frame_bytes)
                if slot < words[_W_SLOTS] and plane < planes and size <= frame_bytes:
                    if offset + size <= len(self._map):
                        view = np.frombuffer(self._map, np.uint8, size, offset).reshape(shape)
                        view.flags.writeable = writable
                        return view
                elif offset + size <= len(self._map):
                    break
            self._remap()
        raise ValueError(f"slot {slot}, plane {plane} is not in the ring")


class Writer(Reader):
    """The source's side: allocates the slots, hands them out, takes weights back, keeps the ledger."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._remap()
        words = self._words
        if words[_W_MAGIC] != _MAGIC:
            words[_W_MAGIC] = _MAGIC
        self._fates: dict[Fate, int] = {}
        self.out: dict[int, int] = {}
        """sequence -> slot of what is out."""
        self._free: list[int] = []
        self._recover()
        self.fate_index(DELIVERED)

    # Memory ---------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        return self._words[_W_SLOTS]

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of the frames that it was last laid out for; None before the first time."""
        words = self._words
        return (words[_W_HEIGHT], words[_W_WIDTH], words[_W_CHANNELS]) if words[_W_SLOTS] else None

    @shape.setter
    def shape(self, shape: tuple[int, int, int]) -> None:
        self._words[_W_HEIGHT], self._words[_W_WIDTH], self._words[_W_CHANNELS] = shape

    @property
    def live(self) -> bool:
        """Whether its source is, or was before it was started again, a camera."""
        return bool(self._words[_W_LIVE])

    @live.setter
    def live(self, live: bool) -> None:
        self._words[_W_LIVE] = live

    @property
    def last(self) -> tuple[int, int] | None:
        """PTS and capture time (monotonic ns) of the last frame that a camera has sent; None before the first."""
        words = self._words
        return (words[_W_LAST_PTS], words[_W_LAST_CAPTURED]) if words[_W_LAST_CAPTURED] else None

    @last.setter
    def last(self, times: tuple[int, int]) -> None:
        self._words[_W_LAST_PTS], self._words[_W_LAST_CAPTURED] = times

    def fits(self, slots: int, frame_bytes: int, planes: int) -> bool:
        """Whether the ring is laid out just so (a restarted source meets its own ring)."""
        words = self._words
        return (words[_W_SLOTS], words[_W_FRAME_BYTES], words[_W_PLANES]) == (slots, frame_bytes, planes)

    def allocate(self, name: str, slots: int, shape: tuple[int, int, int], planes: int) -> None:
        """Lay the ring out anew, all of its memory taken at once. Nothing may be out. UserError says the arithmetic."""
        frame_bytes = shape[0] * shape[1] * shape[2]
        data = _aligned(_TABLE_BYTES + slots * _SLOT_WORDS * 8)
        total = data + slots * planes * _aligned(frame_bytes)
        extra = total - os.fstat(self.fd).st_size
        arithmetic = (
            f"{name}: {slots} frame slots x {planes} of {shape[1]}x{shape[0]}x{shape[2]} need "
            f"{total / 1e6:,.1f} MB of shared memory"
        )
        if extra > available_memory():
            raise UserError(
                f"{arithmetic}, {available_memory() / 1e6:,.1f} MB are left: lower 'window' or the frame size"
            )
        try:
            if extra > 0:
                os.posix_fallocate(self.fd, 0, total)
        except OSError as error:
            raise UserError(f"{arithmetic}: {os.strerror(error.errno or 0)}") from None
        self._remap()
        words = self._words
        words[_W_SLOTS], words[_W_FRAME_BYTES], words[_W_PLANES], words[_W_DATA] = (
            slots,
            frame_bytes,
            planes,
            data,
        )
        self.shape = shape
        for slot in range(slots):
            words[self._at(slot, _S_STATE)] = _FREE
        self._free = list(range(slots - 1, -1, -1))
        self.out.clear()

    # Frames ---------------------------------------------------------------------------------------------

    def acquire(self) -> tuple[int, int] | None:
        """A free slot and its new generation: whoever still looks at the old one will find it stale."""
        if not self._free:
            return None
        slot = self._free.pop()
        at = self._at(slot, _S_GENERATION)
        self._words[at] += 1
        return slot, self._words[at]

    def release(self, slot: int) -> None:
        """Give back a slot that was acquired but holds no captured frame."""
        self._free.append(slot)

    def retake(self, slot: int) -> None:
        """Take a slot that has just come free, without a new generation: nobody was told of what was in it."""
        self._free.remove(slot)

    @property
    def captured(self) -> int:
        return self._words[_W_CAPTURED]

    def capture(self, slot: int) -> int:
        """Enter the frame in `slot` into the ledger, whole weight out; returns its sequence number."""
        words = self._words
        sequence = words[_W_CAPTURED]
        base = self._at(slot, 0)
        words[base + _S_SEQUENCE] = sequence
        words[base + _S_WEIGHT] = WHOLE
        words[base + _S_FATE] = 0
        words[base + _S_STATE] = _OUT
        words[_W_CAPTURED] = sequence + 1
        self.out[sequence] = slot
        return sequence

    def come_home(self, sequence: int, weight: int, fate: Fate) -> Fate | None:
        """Take `weight` of a buffer back. Returns the buffer's fate when it is whole again, else None.

        A buffer is delivered when all of it was; else its fate is the first drop that came home. Unknown
        sequences (declared lost meanwhile) and impossible weights raise KeyError.
        """
        slot = self.out[sequence]
        base = self._at(slot, 0)
        left = self._words[base + _S_WEIGHT] - weight
        if left < 0:
            raise KeyError(sequence)
        if fate != DELIVERED and not self._words[base + _S_FATE]:
            self._words[base + _S_FATE] = self.fate_index(fate)
        self._words[base + _S_WEIGHT] = left
        return self._finish(sequence, slot) if left == 0 else None

    def lose(self, sequence: int, fate: Fate) -> None:
        """Declare what is missing of a buffer lost; its slot is free again."""
        slot = self.out[sequence]
        self._words[self._at(slot, _S_FATE)] = self.fate_index(fate)
        self._finish(sequence, slot)

    def _finish(self, sequence: int, slot: int) -> Fate:
        words = self._words
        base = self._at(slot, 0)
        fate = words[base + _S_FATE]
        value = words[_W_COUNTS + fate] + 1
        words[_W_JOURNAL_FATE], words[_W_JOURNAL_VALUE], words[_W_JOURNAL] = fate, value, slot + 1
        words[_W_COUNTS + fate] = value
        words[base + _S_STATE] = _FREE
        words[_W_JOURNAL] = 0
        del self.out[sequence]
        self._free.append(slot)
        return next(f for f, index in self._fates.items() if index == fate)

    # Ledger ---------------------------------------------------------------------------------------------

    def fate_index(self, fate: Fate) -> int:
        """The counter of a fate; when all are taken, the last one, named `other`, counts the rest."""
        index = self._fates.get(fate)
        if index is None:
            index = len(self._fates)
            if index >= _MAX_FATES:
                return self._fates.get(("", "other"), _MAX_FATES - 1)
            if index == _MAX_FATES - 1:
                fate = ("", "other")
            name = f"{fate[0]}\t{fate[1]}".encode()[:_NAME_BYTES]
            at = _NAMES_AT + index * _NAME_BYTES
            assert self._map is not None
            self._map[at : at + _NAME_BYTES] = name.ljust(_NAME_BYTES, b"\0")
            self._words[_W_FATES] = index + 1
            self._fates[fate] = index
        return index

    def _recover(self) -> None:
        """Pick up what an earlier process of this source left: its fates, its counters, what is still out."""
        words = self._words
        assert self._map is not None
        for index in range(words[_W_FATES]):
            at = _NAMES_AT + index * _NAME_BYTES
            text = bytes(self._map[at : at + _NAME_BYTES]).rstrip(b"\0").decode(errors="replace")
            node, _, reason = text.partition("\t")
            self._fates[node, reason] = index
        if words[_W_JOURNAL]:
            words[_W_COUNTS + words[_W_JOURNAL_FATE]] = words[_W_JOURNAL_VALUE]
            words[self._at(words[_W_JOURNAL] - 1, _S_STATE)] = _FREE
            words[_W_JOURNAL] = 0
        for slot in range(self.slots):
            base = self._at(slot, 0)
            if words[base + _S_STATE] == _OUT:
                self.out[words[base + _S_SEQUENCE]] = slot
            else:
                self._free.append(slot)
        if self.out:
            words[_W_CAPTURED] = max(words[_W_CAPTURED], max(self.out) + 1)

    def _at(self, slot: int, word: int) -> int:
        return _TABLE_BYTES // 8 + slot * _SLOT_WORDS + word


def _aligned(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
