"""Model portfolios: how far an account is off, and the fewest orders that bring it back."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.model import Mandate, Model, ModelLine
from engine.core.facts import Side
from engine.core.models import Drift, Line, Subject, Why, basket, drifts, group_drifts, subject
from tests.plan_world import BTC, SWAP, FakeAccount, FakeMarket

D = Decimal


def model(cash: str = "10", **lines: tuple[str, str]) -> Model:
    told = tuple(ModelLine(instrument=name, weight=D(w), band=D(b)) for name, (w, b) in lines.items())
    return Model(model_id="m", name="Balanced", cash=D(cash), lines=told)


def line(held: str, value: str, **fields: Any) -> Line:
    return Line(held=D(held), unit_value=D(value), **fields)


def account(nav: str | None = "10000", cash: str | None = "1000", **lines: Line) -> Subject:
    return Subject(
        account_id="a",
        nav=None if nav is None else D(nav),
        cash=None if cash is None else D(cash),
        lines=lines,
    )


def by_instrument(one: Model, of: Subject) -> dict[str, Drift]:
    return {drift.instrument: drift for drift in drifts(one, of)}


def test_only_what_lies_outside_of_its_band_gets_an_order() -> None:
    found = by_instrument(
        model(X=("60", "5"), Y=("30", "5")),
        account(X=line("67", "100"), Y=line("26", "100")),
    )
    assert (found["X"].weight, found["X"].quantity, found["X"].weight_after, found["X"].why) == (67, -7, 60, None)
    assert (found["Y"].weight, found["Y"].quantity, found["Y"].why) == (26, 0, Why.WITHIN_BAND)


def test_an_order_is_rounded_towards_what_is_held_unless_only_one_step_more_reaches_the_band() -> None:
    found = by_instrument(model(cash="40", X=("60", "5")), account(nav="1000", cash="1000", X=line("0", "70")))
    assert (found["X"].quantity, found["X"].weight_after) == (8, 56)
    found = by_instrument(model(cash="40", X=("60", "2")), account(nav="1000", cash="1000", X=line("0", "155")))
    assert (found["X"].quantity, found["X"].weight_after, found["X"].why) == (4, 62, None)


def test_a_step_worth_more_than_the_band_is_told() -> None:
    found = by_instrument(model(cash="99", X=("1", "0.5")), account(X=line("0", "900")))
    assert (found["X"].quantity, found["X"].why, found["X"].detail) == (0, Why.STEP, "one step is worth 9 %")


def test_an_order_below_the_minimum_is_raised_only_into_the_band() -> None:
    small = model(cash="94", X=("6", "1"))
    found = by_instrument(small, account(cash="9600", X=line("4", "100", minimum=D(3))))
    assert (found["X"].quantity, found["X"].weight_after) == (3, 7)
    found = by_instrument(small, account(cash="9600", X=line("4", "100", minimum=D(4))))
    assert (found["X"].quantity, found["X"].why) == (0, Why.BELOW_MINIMUM)


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (account(nav=None, X=line("0", "100")), Why.NO_NAV),
        (account(nav="0", X=line("0", "100")), Why.NO_NAV),
        (account(nav="-1", X=line("0", "100")), Why.NO_NAV),
        (account(), Why.NOT_LISTED),
        (account(X=line("0", "0", against=Why.NO_PRICE)), Why.NO_PRICE),
        (account(X=line("0", "100", against=Why.RESTRICTED)), Why.RESTRICTED),
    ],
)
def test_what_cannot_be_brought_back_is_told_with_its_reason(of: Subject, why: Why) -> None:
    [drift] = drifts(model(X=("90", "1")), of)
    assert (drift.quantity, drift.why) == (0, why)


def test_buys_that_cash_does_not_pay_for_stop_at_the_edge_of_their_band_first() -> None:
    # To its target X needs 2,000 of 1,700, and 1,000 are to stay cash: it stops where its band begins.
    found = by_instrument(
        model(X=("60", "5"), Y=("30", "9")), account(cash="1700", X=line("40", "100"), Y=line("38", "100"))
    )
    assert (found["X"].quantity, found["X"].why) == (15, None)
    assert found["Y"].why is Why.WITHIN_BAND, "no order more than there are lines that are off"


def test_a_line_that_cannot_be_sold_is_not_paid_for_with_the_cash_line() -> None:
    """X may come down no further than it is; Y would be bought up to its target with what is to stay cash."""
    stuck = line("60", "100", against=Why.RESTRICTED)
    found = by_instrument(model(X=("50", "5"), Y=("40", "5")), account(cash="1000", X=stuck, Y=line("30", "100")))
    assert (found["X"].quantity, found["X"].why) == (0, Why.RESTRICTED)
    assert (found["Y"].quantity, found["Y"].weight_after) == (5, 35), "to its edge, no further"
    assert found["Y"].detail == "cash falls to 5 %, its line is 10 %"


def test_what_cash_cannot_pay_for_at_all_is_told() -> None:
    found = by_instrument(
        model(cash="0", X=("60", "5"), Y=("40", "1")), account(cash="1000", X=line("30", "100"), Y=line("34", "100"))
    )
    assert (found["X"].quantity, found["X"].why, found["X"].detail) == (10, Why.CASH, "20 % are left")
    assert (found["Y"].quantity, found["Y"].why) == (0, Why.CASH)


def test_a_basket_sells_first_and_has_a_leg_for_each_instrument_and_side() -> None:
    one = model(X=("60", "5"), Y=("30", "5"))
    first = drifts(one, account(X=line("80", "100"), Y=line("10", "100")))
    second = [Drift(account_id="b", instrument="X", target=D(60), band=D(5), weight=D(0), quantity=D(3))]
    draft = basket(one, [*first, *second], "ann")
    assert draft is not None
    assert draft.sells_first
    told = [(leg.side, leg.instrument, dict(leg.units), leg.accounts) for leg in draft.legs]
    assert told == [
        (Side.SELL, "X", {"a": D(20)}, ("a",)),
        (Side.BUY, "X", {"b": D(3)}, ("b",)),
        (Side.BUY, "Y", {"a": D(20)}, ("a",)),
    ]
    within = drifts(one, account(X=line("60", "100"), Y=line("30", "100")))
    assert basket(one, within, "ann") is None


def test_a_groups_drift_weighs_each_account_by_its_value() -> None:
    one = model(X=("90", "1"))
    subjects = [
        account(X=line("90", "100")),
        Subject(account_id="b", nav=D(30_000), cash=D(30_000), lines={"X": line("0", "100")}),
    ]
    [found] = group_drifts(one, subjects, [d for s in subjects for d in drifts(one, s)])
    assert (found.weight, found.weight_after, found.orders) == (D("22.5"), 90, 1)


def test_an_account_is_seen_as_its_venue_and_mandate_have_it() -> None:
    one = model(cash="0", **{BTC: ("50", "1"), SWAP: ("50", "1"), "DOGE/USDT": ("0", "0")})
    banned = FakeAccount("a", mandate=Mandate(account_id="a", do_not_trade=(SWAP,)), positions={BTC: {"net": D("0.5")}})
    seen = subject(one, "a", banned, FakeMarket(), "USDT")
    assert (seen.nav, seen.cash) == (100_000, 100_000)
    assert (seen.lines[BTC].held, seen.lines[BTC].unit_value, seen.lines[BTC].pays) == (D("0.5"), 50_000, True)
    assert (seen.lines[SWAP].against, seen.lines[SWAP].pays) == (Why.RESTRICTED, False)
    assert seen.lines["DOGE/USDT"].against is Why.NOT_LISTED
    assert subject(one, "a", banned, FakeMarket(), "RUB").lines[BTC].against is Why.CURRENCY
    assert drifts(one, subject(one, "x", None, FakeMarket(), "USDT"))[0].why is Why.NO_NAV


# ---- Properties


@st.composite
def portfolios(draw: st.DrawFn) -> tuple[Model, Subject]:
    count = draw(st.integers(1, 6))
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=count, max_size=count)))
    weights = [high - low for low, high in zip([0, *cuts], cuts, strict=False)]
    lines, told = {}, {}
    for number, weight in enumerate(weights):
        name = f"X{number}"
        told[name] = (str(weight), str(draw(st.integers(0, 10))))
        lines[name] = Line(
            held=D(draw(st.integers(0, 2000))) / 10,
            unit_value=D(draw(st.integers(1, 50_000))) / 100,
            step=draw(st.sampled_from([D("0.1"), D(1), D(10)])),
            minimum=D(draw(st.integers(0, 5))),
            fee_rate=draw(st.sampled_from([D(0), D("0.001")])),
            against=draw(st.sampled_from([None, None, None, Why.RESTRICTED])),
        )
    cash = D(draw(st.integers(0, 50_000)))
    nav = cash + sum((there.held * there.unit_value for there in lines.values()), D(0))
    one = model(cash=str(100 - sum(weights)), **told)
    return one, Subject(account_id="a", nav=nav, cash=cash, lines=lines)


@given(portfolios())
def test_after_the_orders_each_weight_is_within_its_band_or_a_reason_is_told(made: tuple[Model, Subject]) -> None:
    one, of = made
    for drift in drifts(one, of):
        if drift.weight_after is None or abs(drift.weight_after - drift.target) > drift.band:
            assert drift.why not in (None, Why.WITHIN_BAND)
        else:
            assert drift.why in (None, Why.WITHIN_BAND) or drift.weight is None


@given(portfolios())
def test_no_line_within_its_band_is_touched_and_every_order_is_one_that_can_be_sent(
    made: tuple[Model, Subject],
) -> None:
    one, of = made
    for drift in drifts(one, of):
        there = of.lines[drift.instrument]
        if drift.quantity:
            assert drift.weight is not None
            assert abs(drift.weight - drift.target) > drift.band
            assert there.against is None
            assert drift.quantity % there.step == 0
            assert abs(drift.quantity) >= there.minimum
            assert there.held + drift.quantity >= 0, "nothing is sold that is not there"


@given(portfolios())
def test_buys_never_cost_more_than_cash_and_sells_bring(made: tuple[Model, Subject]) -> None:
    one, of = made
    cash = of.cash or D(0)
    for drift in drifts(one, of):
        there = of.lines[drift.instrument]
        value = drift.quantity * there.unit_value
        cash -= value + abs(value) * there.fee_rate
    bought = any(drift.quantity > 0 for drift in drifts(one, of))
    assert cash >= 0 or not bought


@given(portfolios(), st.randoms(use_true_random=False))
def test_the_order_of_lines_changes_nothing(made: tuple[Model, Subject], rng: Random) -> None:
    one, of = made
    lines = list(one.lines)
    rng.shuffle(lines)
    shuffled = Model(model_id="m", name="Balanced", cash=one.cash, lines=tuple(lines))
    assert by_instrument(shuffled, of) == by_instrument(one, of)
