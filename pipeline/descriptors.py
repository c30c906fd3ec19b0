"""Open files: as many as a graph needs, or a line that says how many that is, before anything starts."""

from __future__ import annotations

import resource

from pipeline.errors import UserError

_BASE = 40
"""Of a process that does next to nothing, with what libraries open for a moment."""
_CEILING = 1 << 16
"""More is asked for only by a graph that needs it."""


def provide(processes: int, cameras: int) -> None:
    """Raise this process's limit of open files, which the workers inherit, as far as its user may.

    Raises UserError when that is not enough for the launcher (a pipe, a connection and a pidfd for each process, a
    ring for each camera) or for a node that all cameras reach (its ring, link and way home for each).
    """
    needed = _BASE + max(3 * processes + cameras, 5 * cameras)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    wanted = max(needed, _CEILING) if unlimited else min(hard, max(needed, _CEILING))
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if not unlimited and hard < needed:
        raise UserError(
            f"{processes} processes and {cameras} cameras need about {needed} open files; the limit here is {hard} "
            f"(`ulimit -n`)"
        )
