"""Does. The ledger's front door: durable writes, cheap appends, short reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import anyio
import sqlalchemy as sa

from engine.config import Ledger as Settings
from engine.core.facts import AccountFact
from engine.ledger import gaps
from engine.ledger.engines import reading
from engine.ledger.facts import FactRow
from engine.ledger.upgrade import upgrade
from engine.ledger.writer import Entry, Health, Writer, try_to_write
from scheduler.clock import Clock

T = TypeVar("T")

RETRY_S = 1.0  # how often a failing database is tried again


class Ledger:
    """Everything that the engine records. One per process and database (see `own`); used from the event loop."""

    def __init__(
        self, url: str, settings: Settings, clock: Clock, *, retry_s: float = RETRY_S, writer: type[Writer] = Writer
    ) -> None:
        self._reading = reading(url, busy_timeout_s=settings.busy_timeout_s)
        self._writer = writer(url, settings, clock, retry_s=retry_s)

    @classmethod
    def open(
        cls, url: str, settings: Settings, clock: Clock, *, retry_s: float = RETRY_S, writer: type[Writer] = Writer
    ) -> Ledger:
        """Bring the schema up to date, try to write, start the writer. Raises SchemaTooNew or what the database raises.

        `writer` is another one than the thread where threads are not wanted: in a simulation.
        """
        upgrade(url)
        try_to_write(url, settings.busy_timeout_s, clock.now_ms())
        ledger = cls(url, settings, clock, retry_s=retry_s, writer=writer)
        ledger._writer.start()
        return ledger

    async def write(
        self,
        job: Callable[[sa.Connection], T],
        *,
        closes_group: bool = False,
        first: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> T:
        """Run `job` in a transaction; what it returned, once that is durable.

        Raises what the job raised (then nothing of it was written), LedgerDown when the database fails, LedgerFull.
        `job` runs on the writer's thread, after everything that was appended or posted before, and may be run more
        than once until it is committed once. With `closes_group` its transaction holds nothing that is appended
        later. With `first` it passes everything that waits, alone in its transaction: for what rests on nothing that
        is still in the queue and must not wait for thousands of facts. A caller that is cancelled does not know
        whether it was written. `meanwhile` is called while the database is at work; it must not raise.
        """
        future = asyncio.get_running_loop().create_future()
        self._writer.submit(Entry(job=job, future=future, closes_group=closes_group, first=first))
        if meanwhile is not None:
            meanwhile()
        written: T = await future
        return written

    def post(self, job: Callable[[sa.Connection], object], *, closes_group: bool = False) -> None:
        """Queue `job`; nobody waits, it is kept through an outage. Raises LedgerFull.

        It may run again after a commit of which nobody knows how it ended, so it must change nothing the second
        time. With `closes_group` its transaction holds nothing that is appended later.
        """
        self._writer.submit(Entry(job=job, closes_group=closes_group))

    def append(self, facts: Sequence[FactRow]) -> None:
        """Queue facts; those already known are passed over. They are kept through an outage. Raises LedgerFull."""
        if facts:
            self._writer.submit(Entry(facts=facts))

    def unrecorded(self, account_id: str, facts: Sequence[AccountFact]) -> list[AccountFact]:
        """Those of these facts that are not durable."""
        with self.read() as connection:
            return gaps.unrecorded(connection, account_id, facts)

    @property
    def full(self) -> bool:
        """Three quarters of the queue are taken: whoever brings more should wait for `room` first."""
        return self._writer.full

    async def room(self) -> None:
        """Wait until at most half of the queue is taken (or the ledger is closed)."""
        future = asyncio.get_running_loop().create_future()
        self._writer.tell_room(future)
        await future

    @property
    def alive(self) -> bool:
        """False once the writing thread is gone: only a new process helps."""
        return self._writer.alive

    def health(self) -> Health:
        return self._writer.health()

    @property
    def commits(self) -> int:
        """How many transactions have become durable since the opening."""
        return self._writer.commits

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A short look at what is durable: one consistent state, nothing can be changed through it."""
        with self._reading.connect() as connection:
            yield connection

    def close(self, limit_s: float = 10.0) -> int:
        """Write what waits, then close; blocks. Returns how many facts and jobs could not be written."""
        left = self._writer.close(limit_s)
        self._reading.dispose()
        return left

    async def stop(self, limit_s: float = 10.0) -> int:
        """`close` without holding the loop."""
        return await anyio.to_thread.run_sync(self.close, limit_s)


@contextmanager
def reader(url: str, *, busy_timeout_s: float = 5.0) -> Iterator[sa.Connection]:
    """One read connection without an engine running: for the CLI."""
    engine = reading(url, busy_timeout_s=busy_timeout_s)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
