"""What an ended plan left undone becomes a plan of its own, once it is settled what that is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.core.completion import completion
from engine.core.drafts import PlanRefused
from engine.core.facts import Side
from engine.core.orders import OrderState
from engine.core.plans import Approval, Child, Denial, Plan, PlanState
from tests.core.test_fairness import ONE_PRICE, order, plan, row

D = Decimal


def ended(*accounts: str, **changes: Any) -> Plan:
    made = plan(ONE_PRICE, *accounts)
    approval = Approval(by="bob", at_ms=1, statement_hash="x")
    return msgspec.structs.replace(
        made, **{"state": PlanState.DONE_WITH_SHORTFALL, "approval": approval, "title": "t", **changes}
    )


def left(of: Plan, *children: Child) -> list[tuple[Side | None, dict[str, Decimal]]]:
    return [(leg.side, dict(leg.units)) for leg in completion(of, children, "ann").legs]


def test_what_was_not_filled_is_asked_for_again_for_each_account() -> None:
    cancelled = order("b", 1, "50000", "4", state=OrderState.CANCELLED)
    rejected = order("c", 2, None, "0", state=OrderState.REJECTED)
    assert left(ended("a", "b", "c", "d"), order("a", 0, "50000"), cancelled, rejected) == [
        (Side.BUY, {"b": D(6), "c": D(10), "d": D(10)})
    ]


def test_every_attempt_counts_with_what_it_filled() -> None:
    first = order("a", 0, "50000", "3", state=OrderState.NOT_PLACED, late=True)
    second = order("a", 9, "50000", "5", attempt=2, state=OrderState.CANCELLED)
    assert left(ended("a"), first, second) == [(Side.BUY, {"a": D(2)})]


def test_who_was_denied_had_no_share_to_be_completed() -> None:
    one = ended("a", "b")
    assert one.preview is not None
    rows = (row("a"), row("b", denials=(Denial("off_lot"),)))
    one = msgspec.structs.replace(one, preview=msgspec.structs.replace(one.preview, rows=rows))
    assert left(one) == [(Side.BUY, {"a": D(10)})]


def test_buys_and_sells_of_one_leg_stay_apart_and_closes_only_close() -> None:
    one = ended("a", "b")
    assert one.preview is not None
    rows = (row("a"), row("b", side=Side.SELL, reduce_only=True))
    one = msgspec.structs.replace(one, preview=msgspec.structs.replace(one.preview, rows=rows))
    legs = completion(one, (), "ann").legs
    assert [(leg.side, leg.accounts, leg.reduce_only) for leg in legs] == [
        (Side.BUY, ("a",), False),
        (Side.SELL, ("b",), True),
    ]


@pytest.mark.parametrize(
    ("of", "children", "complaint"),
    [
        (ended("a"), [order("a", 0, None, "0", state=OrderState.UNKNOWN)], "is not settled: a"),
        (ended("a", state=PlanState.EXECUTING), [], "is executing, what is left of it is not settled"),
        (ended("a", approval=None), [], "was never approved"),
        (ended("a"), [order("a", 0, "50000")], "every share was filled"),
    ],
)
def test_what_is_not_settled_is_not_completed(of: Plan, children: list[Child], complaint: str) -> None:
    with pytest.raises(PlanRefused, match=complaint):
        completion(of, children, "ann")
