"""Does. Virtual time: an event loop whose clock jumps to the next timer when nobody has anything to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

_LIVELOCK = 200_000  # turns of the loop within one instant: somebody runs in circles


class Stuck(BaseException):
    """Time cannot go on: everybody waits for nothing, or somebody never waits."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeping costs nothing here. Threads and sockets do not exist."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._turns = 0
        super().__init__(_NoSockets(self))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now_s

    def pass_time(self, timeout_s: float | None) -> None:
        """Called by the loop in each turn: for so long nobody has anything to do."""
        if timeout_s is None:
            raise Stuck("everybody waits, and nobody keeps time")
        if timeout_s <= 0:
            self._turns += 1
            if self._turns > _LIVELOCK:
                raise Stuck(f"{_LIVELOCK} turns within one instant, {self.now_s:.3f}")
            return
        self._turns = 0
        due_s = self._scheduled[0].when()  # type: ignore[attr-defined]
        self.now_s = max(self.now_s, due_s)

    # Who would wake the loop from outside? Nobody: there are no threads.

    def _make_self_pipe(self) -> None: ...

    def _close_self_pipe(self) -> None: ...

    def _write_to_self(self) -> None: ...


class _NoSockets(selectors.BaseSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        self._loop.pass_time(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        raise NotImplementedError("no sockets in a simulation")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise NotImplementedError("no sockets in a simulation")

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def close(self) -> None: ...


class VirtualClock:
    """The port `scheduler.clock.Clock` on a virtual loop. The wall clock can be set; durations never jump."""

    def __init__(self, loop: VirtualLoop, started_ms: int = 1_767_225_600_000) -> None:
        self._loop, self._started_ms, self.off_ms = loop, started_ms, 0

    def now_ms(self) -> int:
        return self.true_ms() + self.off_ms

    def true_ms(self) -> int:
        """What the venue's clock says."""
        return self._started_ms + round((self._loop.now_s - 1000.0) * 1000)

    def monotonic_s(self) -> float:
        return self._loop.now_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
