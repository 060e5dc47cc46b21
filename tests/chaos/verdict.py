"""Decides. The venue's truth against the ledger, once everything has settled: what is lost, doubled or wrongly final.

- Each order at the venue that carries an id of ours has its child and its claim; no child has two orders there, and of
  all attempts at one share of a plan one at most.
- A child that has ended agrees with what became of its order, to the last unit filled; one that has not is at work.
- Each fill at the venue is in the ledger, once; there is none that the venue does not know.
- Whatever the engine said it had written down is still there, and the chain of deeds verifies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from engine.core.orders import TERMINAL, OrderState
from engine.core.plans import Child

_ENDS = {"filled": OrderState.FILLED, "canceled": OrderState.CANCELLED, "mmp_canceled": OrderState.CANCELLED}
_NEVER_THERE = frozenset({OrderState.SKIPPED, OrderState.NOT_PLACED, OrderState.REJECTED})

Row = Mapping[str, str]


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger holds."""

    plans: frozenset[str]
    children: Sequence[Child]
    claims: frozenset[str]  # client order ids of claimed placements
    fills: Sequence[tuple[str, str]]  # (account, the fill's identity), one for each row
    audit: str = ""  # why the chain of deeds does not verify


class Verdict(msgspec.Struct, kw_only=True):
    """Sentences, one for each thing that is wrong."""

    lost: list[str] = []
    duplicated: list[str] = []
    wrongly_final: list[str] = []
    unsettled: list[str] = []

    @property
    def whole(self) -> bool:
        return not (self.lost or self.duplicated or self.wrongly_final or self.unsettled)

    def sentences(self) -> list[str]:
        kinds = ("lost", "duplicated", "wrongly_final", "unsettled")
        return [f"{kind}: {sentence}" for kind in kinds for sentence in getattr(self, kind)]


def judge(
    orders: Sequence[Row],
    fills: Iterable[tuple[str, str]],
    records: Records,
    told: Sequence[str],
    ours: Callable[[str], bool],
) -> Verdict:
    """`orders` and `fills` (account, identity) are the venue's truth.

    `told` are the plans that the engine said were approved.
    """
    verdict = Verdict()
    verdict.lost += [f"plan {p} was approved, and is gone" for p in told if p not in records.plans]
    if records.audit:
        verdict.lost.append(f"the audit does not verify: {records.audit}")
    children = {c.client_order_id: c for c in records.children}
    at_venue: dict[str, list[Row]] = {}
    for order in orders:
        if ours(order["clOrdId"]):
            at_venue.setdefault(order["clOrdId"], []).append(order)
    for client_order_id, several in at_venue.items():
        if client_order_id not in children or client_order_id not in records.claims:
            verdict.lost.append(f"order {client_order_id} of {several[0]['account']} has no claim or no child")
        if len(several) > 1:
            verdict.duplicated.append(f"child {client_order_id} has {len(several)} orders at the venue")
    shares = Counter((c.plan_id, c.account_id, c.leg) for c in records.children if c.client_order_id in at_venue)
    verdict.duplicated += [
        f"{n} attempts of leg {leg} of plan {plan_id} for {account} reached the venue"
        for (plan_id, account, leg), n in shares.items()
        if n > 1
    ]
    for child in records.children:
        _judge_child(child, at_venue.get(child.client_order_id, []), verdict)
    _judge_fills(fills, records.fills, verdict)
    return verdict


def _judge_child(child: Child, orders: Sequence[Row], verdict: Verdict) -> None:
    who = f"child {child.client_order_id} of {child.account_id} is {child.state.value}"
    if child.state in (OrderState.SENDING, OrderState.UNKNOWN):
        verdict.unsettled.append(f"{who}: {child.reason}")
    elif child.state in _NEVER_THERE:
        if orders and not child.late:
            verdict.wrongly_final.append(f"{who}, at the venue it is {orders[0]['state']}")
        elif orders:
            verdict.lost.append(f"{who} and marked late: it was given up while it was at the venue")
    elif child.state is OrderState.PLANNED:
        if orders:
            verdict.lost.append(f"{who}, at the venue it is {orders[0]['state']}")
    elif not orders:
        verdict.wrongly_final.append(f"{who}, the venue never had it")
    else:
        true, filled = orders[0]["state"], Decimal(orders[0]["accFillSz"] or 0)
        if child.state in TERMINAL and _ENDS.get(true) is not child.state:
            verdict.wrongly_final.append(f"{who}, at the venue it is {true}")
        elif child.state is OrderState.WORKING and true in _ENDS:
            verdict.lost.append(f"{who}, at the venue it is {true}: its end was not heard")
        elif child.filled != filled:
            verdict.lost.append(f"{who} with {child.filled} filled, at the venue {filled}")


def _judge_fills(true: Iterable[tuple[str, str]], known: Sequence[tuple[str, str]], verdict: Verdict) -> None:
    expected = set(true)
    stored = Counter(known)
    verdict.lost += [f"fill {key} of {account} is not in the ledger" for account, key in sorted(expected - set(stored))]
    verdict.duplicated += [
        f"fill {key} of {account} is there, and the venue does not know it"
        for account, key in sorted(set(stored) - expected)
    ]
    verdict.duplicated += [
        f"fill {key} of {account} is there {n} times" for (account, key), n in stored.items() if n > 1
    ]
