"""Decides. A customer of the OKX front in our words, written without the dialect."""

from __future__ import annotations

from decimal import Decimal

from engine.core.facts import OrderStatus
from engine.core.truth import TrueFill, TrueOrder, Truth
from engine.venues.okx.front_rules import Listing
from engine.venues.okx.front_state import ZERO, Customer

_STATUSES = {
    "live": OrderStatus.WORKING,
    "partially_filled": OrderStatus.WORKING,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELLED,
}


def truth_of(customer: Customer) -> Truth:
    fills: dict[str, TrueFill] = {}
    for fill in customer.fills:
        # A turned position may be booked in two rows of one match (dossier §15.13).
        fill_id = f"{fill.listing.inst_id}:{fill.trade_id}:{fill.ord_id}"
        before = fills.get(fill_id)
        fills[fill_id] = TrueFill(
            fill_id=fill_id,
            venue_order_id=str(fill.ord_id),
            instrument=_name(fill.listing),
            quantity=fill.quantity + (before.quantity if before else ZERO),
            price=fill.px,
        )
    positions: dict[str, Decimal] = {}
    for position in customer.positions.values():
        name = _name(position.listing)
        positions[name] = positions.get(name, ZERO) + position.quantity
    return Truth(
        orders={
            str(order.ord_id): TrueOrder(
                venue_order_id=str(order.ord_id),
                client_order_id=order.cl_ord_id,
                status=_STATUSES[order.state],
                filled=order.filled,
            )
            for order in customer.orders.values()
        },
        fills=fills,
        positions=positions,
        cash={currency: held.amount for currency, held in customer.cash.items()},
    )


def _name(listing: Listing) -> str:
    pair = f"{listing.base}/{listing.quote}"
    return pair if listing.spot else f"{pair}:{listing.settle}"
