"""Does. One run of the engine, which may end in the midst of anything: what is dead writes, sends and hears nothing."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable

import anyio
import sqlalchemy as sa

from engine.ledger import Writer
from engine.ledger.writer import CommitFailed, Entry, Outcome
from scheduler.heartbeat import Heartbeat


class Died(BaseException):
    """kill -9, here and now."""


class Life:
    """From a start of the engine to its stop or its death."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.dead = False
        self.scope = anyio.CancelScope()
        self.at_death: list[Callable[[], None]] = []
        self.due: dict[str, int] = {}
        """Crash points that are armed: its name -> at which pass it strikes."""

    def die(self) -> None:
        if self.dead:
            return
        self.dead = True
        for end in self.at_death:
            end()
        self.scope.cancel()

    def point(self, name: str) -> None:
        """A place where the power may fail."""
        left = self.due.get(name)
        if left is None or self.dead:
            return
        self.due[name] = left - 1
        if left <= 1:
            self.due.clear()
            self.struck(name)
            self.die()
            raise Died(name)

    def struck(self, name: str) -> None:
        """Told which point it was."""


class InlineWriter(Writer):
    """The ledger's writer without its thread: the same groups and transactions, each after a while of virtual time."""

    life: Life
    rng: random.Random
    noted: Callable[[str, str], None]
    trouble: Callable[[], str]
    """Why the disk fails now, or ""."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        return not self.life.dead

    def submit(self, entry: Entry) -> None:
        if self.life.dead:
            return
        super().submit(entry)
        self._arm()

    def _arm(self) -> None:
        if self._turn is not None or not self._queue:
            return
        if self._trouble:
            delay_s = self._retry_s
        elif self._ripe():
            delay_s = self._latency_s()
        else:
            delay_s = self._settings.group_wait_ms / 1000 + self._latency_s()
        self._turn = self._loop.call_later(delay_s, self._write_next)

    def _latency_s(self) -> float:
        draw = self.rng.random()
        return self.rng.uniform(0.1, 1.0) if draw < 0.002 else 0.0002 + 0.004 * draw

    def _write_next(self) -> None:
        self._turn = None
        if self.life.dead:
            return
        try:
            self._write(self._take_group())
        except Died:
            return
        self._arm()

    def _transact(self, group: list[Entry]) -> list[Outcome]:  # type: ignore[override]
        if why := self.trouble():
            if self.rng.random() < 0.3:  # the worst: COMMIT fails, and yet it is on the disk
                super()._transact(group)
                self.noted("commit", "told as failed")
                raise CommitFailed(why)
            full = sqlite3.OperationalError(why)
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise sa.exc.OperationalError("BEGIN", None, full)
        self.life.point("before commit")
        outcomes = super()._transact(group)
        self.noted("commit", f"{sum(e.size for e in group)}")
        self.life.point("after commit")
        return outcomes

    def close(self, limit_s: float) -> int:
        self._stopping = True
        if self._turn is not None:
            self._turn.cancel()
        try:
            while self._queue and not self.life.dead and not self._trouble:
                if not self._write(self._take_group()):
                    break
        except Died:
            pass
        self._leave()
        return 0 if self.life.dead else self._queued


class ClockHeartbeat(Heartbeat):
    """The timetable by our clock alone: APScheduler keeps real time and nothing else."""

    async def run(self) -> None:
        async with anyio.create_task_group() as runs:
            for entry in self._timetable:
                self._due_s[entry.name] = self._clock.monotonic_s() + entry.every_s
            while True:
                next_s = min(self._due_s.values())
                await self._clock.sleep(max(0.0, next_s - self._clock.monotonic_s()))
                for entry in self._timetable:
                    if self._due_s[entry.name] <= self._clock.monotonic_s() + 1e-6:
                        due_s = self._due_s[entry.name]
                        await self._begin(runs, entry)
                        if self._due_s[entry.name] == due_s:
                            # `_run` moves it on once its task runs; a skipped one never does.
                            await anyio.lowlevel.checkpoint()
                        if self._due_s[entry.name] == due_s:
                            self._due_s[entry.name] = due_s + entry.every_s


async def inline(work: Callable[..., object], *arguments: object) -> object:
    """What would block runs here and now."""
    await anyio.lowlevel.checkpoint()
    return work(*arguments)
