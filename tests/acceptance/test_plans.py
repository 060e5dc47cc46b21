"""A plan over many accounts: changed and cancelled as one; what must not go is denied with numbers, and never sent."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from engine.core.orders import OrderState
from engine.core.plans import PlanState
from engine.ledger import plans, reader
from tests.acceptance.office import NO_BUDGETS, Office, office, refused, until

ACCOUNTS = ["demo-01", "demo-02", "demo-03", "demo-04"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder: Path = tmp_path_factory.mktemp("p")
    more = NO_BUDGETS + "[plans]\nduplicate_window_s = 0.001\n"
    with office(folder, len(ACCOUNTS), more=more) as one, one.engine():
        until(lambda: one.all_proven(len(ACCOUNTS)), 40.0)
        yield one


def states(desk: Office, plan_id: str) -> set[OrderState]:
    return {c.state for c in desk.children(plan_id)}


def at_work(desk: Office, account: str) -> list[tuple[str, str]]:
    return [(o["px"], o["sz"]) for o in desk.orders(account) if o["state"] == "live"]


def test_a_plan_is_amended_and_cancelled_on_every_account(desk: Office) -> None:
    plan_id = desk.approved(ACCOUNTS, quantity="8")
    desk.execute(plan_id)
    until(lambda: states(desk, plan_id) == {OrderState.WORKING})
    assert (
        desk.control.post(f"/plans/{plan_id}/amend", {"price": "56500", "factor": "0.5", "by": "planner"})["asked"] == 4
    )
    until(lambda: all(at_work(desk, a) == [("56500", "1")] for a in ACCOUNTS))
    until(lambda: {(c.price, c.quantity) for c in desk.children(plan_id)} == {(Decimal(56500), Decimal(1))})

    assert desk.control.post(f"/plans/{plan_id}/cancel", {"by": "planner"})["asked"] == 4
    until(lambda: states(desk, plan_id) == {OrderState.CANCELLED})
    assert not any(at_work(desk, a) for a in ACCOUNTS)
    with reader(desk.url) as conn:
        ended = plans.load_plan(conn, plan_id)
    assert ended is not None
    assert ended.state is PlanState.DONE_WITH_SHORTFALL


@pytest.mark.parametrize(
    ("leg", "code", "number"),
    [
        ({"instrument": "NOPE/USDT"}, "unknown_instrument", "NOPE/USDT"),
        ({"method": "units", "quantity": "0.0012345", "units": {"demo-01": "0.0012345"}}, "off_lot", "0.0012345"),
        ({"price": "57000.123"}, "off_tick", "57000.123"),
        ({"price": "20000"}, "price_collar", "20000"),
        ({"quantity": "900000000"}, "buying_power", ""),
    ],
)
def test_what_is_wrong_with_an_order_is_denied_with_its_numbers(
    desk: Office, leg: dict[str, str], code: str, number: str
) -> None:
    denied = desk.denials("demo-01", **leg)
    assert code in denied, denied
    assert number in " ".join(denied[code].values())


def test_weights_that_do_not_sum_to_100_are_denied(desk: Office) -> None:
    leg = {"instrument": "BTC/USDT:USDT", "method": "percent", "side": "buy", "quantity": "10", "order_type": "market"}
    plan_id = desk.control.post("/plans", {"groups": ["everybody"], "legs": [leg], "by": "planner"})["plan_id"]
    rows = desk.control.post(f"/plans/{plan_id}/preview")["preview"]["rows"]
    assert {d["code"] for row in rows for d in row["denials"]} == {"weight_sum"}
    assert {row["denials"][0]["numbers"]["sum"] for row in rows} == {"4"}
    assert "every row of its preview is denied" in str(
        refused(lambda: desk.control.post(f"/plans/{plan_id}/approve", {"by": "planner"}))
    )


def test_an_account_that_became_stale_after_the_approval_is_left_out_and_the_others_go(desk: Office) -> None:
    plan_id = desk.approved(ACCOUNTS)
    desk.fault("cut", "demo-02", seconds=1)
    until(lambda: "account_not_live" in desk.denials("demo-02"), 3.0, 0.01)
    desk.execute(plan_id)
    until(lambda: OrderState.SENDING not in states(desk, plan_id))
    told = {c.account_id: (c.state, c.reason) for c in desk.children(plan_id)}
    assert told["demo-02"][0] is OrderState.SKIPPED
    assert "account_not_live" in told["demo-02"][1]
    assert {told[a][0] for a in ACCOUNTS if a != "demo-02"} == {OrderState.WORKING}
    sent = {c.client_order_id for c in desk.children(plan_id) if c.account_id == "demo-02"}
    assert not sent & {o["clOrdId"] for o in desk.orders("demo-02")}
    desk.control.post(f"/plans/{plan_id}/cancel", {"by": "planner"})
    until(lambda: not desk.denials("demo-02"))


def test_a_plan_is_executed_once_however_often_and_by_whomever(desk: Office) -> None:
    plan_id = desk.approved(["demo-01"])
    desk.execute(plan_id)
    assert "nothing was sent" in str(refused(lambda: desk.execute(plan_id)))
    until(lambda: states(desk, plan_id) == {OrderState.WORKING})
    child = desk.child(plan_id)
    assert [o["clOrdId"] for o in desk.orders("demo-01")].count(child.client_order_id) == 1


def test_a_plan_that_is_not_approved_or_not_there_is_not_executed(desk: Office) -> None:
    before = len(desk.orders("demo-01"))
    leg = {"instrument": "BTC/USDT:USDT", "method": "equal", "side": "buy", "quantity": "1", "order_type": "market"}
    plan_id = desk.control.post("/plans", {"accounts": ["demo-01"], "legs": [leg], "by": "planner"})["plan_id"]
    for wrong in (plan_id, "P20200101-NNNNN"):
        told = str(refused(lambda wrong=wrong: desk.execute(wrong)))  # type: ignore[misc]
        assert "nothing was" in told
    discarded = desk.approved(["demo-01"])
    desk.control.post(f"/plans/{discarded}/discard", {"by": "planner"})
    assert "discarded" in str(refused(lambda: desk.execute(discarded)))
    assert len(desk.orders("demo-01")) == before


def test_an_order_whose_answer_is_lost_is_asked_about_and_never_sent_again(desk: Office) -> None:
    desk.fault("drop_ack", "demo-03", times=1)
    desk.fault("silence", "demo-03", seconds=7)
    plan_id = desk.approved(["demo-03"])
    desk.execute(plan_id)
    until(lambda: desk.child(plan_id).state is OrderState.UNKNOWN)
    until(lambda: desk.child(plan_id).state is OrderState.WORKING)
    child = desk.child(plan_id)
    assert [o["clOrdId"] for o in desk.orders("demo-03")].count(child.client_order_id) == 1
