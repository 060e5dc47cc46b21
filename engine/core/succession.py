"""Decides. What several orders are together of which one took the other's place.

Some venues change an order by ending it and making another one, and make an order of a stop that was triggered. All of
them carry our one id; what was wanted is their sum, and the last one's state is its state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from engine.core.book import supersedes
from engine.core.facts import REPLACED, OrderFact, OrderStatus


def chain(known: Iterable[OrderFact], fact: OrderFact) -> list[OrderFact]:
    """This order and those with the same id of ours, each as it was heard last, in the order of their making."""
    found = {o.venue_order_id: o for o in known if o.client_order_id == fact.client_order_id}
    before = found.get(fact.venue_order_id)
    if before is None or supersedes(fact, before):
        found[fact.venue_order_id] = fact
    return sorted(found.values(), key=lambda o: (o.created_at_ms, len(o.venue_order_id), o.venue_order_id))


def together(orders: Sequence[OrderFact]) -> OrderFact:
    """The last one, with what those before it got."""
    last = orders[-1]
    if len(orders) == 1:
        return last
    filled = sum((o.filled for o in orders), Decimal(0))
    paid = sum((o.filled * o.avg_price for o in orders if o.avg_price is not None), Decimal(0))
    priced = all(o.avg_price is not None for o in orders if o.filled)
    return msgspec.structs.replace(
        last,
        filled=filled,
        quantity=last.quantity + filled - last.filled,
        avg_price=paid / filled if filled and priced else None,
    )


def may_go_on(last: OrderFact, *, amended: bool) -> bool:
    """It has ended, and maybe only to make room for another one that nobody has told of yet."""
    return last.status is OrderStatus.CANCELLED and (amended or last.venue_action == REPLACED)
