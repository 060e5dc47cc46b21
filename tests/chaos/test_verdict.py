"""The judge of a chaos run finds what it is there to find, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from engine.core.orders import OrderState
from engine.core.plans import Child
from tests.chaos.verdict import Records, Row, judge
from tests.ledger import samples

S = OrderState
FILL = ("ann", "BTC-USDT-SWAP:7:o1")


def child(state: OrderState, **changes: Any) -> Child:
    return samples.child(1, account_id="ann", client_order_id="c1", quantity=Decimal(2), state=state, **changes)


def order(state: str = "live", filled: str = "0", **changes: str) -> Row:
    return {"account": "ann", "ordId": "o1", "clOrdId": "c1", "state": state, "accFillSz": filled, **changes}


def judged(
    children: Sequence[Child],
    orders: Sequence[Row],
    *,
    claims: Sequence[str] = ("c1",),
    true_fills: int = 0,
    fills: Sequence[tuple[str, str]] = (),
    told: Sequence[str] = (),
) -> dict[str, int]:
    true = [FILL] * true_fills
    records = Records(plans=frozenset({"p1"}), children=children, claims=frozenset(claims), fills=fills)
    verdict = judge(orders, true, records, told, lambda text: text.startswith("c"))
    counts = {kind: len(getattr(verdict, kind)) for kind in ("lost", "duplicated", "wrongly_final", "unsettled")}
    assert verdict.whole is (not any(counts.values()))
    return {kind: count for kind, count in counts.items() if count}


FILLED = child(S.FILLED, filled=Decimal(2))
GOOD: list[tuple[Sequence[Child], Sequence[Row]]] = [
    ([child(S.WORKING)], [order()]),
    ([FILLED], [order("filled", "2")]),
    ([child(S.CANCELLED, filled=Decimal(1))], [order("canceled", "1")]),
    ([child(S.NOT_PLACED)], []),
    ([child(S.PLANNED)], []),
    ([], [order(clOrdId="somebody's")]),
]
BAD: list[tuple[str, Sequence[Child], Sequence[Row]]] = [
    ("lost", [], [order()]),
    ("duplicated", [child(S.WORKING)], [order(), order(ordId="o2")]),
    ("wrongly_final", [child(S.NOT_PLACED)], [order()]),
    ("wrongly_final", [child(S.REJECTED)], [order("filled", "2")]),
    ("wrongly_final", [FILLED], []),
    ("wrongly_final", [child(S.CANCELLED)], [order("filled", "2")]),
    ("wrongly_final", [child(S.CANCELLED)], [order()]),
    ("lost", [child(S.WORKING)], [order("filled", "2")]),
    ("lost", [child(S.WORKING)], [order("partially_filled", "1")]),
    ("lost", [child(S.PLANNED)], [order()]),
    ("lost", [child(S.NOT_PLACED, late=True)], [order()]),
    ("unsettled", [child(S.UNKNOWN)], [order()]),
    ("unsettled", [child(S.SENDING)], []),
]


@pytest.mark.parametrize(("children", "orders"), GOOD)
def test_what_agrees_is_whole(children: Sequence[Child], orders: Sequence[Row]) -> None:
    assert judged(children, orders) == {}


@pytest.mark.parametrize(("kind", "children", "orders"), BAD)
def test_what_does_not_agree_is_counted_once_and_rightly(
    kind: str, children: Sequence[Child], orders: Sequence[Row]
) -> None:
    assert judged(children, orders) == {kind: 1}


def test_two_attempts_that_both_reached_the_venue_are_a_duplicate() -> None:
    first, second = child(S.WORKING), child(S.WORKING, attempt=2, child_id="2" * 32)
    second = replace(second, client_order_id="c2")
    orders = [order(), order(ordId="o2", clOrdId="c2")]
    assert judged([first, second], orders, claims=("c1", "c2")) == {"duplicated": 1}


def test_an_order_that_was_sent_without_a_claim_is_lost() -> None:
    assert judged([child(S.WORKING)], [order()], claims=()) == {"lost": 1}


def test_an_approved_plan_that_is_gone_is_lost() -> None:
    assert judged([], [], told=["p1", "p2"]) == {"lost": 1}


@pytest.mark.parametrize(
    ("true_fills", "fills", "found"),
    [
        (1, [FILL], {}),
        (1, [], {"lost": 1}),
        (1, [FILL, FILL], {"duplicated": 1}),
        (0, [FILL], {"duplicated": 1}),
        (1, [("bob", FILL[1])], {"lost": 1, "duplicated": 1}),
    ],
)
def test_each_fill_is_there_once(true_fills: int, fills: list[tuple[str, str]], found: dict[str, int]) -> None:
    orders = [order("filled", "2")]
    assert judged([replace(FILLED)], orders, true_fills=true_fills, fills=fills) == found


def test_records_that_somebody_changed_are_a_loss() -> None:
    records = Records(plans=frozenset(), children=(), claims=frozenset(), fills=(), audit="it was changed")
    assert judge([], [], records, [], lambda text: True).lost == ["the audit does not verify: it was changed"]
