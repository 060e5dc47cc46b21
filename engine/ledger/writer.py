"""Does. The one thread that writes: groups what waits into few durable commits, and outlives a failing disk.

Entries are taken in the order of their submission, save a claim, which goes first and alone. A group is one
transaction: first the facts of all its entries in one statement, then its jobs one after the other; so a job finds
every fact that was appended before it, and a watermark never moves before its facts are there. A group goes at once
when somebody waits for one of its jobs; facts and posted jobs alone linger a little for company.

A job that raises does not spoil its group: the group is rolled back and run again entry by entry, so that only this
job gets its exception. Therefore **jobs must be rerunnable**: nothing but statements on the given connection, and a
job that may run a second time after an uncertain commit (a posted one) must then change nothing: compare and set,
or insert once.

When the database itself fails, waiting writers are told at once (LedgerDown), facts and posted jobs are kept in
order and tried again until they are in.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog

from engine import crash
from engine.config import Ledger as Settings
from engine.ledger import quarantine, rows, tables
from engine.ledger.engines import writing
from engine.ledger.facts import FactRow
from engine.ledger.outage import is_outage
from scheduler.clock import Clock

log = structlog.get_logger()

Job = Callable[[sa.Connection], Any]

GROUP_FACTS = 500  # rows; above it a transaction would keep waiting writers too long
KEPT_DURATIONS = 1000
POSTS_SHARE = 1.2  # facts fill the queue first: claims, what became of orders, gaps and plans still find room


class LedgerDown(Exception):
    """The database fails. `may_be_written`: the commit itself failed, so that it may have reached the disk."""

    def __init__(self, trouble: str, *, may_be_written: bool = False) -> None:
        super().__init__(trouble)
        self.may_be_written = may_be_written


class LedgerFull(Exception):
    """The queue to the database has reached its limit. What was offered was not taken."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the writing goes. Durations are those of whole transactions."""

    ok: bool
    trouble: str  # "" while ok
    failing_since_ms: int | None
    full: bool
    queued: int  # facts and jobs not yet durable
    limit: int  # above three quarters of it connections are held back, above it nothing is taken
    oldest_wait_s: float  # age of the oldest of them
    commits: int
    last_commit_ms: float
    p99_commit_ms: float
    unwritable: int  # facts that the database refused for their content; they are in quarantine


class Entry:
    """What was submitted: fact rows, or one job with, maybe, somebody who waits for it."""

    __slots__ = ("at_s", "closes_group", "facts", "first", "future", "job", "size")

    def __init__(
        self,
        *,
        facts: Sequence[FactRow] = (),
        job: Job | None = None,
        future: asyncio.Future[Any] | None = None,
        closes_group: bool = False,
        first: bool = False,
    ) -> None:
        self.facts, self.job, self.future = facts, job, future
        self.closes_group, self.first = closes_group or first, first
        self.size = len(facts) if job is None else 1
        self.at_s = 0.0


Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class Writer:
    """Owns the writing connection, the queue in front of it and the thread between."""

    def __init__(self, url: str, settings: Settings, clock: Clock, *, retry_s: float) -> None:
        self._settings, self._clock, self._retry_s = settings, clock, retry_s
        self._engine = writing(url, busy_timeout_s=settings.busy_timeout_s)
        self._connection: sa.Connection | None = self._engine.connect()
        self._thread = threading.Thread(target=self._live, name="ledger-writer", daemon=True)
        self._changed = threading.Condition()
        # guarded by _changed:
        self._queue: deque[Entry] = deque()
        self._queued = 0
        self._awaited = 0  # entries in the queue that somebody waits for
        self._idle = self._lingering = self._stopping = False
        self._group_since_s: float | None = None  # when the oldest entry of the group at work was submitted
        self._trouble = ""
        self._failing_since_ms: int | None = None
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._durations: deque[float] = deque(maxlen=KEPT_DURATIONS)
        self.commits = 0
        self._unwritable = 0

    # ---- from any thread

    def start(self) -> None:
        self._thread.start()

    def submit(self, entry: Entry) -> None:
        """Queue it. Raises LedgerFull above the limit, and LedgerDown for an awaited job while the database fails."""
        entry.at_s = self._clock.monotonic_s()
        with self._changed:
            if self._stopping:
                raise LedgerDown("the ledger is closed")
            if entry.future is not None and self._trouble:
                raise LedgerDown(self._trouble)
            posted = entry.job is not None and entry.future is None
            limit = self._settings.queue_limit * (POSTS_SHARE if posted or entry.first else 1)
            if self._queued + entry.size > limit:
                raise LedgerFull(f"{self._queued} facts and jobs wait for the database")
            if entry.first:
                self._queue.appendleft(entry)
            else:
                self._queue.append(entry)
            self._queued += entry.size
            self._awaited += entry.future is not None
            if self._idle or (self._lingering and self._ripe()):
                self._changed.notify()

    @property
    def full(self) -> bool:
        return self._queued * 4 >= self._settings.queue_limit * 3

    def tell_room(self, future: asyncio.Future[None]) -> None:
        """Resolve `future` (from its own loop or later) once the queue is at most half full."""
        with self._changed:
            if self._stopping or self._has_room():
                future.set_result(None)
            else:
                self._waiting_for_room.append(future)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def health(self) -> Health:
        with self._changed:
            durations = sorted(self._durations)
            since_s = self._group_since_s
            if since_s is None and self._queue:
                since_s = self._queue[0].at_s
            return Health(
                ok=not self._trouble,
                trouble=self._trouble,
                failing_since_ms=self._failing_since_ms,
                full=self.full,
                queued=self._queued,
                limit=self._settings.queue_limit,
                oldest_wait_s=0.0 if since_s is None else self._clock.monotonic_s() - since_s,
                commits=self.commits,
                last_commit_ms=self._durations[-1] if durations else 0.0,
                p99_commit_ms=durations[len(durations) * 99 // 100] if durations else 0.0,
                unwritable=self._unwritable,
            )

    def close(self, limit_s: float) -> int:
        """Write what waits, then stop. Returns how many facts and jobs could not be written within the limit."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(limit_s)
        return self._queued

    # ---- the thread

    def _live(self) -> None:
        try:
            while group := self._gather():
                if not self._write(group) and self._stopping:
                    break
        except BaseException as error:
            self._hold([], f"the ledger's writer died: {error!r}")
            raise
        finally:
            self._leave()

    def _gather(self) -> list[Entry]:
        """The next group; empty when it is time to stop."""
        with self._changed:
            if self._trouble:
                self._changed.wait_for(lambda: self._stopping, self._retry_s)
            elif not self._queue:
                self._idle = True
                self._changed.wait_for(lambda: self._queue or self._stopping)
                self._idle = False
            if not self._trouble and not self._ripe():
                self._lingering = True
                self._changed.wait_for(self._ripe, self._settings.group_wait_ms / 1000)
                self._lingering = False
            return self._take_group()

    def _take_group(self) -> list[Entry]:
        """What goes into one transaction now."""
        if self._stopping and not self._queue:
            return []
        group, facts, jobs = list[Entry](), 0, 0
        if self._trouble:  # a real write shows whether the database is well again
            group.append(_probe(self._clock.now_ms()))
        while self._queue and facts < GROUP_FACTS and jobs < self._settings.group_jobs:
            entry = self._queue.popleft()
            group.append(entry)
            self._awaited -= entry.future is not None
            facts += len(entry.facts)
            jobs += entry.job is not None
            if entry.closes_group:
                break
        self._group_since_s = group[0].at_s
        return group

    def _ripe(self) -> bool:
        """Is there a reason to commit without waiting for more?"""
        return bool(self._awaited or self._queued >= GROUP_FACTS or self._stopping)

    def _write(self, group: list[Entry]) -> bool:
        """Commit the group; each entry by itself when one of them is bad; hold on to it while the database fails."""
        try:
            self._told(group, self._transact(group))
            return True
        except Exception as error:
            if is_trouble(error):
                self._hold(group, _named(error), may_be_written=isinstance(error, CommitFailed))
                return False
        for position, entry in enumerate(group):
            try:
                self._told([entry], self._transact_alone(entry))
            except Exception as error:
                self._hold(group[position:], _named(error), may_be_written=isinstance(error, CommitFailed))
                return False
        return True

    def _transact(self, group: Sequence[Entry]) -> list[Outcome]:
        """One transaction. Raises what a statement or a job raised, after rolling back, or CommitFailed."""
        started_s = self._clock.monotonic_s()
        if self._connection is None:
            self._connection = self._engine.connect()
        connection, outcomes = self._connection, list[Outcome]()
        transaction = connection.begin()
        try:
            facts = [row for entry in group for row in entry.facts]
            rows.put(connection, tables.fact, facts, once=True)
            if facts:
                crash.point("ledger-facts-written")
            for entry in group:
                if entry.job is None or (entry.future is not None and entry.future.cancelled()):
                    continue
                value = entry.job(connection)
                if entry.future is not None:
                    outcomes.append((entry.future, value, None))
        except BaseException:
            with suppress(Exception):  # what went wrong first is what is told
                transaction.rollback()
            raise
        crash.point("ledger-before-commit")
        try:
            transaction.commit()
        except Exception as error:
            raise CommitFailed(_named(error)) from error
        crash.point("ledger-after-commit")
        with self._changed:
            self.commits += 1
            self._durations.append((self._clock.monotonic_s() - started_s) * 1000)
        return outcomes

    def _transact_alone(self, entry: Entry) -> list[Outcome]:
        """One entry, when its group did not go. Raises only for a failing database."""
        try:
            return self._transact([entry])
        except Exception as error:
            if is_trouble(error):
                raise
            if entry.future is not None:
                return [(entry.future, None, error)]
            if entry.job is not None:
                log.error("ledger_job_failed", job=repr(entry.job), error=_named(error), exc_info=error)
                return []
        for row in entry.facts:
            try:
                self._transact([Entry(facts=[row])])
            except Exception as error:
                if is_trouble(error):
                    raise
                self._refuse(row, error)
        return []

    def _refuse(self, row: FactRow, error: Exception) -> None:
        """The database will not have this row whatever happens; it must not stand in the way of the others."""
        log.error("ledger_fact_unwritable", account=row[0], kind=row[1], error=_named(error))
        with self._changed:
            self._unwritable += 1
        reason, frame = f"unwritable fact: {_named(error)}", repr(row).encode("utf-8", "backslashreplace")
        try:
            self._transact([Entry(job=lambda c: quarantine.put(c, str(row[7]), str(row[0]), 0, reason, frame))])
        except Exception as second:
            if is_trouble(second):
                raise
            log.error("ledger_fact_lost", fact=repr(row), error=_named(second))

    def _told(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        """They are durable (or refused for their own fault): count them out and tell who waits."""
        with self._changed:
            self._queued -= sum(entry.size for entry in entries)
            self._group_since_s = None
            if self._trouble:
                log.warning("ledger_recovered", after=self._trouble)
            self._trouble, self._failing_since_ms = "", None
            if self._waiting_for_room and self._has_room():
                outcomes = [*outcomes, *((future, None, None) for future in self._waiting_for_room)]
                self._waiting_for_room.clear()
        _tell(outcomes)

    def _hold(self, entries: Sequence[Entry], trouble: str, *, may_be_written: bool = False) -> None:
        """The database fails: keep facts and posted jobs in order, let nobody wait."""
        with self._changed:
            if trouble != self._trouble:  # once, not at each try
                log.error("ledger_down", trouble=trouble, queued=self._queued)
            outcomes: list[Outcome] = [
                (entry.future, None, LedgerDown(trouble, may_be_written=may_be_written))
                for entry in entries
                if entry.future is not None
            ]
            outcomes += [(entry.future, None, LedgerDown(trouble)) for entry in self._queue if entry.future is not None]
            kept = [entry for entry in (*entries, *self._queue) if entry.future is None and entry.size]
            self._queue = deque(kept)
            self._queued, self._awaited = sum(entry.size for entry in kept), 0
            self._group_since_s = None
            self._trouble = trouble
            if self._failing_since_ms is None:
                self._failing_since_ms = self._clock.now_ms()
        self._disconnect()
        _tell(outcomes)

    def _has_room(self) -> bool:
        return self._queued * 2 <= self._settings.queue_limit

    def _disconnect(self) -> None:
        """The next transaction starts on a new connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.invalidate()
            with suppress(Exception):
                connection.close()

    def _leave(self) -> None:
        with self._changed:
            outcomes: list[Outcome] = [(future, None, None) for future in self._waiting_for_room]
            self._waiting_for_room.clear()
        _tell(outcomes)
        if self._connection is not None and self._connection.dialect.name == "sqlite":
            with suppress(Exception):  # the next opening does it as well
                self._connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._disconnect()
        self._engine.dispose()


class CommitFailed(Exception):
    """COMMIT itself failed: nobody knows whether it reached the disk."""


def is_trouble(error: Exception) -> bool:
    return isinstance(error, CommitFailed) or is_outage(error)


def _named(error: Exception) -> str:
    origin = getattr(error, "orig", None) or error
    return f"{type(origin).__name__}: {origin}".strip()


def try_to_write(url: str, busy_timeout_s: float, now_ms: int) -> None:
    """Raises what the database raises: an engine that cannot write is better not started."""
    engine = writing(url, busy_timeout_s=busy_timeout_s)
    try:
        with engine.begin() as connection:
            _write_least(connection, now_ms)
    finally:
        engine.dispose()


def _write_least(connection: sa.Connection, now_ms: int) -> None:
    """Whatever our clock says: a watermark would not move when it was set back, and nothing would be tried."""
    told = {"account_id": "", "stream": "writer", "watermark_ms": now_ms, "updated_at_ms": now_ms}
    rows.upsert(connection, tables.cursor, told)


def _probe(now_ms: int) -> Entry:
    """The smallest durable write; it counts for nothing in the queue."""
    probe = Entry(job=lambda connection: _write_least(connection, now_ms))
    probe.size = 0
    return probe


def _tell(outcomes: Sequence[Outcome]) -> None:
    """One call into each loop, however many wait there."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].get_loop(), []).append(outcome)
    for loop, told in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, told)


def _resolve(outcomes: Sequence[Outcome]) -> None:
    for future, value, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
