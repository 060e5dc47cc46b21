"""Decides. Whether an order that was proven never to have reached its venue may be sent anew, and as what.

A further attempt is an order of its own: another identity, another row. Never two of one child are open, and none
begins while what became of an earlier one is not settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec

from engine.core.limits import Code
from engine.core.orders import TERMINAL, CancelState, OrderState, order_uuid
from engine.core.plans import Child, Denial, Plan, PlanState

PASSING = frozenset({Code.ACCOUNT_NOT_LIVE, Code.ACCOUNT_NOT_PROVEN, Code.NO_PRICE, Code.STALE_PRICE, Code.LEDGER_DOWN})
"""Denials that end by themselves: a further attempt waits for that, until its plan expires."""


def against_another(one: Child, attempts: Iterable[Child], plan: Plan, denials: Iterable[Denial]) -> str:
    """Why nothing may follow `one`, whose absence is proven; "" when something may. `attempts`: all of its child."""
    if one.attempt >= plan.attempts:
        return f"the plan allows {plan.attempts}" + (" attempt" if plan.attempts == 1 else " attempts")
    if plan.state is not PlanState.EXECUTING:
        return f"the plan is {plan.state.value}"
    if one.cancel_state is not CancelState.NONE:
        return "its cancellation was asked for"
    if any(other.attempt > one.attempt for other in attempts):
        return "a further attempt was made before"
    return unsettled(one, attempts) or "; ".join(d.text for d in denials if d.code not in PASSING)


def unsettled(one: Child, attempts: Iterable[Child]) -> str:
    """Which earlier attempt of the same child may be at the venue; "" when none may."""
    for other in attempts:
        if other.attempt >= one.attempt:
            continue
        if other.late:
            return f"attempt {other.attempt} turned up late: a person decides"
        if other.state not in TERMINAL:
            return f"attempt {other.attempt} is {other.state.value}"
    return ""


def successor(one: Child, render: Callable[[int], str], now_ms: int) -> Child:
    """The next attempt, PLANNED. The same attempt has the same ids, also after a restart or a restore."""
    identity = order_uuid(one.plan_id, one.account_id, one.leg, one.attempt + 1)
    return msgspec.structs.replace(
        one,
        child_id=identity.hex,
        attempt=one.attempt + 1,
        client_order_id=render(identity.int),
        state=OrderState.PLANNED,
        claim_token="",
        send_by_ms=0,
        venue_order_id="",
        filled=Decimal(0),
        avg_price=None,
        reason="",
        late=False,
        late_settled_at_ms=None,
        cancel_state=CancelState.NONE,
        planned_at_ms=now_ms,
        sent_at_ms=None,
        acknowledged_at_ms=None,
        filled_at_ms=None,
        updated_at_ms=now_ms,
    )


def latest(children: Iterable[Child]) -> list[Child]:
    """Of each child its last attempt, in their order."""
    found: dict[tuple[str, str, int], Child] = {}
    for child in children:
        key = (child.plan_id, child.account_id, child.leg)
        known = found.get(key)
        if known is None or known.attempt < child.attempt:
            found[key] = child
    return list(found.values())
