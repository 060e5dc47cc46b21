from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import anyio
import psycopg
import pytest
import sqlalchemy as sa

from engine.config import Ledger as Settings
from engine.ledger import Ledger, LedgerDown, LedgerFull, quarantine
from engine.ledger.gaps import move_watermark, watermark
from engine.ledger.tables import fact
from tests.fakes import FakeClock
from tests.ledger.samples import as_row, fill, fill_rows

pytestmark = pytest.mark.anyio


def count_facts(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(fact)) or 0


def durable_facts(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return count_facts(connection)


async def recovered(ledger: Ledger) -> None:
    """Until the writer has tried again and everything is in: real time, because a real database is waited for."""
    with anyio.fail_after(10):
        while ledger.health().queued or not ledger.health().ok:  # noqa: ASYNC110
            await anyio.sleep(0.005)


class Gate:
    """A posted job that holds the writer's thread until it is opened: what is submitted meanwhile forms one group."""

    def __init__(self, ledger: Ledger) -> None:
        self._reached, self._open = threading.Event(), threading.Event()
        ledger.post(self._hold)

    def _hold(self, connection: sa.Connection) -> None:
        self._reached.set()
        assert self._open.wait(10)

    async def reached(self) -> None:
        assert await anyio.to_thread.run_sync(self._reached.wait, 10)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def gate(ledger: Ledger) -> AsyncIterator[Gate]:
    made = Gate(ledger)
    await made.reached()
    yield made
    made.open()


async def test_what_write_returned_is_durable(ledger: Ledger) -> None:
    assert await ledger.write(lambda connection: move_watermark(connection, "ann", "history", 5, 6) or "done") == "done"
    with ledger.read() as connection:
        assert watermark(connection, "ann", "history") == 5


async def test_a_fact_is_stored_once_however_often_it_comes(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.append(fill_rows(range(10)))
    assert await ledger.write(count_facts) == 10


async def test_a_fill_heard_without_its_fee_does_not_keep_the_fee_out(ledger: Ledger) -> None:
    ledger.append([as_row(fill(1, fee=None)), as_row(fill(1)), as_row(fill(1, fee=None))])
    assert await ledger.write(count_facts) == 2


async def test_a_job_finds_every_fact_appended_before_it(ledger: Ledger) -> None:
    seen: list[int] = []
    for number in range(50):
        ledger.append(fill_rows(range(number, number + 1)))
        ledger.post(lambda connection: seen.append(count_facts(connection)))
    await ledger.write(lambda connection: None)
    assert len(seen) == 50
    assert all(found >= number + 1 for number, found in enumerate(seen))


async def test_a_job_that_closes_its_group_finds_nothing_appended_later(ledger: Ledger, gate: Gate) -> None:
    seen: list[int] = []
    ledger.append(fill_rows(range(3)))
    ledger.post(lambda connection: seen.append(count_facts(connection)), closes_group=True)
    ledger.append(fill_rows(range(3, 9)))
    gate.open()
    assert await ledger.write(count_facts) == 9
    assert seen == [3]


async def test_a_job_that_goes_first_passes_what_waits_and_is_alone_in_its_commit(ledger: Ledger, gate: Gate) -> None:
    ledger.append(fill_rows(range(10)))
    found: list[int] = []

    async def go_first() -> None:
        found.append(await ledger.write(count_facts, first=True))

    async with anyio.create_task_group() as group:
        group.start_soon(go_first)
        await anyio.lowlevel.checkpoint()
        gate.open()
    assert found == [0]
    assert await ledger.write(count_facts) == 10


async def test_a_group_is_one_commit(ledger: Ledger, gate: Gate) -> None:
    before = ledger.commits
    for number in range(40):
        ledger.append(fill_rows(range(number, number + 1)))
        ledger.post(lambda connection: None)
    async with anyio.create_task_group() as group:
        group.start_soon(ledger.write, lambda connection: None)
        group.start_soon(ledger.write, lambda connection: None)
        await anyio.wait_all_tasks_blocked()
        gate.open()
    assert ledger.commits == before + 2, "the gate's and one for everything that waited"


async def test_a_job_that_raises_spoils_nothing_for_its_group(ledger: Ledger, gate: Gate) -> None:
    results: dict[str, object] = {}

    async def write(name: str, job: object) -> None:
        try:
            results[name] = await ledger.write(job)  # type: ignore[arg-type]
        except (ZeroDivisionError, sa.exc.IntegrityError) as error:
            results[name] = type(error).__name__

    def bad(connection: sa.Connection) -> None:
        move_watermark(connection, "bad", "history", 1, 1)
        raise ZeroDivisionError

    def twice(connection: sa.Connection) -> None:
        connection.execute(sa.insert(fact).values(**_fact("same")))
        connection.execute(sa.insert(fact).values(**_fact("same")))

    ledger.append(fill_rows(range(5)))
    async with anyio.create_task_group() as group:
        group.start_soon(write, "first", lambda c: move_watermark(c, "ann", "history", 5, 6) or 1)
        group.start_soon(write, "bad", bad)
        group.start_soon(write, "twice", twice)
        group.start_soon(write, "last", lambda c: move_watermark(c, "bob", "history", 5, 6) or 2)
        await anyio.wait_all_tasks_blocked()
        gate.open()
    assert results == {"first": 1, "bad": "ZeroDivisionError", "twice": "IntegrityError", "last": 2}
    with ledger.read() as connection:
        assert [watermark(connection, who, "history") for who in ("ann", "bob", "bad")] == [5, 5, None]
        assert count_facts(connection) == 5
    assert ledger.health().ok


def _fact(key: str) -> dict[str, object]:
    names = ("account_id", "kind", "key", "instrument", "at_ms", "received_at_ms", "source", "connection_key", "body")
    return dict(zip(names, ("ann", "order", key, "", 1, 1, "stream", "c", "{}"), strict=True))


async def test_a_posted_job_that_raises_is_passed_over(ledger: Ledger) -> None:
    ledger.append(fill_rows(range(2)))
    ledger.post(lambda connection: 1 / 0)
    ledger.append(fill_rows(range(2, 4)))
    assert await ledger.write(count_facts) == 4
    assert ledger.health().queued == 0


async def test_a_fact_the_database_refuses_goes_into_quarantine_and_the_others_in(ledger: Ledger) -> None:
    bad = (*as_row(fill(7))[:8], None)
    ledger.append([*fill_rows(range(3)), bad, *fill_rows(range(3, 5))])  # type: ignore[list-item]
    assert await ledger.write(count_facts) == 5
    assert ledger.health().unwritable == 1
    with ledger.read() as connection:
        assert "unwritable" in quarantine.newest(connection)[0].reason


async def test_a_cancelled_writer_withdraws_what_was_not_begun(ledger: Ledger, gate: Gate) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(ledger.write, lambda c: move_watermark(c, "ann", "history", 5, 6))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    gate.open()
    assert await ledger.write(lambda connection: watermark(connection, "ann", "history")) is None


async def test_health_tells_what_waits_and_for_how_long(ledger: Ledger, gate: Gate, clock: FakeClock) -> None:
    ledger.append(fill_rows(range(7)))
    await clock.advance(3)
    health = ledger.health()
    assert (health.ok, health.queued, health.oldest_wait_s) == (True, 8, 3)
    gate.open()
    await ledger.write(lambda connection: None)
    health = ledger.health()
    assert (health.queued, health.oldest_wait_s, health.commits) == (0, 0, ledger.commits)


# ---- limits


@pytest.fixture
async def small(url: str, clock: FakeClock) -> AsyncIterator[Ledger]:
    opened = Ledger.open(url, Settings(queue_limit=1000), clock)
    yield opened
    await opened.stop()


async def test_the_queue_is_bounded_and_says_so_before_it_is_full(small: Ledger) -> None:
    gate = Gate(small)
    await gate.reached()
    small.append(fill_rows(range(700)))
    assert not small.full
    small.append(fill_rows(range(700, 750)))
    assert small.full
    small.append(fill_rows(range(750, 999)))
    with pytest.raises(LedgerFull):
        small.append(fill_rows(range(999, 1001)))
    with pytest.raises(LedgerFull):
        await small.write(lambda connection: None)
    assert small.health().limit == 1000
    for _ in range(200):  # what became of orders still finds room, and that has a limit, too
        small.post(lambda connection: None)
    with pytest.raises(LedgerFull):
        small.post(lambda connection: None)
    async with anyio.create_task_group() as group:
        group.start_soon(small.room)
        await anyio.wait_all_tasks_blocked()
        gate.open()
    assert not small.full
    assert await small.write(count_facts) == 999


async def test_room_is_there_at_once_when_the_queue_is_short(ledger: Ledger) -> None:
    with anyio.fail_after(1):
        await ledger.room()


async def test_stopping_writes_what_waits_and_takes_nothing_more(url: str, clock: FakeClock) -> None:
    ledger = Ledger.open(url, Settings(group_wait_ms=10_000), clock)
    ledger.append(fill_rows(range(100)))
    assert await ledger.stop() == 0
    with pytest.raises(LedgerDown, match="closed"):
        ledger.append(fill_rows(range(1)))
    again = Ledger.open(url, Settings(), clock)
    assert durable_facts(again) == 100
    await again.stop()


# ---- a database that fails


class Obstacle:
    """Another connection that keeps what the writer needs; let go, the database is well again."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        self._connection = self._engine.connect()
        if url.startswith("sqlite"):
            self._connection.connection.driver_connection.isolation_level = None  # type: ignore[union-attr]
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            self._connection.exec_driver_sql("LOCK TABLE fact, cursor IN ACCESS EXCLUSIVE MODE")

    def remove(self) -> None:
        self._connection.rollback()
        self._connection.close()
        self._engine.dispose()


async def test_while_the_database_is_locked_writers_are_told_and_facts_are_kept(ledger: Ledger, url: str) -> None:
    order: list[str] = []
    obstacle = Obstacle(url)
    ledger.append(fill_rows(range(10)))
    ledger.post(lambda connection: order.append(f"first {count_facts(connection)}"))
    with pytest.raises(LedgerDown) as down:
        await ledger.write(lambda connection: order.append("never"))
    assert not down.value.may_be_written
    ledger.append(fill_rows(range(10, 20)))
    ledger.post(lambda connection: order.append("second"))
    health = ledger.health()
    assert not health.ok
    assert "lock" in health.trouble
    assert (health.queued, health.failing_since_ms) == (22, 1_767_225_600_000)
    with pytest.raises(LedgerDown):
        await ledger.write(lambda connection: order.append("never"))
    obstacle.remove()
    await recovered(ledger)
    assert durable_facts(ledger) == 20
    assert [o for o in order if o in ("second", "never")] == ["second"]
    assert order[-1] == "second"
    assert ledger.health().failing_since_ms is None


async def test_it_recovers_by_itself_with_nothing_to_write(ledger: Ledger, url: str) -> None:
    obstacle = Obstacle(url)
    with pytest.raises(LedgerDown):
        await ledger.write(count_facts_for_update)
    assert not ledger.health().ok
    obstacle.remove()
    await recovered(ledger)
    assert await ledger.write(count_facts) == 0


def count_facts_for_update(connection: sa.Connection) -> None:
    move_watermark(connection, "ann", "history", 5, 6)


async def test_closing_while_the_database_fails_says_what_is_lost(url: str, clock: FakeClock) -> None:
    ledger = Ledger.open(url, Settings(busy_timeout_s=0.05), clock, retry_s=60)
    obstacle = Obstacle(url)
    ledger.append(fill_rows(range(10)))
    assert await ledger.stop() == 10
    obstacle.remove()


async def test_a_full_disk_stops_writers_and_loses_nothing(sqlite_url: str, clock: FakeClock) -> None:
    ledger = Ledger.open(sqlite_url, Settings(), clock, retry_s=0.01)
    await ledger.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1"))  # no page more than there are
    ledger.append(fill_rows(range(5000)))
    with pytest.raises(LedgerDown, match="full"):
        await ledger.write(lambda connection: None)
    await recovered(ledger)  # the next connection has the usual limit again
    assert durable_facts(ledger) == 5000
    await ledger.stop()


@pytest.mark.postgres
async def test_a_server_that_drops_the_connection_is_found_again(postgres_database: str, clock: FakeClock) -> None:
    ledger = Ledger.open(postgres_database, Settings(), clock, retry_s=0.01)
    ledger.append(fill_rows(range(5)))
    await ledger.write(lambda connection: None)
    with psycopg.connect(postgres_database) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    ledger.append(fill_rows(range(5, 10)))
    with pytest.raises(LedgerDown):
        await ledger.write(lambda connection: None)
    await recovered(ledger)
    assert durable_facts(ledger) == 10
    await ledger.stop()
