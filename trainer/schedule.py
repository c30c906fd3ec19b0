"""The one-cycle schedule as a pure function of the step, so that a resumed run needs no state of it."""

from __future__ import annotations

import math

START_DIVISOR, END_DIVISOR = 25.0, 25.0e4
MOMENTUM_HIGH, MOMENTUM_LOW = 0.95, 0.85


def one_cycle(step: int, steps: int, peak: float, warmup: float) -> tuple[float, float]:
    """(learning rate, momentum) of a step counted from 0.

    The same curve as torch's OneCycleLR with its defaults: cosine from peak / 25 up to the peak during the
    share `warmup`, then down to peak / 250000; momentum (Adam's first beta) runs the other way between .95
    and .85. Source: L. Smith and N. Topin, "Super-Convergence", 2017.
    """
    up = max(warmup * steps - 1, 0)
    if step <= up:
        low, phase = peak / START_DIVISOR, step / up if up else 1.0
        return _cosine(low, peak, phase), _cosine(MOMENTUM_HIGH, MOMENTUM_LOW, phase)
    phase = (step - up) / (steps - 1 - up)
    return _cosine(peak, peak / END_DIVISOR, phase), _cosine(MOMENTUM_LOW, MOMENTUM_HIGH, phase)


def _cosine(start: float, end: float, phase: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * phase))
