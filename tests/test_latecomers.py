"""What was asked of a plan as a whole reaches the orders of it that show up later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from engine.core.orders import Accepted, Amend, Cancel, OrderEvent, Place, Refused
from engine.core.plans import Denial, Offline
from engine.core.venue import Page
from engine.latecomers import Latecomers
from tests.engine_world import World, world

pytestmark = pytest.mark.anyio

HALF = Decimal("0.5")


@asynccontextmanager
async def office(folder: Path, *accounts: str) -> AsyncIterator[World]:
    async with world(folder, *accounts) as w:
        late = Latecomers(clock=w.clock, children=w.children, executor=w.executor)
        tasks = [asyncio.create_task(work) for work in (late.run(), w.work())]
        yield w
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def amends(w: World, account_id: str) -> list[tuple[Decimal | None, Decimal | None]]:
    return [(c.new_price, c.new_quantity) for c in w.sent(account_id) if isinstance(c, Amend)]


async def test_an_order_whose_outcome_was_unknown_is_amended_once_it_shows_up(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        ann, _bob = await w.approved()
        await w.executor.execute("p1", "mia")
        w.reply("bob", Accepted("v2"))
        w.executor.on_down("ann-private", "cut")
        assert await w.executor.amend("p1", price=Decimal(99), factor=HALF, by="mia") == 2
        assert (amends(w, "ann"), amends(w, "bob")) == ([], [(Decimal(99), Decimal(1))])
        w.hear("ann", w.seen(ann))
        await w.advance(1)
        assert amends(w, "ann") == [(Decimal(99), Decimal(1))]
        w.hear("ann", w.seen(ann, price=Decimal(99), quantity=Decimal(1), amend_id="x"))
        await w.advance(10)
        assert (len(amends(w, "ann")), len(amends(w, "bob"))) == (1, 1), "each once"


async def test_amendments_follow_one_another_from_what_was_approved(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        (ann,) = await w.approved()
        await w.executor.execute("p1", "mia")
        await w.executor.amend("p1", price=Decimal(99), factor=None, by="mia")
        await w.executor.amend("p1", price=Decimal(98), factor=HALF, by="mia")
        w.hear("ann", w.seen(ann))
        await w.advance(1)
        assert amends(w, "ann") == [(Decimal(98), Decimal(1))]


async def test_one_that_was_refused_for_the_pace_is_told_once_more_and_one_refused_for_good_is_not(
    tmp_path: Path,
) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        await w.approved()
        await w.executor.execute("p1", "mia")
        w.reply("ann", Accepted("v1"))
        w.reply("bob", Accepted("v2"))
        await w.executor.amend("p1", price=Decimal(99), factor=None, by="mia")
        w.reply("ann", Refused("50011", "too fast", again=True))
        w.reply("bob", Refused("51000", "no"))
        await w.advance(5)
        assert (len(amends(w, "ann")), len(amends(w, "bob"))) == (2, 1)


async def test_over_a_restart_it_is_remembered(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        (ann,) = await w.approved()
        await w.executor.execute("p1", "mia")
        await w.executor.amend("p1", price=Decimal(99), factor=None, by="mia")
        await w.durable(ann)
    async with office(tmp_path, "ann") as again:
        await again.children.recover()
        again.hear("ann", again.seen(ann))
        await again.advance(1)
        assert amends(again, "ann") == [(Decimal(99), None)]


async def test_one_that_waits_goes_out_as_it_is_wanted_now(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        w.denied["bob", 0] = [Denial("account_not_live", {}, "it is down")]
        _ann, bob = await w.approved(offline=Offline.QUEUE, queue_until_ms=w.clock.now_ms() + 60_000)
        await w.executor.execute("p1", "mia")
        assert w.sent("bob") == []
        assert await w.executor.amend("p1", price=Decimal(99), factor=HALF, by="mia") == 2
        await w.executor.send_further(bob.client_order_id, lambda child: "")
        (place,) = w.sent("bob")
        assert isinstance(place, Place)
        assert (place.price, place.quantity) == (Decimal(99), Decimal(1))
        row = await w.durable(bob)
        assert (row["price"], row["quantity"]) == (Decimal(99), Decimal(1))


async def test_an_order_seen_after_its_absence_was_proven_is_cancelled_with_its_plan(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        ann, _bob = await w.approved()
        await w.executor.execute("p1", "mia")
        w.reply("bob", Accepted("v2"))
        w.executor.on_down("ann-private", "cut")
        w.children.step(w.now(ann), OrderEvent.NEGATIVE_PROOF)
        await w.executor.cancel("p1", "mia")
        w.http.answers["open_orders"] = Page()
        w.hear("ann", w.seen(ann))
        await w.advance(1)
        assert [type(c) for c in w.sent("ann")] == [Place, Cancel]
