"""The property type of a frame rate that may be 0: `emograph launch "testsrc fps=0 ! fakesink"`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

SLOWEST = 0.001
"""Frames/s: one in a quarter of an hour. A slower rate is a mistake, and its times soon pass all bounds."""


def _in_bounds(fps: float) -> float:
    if 0 < fps < SLOWEST:
        raise ValueError(f"the slowest rate is {SLOWEST:g} frames/s")
    return fps


RateOrZero = Annotated[float, AfterValidator(_in_bounds)]
"""Property type: frames/s from `SLOWEST` up, or 0, which has a meaning of its own."""
