"""A child's average price where the venue's word of an order has none: by its fills, in whatever order they come."""

from __future__ import annotations

import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.facts import AccountFact, OrderStatus
from engine.core.orders import Accepted, OrderState
from engine.core.plans import Child
from tests.engine_world import World, world
from tests.fakes import settle
from tests.ledger import samples

D = Decimal
W, F, C = OrderStatus.WORKING, OrderStatus.FILLED, OrderStatus.CANCELLED
pytestmark = pytest.mark.anyio


async def sent(w: World) -> Child:
    (child,) = await w.approved()
    await w.executor.execute("p1", "mia")
    w.reply("ann", Accepted("v1"))
    return child


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_in_every_order_of_orders_and_fills_and_told_twice(data: st.DataObject) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with world(Path(folder), "ann") as w:
                child, now_ms = await sent(w), w.clock.now_ms()
                told: list[AccountFact] = [
                    w.seen(child, venue_order_id="v1"),
                    w.seen(child, venue_order_id="v1", filled=D(1), updated_at_ms=now_ms + 1),
                    w.seen(child, F, venue_order_id="v1", filled=D(2), updated_at_ms=now_ms + 2),
                    samples.fill(1, venue_order_id="v1", price=D(100), traded_at_ms=now_ms + 1, fee=None),
                    samples.fill(1, venue_order_id="v1", price=D(100), traded_at_ms=now_ms + 1),
                    samples.fill(2, venue_order_id="v1", price=D(103), traded_at_ms=now_ms + 2),
                    samples.fill(2, venue_order_id="v1", price=D(103), traded_at_ms=now_ms + 2),
                    samples.fill(3, venue_order_id="another", price=D(7), traded_at_ms=now_ms + 2),
                ]
                for fact in data.draw(st.permutations(told)):
                    w.hear("ann", fact)
                    w.children.on_facts("ann", [fact])
                known = w.now(child)
                assert (known.state, known.filled, known.avg_price) == (OrderState.FILLED, 2, D("101.5"))
                assert not known.late

    asyncio.run(play())


async def test_the_average_is_not_that_of_some_of_the_fills(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        child, now_ms = await sent(w), w.clock.now_ms()
        w.hear("ann", samples.fill(1, venue_order_id="v1", price=D(100), traded_at_ms=now_ms))
        w.hear("ann", w.seen(child, venue_order_id="v1", filled=D(1)))
        assert w.now(child).avg_price == 100
        w.hear("ann", w.seen(child, F, venue_order_id="v1", filled=D(2), updated_at_ms=now_ms + 1))
        assert w.now(child).avg_price is None
        w.hear("ann", samples.fill(2, venue_order_id="v1", price=D(103), traded_at_ms=now_ms))
        assert w.now(child).avg_price == D("101.5")


async def test_what_the_venue_says_is_the_average_stays(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        child = await sent(w)
        w.hear("ann", w.seen(child, F, venue_order_id="v1", filled=D(2), avg_price=D("101.25")))
        w.hear("ann", samples.fill(1, venue_order_id="v1", quantity=D(2), price=D(103), traded_at_ms=w.clock.now_ms()))
        assert w.now(child).avg_price == D("101.25")


async def test_an_order_that_replaced_another_has_the_average_of_both(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        w.replacing = True
        child, now_ms = await sent(w), w.clock.now_ms()
        w.hear("ann", w.seen(child, venue_order_id="v1"))
        assert await w.executor.amend("p1", price=D(99), factor=None, by="mia") == 1
        w.reply("ann", Accepted("v2"))
        w.hear("ann", w.seen(child, C, venue_order_id="v1", filled=D(1), updated_at_ms=now_ms + 1))
        new = w.seen(child, F, venue_order_id="v2", quantity=D(1), filled=D(1), created_at_ms=now_ms + 5)
        w.hear("ann", new)
        assert (w.now(child).filled, w.now(child).avg_price) == (2, None)
        w.hear("ann", samples.fill(2, venue_order_id="v2", price=D(99), traded_at_ms=now_ms + 5))
        assert w.now(child).avg_price is None
        w.hear("ann", samples.fill(1, venue_order_id="v1", price=D(100), traded_at_ms=now_ms + 1))
        assert w.now(child).avg_price == D("99.5")


async def test_what_history_tells_after_a_restart_is_the_average_and_is_written(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        running = asyncio.create_task(w.work())
        child, now_ms = await sent(w), w.clock.now_ms()
        ended = w.seen(child, F, venue_order_id="v1", filled=D(2))
        w.hear("ann", ended)
        assert (await w.durable(child))["avg_price"] is None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    async with world(tmp_path, "ann") as again:
        desk = again.sync.desk("ann")
        assert desk is not None
        desk.book.fold(ended)  # as the ledger has it
        await again.children.recover()
        running = asyncio.create_task(again.work())
        await settle()
        read = samples.fill(1, venue_order_id="v1", quantity=D(2), price=D(103), traded_at_ms=now_ms)
        again.sync.fetched("ann", [read], again.clock.now_ms())
        assert again.now(child).avg_price == 103
        assert (await again.durable(child))["avg_price"] == 103
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_fills_that_the_book_has_already_price_the_order_at_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        running = asyncio.create_task(w.work())
        child, now_ms = await sent(w), w.clock.now_ms()
        ended = w.seen(child, F, venue_order_id="v1", filled=D(2))
        w.hear("ann", ended)
        await w.durable(child)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    async with world(tmp_path, "ann") as again:
        desk = again.sync.desk("ann")
        assert desk is not None
        desk.book.fold(ended)
        desk.book.fold(samples.fill(1, venue_order_id="v1", quantity=D(2), price=D(103), traded_at_ms=now_ms))
        await again.children.recover()
        assert again.now(child).avg_price == 103
