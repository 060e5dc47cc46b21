"""Does. Prices that no stream tells, asked for place by place; none of them waits for another."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import anyio

from scheduler.clock import Clock

Place = tuple[str, str]  # venue, environment

_PATIENCE_S = 5.0  # of people and plans: what is not told by then is old, and refused where it matters


class PriceRounds:
    """A place that answers late, or never, makes nobody's prices old but its own."""

    def __init__(
        self,
        *,
        clock: Clock,
        read: Callable[[Place], Coroutine[Any, Any, None]],
        every_s: float,
        start_soon: Callable[[Callable[..., Coroutine[Any, Any, None]], Place], None],
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._clock, self._read, self._every_s, self._start_soon = clock, read, every_s, start_soon
        self._patience_s = patience_s
        self._begun_s: dict[Place, float] = {}
        self._under_way = set[Place]()

    def begin(self, places: Iterable[Place]) -> None:
        """Whichever is due, and is not being asked already."""
        now_s = self._clock.monotonic_s()
        for place in places:
            if place not in self._under_way and now_s - self._begun_s.get(place, -math.inf) >= self._every_s:
                self._begun_s[place] = now_s
                self._under_way.add(place)
                self._start_soon(self._ask, place)

    async def _ask(self, place: Place) -> None:
        try:
            with anyio.move_on_after(self._every_s):
                await self._read(place)
        finally:
            self._under_way.discard(place)

    async def now(self, places: Iterable[Place]) -> None:
        """All of these at once; comes back when they have answered, or when patience ends."""
        with anyio.move_on_after(self._patience_s):
            async with anyio.create_task_group() as group:
                for place in places:
                    group.start_soon(self._read, place)
