"""Fakes that implement the ports. No mocks: a fake behaves."""

from __future__ import annotations

import heapq
from itertools import count

import anyio


class FakeClock:
    """A clock that stands still until `advance` moves it; sleepers wake in the order of their deadlines."""

    def __init__(self, now_ms: int = 1_767_225_600_000) -> None:
        self._started_ms = now_ms
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._order = count()

    def now_ms(self) -> int:
        return self._started_ms + round(self._elapsed_s * 1000)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._order), woken))
        await woken.wait()

    def shift(self, milliseconds: int) -> None:
        """The wall clock jumps; durations are not touched."""
        self._started_ms += milliseconds

    async def advance(self, seconds: float) -> None:
        """Move on, waking each sleeper at its own moment and letting everybody run in between."""
        target = self._elapsed_s + seconds
        await anyio.wait_all_tasks_blocked()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, woken = heapq.heappop(self._sleepers)
            self._elapsed_s = max(self._elapsed_s, due)
            woken.set()
            await anyio.wait_all_tasks_blocked()
        self._elapsed_s = target
        await anyio.wait_all_tasks_blocked()
