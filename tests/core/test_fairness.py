"""What can be shown of a plan's fairness: who was first, who paid more, and what the market took."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.core.facts import Side
from engine.core.fairness import LegFairness, fairness
from engine.core.orders import OrderState, OrderType
from engine.core.plans import Child, Leg, Method, Plan, Preview, PreviewRow
from tests.plan_world import NOW_MS, SWAP

D = Decimal


def row(account_id: str, **changes: Any) -> PreviewRow:
    made = PreviewRow(
        account_id=account_id,
        leg=0,
        venue="bourse",
        instrument=SWAP,
        side=Side.BUY,
        quantity=D(10),
        unit="contract",
        base_quantity=D("0.1"),
        price=D(50_000),
        notional=D(5000),
        fee_estimate=D(0),
        raw_share=D(10),
        residual=D(0),
        held_before=D(0),
        held_after=D(10),
    )
    return msgspec.structs.replace(made, **changes)


def plan(prices: dict[str, Decimal], *accounts: str) -> Plan:
    rows = tuple(row(a) for a in accounts)
    return Plan(
        plan_id="P1",
        title="",
        legs=(Leg(instrument=SWAP, method=Method.EQUAL, side=Side.BUY, quantity=D(30), order_type=OrderType.MARKET),),
        created_at_ms=NOW_MS,
        created_by="ann",
        expires_at_ms=NOW_MS,
        max_drift_percent=D(2),
        rotation_seed=1,
        preview=Preview(taken_at_ms=NOW_MS, prices=prices, rows=rows, unallocated={}),
    )


def order(account_id: str, sent_ms: int | None, price: str | None, filled: str = "10", **changes: Any) -> Child:
    made = Child(
        child_id=account_id,
        plan_id="P1",
        account_id=account_id,
        leg=0,
        client_order_id=account_id,
        instrument=SWAP,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=D(10),
        state=OrderState.FILLED,
        filled=D(filled),
        avg_price=None if price is None else D(price),
        planned_at_ms=NOW_MS,
        sent_at_ms=None if sent_ms is None else NOW_MS + sent_ms,
        acknowledged_at_ms=None if sent_ms is None else NOW_MS + sent_ms + 20,
        filled_at_ms=None if price is None or sent_ms is None else NOW_MS + 2 * sent_ms + 30,
        updated_at_ms=NOW_MS,
    )
    return msgspec.structs.replace(made, **changes)


ONE_PRICE = {f"bourse|demo|{SWAP}": D(50_000)}


def test_skew_dispersion_and_slippage_of_a_plan() -> None:
    orders = [order("a", 0, "50000"), order("b", 2, "50100"), order("c", 5, "50200")]
    [told] = fairness(plan(ONE_PRICE, "a", "b", "c"), orders)
    assert (told.orders, told.sent_skew_ms, told.acknowledged_skew_ms, told.filled_skew_ms) == (3, 5, 5, 10)
    assert (told.average, told.reference) == (50_100, 50_000)
    assert told.slippage_percent == D("0.2")
    assert told.slippage_money == D("30")  # 0.3 BTC at 50,000, by 0.2 %
    assert told.range_percent is not None
    assert round(told.range_percent, 4) == D("0.3992")
    assert told.dispersion_percent is not None
    assert round(told.dispersion_percent, 4) == D("0.1630")
    assert [(s.account_id, s.place, s.sent_after_ms, s.filled_after_ms) for s in told.shares] == [
        ("a", 1, 0, 30),
        ("b", 2, 2, 34),
        ("c", 3, 5, 40),
    ]
    assert [round(s.dearer_percent or D(0), 3) for s in told.shares] == [D("-0.200"), 0, D("0.200")]


def test_for_a_seller_a_lower_price_is_the_dearer_one() -> None:
    orders = [order("a", 0, "50000", side=Side.SELL), order("b", 1, "49000", side=Side.SELL)]
    [told] = fairness(plan(ONE_PRICE, "a", "b"), orders)
    assert told.slippage_percent == 1
    assert [s.dearer_percent is not None and s.dearer_percent > 0 for s in told.shares] == [False, True]


def test_what_was_not_sent_is_not_measured_and_what_is_not_filled_has_no_price() -> None:
    orders = [order("a", 0, None, "0"), order("b", None, None, "0")]
    [told] = fairness(plan(ONE_PRICE, "a", "b"), orders)
    assert (told.orders, told.average, told.dispersion_percent, told.slippage_money) == (1, None, None, None)
    assert fairness(plan(ONE_PRICE, "a"), [order("a", None, None, "0")]) == ()


def test_of_how_many_orders_the_prices_are_is_said_where_not_of_all() -> None:
    orders = [order("a", 0, "50000"), order("b", 1, "50100"), order("c", 2, None), order("d", 3, None, "0")]
    [told] = fairness(plan(ONE_PRICE, "a", "b", "c", "d"), orders)
    assert (told.orders, told.filled, told.priced, told.average) == (4, 3, 2, 50_050)
    assert told.only_of == "of 2 of 3 orders"
    [told] = fairness(plan(ONE_PRICE, "a", "b"), orders[:2])
    assert told.only_of == ""


def test_without_one_reference_price_there_is_no_slippage() -> None:
    two = {**ONE_PRICE, f"other|demo|{SWAP}": D(50_010)}
    [told] = fairness(plan(two, "a"), [order("a", 0, "50100")])
    assert (told.reference, told.slippage_percent) == (None, None)
    assert told.average == 50_100


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 1000)), min_size=1, max_size=20))
def test_the_accounts_deviations_cancel_out(prices: list[tuple[int, int]]) -> None:
    orders = [order(f"a{n}", n, str(price), str(quantity)) for n, (price, quantity) in enumerate(prices)]
    told: LegFairness
    [told] = fairness(plan(ONE_PRICE, *(o.account_id for o in orders)), orders)
    weighed = sum(((s.dearer_percent or D(0)) * s.filled for s in told.shares), D(0))
    assert abs(weighed) < D("0.000001")
    assert told.dispersion_percent is not None
    assert told.range_percent is not None
    assert 0 <= told.dispersion_percent <= told.range_percent + D("0.000001")
