"""Decides. What a plan's amendments ask of one of its orders, and which of its orders still have to hear of them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from engine.core.instruments import Instrument
from engine.core.orders import CancelState, OrderState
from engine.core.plans import Child, Plan


def approved_quantities(plan: Plan) -> dict[tuple[str, int], Decimal]:
    """By account and leg."""
    rows = plan.preview.rows if plan.preview is not None else ()
    return {(row.account_id, row.leg): row.quantity for row in rows}


def wanted(plan: Plan, child: Child, approved: Decimal, instrument: Instrument) -> tuple[Decimal | None, Decimal]:
    """Price and quantity after all amendments. Never less than is filled, or than the smallest order."""
    price, quantity = child.price, approved
    for amendment in plan.amendments:
        price = amendment.price if amendment.price is not None else price
        quantity = quantity * amendment.factor if amendment.factor is not None else quantity
    steps = quantity // instrument.quantity_step
    return price, max(steps * instrument.quantity_step, child.filled, instrument.min_quantity)


def behind(plan: Plan, children: Iterable[Child]) -> list[Child]:
    """Orders at work that were not told of every amendment."""
    return not_told(plan, [child for child in children if child.state is OrderState.WORKING])


def not_told(plan: Plan, at_work: Iterable[Child]) -> list[Child]:
    """One whose cancellation was asked for needs not be told."""
    told = len(plan.amendments)
    return [c for c in at_work if c.amendments < told and c.cancel_state is CancelState.NONE]
