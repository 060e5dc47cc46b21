"""The grid: every member's part, priced and checked; a denied share stays with nobody."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

import pytest

from accounts.model import AccountState, Mandate
from engine.core.drafts import PlanRefused
from engine.core.facts import Side
from engine.core.orders import OrderType
from engine.core.plans import Leg, Method, Plan, Preview, PreviewRow
from engine.core.preview import preview
from tests.plan_world import BTC, NOW_MS, RULES, SWAP, FakeAccount, FakeAccounts, FakeMarket

D = Decimal


def leg(**fields: Any) -> Leg:
    defaults: dict[str, Any] = {
        "instrument": SWAP,
        "method": Method.EQUAL,
        "side": Side.BUY,
        "quantity": D(10),
        "order_type": OrderType.MARKET,
    }
    return Leg(**{**defaults, **fields})


def plan(*legs: Leg) -> Plan:
    return Plan(
        plan_id="P1",
        title="",
        groups=("all",),
        legs=legs,
        created_at_ms=NOW_MS,
        created_by="ann",
        expires_at_ms=NOW_MS + 60_000,
        max_drift_percent=D(2),
        rotation_seed=1,
    )


def grid(accounts: FakeAccounts, *legs: Leg, market: FakeMarket | None = None) -> Preview:
    return preview(plan(*legs), accounts, market or FakeMarket(), RULES, NOW_MS)


def rows(shown: Preview, number: int = 0) -> dict[str, PreviewRow]:
    return {row.account_id: row for row in shown.rows if row.leg == number}


def codes(row: PreviewRow) -> list[str]:
    return [denial.code for denial in row.denials]


def test_a_row_shows_the_share_both_ways_and_what_is_left_after_it() -> None:
    account = FakeAccount("a", positions={SWAP: {"net": D(2)}})
    row = rows(grid(FakeAccounts(account), leg()))["a"]
    assert (row.quantity, row.unit, row.base_quantity) == (10, "contract", D("0.1"))
    assert (row.price, row.notional, row.fee_estimate) == (50_000, 5_000, 5)
    assert (row.held_before, row.held_after) == (2, 12)
    assert (row.nav, row.available, row.cash_after) == (100_000, 100_000, 99_495)  # a tenth of 5,000 and the fee
    assert row.weight_after == 6
    assert row.takes_part


def test_a_denied_account_keeps_its_share_from_the_others_and_it_is_named() -> None:
    accounts = FakeAccounts(
        FakeAccount("a"), FakeAccount("b", live=False, phase="down"), FakeAccount("c", state=AccountState.PAUSED)
    )
    shown = grid(accounts, leg(quantity=D(30)))
    found = rows(shown)
    assert {a: row.quantity for a, row in found.items()} == {"a": 10, "b": 10, "c": 10}
    assert [row.account_id for row in shown.rows if row.takes_part] == ["a"]
    assert codes(found["b"]) == ["account_not_live"]
    assert codes(found["c"]) == ["account_paused"]
    assert shown.unallocated == {0: D(20)}


def test_what_flooring_leaves_over_is_a_named_line() -> None:
    accounts = FakeAccounts(*(FakeAccount(f"a{n}") for n in range(3)))
    shown = grid(accounts, leg(quantity=D(11), residual="floor"))
    assert [row.quantity for row in shown.rows] == [3, 3, 3]
    assert shown.unallocated == {0: D(2)}
    assert all(0 < row.residual < 1 for row in shown.rows)


def test_a_limit_order_is_sized_with_its_own_price() -> None:
    only = leg(method=Method.NAV_PERCENT, quantity=None, percent=D(10), order_type=OrderType.LIMIT, price=D(49_000))
    shown = grid(FakeAccounts(FakeAccount("a")), only)
    assert rows(shown)["a"].quantity == 20  # 10,000 at 490 a contract: 20.4
    assert shown.prices == {"bourse|demo|BTC/USDT:USDT": D(50_000)}
    assert shown.unallocated == {0: D(0)}


def test_without_a_price_nothing_is_sized_and_that_is_the_only_reason() -> None:
    market = FakeMarket()
    market.references[SWAP] = None
    only = leg(method=Method.NAV_PERCENT, quantity=None, percent=D(10))
    row = rows(grid(FakeAccounts(FakeAccount("a")), only, market=market))["a"]
    assert codes(row) == ["no_price"]
    assert row.quantity == 0


def test_an_unknown_instrument_is_denied_for_each_member() -> None:
    shown = grid(FakeAccounts(FakeAccount("a"), FakeAccount("b")), leg(instrument="DOGE/USDT"))
    assert [codes(row) for row in shown.rows] == [["unknown_instrument"]] * 2
    assert shown.rows[0].denials[0].numbers == {
        "venue": "bourse",
        "environment": "demo",
        "instrument": "DOGE/USDT",
    }
    assert shown.unallocated == {0: D(10)}


def test_an_instrument_with_a_lot_of_zero_denies_instead_of_failing() -> None:
    market = FakeMarket()
    market.change(SWAP, quantity_step=D(0))
    row = rows(grid(FakeAccounts(FakeAccount("a")), leg(), market=market))["a"]
    assert codes(row) == ["not_tradable"]


def test_a_member_that_is_not_managed_any_more_is_denied() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b"))
    del accounts.accounts["b"]
    found = rows(grid(accounts, leg()))
    assert codes(found["b"]) == ["unknown_account"]
    assert found["a"].takes_part


def test_a_weight_sum_that_is_not_100_denies_everybody_with_the_sum() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b"), weights={"a": "33.33", "b": "66.66"})
    shown = grid(accounts, leg(method=Method.PERCENT))
    assert [codes(row) for row in shown.rows] == [["weight_sum"]] * 2
    assert shown.rows[0].denials[0].numbers == {"sum": "99.99"}
    assert shown.unallocated == {0: D(10)}


def test_a_quantity_off_the_lot_denies_everybody() -> None:
    shown = grid(FakeAccounts(FakeAccount("a")), leg(quantity=D("10.5")))
    assert codes(shown.rows[0]) == ["off_lot"]


def test_later_legs_see_what_earlier_ones_bind() -> None:
    account = FakeAccount("a", cash={"USDT": D(6000)})
    spot = leg(instrument=BTC, quantity=D("0.1"))
    shown = grid(FakeAccounts(account), spot, leg(quantity=D(20)))
    assert codes(rows(shown, 0)["a"]) == []  # 5,005 of 6,000
    second = rows(shown, 1)["a"]
    assert second.available == 995
    assert second.denials[0].numbers == {"needed": "1010", "currency": "USDT", "available": "995"}


def test_a_denied_leg_binds_nothing() -> None:
    account = FakeAccount("a", cash={"USDT": D(5000)})
    shown = grid(FakeAccounts(account), leg(instrument=BTC, quantity=D("0.1")), leg())
    assert codes(rows(shown, 0)["a"]) == ["buying_power"]
    assert rows(shown, 1)["a"].takes_part


def test_the_mandates_limit_on_a_plan_counts_all_its_legs() -> None:
    account = FakeAccount("a", mandate=Mandate(account_id="a", max_plan_notional=D(9000)))
    shown = grid(FakeAccounts(account), leg(instrument=BTC, quantity=D("0.1")), leg())
    assert rows(shown, 0)["a"].takes_part
    assert rows(shown, 1)["a"].denials[0].numbers == {"notional": "10000", "limit": "9000"}


def test_closing_follows_each_position_and_needs_no_money() -> None:
    accounts = FakeAccounts(
        FakeAccount("a", positions={SWAP: {"net": D(7)}}, cash={}),
        FakeAccount("b", positions={SWAP: {"net": D(-3)}}),
        FakeAccount("c"),
    )
    shown = grid(accounts, leg(method=Method.CHANGE, side=None, quantity=None, percent=D(-100)))
    found = rows(shown)
    assert (found["a"].side, found["a"].quantity, found["a"].held_after) == (Side.SELL, 7, 0)
    assert (found["b"].side, found["b"].quantity, found["b"].held_after) == (Side.BUY, 3, 0)
    assert found["a"].takes_part
    assert found["a"].reduce_only
    assert codes(found["c"]) == ["nothing_to_do"]


def test_selling_spot_needs_the_coins_and_shows_the_cash_it_brings() -> None:
    accounts = FakeAccounts(
        FakeAccount("a", cash={"USDT": D(100), "BTC": D("0.5")}, positions={BTC: {"net": D("0.5")}}),
        FakeAccount("b", cash={"USDT": D(100), "BTC": D("0.01")}, positions={BTC: {"net": D("0.01")}}),
    )
    found = rows(grid(accounts, leg(instrument=BTC, side=Side.SELL, quantity=D("0.2"))))
    assert found["a"].cash_after == 5095
    assert not found["a"].reduce_only, "spot has no such thing"
    assert found["b"].denials[0].numbers == {"needed": "0.1", "currency": "BTC", "available": "0.01"}


def test_positions_side_by_side_are_denied() -> None:
    account = FakeAccount("a", positions={SWAP: {"long": D(5), "short": D(-2)}})
    row = rows(grid(FakeAccounts(account), leg()))["a"]
    assert row.denials[0].numbers == {"long": "5", "short": "-2"}


def test_the_order_of_accounts_changes_nothing() -> None:
    accounts = [FakeAccount(f"a{n}", nav_value=D(1000 * n + 1)) for n in range(20)]
    expected = grid(FakeAccounts(*accounts), leg(quantity=D(133)))
    Random(5).shuffle(accounts)
    assert grid(FakeAccounts(*accounts), leg(quantity=D(133))) == expected


def test_groups_that_have_come_to_overlap_are_refused() -> None:
    accounts = FakeAccounts(FakeAccount("a"))
    accounts.groups.clear()
    with pytest.raises(PlanRefused, match="there is no group all"):
        grid(accounts, leg())
