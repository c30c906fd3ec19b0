"""`emograph inspect NODE`: each property as one writes it in a graph file."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Annotated, Literal, NamedTuple

import pytest
from pydantic import Field, StringConstraints

from pipeline import Properties, Seconds, Sink, pad, registry
from pipeline.inspection import print_node
from pipeline.node import Words


class Colour(Enum):
    red = "r"
    blue = "b"


class Level(IntEnum):
    low = 1
    high = 5


class Place(NamedTuple):
    x: float
    y: float


class Shown(Sink):
    """Has a property of every kind."""

    class Properties(Properties):
        weights: dict[str, float] = Field(default_factory=lambda: {"a": 0.5})
        size: tuple[int, int] = (4, 6)
        sizes: list[tuple[int, int]] = Field(default_factory=list)
        places: list[Place] = Field(default_factory=list)
        marks: tuple[float, ...] | None = None
        colour: Colour = Colour.red
        level: Level | None = Level.high
        mode: Literal["fast", "exact"] = "fast"
        tag: str = Field("x", min_length=1, max_length=8, pattern="^[a-z]+$")
        short: Annotated[str, StringConstraints(max_length=3, pattern="b+")] = "b"
        step: int = Field(2, multiple_of=2, ge=2)
        some: Annotated[int, Field(ge=1)] | str = 1
        words: Words = Field([], description="of a language")
        wait: Seconds = Field(0.5, ge=0)
        must: bool

    sink = pad("ANY")

    def consume(self, buffer) -> None:  # type: ignore[no-untyped-def]
        pass


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "row",
    [
        "weights {str: float} {'a': 0.5}", "size [int, int] [4, 6]", "sizes list of [int, int] []", "marks list of float",
        "places list of [x, y] []",
        "colour r | b r", "level 1 | 5 5", "mode fast | exact fast",
        "tag str x (length >= 1, length <= 8, like ^[a-z]+$)", "short str b (length <= 3, like b+)",
        "step int 2 (>= 2, multiple of 2)", "some int | str 1", "words list of str [] of a language",
        "wait duration 0.5 s", "must bool required",
    ],
)  # fmt: skip
def test_properties_are_shown_as_one_writes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], row: str, terminal: bool
):
    found = registry.NodeType("shown", f"{__name__}:Shown", "tests")
    monkeypatch.setattr(registry, "node_types", lambda: {"shown": found})
    monkeypatch.setenv("COLUMNS", "200")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    print_node("shown", as_json=False)
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert row in rows
