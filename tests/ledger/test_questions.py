from __future__ import annotations

from decimal import Decimal

import sqlalchemy as sa

from engine.core.facts import AccountFact, CashFact, EquityFact, OrderStatus
from engine.core.orders import OrderState
from engine.core.plans import PlanState
from engine.ledger import plans, questions, rows, tables
from tests.ledger.samples import as_row, child, fill, order, plan


def record(connection: sa.Connection, *facts: AccountFact, account_id: str = "ann") -> None:
    rows.put(connection, tables.fact, [as_row(fact, account_id) for fact in facts], once=True)


def test_of_each_order_the_observation_that_holds_is_shown(connection: sa.Connection) -> None:
    ended = order(status=OrderStatus.CANCELLED, filled=Decimal(1), updated_at_ms=3000)
    record(connection, order(), ended, order(filled=Decimal(1), updated_at_ms=2000))
    record(connection, order(venue_order_id="o2", updated_at_ms=4000), account_id="bob")
    found = [(o.account_id, o.state, o.filled, o.external) for o in questions.orders(connection)]
    assert found == [("bob", "working", 0, True), ("ann", "cancelled", 1, True)]
    assert [o.account_id for o in questions.orders(connection, "ann")] == ["ann"]
    assert questions.orders(connection, since_ms=3500, limit=5)[0].venue_order_id == "o2"
    assert len(questions.orders(connection, limit=1)) == 1


def test_our_orders_are_shown_as_our_children_with_what_the_venue_filled(connection: sa.Connection) -> None:
    ours, unsent = child(1, account_id="ann", state=OrderState.WORKING), child(2, account_id="ann", leg=1)
    plans.save_plan(connection, plan(state=PlanState.EXECUTING), None, 1000)
    plans.insert_children(connection, [ours, unsent])
    record(
        connection,
        order(client_order_id=ours.client_order_id, filled=Decimal(1), avg_price=Decimal(99), updated_at_ms=2000),
        order(venue_order_id="elsewhere", updated_at_ms=1500),
    )
    found = [(o.child_id, o.state, o.filled, o.external) for o in questions.orders(connection, "ann")]
    assert found == [
        (ours.child_id, "working", 1, False),
        ("", "working", 0, True),
        (unsent.child_id, "planned", 0, False),
    ]
    since = questions.orders(connection, "ann", since_ms=1800)
    assert [(o.plan_id, o.avg_price) for o in since] == [("p1", 99)]


def test_fills_are_shown_latest_first_and_with_their_fee_where_it_is_known(connection: sa.Connection) -> None:
    record(connection, fill(1, fee=None), fill(2), fill(1), fill(2, fee=None), fill(3, fee=None))
    found = [(f.fill.fill_id, f.fill.fee) for f in questions.fills(connection, "ann")]
    assert found == [("f3", None), ("f2", Decimal("-0.1")), ("f1", Decimal("-0.1"))]
    assert [f.fill.fill_id for f in questions.fills(connection, limit=1)] == ["f3"]
    assert [f.fill.fill_id for f in questions.fills(connection, since_ms=1003)] == ["f3"]
    assert questions.fills(connection, "bob") == []


def test_the_latest_word_of_an_account_is_dated(connection: sa.Connection) -> None:
    assert questions.last_fact_at_ms(connection, "ann") is None
    record(connection, fill(1))
    assert questions.last_fact_at_ms(connection, "ann") == 5000


DAY_MS = 86_400_000


def equity(total: int, at_ms: int) -> EquityFact:
    return EquityFact(currency="USD", total=Decimal(total), updated_at_ms=at_ms)


def paid(amount: int, at_ms: int, kind: str = "transfer", currency: str = "USDT") -> CashFact:
    return CashFact(cash_id=f"c{at_ms}", currency=currency, amount=Decimal(amount), kind=kind, booked_at_ms=at_ms)


def test_a_day_begins_with_the_last_valuation_before_it_and_counts_what_was_paid_since(
    connection: sa.Connection,
) -> None:
    assert questions.day_start(connection, "ann", DAY_MS) is None
    record(connection, equity(90, DAY_MS + 5), equity(80, DAY_MS + 9))
    began = questions.day_start(connection, "ann", DAY_MS)
    assert began is not None
    assert (began.equity.total, began.paid_in) == (90, {})
    record(connection, equity(70, DAY_MS - 50), equity(100, DAY_MS - 10), equity(1, DAY_MS - 1), account_id="bob")
    record(connection, equity(100, DAY_MS - 10), paid(7, DAY_MS - 20), paid(30, DAY_MS + 1), paid(-10, DAY_MS + 2))
    record(connection, paid(99, DAY_MS + 3, kind="fee"))
    began = questions.day_start(connection, "ann", DAY_MS)
    assert began is not None
    assert (began.equity.total, began.paid_in) == (100, {"USDT": 20})
