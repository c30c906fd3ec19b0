"""Memory that training gives back stays with the process: every step needs the same buffers again."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h; other C libraries have no mallopt.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Have malloc keep what is freed. For a process that trains on the CPU; elsewhere than on glibc nothing changes.

    A buffer of 32 MiB or more, such as the activations of one layer, would otherwise be a mapping of its own, whose
    pages the kernel clears anew in every step: a quarter to a third of a step where the convolutions are fast.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    mallopt(_M_TOP_PAD, 64 << 20)
