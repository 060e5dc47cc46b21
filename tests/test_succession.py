"""An amendment that replaces: in whatever order the venue tells of the old and the new one, the child is their sum.

The old one's end never ends the child; the fills of both count; what ends the child is the end of the last.
"""

from __future__ import annotations

import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.facts import OrderFact, OrderStatus
from engine.core.orders import Accepted, Amend, OrderState
from tests.engine_world import World, world

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
