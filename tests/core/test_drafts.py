"""What a manager asks for becomes a plan, or hears everything that is wrong with it at once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from accounts.model import Group, Weight
from engine.core.drafts import PlanRefused, drafted, read_draft, read_plan_file, without_feeds
from engine.core.orders import OrderType
from engine.core.plans import Method, Plan, PlanState
from tests.plan_world import NOW_MS, RULES

D = Decimal

GROUPS = {
    "alpha": Group(group_id="alpha", name="Alpha", weights=(Weight("a2", D(60)), Weight("a1", D(40)))),
    "beta": Group(group_id="beta", name="Beta", weights=(Weight("a2", D(1)), Weight("a3", D(1)))),
    "empty": Group(group_id="empty", name="Empty"),
}
KNOWN = {"a1", "a2", "a3", "a4"}
LEG: dict[str, Any] = {
    "instrument": "BTC/USDT",
    "method": "equal",
    "side": "buy",
    "quantity": "1",
    "order_type": "market",
}


def plan_of(**fields: Any) -> Plan:
    body = {"groups": ["alpha"], "legs": [LEG], "by": "ann", **fields}
    return drafted(
        read_draft(body), GROUPS.get, KNOWN.__contains__, RULES, plan_id="P1", now_ms=NOW_MS, rotation_seed=7
    )


def leg(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**LEG, **fields}.items() if value is not None}


def test_a_draft_becomes_a_plan_with_the_offices_limits() -> None:
    plan = plan_of(title=" Buy ")
    assert plan.state is PlanState.DRAFT
    assert (plan.title, plan.created_by, plan.created_at_ms) == ("Buy", "ann", NOW_MS)
    assert plan.expires_at_ms == NOW_MS + 30 * 60_000
    assert plan.max_drift_percent == 2
    assert plan.legs[0].quantity == 1


def test_a_draft_may_be_stricter_than_the_office() -> None:
    plan = plan_of(expires_minutes=5, max_drift_percent="0.5")
    assert plan.expires_at_ms == NOW_MS + 5 * 60_000
    assert plan.max_drift_percent == D("0.5")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"by": ""}, "it does not say who plans it"),
        ({"groups": []}, "it names no group and no account"),
        ({"groups": ["gamma"]}, "there is no group gamma"),
        ({"groups": ["empty"]}, "group empty has no accounts"),
        ({"accounts": ["a9"]}, "there is no account a9 under management (by name)"),
        ({"groups": ["alpha", "beta"]}, "account a2 is in the plan twice: by group alpha and by group beta"),
        ({"accounts": ["a1"]}, "account a1 is in the plan twice: by group alpha and by name"),
        ({"expires_minutes": 0}, "it must expire within 1 to 10080 minutes, not 0"),
        (
            {"max_drift_percent": "5"},
            "its price drift must be above 0 and at most 2 %, the office's limit, not 5 %",
        ),
        ({"legs": []}, "it has 0 legs; a plan has 1 to 50"),
        ({"legs": [LEG, LEG]}, "BTC/USDT is in it 2 times for the same account; a plan has one leg an instrument"),
        ({"legs": [leg(side=None)]}, "method equal needs side"),
        ({"legs": [leg(quantity=None)]}, "method equal needs quantity"),
        ({"legs": [leg(percent="1")]}, "method equal takes no percent"),
        ({"legs": [leg(method="change", quantity=None, percent="-50")]}, "method change takes no side"),
        (
            {"legs": [leg(method="change", side=None, quantity=None, percent="-101")]},
            "a change of -101 % would go past flat; -100 closes",
        ),
        (
            {"legs": [leg(method="nav_percent", quantity=None, percent="-1")]},
            "percent must be above 0, not -1",
        ),
        (
            {"legs": [leg(method="units", quantity=None, units={"a1": "1", "a4": "2"})]},
            "units are given for a4, no member of the plan",
        ),
        ({"legs": [leg(method="units", quantity=None, units={"a1": "-1"})]}, "units of a1 must be above 0, not -1"),
        ({"legs": [leg(price="5")]}, "a market order takes no price"),
        ({"legs": [leg(order_type="limit")]}, "a limit order needs a price"),
        ({"legs": [leg(order_type="limit", price="0")]}, "price must be above 0, not 0"),
        ({"legs": [leg(quantity="NaN")]}, "quantity is NaN, no number"),
        ({"legs": [leg(quantity="1E+30")]}, "quantity 1E+30 has more than 15 digits before the point or 12 after it"),
        ({"legs": [leg(instrument="")]}, "it names no instrument"),
        ({"legs": [leg(method="risk", quantity=None, percent="1")]}, "method risk needs stop_price"),
        ({"legs": [leg(method="money", quantity=None)]}, "method money needs either amount or amounts"),
        (
            {"legs": [leg(method="money", quantity=None, amount="5", amounts={"a1": "5"})]},
            "method money needs either amount or amounts",
        ),
        (
            {"legs": [leg(method="target", side=None, quantity=None, percent="5", reduce_only=True)]},
            "method target takes no reduce_only: the position decides",
        ),
        (
            {"legs": [leg(method="target", side=None, quantity=None, percent="5", band="-1")]},
            "band must be above 0, not -1",
        ),
        ({"legs": [leg(order_type="stop")]}, "a stop order needs a trigger_price"),
        ({"legs": [leg(order_type="stop", trigger_price="5", price="4")]}, "a stop order takes no price"),
        ({"legs": [leg(order_type="stop_limit", trigger_price="5")]}, "a stop-limit order needs a price"),
        ({"legs": [leg(trigger_price="5")]}, "a market order takes no trigger_price"),
        ({"legs": [leg(visible_quantity="5")]}, "a market order takes no visible_quantity"),
        (
            {"offline": "queue"},
            "offline queue needs queue_minutes: until when an order may wait for its account",
        ),
        ({"queue_minutes": 5}, "queue_minutes needs offline queue"),
        (
            {"offline": "queue", "queue_minutes": 31},
            "an order may wait for its account 1 to 30 minutes, while the plan lives, not 31",
        ),
        ({"sells_wait_minutes": 5}, "sells_wait_minutes needs sells_first"),
        (
            {"abort_refused_percent": "100"},
            "abort_refused_percent must be at least 0 and below 100, not 100",
        ),
        ({"cap_notional": "0"}, "cap_notional must be above 0, not 0"),
        (
            {"legs": [leg(groups=["alpha"]), leg(groups=["beta"], instrument="ETH/USDT")], "groups": []},
            "account a2 is in the plan twice: by group alpha and by group beta",
        ),
        ({"legs": [leg(accounts=["a3"]), LEG], "groups": []}, "it names no group and no account"),
    ],
)
def test_each_mistake_is_named(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanRefused) as refused:
        plan_of(**fields)
    assert refused.value.complaints == (complaint,)


def test_all_mistakes_are_named_at_once() -> None:
    other = leg(instrument="ETH/USDT", order_type="limit")
    with pytest.raises(PlanRefused) as refused:
        plan_of(by="", groups=["gamma"], legs=[leg(quantity="-1"), other])
    assert refused.value.complaints == (
        "it does not say who plans it",
        "there is no group gamma",
        "leg 1: quantity must be above 0, not -1",
        "leg 2: a limit order needs a price",
    )


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"legs": [{"instrument": "X"}]}, "method"),
        ({"legs": [leg(method="fair")]}, "fair"),
        ({"legs": [LEG], "group": "alpha"}, "group"),
        ({"legs": [leg(quantity="many")]}, "quantity"),
        ({}, "legs"),
    ],
)
def test_a_draft_that_cannot_be_read_names_the_field(body: dict[str, Any], named: str) -> None:
    with pytest.raises(PlanRefused, match=named):
        read_draft(body)


def test_a_plan_file_keeps_its_numbers_exact() -> None:
    text = """
        title = "Two legs"
        groups = ["alpha"]

        [[legs]]
        instrument = "BTC/USDT"
        method = "nav_percent"
        side = "buy"
        percent = 0.1
        price = 50000.1

        [[legs]]
        instrument = "ETH/USDT"
        method = "change"
        percent = -100
        order_type = "market"
    """
    body = read_plan_file(text)
    plan = plan_of(**body)
    first, second = plan.legs
    assert (first.method, first.percent, first.price) == (Method.NAV_PERCENT, D("0.1"), D("50000.1"))
    assert (second.percent, second.order_type) == (D(-100), OrderType.MARKET)


def test_a_plan_file_that_is_not_toml_is_refused() -> None:
    with pytest.raises(PlanRefused, match="it is not TOML"):
        read_plan_file("legs = [")


def test_an_instrument_may_have_a_leg_for_each_of_several_sets_of_accounts() -> None:
    plan = plan_of(groups=[], legs=[leg(groups=["alpha"]), leg(accounts=["a3", "a4"])])
    assert [leg.accounts for leg in plan.legs] == [(), ("a3", "a4")]


def test_what_the_manager_chose_stands_in_the_plan() -> None:
    plan = plan_of(offline="queue", queue_minutes=5, sells_first=True, cannot="reduce", below_minimum="raise")
    assert plan.queue_until_ms == NOW_MS + 5 * 60_000
    assert (plan.sells_wait_ms, plan.cannot.value, plan.below_minimum.value) == (300_000, "reduce", "raise")


def test_a_feed_of_prices_is_called_by_its_name() -> None:
    for body in ({"accounts": ["a1", "f1"], "legs": [LEG]}, {"legs": [{**LEG, "accounts": ["f1"]}]}):
        with pytest.raises(PlanRefused, match="f1 is a feed of prices"):
            without_feeds(read_draft({**body, "by": "ann"}), {"f1"})
    draft = read_draft({"accounts": ["a1"], "legs": [LEG], "by": "ann"})
    assert without_feeds(draft, {"f1"}) is draft
