"""An account at first sight: its statement is the opening, and reads that lag must not make it a wrong one for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from engine.core.book import Book
from engine.core.venue import Page
from tests.engine_world import OKX, world
from tests.fakes import settle
from tests.ledger import samples
from tests.test_backfill import Office, backfill_of

pytestmark = pytest.mark.anyio

LAG_S = OKX.capabilities.max_read_lag_ms / 1000


@asynccontextmanager
async def first_sight(folder: Path) -> AsyncIterator[Office]:
    """An account that was never opened; connected and subscribed, nothing read yet."""
    async with world(folder, "ann") as w:
        w.sync.enter("ann", Book("ann", w.sync.catalogue("okx", "demo").by_name))
        one = Office(w, backfill_of(w))
        task = asyncio.create_task(one.backfill.run())
        await settle()
        yield one
        task.cancel()
        await settle()


def quantity(o: Office) -> Decimal:
    desk = o.world.sync.desk("ann")
    assert desk is not None
    return desk.book.quantities().get((samples.SWAP.name, "net"), Decimal(0))


async def opened(o: Office) -> None:
    o.backfill.live("ann")
    await o.rest()


async def test_a_quiet_account_is_opened_and_proven_at_once(tmp_path: Path) -> None:
    async with first_sight(tmp_path) as o:
        o.held("ann", 3)
        await opened(o)
        assert (o.proven("ann"), quantity(o)) == (True, 3)


async def test_a_trade_that_no_read_shows_yet_is_counted_when_one_does(tmp_path: Path) -> None:
    async with first_sight(tmp_path) as o:
        traded = o.fill(1)
        await o.world.advance(LAG_S / 2)
        await opened(o)
        assert (o.proven("ann"), quantity(o)) == (True, 0)
        await o.world.advance(LAG_S)
        await o.rest()
        o.held("ann", 1)
        o.world.http.answers["fills"] = Page(facts=(traded,))
        o.backfill.check_now("ann")
        await o.world.advance(2 * LAG_S)
        await o.rest()
        assert (o.proven("ann"), quantity(o)) == (True, 1)


async def test_a_trade_that_the_stream_told_and_the_statement_does_not_show_yet_is_waited_for(tmp_path: Path) -> None:
    async with first_sight(tmp_path) as o:
        traded = o.fill(1)
        o.world.hear("ann", traded)
        await opened(o)
        assert not o.proven("ann")
        o.held("ann", 1)
        o.world.http.answers["fills"] = Page(facts=(traded,))
        await o.world.advance(LAG_S)
        await o.rest()
        assert (o.proven("ann"), quantity(o)) == (True, 1)


async def test_a_position_that_was_closed_a_moment_ago_is_not_closed_twice(tmp_path: Path) -> None:
    async with first_sight(tmp_path) as o:
        o.world.http.answers["fills"] = Page(facts=(o.fill(1),))
        await o.world.advance(1)
        await opened(o)
        assert not o.proven("ann"), "the statement may lag, and the fill would then be missing"
        await o.world.advance(3 * LAG_S)
        await o.rest()
        assert (o.proven("ann"), quantity(o)) == (True, 0)


async def test_who_trades_without_a_pause_is_not_opened_and_told_so(tmp_path: Path) -> None:
    async with first_sight(tmp_path) as o:
        o.world.http.before = lambda account_id, name: o.world.http.answers.update(fills=Page(facts=(o.fill(1),)))
        await opened(o)
        await o.world.advance(3 * LAG_S)
        await o.rest()
        desk = o.world.sync.desk("ann")
        assert desk is not None
        assert not desk.proven
        assert "traded while the account is opened" in desk.why
