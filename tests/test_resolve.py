"""An order of which nobody knows is asked about until the venue's own evidence decides; an error is no evidence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from engine.core.facts import OrderFact, OrderStatus
from engine.core.orders import Cancel, CancelState, OrderState, Place, Refused
from engine.core.plans import Child
from engine.core.venue import ErrorClass, Page, VenueError
from engine.wire.http import NoAnswer
from tests.engine_world import World, not_found, world
from tests.fakes import settle
from tests.ledger import samples

pytestmark = pytest.mark.anyio
S = OrderState
# Until when the request may take effect, how long we wait for its answer, and for how long reads may not show it.
EXPIRY_S, TIMEOUT_S, READ_LAG_S = 10, 5, 5


@asynccontextmanager
async def unknown(folder: Path, *accounts: str) -> AsyncIterator[tuple[World, list[Child]]]:
    """Orders that were sent and never answered, with executor and resolver at work."""
    async with world(folder, *accounts) as w:
        children = await w.approved()
        await w.executor.execute("p1", "mia")
        w.http.answers["order"] = not_found()
        tasks = [asyncio.create_task(w.work()), asyncio.create_task(w.resolve())]
        for account in accounts:
            w.executor.on_down(f"{account}-private", "cut")
        assert all(w.now(c).state is S.UNKNOWN for c in children)
        yield w, children
        placed = [m for a in accounts for m in w.sent(a) if isinstance(m, Place)]
        assert len(placed) == len(accounts), "asking never places anything"
        assert w.http.sent == []
        for task in tasks:
            task.cancel()
        await settle()


async def test_what_the_venue_shows_at_work_is_at_work(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.http.answers["order"] = Page(facts=(w.seen(child),))
        await w.advance(1)
        assert w.now(child).state is S.WORKING


async def test_what_was_executed_unheard_is_filled(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.http.answers["order"] = Page(facts=(w.seen(child, OrderStatus.FILLED, filled=child.quantity),))
        await w.advance(1)
        assert (w.now(child).state, w.now(child).filled) == (S.FILLED, child.quantity)


async def test_absence_is_proven_only_after_the_time_in_which_it_may_still_show(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        await w.advance(EXPIRY_S + TIMEOUT_S + READ_LAG_S)
        assert w.now(child).state is S.UNKNOWN, "it may still arrive, or not show yet"
        assert {name for _, name in w.http.asked} == {"order"}
        await w.advance(12)
        assert w.now(child).state is S.NOT_PLACED
        assert [name for _, name in w.http.asked].count("open_orders") == 3, "three complete rounds"
        assert (await w.durable(child))["state"] == "not_placed"


@pytest.mark.parametrize("name", ["order", "open_orders", "fills"])
@pytest.mark.parametrize(
    "error",
    [
        NoAnswer("reset", written=True),
        VenueError(ErrorClass.RATE, "50011", "too many"),
        VenueError(ErrorClass.RETRYABLE_READ, "50001", "busy"),
        RuntimeError("a mistake of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_is_never_taken_for_absence(tmp_path: Path, name: str, error: Exception) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.http.answers[name] = error
        await w.advance(120)
        assert w.now(child).state is S.UNKNOWN


async def test_nothing_is_proven_while_the_clocks_differ(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.http.clocks_agree = False
        await w.advance(60)
        assert w.now(child).state is S.UNKNOWN
        w.http.clocks_agree = True
        await w.advance(20)
        assert w.now(child).state is S.NOT_PLACED


async def test_an_order_that_the_venue_may_have_forgotten_is_never_proven_absent(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        okx = w.roster.venues["okx"]
        capabilities = msgspec.structs.replace(okx.capabilities, lookup_ms=10_000)
        w.roster.venues["okx"] = msgspec.structs.replace(okx, capabilities=capabilities)  # type: ignore[index]
        await w.advance(300)
        assert w.now(child).state is S.UNKNOWN


async def test_what_only_a_list_shows_is_not_absent(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.http.answers["open_orders"] = Page(facts=(w.seen(child),))
        await w.advance(60)
        assert w.now(child).state is S.WORKING


async def test_a_fill_of_it_forbids_the_proof(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        fill = samples.fill(1, client_order_id=child.client_order_id, traded_at_ms=w.clock.now_ms())
        w.http.answers["fills"] = Page(facts=(fill,))
        await w.advance(60)
        assert w.now(child).state is S.UNKNOWN, "for a person to look at"


async def test_the_trouble_of_one_account_holds_up_no_other(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann", "bob") as (w, (anns, bobs)):
        w.http.answers["ann order"] = RuntimeError("a mistake of ours")
        w.http.answers["bob order"] = Page(facts=(w.seen(bobs),))
        await w.advance(2)
        assert (w.now(anns).state, w.now(bobs).state) == (S.UNKNOWN, S.WORKING)


async def test_an_unknown_order_of_a_cancelled_plan_is_cancelled_once_it_shows(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        await w.executor.cancel("p1")
        assert len(w.sent("ann")) == 1, "nothing to cancel yet"
        w.hear("ann", w.seen(child))
        w.http.answers["order"] = Page(facts=(w.seen(child),))
        await w.advance(2)
        place, cancel = w.sent("ann")
        assert isinstance(place, Place)
        assert isinstance(cancel, Cancel)
        w.hear("ann", w.seen(child, OrderStatus.CANCELLED, updated_at_ms=w.clock.now_ms() + 1))
        assert (w.now(child).state, w.now(child).cancel_state) == (S.CANCELLED, CancelState.CONFIRMED)


async def test_a_cancel_that_the_venue_could_not_take_just_now_is_asked_again(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.hear("ann", w.seen(child))
        w.http.answers["order"] = Page(facts=(w.seen(child),))
        await w.executor.cancel("p1")
        w.reply("ann", Refused("50011", "too many requests", again=True))
        assert w.now(child).cancel_state is CancelState.REQUESTED
        await w.advance(2)
        assert [type(m) for m in w.sent("ann")] == [Place, Cancel, Cancel]


@pytest.mark.parametrize("hours", [0, 1, -1])
async def test_a_cancel_that_nobody_confirmed_is_asked_again_however_our_clock_is_set(
    tmp_path: Path, hours: int
) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.hear("ann", w.seen(child))
        w.http.answers["order"] = Page(facts=(w.seen(child),))
        await w.executor.cancel("p1")
        w.clock.shift(hours * 3_600_000)
        await w.advance(6)
        assert [type(m) for m in w.sent("ann")][:3] == [Place, Cancel, Cancel]


async def test_a_cancel_that_was_refused_for_good_is_not_repeated(tmp_path: Path) -> None:
    async with unknown(tmp_path, "ann") as (w, (child,)):
        w.hear("ann", w.seen(child))
        await w.executor.cancel("p1")
        w.reply("ann", Refused("51506", "cannot be cancelled"))
        await w.advance(30)
        assert w.now(child).cancel_state is CancelState.REFUSED
        assert [type(m) for m in w.sent("ann")] == [Place, Cancel]


async def test_an_order_that_was_replaced_goes_on_in_the_one_that_takes_its_place(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        w.replacing = True
        child = await _changed(w)
        assert w.now(child).state is S.WORKING, "its end may only make room for the new one"
        w.hear("ann", w.seen(child, venue_order_id="v2", created_at_ms=w.clock.now_ms() + 1))
        assert (w.now(child).state, w.now(child).venue_order_id) == (S.WORKING, "v2")
        assert w.children.orphaned_since_ms(child.client_order_id) is None


async def test_an_order_that_nothing_followed_has_ended(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        w.replacing = True
        child = await _changed(w)
        w.http.answers["order"] = Page(facts=(_last(w, child),))
        asking = asyncio.create_task(w.resolve())
        await w.advance(READ_LAG_S - 1)
        assert w.now(child).state is S.WORKING, "the venue's reads may not show the new one yet"
        await w.advance(10)
        assert w.now(child).state is S.CANCELLED
        asking.cancel()
        await settle()


async def test_after_a_restart_a_change_on_its_way_may_still_have_replaced_it(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        w.replacing = True
        child = await _changed(w)
        fact = _last(w, child)
    async with world(tmp_path, "ann") as again:
        again.replacing = True
        await again.children.recover()
        again.children.on_facts("ann", [fact])
        assert again.now(child).state is S.WORKING
        assert again.children.orphaned_since_ms(child.client_order_id) is not None


async def _changed(w: World) -> Child:
    """An order at work that a change was sent for, and whose end is heard."""
    (child,) = await w.approved()
    await w.executor.execute("p1", "mia")
    w.sync.release("ann", 1000)
    w.hear("ann", w.seen(child))
    await w.durable(child)
    assert await w.executor.amend("p1", price=None, factor=child.quantity) == 1
    w.hear("ann", w.seen(child, OrderStatus.CANCELLED))
    await w.durable(child)
    return w.now(child)


def _last(w: World, child: Child) -> OrderFact:
    desk = w.sync.desk("ann")
    assert desk is not None
    return desk.book.orders()[-1]
