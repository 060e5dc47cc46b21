"""Decides. Which orders of a plan at work do not go yet: buys that their account's sells pay for, and orders of
accounts that are offline where the manager chose that they wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engine.core.facts import Side
from engine.core.limits import OFFLINE, stamp
from engine.core.plans import Child, Denial, Offline, Plan


def waiting(
    plan: Plan, children: Sequence[Child], denied: Mapping[tuple[str, int], Sequence[Denial]], now_ms: int
) -> frozenset[str]:
    """The client order ids of those that do not go with the others when the plan goes out. On the hot path."""
    if not plan.sells_first and plan.offline is Offline.SKIP:
        return frozenset()
    of_account, found = by_account(children), set[str]()
    for child in children:
        against = denied.get((child.account_id, child.leg), ())
        if may_wait(plan, against, now_ms) or (
            not against and held_back(plan, child, of_account[child.account_id], now_ms)
        ):
            found.add(child.client_order_id)
    return frozenset(found)


def by_account(children: Iterable[Child]) -> dict[str, list[Child]]:
    """A plan's orders by whose they are."""
    found: dict[str, list[Child]] = {}
    for child in children:
        found.setdefault(child.account_id, []).append(child)
    return found


def held_back(plan: Plan, child: Child, of_account: Iterable[Child], now_ms: int) -> str:
    """What this order waits for, now that the plan is at work; "" when for nothing.

    `of_account`: every order of the plan for the same account. A buy waits until each sell has ended, filled or not,
    or until they have been at work for as long as the plan grants: then it goes with the cash that is there.
    """
    if not plan.sells_first or child.side is not Side.BUY:
        return ""
    sells = [other for other in of_account if other.side is Side.SELL]
    if all(sell.state.terminal for sell in sells):
        return ""
    sent_ms = [sell.sent_at_ms for sell in sells if sell.sent_at_ms is not None]
    if sent_ms and now_ms >= min(sent_ms) + plan.sells_wait_ms:
        return ""
    return "its account's sells are not done yet"


def may_wait(plan: Plan, denials: Sequence[Denial], now_ms: int) -> bool:
    """May an order that these denials stand against wait for them to pass? Only for its account to come back, only
    where the manager chose so, and only until then."""
    return (
        plan.offline is Offline.QUEUE
        and plan.queue_until_ms is not None
        and now_ms < plan.queue_until_ms
        and bool(denials)
        and all(denial.code in OFFLINE for denial in denials)
    )


def waited_in_vain(plan: Plan, denials: Sequence[Denial], now_ms: int) -> str:
    """Why a first attempt that its account is not there for is given up; "" while it may wait, or need not."""
    if not any(denial.code in OFFLINE for denial in denials) or may_wait(plan, denials, now_ms):
        return ""
    until = f"it might wait until {stamp(plan.queue_until_ms)}: " if plan.queue_until_ms is not None else ""
    return until + "; ".join(denial.text for denial in denials)
