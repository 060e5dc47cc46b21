"""Decides. How long to wait before the next attempt: exponential, with full jitter."""

from __future__ import annotations

_DOUBLINGS = 30  # beyond it every sensible ceiling is reached; keeps the power small


def delay_s(attempts: int, *, first_s: float, longest_s: float, chance: float) -> float:
    """Seconds to wait after `attempts` attempts in a row came to nothing.

    The ceiling is `first_s`, then doubles up to `longest_s`; `chance` in [0, 1] picks the point below it. The whole
    range is used, not its upper half: a thousand links that were cut together must not come back together.
    """
    assert attempts >= 1, "the first attempt needs no delay"
    assert 0.0 <= chance <= 1.0, "chance is a share of the ceiling"
    ceiling_s = min(longest_s, first_s * 2 ** min(attempts - 1, _DOUBLINGS))
    return float(ceiling_s * chance)
