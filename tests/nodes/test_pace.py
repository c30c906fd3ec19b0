"""The usual step between frames, whatever single ones there are."""

from __future__ import annotations

import pytest

from nodes.pace import Pace


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ([], 0),
        ([5], 0),
        ([5, 7], 2),
        ([0, 1, 101], 1),  # one gap
        ([0, 1, 2, 102], 1),
        ([0, 5, 10, 15, 15.1, 20, 25], 5),  # two that came together
        ([0, 1, 2, 3, 4, 5, 105, 205, 305], 100),  # it has become slow
        ([0, 1, 1, 0, 1], 1),  # times that do not rise
    ],
)
def test_step(times: list[float], step: float) -> None:
    pace = Pace()
    for at in times:
        pace.frame(at)
    assert pace.step == step
