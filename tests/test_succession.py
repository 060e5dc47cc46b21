"""An amendment that replaces: in whatever order the venue tells of the old and the new one, the child is their sum.

The old one's end never ends the child; the fills of both count; what ends the child is the end of the last.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.facts import FillFact, OrderFact, OrderStatus, Side
from engine.core.orders import Accepted, Amend, OrderState, OrderType
from engine.core.plans import Child
from engine.foreign import Foreign
from engine.ledger import questions
from tests.engine_world import World, world
from tests.venues.tinvest_talk import START_MS, Desk, Floor

D = Decimal
W, F, C = OrderStatus.WORKING, OrderStatus.FILLED, OrderStatus.CANCELLED
ENDS = {F: OrderState.FILLED, C: OrderState.CANCELLED}


@settings(max_examples=30, deadline=None)
@given(data=st.data(), named=st.sampled_from(["child", "amendment", "nobody"]), end=st.sampled_from([F, C]))
def test_in_every_order_of_events(data: st.DataObject, named: str, end: OrderStatus) -> None:
    """`named`: whose id the new order carries at the venue."""

    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with world(Path(folder), "ann") as w:
                await _play(w, data, named, end)

    asyncio.run(play())


async def _play(w: World, data: st.DataObject, named: str, end: OrderStatus) -> None:
    w.replacing = True
    (child,) = await w.approved()
    await w.executor.execute("p1", "mia")
    w.reply("ann", Accepted("v1"))
    w.hear("ann", w.seen(child, venue_order_id="v1", quantity=D(2)))
    assert await w.executor.amend("p1", price=D(99), factor=None, by="mia") == 1
    amend = w.sent("ann")[-1]
    assert isinstance(amend, Amend)
    now_ms = w.clock.now_ms()
    old = w.seen(child, venue_order_id="v1", quantity=D(2))
    ours = {"child": child.client_order_id, "amendment": amend.amend_id, "nobody": ""}[named]
    new = w.seen(child, venue_order_id="v2", client_order_id=ours, price=D(99), quantity=D(1), created_at_ms=now_ms + 5)
    replace = msgspec.structs.replace
    got = D(1) if end is F else D(0)
    told: list[OrderFact | str] = [
        replace(old, filled=D(1), avg_price=D(100), updated_at_ms=now_ms + 1),
        replace(old, filled=D(1), avg_price=D(100), status=C, updated_at_ms=now_ms + 4),
        replace(new, updated_at_ms=now_ms + 5),
        replace(new, status=end, filled=got, avg_price=D(99) if got else None, updated_at_ms=now_ms + 9),
        "answer",
    ]
    order = data.draw(st.permutations(told))
    if named == "nobody":  # only the answer ties it to the child: what came before it, a read tells again
        order = [*order, told[2], told[3]]
    heard = set[tuple[str, OrderStatus]]()
    for event in order:
        if isinstance(event, str):
            w.reply("ann", Accepted("v2"))
        else:
            heard.add((event.venue_order_id, event.status))
            w.hear("ann", event)
            w.children.on_facts("ann", [event])
        known = w.now(child)
        if ("v2", end) not in heard:
            assert known.state is OrderState.WORKING, "the end of the old one is not the end"
    if end is C:  # it might have made room for yet another one: the resolver asks, and says so
        assert w.now(child).state is OrderState.WORKING
        assert w.children.orphaned_since_ms(child.client_order_id) is not None
        w.children.has_no_successor(w.now(child))
    known = w.now(child)
    assert (known.state, known.filled, known.venue_order_id) == (ENDS[end], 1 + got, "v2")
    assert known.quantity == 2
    assert not known.late
    assert known.avg_price == (D("99.5") if got else D(100))


# ---- A stop whose order the venue tells without our id


class Stopped:
    """A child of an office, and at a simulated venue the stop that it is there."""

    def __init__(self, w: World, child: Child) -> None:
        self.w, self.child, self.floor = w, child, Floor()
        self.desk = Desk(self.floor)
        self.desk.connect()
        self.floor.quote(lots="50")
        stop = self.desk.place(1, side=Side.SELL, order_type=OrderType.STOP, price=None, trigger_price=D(295))
        accepted = self.desk.ask(msgspec.structs.replace(stop, quantity=child.quantity))
        assert isinstance(accepted, Accepted)
        self.stop, self.stop_id = stop, accepted.venue_order_id

    def told(self, facts: Iterable[Any]) -> list[Any]:
        """As an office hears them that trades something else."""
        orders = [f for f in facts if isinstance(f, OrderFact | FillFact)]
        return [msgspec.structs.replace(f, instrument=self.child.instrument, account_ref="") for f in orders]

    def asked(self) -> list[Any]:
        """What the venue tells of the stop by its own id."""
        read = self.desk.rest.order(self.stop.instrument, self.child.client_order_id, self.stop_id)
        return self.told(self.desk.told([read]))

    def history(self) -> list[Any]:
        """The orders of today, and the stop that is not at work any more."""
        return self.told(self.desk.told(self.desk.rest.orders(START_MS, self.floor.now_ms))) + self.asked()[:1]

    def falls(self) -> None:
        self.floor.mark("SBER", "294")
        self.desk.settle()


async def _waiting(w: World) -> Stopped:
    (child,) = await w.approved()
    await w.executor.execute("p1", "mia")
    there = Stopped(w, child)
    w.reply("ann", Accepted(there.stop_id))
    w.hear("ann", *there.told(there.desk.told(there.desk.rest.open_orders())))
    assert w.now(child).state is OrderState.WORKING
    return there


def _filled_and_ours(w: World, child: Child, foreign: Foreign) -> None:
    known = w.now(child)
    assert (known.state, known.filled, known.quantity, known.late) == (OrderState.FILLED, 2, 2, False)
    assert (foreign.counts().orders, foreign.counts().fills) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("first", ["stream", "history", "the stop alone"])
async def test_a_stop_that_was_triggered_goes_on_as_the_order_it_made(tmp_path: Path, first: str) -> None:
    async with world(tmp_path, "ann") as w:
        foreign = Foreign(clock=w.clock, ledger=w.ledger, sync=w.sync, roster=w.roster, children=w.children)
        there = await _waiting(w)
        there.falls()
        child = there.child
        if first == "stream":
            w.hear("ann", *there.told(there.desk.facts))
            assert w.now(child).state is OrderState.WORKING, "nothing ties that order to the stop yet"
            w.sync.fetched("ann", there.asked()[:1], w.clock.now_ms())
        elif first == "history":
            w.sync.fetched("ann", there.history(), w.clock.now_ms())
        else:
            w.sync.fetched("ann", there.asked()[:1], w.clock.now_ms())
            assert w.children.orphaned_since_ms(child.client_order_id) is not None, "it is asked about"
            w.children.has_no_successor(w.now(child))
            assert w.now(child).state is OrderState.WORKING, "it has one, whatever the venue's reads show"
            w.sync.fetched("ann", there.asked(), w.clock.now_ms())
        _filled_and_ours(w, child, foreign)
        await w.ledger.write(lambda conn: None)
        await w.children.durable()
        with w.ledger.read() as conn:
            assert [row.external for row in questions.orders(conn, "ann")] == [False]


@pytest.mark.anyio
@pytest.mark.parametrize("before", [False, True])
async def test_a_stop_that_was_triggered_is_ours_after_a_restart(tmp_path: Path, before: bool) -> None:
    """`before`: the engine heard of it and stopped then; else history alone tells."""
    async with world(tmp_path, "ann") as w:
        there = await _waiting(w)
        if before:
            there.falls()
            w.sync.fetched("ann", there.history(), w.clock.now_ms())
        await w.children.durable()
        known = w.now(there.child)
    if not before:
        there.falls()
    async with world(tmp_path, "ann") as again:
        foreign = Foreign(
            clock=again.clock, ledger=again.ledger, sync=again.sync, roster=again.roster, children=again.children
        )
        await again.children.recover()
        foreign.load()
        assert again.now(known).state is (OrderState.FILLED if before else OrderState.WORKING)
        again.sync.fetched("ann", there.history(), again.clock.now_ms())
        _filled_and_ours(again, known, foreign)
