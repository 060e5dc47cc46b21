"""Does. Tells the time: wall time for stamps, monotonic time for durations, and sleeps.

Everything that waits gets a `Clock` as an argument, so that a test or a simulation moves the clock instead of
sleeping.
"""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """What the engine asks of time."""

    def now_ms(self) -> int:
        """Wall time, milliseconds since 1970 in UTC. May jump when the machine's clock is set."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Let others run for `seconds`."""


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
