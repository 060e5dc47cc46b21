"""Decides. How often a venue's callers ask, counted exactly: in no stretch of a rule's length more than its limit.

For fronts, which refuse what is too much, and for whoever wants to know how near to the limits the callers came.
Each instant is the end of a window; where a venue's own windows begin at fixed moments, it forgives more than this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

import msgspec


class Use(msgspec.Struct):
    """What became of one rule. `peak` is the most that was asked for in any window, refused requests not counted."""

    limit: int
    window_ms: int
    asked: int = 0
    peak: int = 0
    refused: int = 0


class Windows:
    """Of one venue. `uses` tells what happened by the name of the rule."""

    def __init__(self) -> None:
        self.uses: dict[str, Use] = {}
        self._taken: dict[tuple[str, Hashable], _Window] = {}

    def admit(self, rule: str, who: Hashable, limit: int, window_ms: int, now_ms: int, weight: int = 1) -> bool:
        """May `who` ask now? What is refused does not count."""
        use = self.uses.get(rule)
        if use is None:
            use = self.uses[rule] = Use(limit, window_ms)
        window = self._taken.get((rule, who))
        if window is None:
            window = self._taken[rule, who] = _Window()
        taken = window.taken
        while taken and now_ms - taken[0][0] >= window_ms:
            window.sum -= taken.popleft()[1]
        use.asked += weight
        if window.sum + weight > limit:
            use.refused += weight
            return False
        taken.append((now_ms, weight))
        window.sum += weight
        use.peak = max(use.peak, window.sum)
        return True


class _Window:
    __slots__ = ("sum", "taken")

    def __init__(self) -> None:
        self.taken: deque[tuple[int, int]] = deque()
        self.sum = 0
