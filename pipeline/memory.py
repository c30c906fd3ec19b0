"""The memory that a process uses, looked at now and then by a thread of its own."""

from __future__ import annotations

import resource
import threading
import time

INTERVAL = 5.0
"""Seconds between two looks."""
SHARE = 1e-3
"""Of a core, that the looks may cost at the most: for each the kernel walks all page tables, which takes
milliseconds where many large frames are mapped."""


class MemoryWatch(threading.Thread):
    """Keeps `bytes` up to date (0 until the first look), so that frames do not wait for the kernel."""

    def __init__(self) -> None:
        super().__init__(name="memory", daemon=True)
        self.bytes = 0

    def run(self) -> None:
        while True:
            start = time.thread_time()
            self.bytes = memory_in_use()
            time.sleep(max(INTERVAL, (time.thread_time() - start) / SHARE))


def memory_in_use() -> int:
    """Bytes of memory that this process is answerable for: pages that it shares with others (those inherited from the
    spawner, libraries) count in part, frame slots not at all, since they are their sources'."""
    try:
        with open("/proc/self/smaps_rollup") as lines:
            sizes = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines) if value}
        return (sizes["Pss_Anon"] + sizes["Pss_File"]) * 1024
    except (OSError, KeyError, ValueError, IndexError):  # an older kernel
        with open("/proc/self/statm") as statm:
            pages = statm.read().split()
        return (int(pages[1]) - int(pages[2])) * resource.getpagesize()
