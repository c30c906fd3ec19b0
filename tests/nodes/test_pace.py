"""The usual step between frames: quick to learn that it is shorter, slow to believe that it is longer."""

from __future__ import annotations

import pytest

from nodes.pace import Pace


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ([], 0),
        ([5], 0),
        ([5, 7], 2),
        ([0, 1, 2, 2.25], 0.25),
        ([0, 1, 2, 102], 2),  # one gap
        ([0, 1, 101, 201, 301], 8),  # it has become slow
        ([0, 1, 1, 0, 1], 1),  # times that do not rise
    ],
)
def test_step(times: list[float], step: float) -> None:
    pace = Pace()
    for at in times:
        pace.frame(at)
    assert pace.step == step
