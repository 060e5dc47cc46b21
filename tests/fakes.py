"""Fakes that implement the ports. No mocks: a fake behaves."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

import anyio


async def settle() -> None:
    """Let everybody run until all tasks wait for something. As `anyio.wait_all_tasks_blocked`, less its real sleep."""
    me, quiet = asyncio.current_task(), 0
    while quiet < 2:
        await asyncio.sleep(0)
        waiters = (task._fut_waiter for task in asyncio.all_tasks() if task is not me)  # type: ignore[attr-defined]
        quiet = quiet + 1 if all(w is not None and not w.done() for w in waiters) else 0


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
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, woken = heapq.heappop(self._sleepers)
            self._elapsed_s = max(self._elapsed_s, due)
            woken.set()
            await settle()
        self._elapsed_s = target
        await settle()
