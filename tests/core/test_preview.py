"""The grid: every member's part, priced and checked; a denied share stays with nobody."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest

from accounts.model import AccountState, Group, Mandate, Trading, Weight
from engine.core.drafts import PlanRefused
from engine.core.facts import Side
from engine.core.orders import OrderType
from engine.core.plans import Leg, Method, Override, Plan, Preview, PreviewRow
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


def plan(*legs: Leg, **choices: Any) -> Plan:
    made = Plan(
        plan_id="P1",
        title="",
        groups=("all",),
        legs=legs,
        created_at_ms=NOW_MS,
        created_by="ann",
        expires_at_ms=NOW_MS + 60_000,
        max_drift_percent=D(2),
        rotation_seed=1,
        **choices,
    )
    return msgspec.json.decode(msgspec.json.encode(made), type=Plan)  # choices are written as words


def grid(accounts: FakeAccounts, *legs: Leg, market: FakeMarket | None = None, **choices: Any) -> Preview:
    return preview(plan(*legs, **choices), accounts, market or FakeMarket(), RULES, NOW_MS)


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


# ---- Legs with members of their own, several venues


def test_an_account_whose_venue_does_not_list_it_is_left_out_of_the_leg() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b", venue="other"), FakeAccount("c"))
    shown = grid(accounts, leg(instrument=BTC, quantity=D("0.3")), leg(quantity=D(30)))
    spot, swap = rows(shown, 0), rows(shown, 1)
    assert {a: row.quantity for a, row in spot.items()} == {"a": D("0.15"), "b": 0, "c": D("0.15")}
    assert codes(spot["b"]) == ["not_listed"]
    assert {a: row.quantity for a, row in swap.items()} == {"a": 10, "b": 10, "c": 10}
    assert shown.unallocated == {0: 0, 1: 0}


def test_while_a_venues_list_is_not_known_its_accounts_keep_their_share() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b", venue="other"))
    market = FakeMarket()
    market.unread.add("other")
    shown = grid(accounts, leg(instrument=BTC, quantity=D("0.2")), market=market)
    assert codes(rows(shown)["b"]) == ["unknown_instrument"]
    assert rows(shown)["a"].quantity == D("0.1")


def test_a_leg_may_be_for_some_of_the_accounts_only() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b"), FakeAccount("c"))
    accounts.groups["bc"] = Group(group_id="bc", name="", weights=(Weight("b", D(1)), Weight("c", D(1))))
    only = plan(leg(quantity=D(20), accounts=("a",)), leg(instrument=BTC, quantity=D("0.2"), groups=("bc",)))
    shown = preview(msgspec.structs.replace(only, groups=()), accounts, FakeMarket(), RULES, NOW_MS)
    assert [(row.leg, row.account_id, str(row.quantity)) for row in shown.rows] == [
        (0, "a", "20"),
        (1, "b", "0.100"),
        (1, "c", "0.100"),
    ]


# ---- What the plan says of shares that cannot be


def poor(account_id: str, usdt: str) -> FakeAccount:
    return FakeAccount(account_id, cash={"USDT": D(usdt)})


def test_by_default_the_share_of_who_cannot_take_it_is_dropped() -> None:
    shown = grid(FakeAccounts(FakeAccount("a"), poor("b", "100")), leg(quantity=D(20)))
    assert (rows(shown)["a"].quantity, codes(rows(shown)["b"]), shown.unallocated) == (10, ["buying_power"], {0: D(10)})


def test_who_cannot_take_all_takes_what_it_can_where_the_plan_reduces() -> None:
    # A contract of 0.01 at 50,000 binds 50 of margin and 0.5 of fee: 120 are good for two.
    shown = grid(FakeAccounts(FakeAccount("a"), poor("b", "120"), poor("c", "9")), leg(quantity=D(30)), cannot="reduce")
    found = rows(shown)
    assert (found["a"].quantity, found["b"].quantity, found["b"].denials) == (10, 2, ())
    assert found["c"].quantity == 0
    assert codes(found["c"]) == ["nothing_to_do"]
    assert shown.unallocated == {0: D(18)}


def test_a_dropped_share_goes_to_the_others_only_where_the_plan_says_so() -> None:
    accounts = FakeAccounts(FakeAccount("a"), poor("b", "100"), FakeAccount("c"), poor("d", "700"))
    shown = grid(accounts, leg(quantity=D(40)), cannot="respread")
    found = rows(shown)
    # Without b, 40 over three are 14, 13, 13; d has money for 13.
    assert [row.quantity for row in shown.rows if row.takes_part] == [14, 13, 13]
    assert codes(found["b"]) == ["buying_power"]
    assert shown.unallocated == {0: 0}


def test_respreading_goes_on_until_all_that_are_left_can_take_their_part() -> None:
    accounts = FakeAccounts(FakeAccount("a"), poor("b", "100"), poor("d", "600"))
    shown = grid(accounts, leg(quantity=D(30)), cannot="respread")
    assert {row.account_id: row.quantity for row in shown.rows if row.takes_part} == {"a": 30}
    assert codes(rows(shown)["d"]) == ["buying_power"]


def test_one_account_can_refuse_the_whole_plan_where_that_is_said() -> None:
    shown = grid(FakeAccounts(FakeAccount("a"), poor("b", "100")), leg(quantity=D(20)), cannot="reject")
    assert not any(row.takes_part for row in shown.rows)
    assert rows(shown)["a"].denials[0].numbers == {"account": "b", "denial": "buying_power"}


@pytest.mark.parametrize(
    ("policy", "expected", "denied"),
    [
        ("skip", {"a": "0.009"}, {"b": "below_minimum"}),
        ("raise", {"a": "0.008", "b": "0.002"}, {}),
        ("reject", {}, {"a": "plan_refused", "b": "below_minimum"}),
    ],
)
def test_a_share_below_the_minimum_is_skipped_raised_or_refuses_all(
    policy: str, expected: dict[str, str], denied: dict[str, str]
) -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b"), weights={"a": "9", "b": "1"})
    only = leg(instrument=BTC, method=Method.RATIO, quantity=D("0.010"))  # the smallest order is 0.002
    shown = grid(accounts, only, below_minimum=policy)
    assert {row.account_id: str(row.quantity) for row in shown.rows if row.takes_part} == expected
    assert {row.account_id: row.denials[0].code for row in shown.rows if row.denials} == denied


def test_a_cap_scales_everybody_by_one_factor_and_floors() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b"), weights={"a": "2", "b": "1"})
    shown = grid(accounts, leg(method=Method.RATIO, quantity=D(30)), cap_notional=D(8000))  # of 15,000
    assert [row.quantity for row in shown.rows] == [10, 5]  # 10.67 and 5.33
    assert sum(row.notional for row in shown.rows) <= 8000
    assert shown.unallocated == {0: D(15)}
    assert grid(accounts, leg(method=Method.RATIO, quantity=D(30)), cap_notional=D(15_000)).unallocated == {0: 0}


def test_a_cap_over_several_currencies_is_refused() -> None:
    market = FakeMarket()
    market.change(SWAP, quote="USDC", settle="USDC")
    accounts = FakeAccounts(FakeAccount("a", cash={"USDT": D(10**6), "USDC": D(10**6)}))
    shown = grid(accounts, leg(), leg(instrument=BTC, quantity=D("0.1")), market=market, cap_notional=D(10))
    assert [codes(row) for row in shown.rows] == [["cap_currency"]] * 2
    assert shown.rows[0].denials[0].numbers == {"currencies": "USDC and USDT"}


def test_an_offline_account_waits_only_where_the_manager_chose_so() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b", live=False, phase="down"))
    assert codes(rows(grid(accounts, leg(quantity=D(20))))["b"]) == ["account_not_live"]
    shown = grid(accounts, leg(quantity=D(20)), offline="queue", queue_until_ms=NOW_MS + 60_000)
    row = rows(shown)["b"]
    assert row.takes_part
    assert [denial.code for denial in row.queued] == ["account_not_live"]
    paused = FakeAccounts(FakeAccount("a"), FakeAccount("b", live=False, state=AccountState.PAUSED))
    assert not rows(grid(paused, leg(), offline="queue", queue_until_ms=NOW_MS + 60_000))["b"].takes_part


def test_with_sells_first_their_proceeds_pay_for_the_buys() -> None:
    account = FakeAccount("a", cash={"USDT": D(0), "BTC": D(1)}, positions={BTC: {"net": D(1)}})
    legs = leg(quantity=D(20)), leg(instrument=BTC, side=Side.SELL, quantity=D("0.1"))
    assert codes(rows(grid(FakeAccounts(account), *legs), 0)["a"]) == ["buying_power"]
    shown = grid(FakeAccounts(account), *legs, sells_first=True, sells_wait_ms=1000)
    assert all(row.takes_part for row in shown.rows)
    assert rows(shown, 0)["a"].available == 4995


def test_an_account_that_may_only_reduce_closes_and_opens_nothing() -> None:
    account = FakeAccount("a", trading=Trading.REDUCING, positions={SWAP: {"net": D(7)}})
    opening = rows(grid(FakeAccounts(account), leg()))["a"]
    assert opening.denials[0].numbers == {"opened": "10"}
    assert rows(grid(FakeAccounts(account), leg(side=Side.SELL, quantity=D(7))))["a"].takes_part
    past = rows(grid(FakeAccounts(account), leg(side=Side.SELL, quantity=D(9))))["a"]
    assert codes(past) == ["account_reducing"]


def test_limits_of_the_day_count_what_went_out_before_and_in_this_plan() -> None:
    mandate = Mandate(account_id="a", max_day_notional=D(12_000))
    account = FakeAccount("a", mandate=mandate, sent_notional=D(3000))
    shown = grid(FakeAccounts(account), leg(instrument=BTC, quantity=D("0.1")), leg())
    assert rows(shown, 0)["a"].takes_part
    assert rows(shown, 1)["a"].denials[0].numbers == {"notional": "13000", "limit": "12000"}


def test_an_order_type_that_a_venue_lacks_is_refused_for_its_accounts_only() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b", venue="other"))
    stop = leg(quantity=D(20), order_type=OrderType.STOP, trigger_price=D(51_000), visible_quantity=D(2))
    found = rows(grid(accounts, stop))
    assert codes(found["a"]) == ["order_type_missing", "iceberg_missing"]
    assert found["b"].takes_part
    assert found["b"].price == 51_000, "a stop is sized with its trigger"


def test_what_a_person_set_aside_is_shown_and_does_not_stand() -> None:
    account = FakeAccount("a", mandate=Mandate(account_id="a", max_order_notional=D(4000)))
    given = Override(code="order_notional", by="bob", why="letter", at_ms=NOW_MS, expires_at_ms=NOW_MS + 1000)
    row = rows(grid(FakeAccounts(account), leg(), overrides=(given,)))["a"]
    assert row.takes_part
    assert [denial.code for denial in row.overridden] == ["order_notional"]


def test_what_is_left_of_the_hundred_is_spread_in_proportion() -> None:
    accounts = FakeAccounts(
        FakeAccount("a"), poor("b", "100"), FakeAccount("c"), weights={"a": "50", "b": "25", "c": "25"}
    )
    shown = grid(accounts, leg(method=Method.PERCENT, quantity=D(60)), cannot="respread")
    assert {row.account_id: row.quantity for row in shown.rows if row.takes_part} == {"a": 40, "c": 20}
    wrong = FakeAccounts(FakeAccount("a"), FakeAccount("b", state=AccountState.PAUSED), weights={"a": "50", "b": "25"})
    shown = grid(wrong, leg(method=Method.PERCENT, quantity=D(60)), cannot="respread")
    assert not any(row.takes_part for row in shown.rows), "weights that do not sum are not made to"


def test_an_unknown_value_stops_a_split_unless_its_account_is_left_out_of_it() -> None:
    accounts = FakeAccounts(FakeAccount("a"), FakeAccount("b", state=AccountState.PAUSED, nav_value=None))
    by_nav = leg(method=Method.NAV, quantity=D(10))
    assert [codes(row) for row in grid(accounts, by_nav).rows] == [["split_nav"], ["account_paused", "split_nav"]]
    found = rows(grid(accounts, by_nav, cannot="respread"))
    assert (found["a"].quantity, found["a"].takes_part) == (10, True)
    assert "account_paused" in codes(found["b"])
