"""Decides. What an ended plan left undone, as a plan of its own: the same orders for what was not filled."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from engine.core.drafts import Draft, PlanRefused
from engine.core.facts import Side
from engine.core.plans import Child, Leg, Method, Plan

_ZERO = Decimal(0)


def completion(plan: Plan, children: Iterable[Child], by: str) -> Draft:
    """A draft for what the approved shares are short of. Raises PlanRefused while that is not settled.

    Every attempt counts with what it filled, a late one too. Accounts that were denied in the preview had no share,
    so nothing of theirs is left.
    """
    if plan.preview is None or plan.approval is None:
        raise PlanRefused(f"plan {plan.plan_id} was never approved: nothing of it is left")
    filled, unsettled = dict[tuple[int, str], Decimal](), set[str]()
    for child in children:
        key = child.leg, child.account_id
        filled[key] = filled.get(key, _ZERO) + child.filled
        if not child.state.terminal:
            unsettled.add(child.account_id)
    if unsettled or not plan.state.ended:
        waiting = f": {', '.join(sorted(unsettled))}" if unsettled else ""
        raise PlanRefused(f"plan {plan.plan_id} is {plan.state.value}, what is left of it is not settled{waiting}")
    left: dict[tuple[int, Side, bool], dict[str, Decimal]] = {}
    for row in plan.preview.rows:
        missing = row.quantity - filled.get((row.leg, row.account_id), _ZERO)
        if row.takes_part and missing > 0:
            left.setdefault((row.leg, row.side, row.reduce_only), {})[row.account_id] = missing
    if not left:
        raise PlanRefused(f"nothing is left of plan {plan.plan_id}: every share was filled")
    return Draft(
        title=f"Completes {plan.plan_id}",
        legs=tuple(
            _leg(plan.legs[number], side, reduces, units) for (number, side, reduces), units in sorted(left.items())
        ),
        cannot=plan.cannot,
        sells_first=plan.sells_first,
        by=by,
    )


def _leg(leg: Leg, side: Side, reduces: bool, units: dict[str, Decimal]) -> Leg:
    return Leg(
        instrument=leg.instrument,
        method=Method.UNITS,
        side=side,
        units=units,
        accounts=tuple(sorted(units)),
        order_type=leg.order_type,
        price=leg.price,
        trigger_price=leg.trigger_price,
        visible_quantity=leg.visible_quantity,
        reduce_only=reduces,
    )
