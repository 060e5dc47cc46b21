"""Decides. Is a plan at work to be stopped, by the rules that it was approved with?

Stopped means: what was not sent is not sent any more; and, where the plan says so, what is at work is cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from engine.core.fairness import fairness
from engine.core.limits import plain
from engine.core.orders import OrderState
from engine.core.plans import Child, Plan


def has_rules(plan: Plan) -> bool:
    return not (
        plan.abort_refused_percent is None
        and plan.abort_unknown is None
        and plan.abort_slippage_percent is None
        and plan.abort_dispersion_percent is None
        and plan.abort_after_ms is None
    )


def why_aborted(plan: Plan, children: Sequence[Child], now_ms: int) -> str:
    """The rule that says so, with its numbers; "" while none does. `children`: all of the plan's.

    Slippage counts from the price of the preview, for the worse; the price that ran away before an order that waited is
    sent is the plan's drift, which is looked at before each.
    """
    if plan.aborted:
        return plan.aborted
    sent = [child for child in children if child.state not in (OrderState.PLANNED, OrderState.SKIPPED)]
    if plan.abort_refused_percent is not None:
        refused = sum(child.state is OrderState.REJECTED for child in sent)
        if refused * 100 > plan.abort_refused_percent * len(sent):
            limit = plain(plan.abort_refused_percent)
            return f"aborted: {refused} of {len(sent)} orders were refused, more than {limit} %"
    if plan.abort_unknown is not None:
        unknown = sum(child.state is OrderState.UNKNOWN for child in sent)
        if unknown > plan.abort_unknown:
            return f"aborted: the outcome of {unknown} orders is unknown, more than {plan.abort_unknown}"
    if plan.abort_after_ms is not None:
        first_ms = min((child.sent_at_ms for child in sent if child.sent_at_ms is not None), default=None)
        left = sum(not child.state.terminal for child in children)
        if first_ms is not None and left and now_ms - first_ms >= plan.abort_after_ms:
            return f"aborted: {left} orders have not ended {plan.abort_after_ms // 1000} s after the first was sent"
    return _by_prices(plan, sent)


def _by_prices(plan: Plan, sent: Sequence[Child]) -> str:
    if plan.abort_slippage_percent is None and plan.abort_dispersion_percent is None:
        return ""
    for leg in fairness(plan, [child for child in sent if child.filled]):
        for what, found, limit in (
            ("slippage", leg.slippage_percent, plan.abort_slippage_percent),
            ("dispersion", leg.dispersion_percent, plan.abort_dispersion_percent),
        ):
            if found is not None and limit is not None and found > limit:
                shown = plain(round(Decimal(found), 4))
                of = f" ({leg.only_of})" if leg.only_of else ""
                return f"aborted: the {what} in {leg.instrument} is {shown} %{of}, more than {plain(limit)} %"
    return ""
