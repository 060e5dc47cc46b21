"""What is traded in the venue's own page, and what the venue does by itself: shown at once, explained, undone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.ledger import plans, reader
from tests.acceptance.conftest import QUICK
from tests.acceptance.office import INSTRUMENT, NO_BUDGETS, SYMBOL, Office, office, until

ACCOUNTS = ["demo-01", "demo-02", "demo-03"]
GROUP = "everybody"


@pytest.fixture(scope="module")
def followers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder: Path = tmp_path_factory.mktemp("e")
    with office(folder, len(ACCOUNTS), more=NO_BUDGETS + QUICK) as one, one.engine():
        until(lambda: one.all_proven(len(ACCOUNTS)), 40.0)
        plan_id = one.approved(ACCOUNTS, order_type="ioc", price="63000", quantity="12")
        one.execute(plan_id)
        until(lambda: all(c.state.terminal for c in one.children(plan_id)))
        until(lambda: {held(one, a) for a in ACCOUNTS} == {4})
        yield one


def standing(one: Office, account: str) -> dict[str, Any]:
    told = one.control.post("/positions", {"accounts": [account]})[account]
    return next((s for s in told if s["instrument"] == INSTRUMENT), {"quantity": "0"})


def listed(one: Office, account: str) -> Any:
    (row,) = (p for p in one.json("positions", "-a", account) if p["instrument"] == INSTRUMENT)
    return row


def held(one: Office, account: str) -> Decimal:
    return Decimal(standing(one, account)["quantity"])


def test_a_fill_from_the_venues_own_page_is_in_the_position_within_two_seconds_and_tagged(followers: Office) -> None:
    before = followers.control.get("/status")["foreign"]
    began_s = time.monotonic()
    elsewhere = followers.elsewhere("demo-02", type="market", side="sell", quantity="1")
    until(lambda: held(followers, "demo-02") == 3, 2.0, 0.02)
    assert time.monotonic() - began_s < 2.0
    after = until(lambda: (now := followers.control.get("/status")["foreign"]) != before and now)
    assert (after["orders"], after["fills"]) == (before["orders"] + 1, before["fills"] + 1)
    (order,) = (o for o in followers.json("orders", "-a", "demo-02") if o["venue_order_id"] == elsewhere)
    (fill,) = (f for f in followers.json("fills", "-a", "demo-02") if f["venue_order_id"] == elsewhere)
    assert (order["external"], fill["external"], fill["plan_id"]) == (True, True, "")
    ours = [f for f in followers.json("fills", "-a", "demo-02") if not f["external"]]
    assert sum(Decimal(f["quantity"]) for f in ours) == 4
    position = listed(followers, "demo-02")
    assert position["elsewhere"] == {"external": "-1"}
    assert position["mark_source"] == "okx"
    assert position["avg_price"]
    assert position["unrealised"]


def test_every_number_of_it_is_explained_line_by_line(followers: Office) -> None:
    until(lambda: held(followers, "demo-02") == 3)
    told = followers.json("explain", "position", "demo-02", INSTRUMENT)
    assert told["unexplained"] == "0"
    assert sum(Decimal(line["change"]) for line in told["lines"]) == Decimal(told["shown"]) == 3
    whose = {(line["what"], line["origin"]["external"]) for line in told["lines"] if line["what"] != "opening"}
    assert whose == {("bought", False), ("sold", True)}
    assert all(line["origin"]["connection_key"] and line["id"] for line in told["lines"] if line["what"] == "sold")
    position = listed(followers, "demo-02")
    assert (told["avg_price"], told["realised"]) == (position["avg_price"], position["realised"])
    cash = followers.json("explain", "cash", "demo-02", "USDT")
    (balance,) = (b for b in followers.json("balances", "-a", "demo-02") if b["currency"] == "USDT")
    assert sum(Decimal(line["change"]) for line in cash["lines"]) == Decimal(balance["cash"])
    assert cash["unexplained"] == "0"
    shown = followers.cli("explain", "position", "demo-02", INSTRUMENT)
    assert shown.returncode == 0
    assert "EXTERNAL" in shown.stdout
    assert "add up to" in shown.stdout
    with reader(followers.url) as conn:
        (plan,) = (p for p in plans.load_plans(conn, ended=True) if p.title == "a promise")
    of_plan = followers.json("plan", "show", plan.plan_id)["elsewhere"]
    assert of_plan == [{"account_id": "demo-02", "instrument": INSTRUMENT, "moved": {"external": "-1"}}]


def test_the_follower_is_brought_back_in_line_by_one_plan(followers: Office) -> None:
    until(lambda: held(followers, "demo-02") == 3)
    looked = followers.cli("deviations", "-g", GROUP, "--against", "plans")
    assert looked.returncode == 1
    assert "buy 1" in looked.stdout
    found = followers.json("deviations", "-g", GROUP, "--against", "plans", "--propose")
    rows = [row for row in found["rows"] if row["instrument"] == INSTRUMENT]
    apart = {row["account_id"]: Decimal(row["quantity"]) for row in rows if Decimal(row["quantity"])}
    assert apart == {"demo-02": 1}
    plan_id = found["plan_id"]
    followers.control.post(f"/plans/{plan_id}/preview")
    followers.control.post(f"/plans/{plan_id}/approve", {"by": "approver"})
    followers.execute(plan_id)
    until(lambda: held(followers, "demo-02") == 4)
    weights = followers.json("deviations", "-g", GROUP)
    assert {row["account_id"] for row in weights["rows"] if row["instrument"] == INSTRUMENT} == set(ACCOUNTS)


def test_a_liquidation_is_tagged_and_doctor_raises_the_alarm(followers: Office) -> None:
    followers.fault("liquidate", "demo-03", instrument=SYMBOL)
    until(
        lambda: [f for f in followers.control.get("/findings") if "liquidation" in f["what"]], 15.0
    )  # no order is pushed
    until(lambda: held(followers, "demo-03") == 0)
    assert followers.control.get("/status")["foreign"]["venue_actions"] == 1
    checked = followers.cli("doctor")
    assert checked.returncode == 1
    assert "by itself: liquidation" in checked.stdout
    until(lambda: "liquidation" in {f["venue_action"] for f in followers.json("fills", "-a", "demo-03")}, 10.0)
    assert "venue_action" in (followers.folder / "engine.log").read_text()
