from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.deviations import Deviation, from_median, from_plans, proposal
from engine.core.facts import Side
from engine.core.models import Line, Subject, Why
from engine.core.plans import Leg

D = Decimal
X = "BTC/USDT:USDT"


def account(name: str, held: str, nav: str | None = "1000", **line: object) -> Subject:
    there = Line(held=D(held), unit_value=D(10), pays=False, **line)  # type: ignore[arg-type]
    return Subject(account_id=name, nav=None if nav is None else D(nav), cash=D(1000), lines={X: there})


def apart(*subjects: Subject, band: str = "0.5") -> dict[str, tuple[Decimal, Why | None]]:
    found = from_median("g", subjects, [X], D(band), "USDT")
    return {row.account_id: (row.quantity, row.why) for row in found.rows if row.apart}


def test_who_has_another_weight_than_the_middle_is_brought_back_to_it() -> None:
    found = from_median("g", [account("a", "50"), account("b", "50"), account("c", "20")], [X], D("0.5"), "USDT")
    assert [(row.account_id, row.weight, row.wanted, row.quantity) for row in found.rows] == [
        ("a", 50, 50, 0),
        ("b", 50, 50, 0),
        ("c", 20, 50, 30),
    ]


def test_weights_count_not_quantities() -> None:
    assert apart(account("a", "50"), account("b", "100", "2000"), account("c", "25", "500")) == {}


def test_a_short_that_nobody_else_has_is_bought_back() -> None:
    assert apart(account("a", "0"), account("b", "0"), account("c", "-7")) == {"c": (7, None)}


@pytest.mark.parametrize(
    ("third", "why"),
    [
        (account("c", "0", None), Why.NO_NAV),
        (account("c", "0", against=Why.RESTRICTED), Why.RESTRICTED),
        (account("c", "47", step=D(5), minimum=D(5)), Why.STEP),
    ],
)
def test_who_cannot_be_brought_back_is_told_with_the_reason(third: Subject, why: Why) -> None:
    assert apart(account("a", "50"), account("b", "50"), third)["c"][1] is why


def against_plans(subject: Subject, moved: Mapping[str, Decimal]) -> Deviation:
    [row] = from_plans("g", [subject], {("a", X): moved, ("stranger", X): {"external": D(9)}}, "USDT").rows
    return row


@pytest.mark.parametrize(
    ("held", "moved", "back"),
    [
        ("3", {"external": "-2"}, "2"),  # sold elsewhere
        ("5", {"external": "2"}, "-2"),
        ("0", {"liquidation": "-3", "external": "1"}, "2"),
        ("-2", {"external": "-2"}, "2"),
    ],
)
def test_what_others_traded_is_undone(held: str, moved: dict[str, str], back: str) -> None:
    row = against_plans(account("a", held), {who: D(n) for who, n in moved.items()})
    assert (row.quantity, row.why) == (D(back), None)
    assert row.wanted == row.held + row.quantity


def test_what_others_traded_and_took_back_is_no_deviation() -> None:
    assert from_plans("g", [account("a", "3")], {("a", X): {"external": D(0)}}, "USDT").rows == ()


def test_papers_that_are_gone_are_not_sold() -> None:
    owned = Line(held=D(1), unit_value=D(10), step=D(1), pays=True)
    subject = Subject(account_id="a", nav=D(100), cash=D(0), lines={X: owned})
    row = against_plans(subject, {"external": D(3)})
    assert (row.quantity, row.why, row.detail) == (-1, Why.STEP, "2 stay apart")


def test_less_than_an_order_may_be_is_left_and_said() -> None:
    row = against_plans(account("a", "3", minimum=D(5)), {"external": D(-2)})
    assert (row.quantity, row.why) == (0, Why.BELOW_MINIMUM)


def test_one_plan_brings_all_back_sells_first_with_units_for_each() -> None:
    found = from_median("g", [account("a", "50"), account("b", "80"), account("c", "20")], [X], D(1), "USDT")
    draft = proposal(found, "mia")
    assert draft is not None
    assert [(leg.side, dict(leg.units), leg.accounts) for leg in draft.legs] == [
        (Side.SELL, {"b": D(30)}, ("b",)),
        (Side.BUY, {"c": D(30)}, ("c",)),
    ]
    assert (draft.sells_first, draft.by, draft.title) == (True, "mia", "Brings g back in line")


def test_nothing_to_do_is_no_plan() -> None:
    assert proposal(from_median("g", [account("a", "1")], [X], D(0), "USDT"), "mia") is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 50)), min_size=1, max_size=7),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_carried_out_the_plan_leaves_nobody_apart_who_could_be_brought_back(
    accounts: list[tuple[int, int]], band: int, rng: object
) -> None:
    subjects = [account(f"a{n}", str(held), str(nav * 100)) for n, (held, nav) in enumerate(accounts)]
    found = from_median("g", subjects, [X], D(band), "USDT")
    rng.shuffle(subjects)  # type: ignore[attr-defined]
    again = from_median("g", subjects, [X], D(band), "USDT")
    assert sorted(again.rows, key=lambda r: r.account_id) == sorted(found.rows, key=lambda r: r.account_id)
    of_account = {s.account_id: s for s in subjects}
    draft = proposal(found, "mia")
    legs: tuple[Leg, ...] = () if draft is None else draft.legs
    units = {a: (q if leg.side is Side.BUY else -q) for leg in legs for a, q in leg.units.items()}
    for row in found.rows:
        there = of_account[row.account_id].lines[X]
        nav = of_account[row.account_id].nav
        assert nav is not None
        assert row.wanted is not None
        after = (there.held + units.get(row.account_id, D(0))) * 10 * 100 / nav
        assert abs(after - row.wanted) <= band or row.why is Why.STEP
        assert abs(after - row.wanted) <= abs((row.weight or D(0)) - row.wanted)
