"""The orphan sweep: how far back it looks, by whose clock, and what it says of what it cannot see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

import anyio
import pytest
import structlog

from engine.core.venue import ErrorClass, Page, VenueError
from engine.ledger import gaps, restorations
from engine.sweep import Sweeper
from tests.engine_world import OKX, World, world
from tests.ledger import samples

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MARGIN_MS = 600_000
HISTORY_MS = OKX.capabilities.fills_history_ms


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, "ann") as one:
        yield one


async def swept(w: World, *, for_s: float = 3.0) -> Sweeper:
    """A start of the engine, as far as the sweep goes."""
    sweeper = Sweeper(
        clock=w.clock,
        ledger=w.ledger,
        sync=w.sync,
        http=w.http,  # type: ignore[arg-type]
        roster=w.roster,
        executor=w.executor,
    )
    sweeper.load()
    w.executor.blocked = sweeper.why_blocked
    async with anyio.create_task_group() as group:
        group.start_soon(sweeper.run)
        await w.advance(for_s)
        group.cancel_scope.cancel()
    return sweeper


async def complete_to(w: World, at_ms: int) -> None:
    await w.ledger.write(lambda conn: gaps.move_watermark(conn, "ann", gaps.HISTORY, at_ms, at_ms))


async def restored(w: World) -> None:
    await w.ledger.write(lambda conn: restorations.begin(conn, "from copy", "me", w.clock.now_ms()))


def looked_back_ms(w: World) -> int:
    """From the venue's now to the earliest moment that was asked about."""
    return round((w.http.venue_now_ms("okx", "demo") - min(w.http.asked_since_ms)) / 60_000) * 60_000


async def test_a_ledger_that_lived_on_is_swept_over_a_day(w: World) -> None:
    await complete_to(w, w.clock.now_ms() - HOUR_MS)
    sweeper = await swept(w)
    assert sweeper.unswept() == []
    assert looked_back_ms(w) == DAY_MS


@pytest.mark.parametrize("days_ago", [2, 30])
async def test_a_ledger_that_slept_longer_is_swept_from_where_it_fell_asleep(w: World, days_ago: int) -> None:
    await complete_to(w, w.clock.now_ms() - days_ago * DAY_MS)
    await swept(w)
    assert looked_back_ms(w) == days_ago * DAY_MS + MARGIN_MS


async def test_after_a_restore_it_looks_back_to_the_backup_also_when_the_first_start_was_cut_short(w: World) -> None:
    await complete_to(w, w.clock.now_ms() - 20 * DAY_MS)
    await restored(w)
    await complete_to(w, w.clock.now_ms() - HOUR_MS)  # read back by an engine that was killed before its sweep
    sweeper = await swept(w)
    assert looked_back_ms(w) == 20 * DAY_MS + MARGIN_MS
    assert sweeper.why_blocked == ""


async def test_a_copy_of_a_restored_database_is_swept_back_to_the_older_of_both(w: World) -> None:
    await complete_to(w, w.clock.now_ms() - 20 * DAY_MS)
    await restored(w)
    await complete_to(w, w.clock.now_ms() - 3 * DAY_MS)
    await restored(w)
    await swept(w)
    assert looked_back_ms(w) == 20 * DAY_MS + MARGIN_MS


@pytest.mark.parametrize("days_ago", [HISTORY_MS // DAY_MS + 5, None])
async def test_what_the_venues_history_does_not_reach_is_said_and_a_person_releases_it(
    w: World, days_ago: int | None
) -> None:
    if days_ago is not None:
        await complete_to(w, w.clock.now_ms() - days_ago * DAY_MS)
    await restored(w)
    sweeper = await swept(w)
    assert looked_back_ms(w) == HISTORY_MS
    assert "cannot be seen" in sweeper.unseen["ann"]
    assert "restored" in sweeper.why_blocked, "it is not released by itself"
    assert await sweeper.accept("me", "compared with the broker's report") == 0
    assert (sweeper.why_blocked, sweeper.unseen, w.executor.blocked) == ("", {}, "")


@pytest.mark.parametrize("hours_off", [-50, -1, 1, 50])
async def test_a_wrong_clock_of_ours_hides_no_orphan(w: World, hours_off: int) -> None:
    order = samples.order(client_order_id=uuid5(NAMESPACE_DNS, "an order of ours").hex, venue_order_id="v1")
    w.http.answers["ann orders"] = Page(facts=(order,))
    w.clock.shift(hours_off * HOUR_MS)
    sweeper = await swept(w)
    assert looked_back_ms(w) == DAY_MS
    assert [o.venue_order_id for o in sweeper.orphans] == ["v1"]


async def test_what_a_person_accepted_is_no_error_again_at_the_next_start(w: World) -> None:
    order = samples.order(client_order_id=uuid5(NAMESPACE_DNS, "an order of ours").hex, venue_order_id="v1")
    w.http.answers["ann orders"] = Page(facts=(order,))
    with structlog.testing.capture_logs() as first:
        sweeper = await swept(w)
    await sweeper.accept("me", "seen at the broker")
    with structlog.testing.capture_logs() as second:
        assert not (await swept(w)).orphans
    levels = [[(e["event"], e["log_level"]) for e in logged if "orphans" in e["event"]] for logged in (first, second)]
    assert levels == [[("orphans", "error")], [("orphans_accepted_before", "info")]]


@pytest.mark.parametrize("part", ["fills", "orders", "open_orders"])
async def test_a_read_that_fails_leaves_the_account_unswept_and_the_database_blocked(w: World, part: str) -> None:
    await complete_to(w, w.clock.now_ms() - DAY_MS)
    await restored(w)
    w.http.answers[f"ann {part}"] = VenueError(ErrorClass.RETRYABLE_READ, "500", "out of order")
    sweeper = await swept(w)
    assert sweeper.unswept() == ["ann"]
    assert "restored" in sweeper.why_blocked
