"""Decides. A customer of the ALOR front in our words, written without the dialect.

Of several orders that took each other's place only the last is the one that was wanted: the others, like stop orders
that were triggered, have no client id here.
"""

from __future__ import annotations

from decimal import Decimal

from engine.core.facts import OrderStatus
from engine.core.truth import TrueFill, TrueOrder, Truth
from engine.venues.alor.front_state import ZERO, Customer

_STATUSES = {
    "working": OrderStatus.WORKING,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELLED,
    "rejected": OrderStatus.REJECTED,
}


def truth_of(customer: Customer) -> Truth:
    got_before: dict[str, Decimal] = {}  # by comment, of orders that another one took the place of
    for o in customer.orders.values():
        if o.replaced and o.comment:
            got_before[o.comment] = got_before.get(o.comment, ZERO) + o.filled
    orders = {
        o.order_id: TrueOrder(
            venue_order_id=o.order_id,
            client_order_id="" if o.replaced else o.comment or "",
            status=_STATUSES[o.status],
            filled=o.filled,
            filled_before=ZERO if o.replaced else got_before.get(o.comment or "", ZERO),
        )
        for o in customer.orders.values()
    }
    for stop in customer.stops.values():
        stop_id = f"stop:{stop.stop_id}"
        ended = OrderStatus.CANCELLED if stop.status == "filled" else _STATUSES[stop.status]
        orders[stop_id] = TrueOrder(
            venue_order_id=stop_id,
            client_order_id="" if stop.replaced or stop.became else stop.comment or "",
            status=ended,
            filled=ZERO,
        )
    fills = {}
    for trade in customer.trades:
        fill_id = f"{trade.trade_id}:{trade.side.value}"
        fills[fill_id] = TrueFill(
            fill_id=fill_id,
            venue_order_id=trade.order_id,
            instrument=trade.listing.name,
            quantity=trade.quantity,
            price=trade.price,
        )
    positions: dict[str, Decimal] = {}
    cash = dict(customer.cash)
    for holding in customer.holdings.values():
        if holding.listing.future:
            positions[holding.listing.name] = holding.quantity
        else:
            cash[holding.listing.base] = holding.quantity
    return Truth(orders=orders, fills=fills, positions=positions, cash=cash)
