"""How a leg is split: the worked examples, and what holds for every split."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.allocation import Party, Share, allocate, split
from engine.core.facts import Side
from engine.core.plans import BelowMinimum, Denial, Leg, Method, Residual

D = Decimal


def buy(method: Method, **fields: object) -> Leg:
    return Leg(instrument="X", method=method, side=Side.BUY, **fields)  # type: ignore[arg-type]


def shares_of(leg: Leg, parties: list[Party]) -> dict[str, Share]:
    found = allocate(leg, parties)
    assert not isinstance(found, Denial), found
    return {share.account_id: share for share in found}


def quantities(leg: Leg, parties: list[Party]) -> list[Decimal]:
    found = shares_of(leg, parties)
    return [found[party.account_id].quantity for party in parties]


def weights(*numbers: str) -> dict[str, Decimal]:
    return {f"a{number}": D(text) for number, text in enumerate(numbers)}


# ---- Worked examples


@pytest.mark.parametrize(
    ("steps", "by", "residual", "expected"),
    [
        (400, ("1",) * 6, "largest_remainder", [67, 67, 67, 67, 66, 66]),
        (400, ("1",) * 6, "largest_first", [67, 67, 67, 67, 66, 66]),
        (400, ("1",) * 6, "floor", [66] * 6),
        (1000, ("25", "50", "100"), "largest_remainder", [143, 286, 571]),
        (1003, ("4", "2", "1", "1"), "largest_remainder", [502, 251, 125, 125]),
        (100, ("1.2", "0.8", "0.35", "0.05"), "floor", [50, 33, 14, 2]),  # 1,000 shares in lots of 10
        (100, ("1.2", "0.8", "0.35", "0.05"), "largest_remainder", [50, 33, 15, 2]),
        (100, ("1.2", "0.8", "0.35", "0.05"), "largest_first", [51, 33, 14, 2]),
        (100, ("0", "0"), "largest_remainder", [0, 0]),
        (1, ("0", "3", "3"), "largest_first", [0, 1, 0]),  # nobody of weight zero gets a left-over
    ],
)
def test_steps_are_split_by_weight(steps: int, by: tuple[str, ...], residual: str, expected: list[int]) -> None:
    assert list(split(steps, weights(*by), Residual(residual)).values()) == expected


def test_ties_go_to_the_larger_weight_then_by_account_id() -> None:
    # Raw 1.5 and 4.5: the same remainder, the larger weight gets the step.
    assert split(6, {"a": D(1), "b": D(3)}, Residual.LARGEST_REMAINDER) == {"a": 1, "b": 5}
    assert split(1, {"b": D(1), "a": D(1)}, Residual.LARGEST_REMAINDER) == {"b": 0, "a": 1}


def test_equal_gives_each_account_the_same_but_for_one_step() -> None:
    parties = [Party(account_id=f"a{n}", step=D("0.01")) for n in range(3)]
    assert quantities(buy(Method.EQUAL, quantity=D("1.00")), parties) == [D("0.34"), D("0.33"), D("0.33")]


def test_percent_follows_the_groups_weights() -> None:
    parties = [Party(account_id=k, step=D(1), weight=w) for k, w in weights("50", "30", "20").items()]
    assert quantities(buy(Method.PERCENT, quantity=D(1000)), parties) == [D(500), D(300), D(200)]


def test_percentages_that_do_not_sum_to_100_are_refused_with_their_sum() -> None:
    parties = [Party(account_id=k, step=D(1), weight=w) for k, w in weights("33.33", "33.33", "33.33").items()]
    denial = allocate(buy(Method.PERCENT, quantity=D(1000)), parties)
    assert denial == Denial("weight_sum", {"sum": "99.99"}, "the weights sum to 99.99, not to 100")


def test_a_weight_below_zero_is_refused() -> None:
    parties = [Party(account_id=k, step=D(1), weight=w) for k, w in weights("120", "-20").items()]
    denial = allocate(buy(Method.PERCENT, quantity=D(1000)), parties)
    assert isinstance(denial, Denial)
    assert (denial.code, denial.numbers) == ("negative_weight", {"account": "a1", "weight": "-20"})


def test_a_quantity_off_the_lot_is_refused_with_both_numbers() -> None:
    denial = allocate(buy(Method.EQUAL, quantity=D("10.005")), [Party(account_id="a", step=D("0.01"))])
    assert isinstance(denial, Denial)
    assert (denial.code, denial.numbers) == ("off_lot", {"quantity": "10.005", "lot": "0.01"})


def test_one_quantity_is_not_split_over_different_units() -> None:
    parties = [
        Party(account_id="a", step=D(1), unit="contract of 0.01"),
        Party(account_id="b", step=D("0.001"), unit="BTC"),
    ]
    denial = allocate(buy(Method.EQUAL, quantity=D(10)), parties)
    assert isinstance(denial, Denial)
    assert denial.code == "mixed_units"
    assert denial.numbers["units"] == "BTC by 0.001 and contract of 0.01 by 1"


def test_units_are_as_told_and_a_total_that_differs_is_refused() -> None:
    parties = [Party(account_id=k, step=D(1)) for k in "abc"]
    leg = buy(Method.UNITS, units={"a": D(5), "b": D("2.5")})
    assert quantities(leg, parties) == [D(5), D("2.5"), D(0)]
    denial = allocate(buy(Method.UNITS, units={"a": D(5), "b": D(2)}, quantity=D(8)), parties)
    assert isinstance(denial, Denial)
    assert (denial.code, denial.numbers) == ("units_total", {"sum": "7", "total": "8"})


def test_nav_percent_takes_the_same_part_of_each_account_rounded_down() -> None:
    parties = [
        Party(account_id="a", step=D("0.1"), nav=D(100_000), unit_value=D("612.34")),
        Party(account_id="b", step=D("0.1"), nav=D(50_000), unit_value=D("612.34")),
    ]
    # 1 % of 100,000 is 1,000: 1.633 units. Of 50,000: 0.816.
    assert quantities(buy(Method.NAV_PERCENT, percent=D(1)), parties) == [D("1.6"), D("0.8")]


def test_nav_percent_is_exact_at_the_edge_of_a_step() -> None:
    # 30 % of 10^18 at 0.3 a unit: one digit lost and both accounts would get the same.
    party = Party(account_id="a", step=D(1), nav=D("1000000000000000000.000000000000000003"), unit_value=D("0.3"))
    [got] = quantities(buy(Method.NAV_PERCENT, percent=D(30)), [party])
    assert got == D(10) ** 18
    [one_less] = quantities(
        buy(Method.NAV_PERCENT, percent=D(30)),
        [Party(account_id="a", step=D(1), nav=D("999999999999999999.999999999999999999"), unit_value=D("0.3"))],
    )
    assert one_less == D(10) ** 18 - 1


@pytest.mark.parametrize("nav", [None, D(0), D(-5)])
def test_an_account_without_a_positive_nav_has_no_share(nav: Decimal | None) -> None:
    party = Party(account_id="a", step=D(1), nav=nav, unit_value=D(10))
    share = shares_of(buy(Method.NAV_PERCENT, percent=D(1)), [party])["a"]
    assert share.quantity == 0
    assert share.denial is not None
    assert share.denial.code == "no_nav"


def test_change_follows_each_accounts_own_position() -> None:
    parties = [Party(account_id=k, step=D(1), held=D(h)) for k, h in zip("abc", (100, 400, 200), strict=True)]
    grown = shares_of(Leg(instrument="X", method=Method.CHANGE, percent=D(50)), parties)
    assert [grown[k].quantity for k in "abc"] == [50, 200, 100]
    assert {grown[k].side for k in "abc"} == {Side.BUY}
    assert not any(grown[k].reduces for k in "abc")


def test_closing_sells_what_is_long_and_buys_what_is_short() -> None:
    parties = [Party(account_id=k, step=D(1), held=D(h)) for k, h in zip("abc", (100, -40, 0), strict=True)]
    closed = shares_of(Leg(instrument="X", method=Method.CHANGE, percent=D(-100)), parties)
    assert [(closed[k].side, closed[k].quantity, closed[k].reduces) for k in "ab"] == [
        (Side.SELL, 100, True),
        (Side.BUY, 40, True),
    ]
    assert closed["c"].quantity == 0


def test_a_reducing_leg_never_goes_past_flat() -> None:
    parties = [Party(account_id=k, step=D(1), held=D(h)) for k, h in zip("abc", (100, 3, -5), strict=True)]
    leg = Leg(instrument="X", method=Method.EQUAL, side=Side.SELL, quantity=D(30), reduce_only=True)
    assert quantities(leg, parties) == [10, 3, 0]  # what b and c cannot take goes to nobody


def test_a_member_without_the_instrument_keeps_its_share_from_the_others() -> None:
    parties = [Party(account_id="a", step=D(1)), Party(account_id="b", step=None), Party(account_id="c", step=D(1))]
    assert quantities(buy(Method.EQUAL, quantity=D(30)), parties) == [10, 10, 10]
    assert quantities(buy(Method.EQUAL, quantity=D(30)), [Party(account_id="b", step=None)]) == [0]


def test_level_fills_up_the_lowest_holdings_like_water() -> None:
    parties = [Party(account_id=k, step=D(1), held=D(h)) for k, h in zip("abc", (300, 50, 0), strict=True)]
    assert quantities(buy(Method.LEVEL, quantity=D(120)), parties) == [0, 35, 85]
    # Selling takes from the highest: 300 and 50 come down to 50, and 10 more from each.
    sell = Leg(instrument="X", method=Method.LEVEL, side=Side.SELL, quantity=D(270))
    assert quantities(sell, parties) == [260, 10, 0]


def test_nav_splits_by_net_asset_value() -> None:
    parties = [Party(account_id=k, step=D(1), nav=D(n)) for k, n in zip("abc", (25_000, 50_000, 100_000), strict=True)]
    assert quantities(buy(Method.NAV, quantity=D(1000)), parties) == [143, 286, 571]


@pytest.mark.parametrize(
    ("residual", "expected", "left"),
    [
        ("floor", [500, 330, 140, 20], 10),
        ("largest_remainder", [500, 330, 150, 20], 0),
        ("largest_first", [510, 330, 140, 20], 0),
    ],
)
def test_the_same_thousand_shares_in_lots_of_ten_by_each_residual_rule(
    residual: str, expected: list[int], left: int
) -> None:
    navs = ("1200000", "800000", "350000", "50000")
    parties = [Party(account_id=k, step=D(10), nav=n) for k, n in weights(*navs).items()]
    got = quantities(buy(Method.NAV, quantity=D(1000), residual=Residual(residual)), parties)
    assert got == expected
    assert 1000 - sum(got) == left


@pytest.mark.parametrize("nav", [None, D(0), D(-5)])
def test_a_quantity_is_not_split_by_a_nav_that_is_no_weight(nav: Decimal | None) -> None:
    parties = [Party(account_id="a", step=D(1), nav=D(10)), Party(account_id="b", step=D(1), nav=nav)]
    denial = allocate(buy(Method.NAV, quantity=D(10)), parties)
    assert isinstance(denial, Denial)
    assert (denial.code, denial.numbers["account"]) == ("split_nav", "b")


def test_available_gives_nothing_to_who_has_nothing_free() -> None:
    parties = [
        Party(account_id=k, step=D(1), available=D(free)) for k, free in zip("abcd", (300, 0, 100, -20), strict=True)
    ]
    assert quantities(buy(Method.AVAILABLE, quantity=D(100)), parties) == [75, 0, 25, 0]
    denial = allocate(buy(Method.AVAILABLE, quantity=D(1)), [*parties, Party(account_id="e", step=D(1))])
    assert isinstance(denial, Denial)
    assert (denial.code, denial.numbers) == ("split_available", {"account": "e"})


def test_ratio_follows_the_groups_weights_whatever_their_sum() -> None:
    parties = [Party(account_id=k, step=D(1), weight=w) for k, w in weights("4", "2", "1", "1").items()]
    assert quantities(buy(Method.RATIO, quantity=D(1003)), parties) == [502, 251, 125, 125]


def test_weights_that_are_all_zero_are_refused() -> None:
    denial = allocate(buy(Method.RATIO, quantity=D(3)), [Party(account_id=k, step=D(1)) for k in "ab"])
    assert isinstance(denial, Denial)
    assert (denial.code, denial.numbers) == ("no_weight", {"method": "ratio"})


def test_money_is_turned_into_whole_lots() -> None:
    parties = [Party(account_id=k, step=D(10), unit_value=D("271.34")) for k in "ab"]
    assert quantities(buy(Method.MONEY, amount=D(50_000)), parties) == [180, 180]
    assert quantities(buy(Method.MONEY, amounts={"a": D(50_000), "b": D(2713)}), parties) == [180, 0]


@pytest.mark.parametrize(
    ("held", "percent", "side", "quantity", "reduces"),
    [
        ("0", "10", Side.BUY, "9", False),  # 1,000 at 110
        ("3", "10", Side.BUY, "6", False),
        ("20", "10", Side.SELL, "10", True),  # 2,200 - 1,000 = 1,200: 10.9
        ("20", "0", Side.SELL, "20", True),
        ("-4", "10", Side.BUY, "13", False),  # through zero: it does not only reduce
        ("-4", "0", Side.BUY, "4", True),
    ],
)
def test_a_target_is_approached_and_never_passed(
    held: str, percent: str, side: Side, quantity: str, reduces: bool
) -> None:
    party = Party(account_id="a", step=D(1), nav=D(10_000), held=D(held), unit_value=D(110))
    share = shares_of(Leg(instrument="X", method=Method.TARGET, percent=D(percent)), [party])["a"]
    assert (share.side, share.quantity, share.reduces) == (side, D(quantity), reduces)


def test_what_lies_within_the_band_is_left_alone_and_said_so() -> None:
    party = Party(account_id="a", step=D(1), nav=D(10_000), held=D(10), unit_value=D(110))  # 11 %
    leg = Leg(instrument="X", method=Method.TARGET, percent=D(10), band=D(1))
    share = shares_of(leg, [party])["a"]
    assert share.quantity == 0
    assert share.denial is not None
    assert share.denial.numbers == {"weight": "11.0000", "target": "10", "band": "1"}
    tighter = msgspec.structs.replace(leg, band=D("0.99"))
    assert shares_of(tighter, [party])["a"].denial is None


def test_risk_sizes_by_what_the_stop_would_cost() -> None:
    # 1 % of 100,000 is 1,000; a unit loses 7.5 to the stop: 133.3.
    party = Party(account_id="a", step=D(10), nav=D(100_000), unit_value=D(100), unit_risk=D("7.5"))
    leg = buy(Method.RISK, percent=D(1), stop_price=D("92.5"))
    assert quantities(leg, [party]) == [130]
    wrong = shares_of(leg, [msgspec.structs.replace(party, unit_risk=D(-1))])["a"]
    assert wrong.denial is not None
    assert wrong.denial.code == "stop_side"


def test_a_small_share_is_raised_to_the_minimum_at_the_cost_of_the_others() -> None:
    parties = [Party(account_id=k, step=D(1), minimum=D(10), weight=w) for k, w in weights("90", "8", "2", "0").items()]
    leg = buy(Method.RATIO, quantity=D(100))
    raised = allocate(leg, parties, BelowMinimum.RAISE)
    assert not isinstance(raised, Denial)
    assert [share.quantity for share in raised] == [80, 10, 10, 0]
    too_little = allocate(buy(Method.RATIO, quantity=D(29)), parties, BelowMinimum.RAISE)
    assert isinstance(too_little, Denial)
    assert (too_little.code, too_little.numbers) == ("minimum_sum", {"quantity": "29", "needed": "30"})


def test_a_derived_share_is_raised_but_a_close_never_beyond_the_position() -> None:
    party = Party(account_id="a", step=D(1), minimum=D(5), held=D(7), unit_value=D(10))
    small = buy(Method.MONEY, amount=D(30))
    [share] = allocate(small, [party], BelowMinimum.RAISE)
    assert share.quantity == 5
    half = Leg(instrument="X", method=Method.CHANGE, percent=D(-50))
    [share] = allocate(half, [party], BelowMinimum.RAISE)
    assert share.quantity == 5
    [share] = allocate(half, [msgspec.structs.replace(party, held=D(4))], BelowMinimum.RAISE)
    assert share.quantity == 2


# ---- Properties

ids = st.lists(st.integers(0, 10_000).map(lambda n: f"a{n:05}"), min_size=1, max_size=12, unique=True)
weight = st.decimals(min_value=0, max_value=10**9, places=6)
step_sizes = st.sampled_from([D("0.00000001"), D("0.01"), D("0.1"), D(1), D(5), D(10)])


@st.composite
def weighings(draw: st.DrawFn) -> dict[str, Decimal]:
    return {account_id: draw(weight) for account_id in draw(ids)}


@given(weighings(), st.integers(0, 10**12), st.sampled_from(Residual))
def test_every_split_conserves_steps_and_stays_within_one_step_of_raw(
    by: dict[str, Decimal], steps: int, residual: Residual
) -> None:
    shares = split(steps, by, residual)
    whole = sum(map(Fraction, by.values()))
    assert all(share >= 0 for share in shares.values())
    if not whole:
        assert not any(shares.values())
        return
    left = steps - sum(shares.values())
    assert left == 0 if residual is not Residual.FLOOR else 0 <= left < len(by)
    for account_id, share in shares.items():
        raw = steps * Fraction(by[account_id]) / whole
        assert abs(share - raw) < 1 or (residual is Residual.LARGEST_FIRST and share == raw + 1)
        assert share == 0 or by[account_id] > 0


@given(weighings(), st.integers(0, 10**9), st.sampled_from(Residual), st.randoms(use_true_random=False))
def test_the_order_of_accounts_changes_nothing(
    by: dict[str, Decimal], steps: int, residual: Residual, rng: Random
) -> None:
    shuffled = list(by.items())
    rng.shuffle(shuffled)
    assert split(steps, dict(shuffled), residual) == split(steps, by, residual)


@given(ids, st.integers(1, 10**9), step_sizes, st.sampled_from(Residual))
def test_equal_shares_sum_to_the_quantity_or_leave_a_residual(
    accounts: list[str], steps: int, step: Decimal, residual: Residual
) -> None:
    leg = buy(Method.EQUAL, quantity=steps * step, residual=residual)
    found = shares_of(leg, [Party(account_id=a, step=step) for a in accounts]).values()
    left = steps * step - sum(share.quantity for share in found)
    assert left == 0 if residual is not Residual.FLOOR else 0 <= left < step * len(accounts)
    assert max(share.quantity for share in found) - min(share.quantity for share in found) <= step
    assert all(share.quantity % step == 0 for share in found)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=8), step_sizes)
def test_a_closed_account_ends_flat_or_at_a_stub_smaller_than_a_step(held: Decimal, step: Decimal) -> None:
    leg = Leg(instrument="X", method=Method.CHANGE, percent=D(-100))
    share = shares_of(leg, [Party(account_id="a", step=step, held=held)])["a"]
    after = held + share.side.sign * share.quantity
    assert abs(after) < step
    assert after * held >= 0, "a close never opens the other side"
    assert share.quantity + abs(after) == abs(held)


@given(
    st.decimals(min_value=-(10**9), max_value=10**9, places=8),
    st.decimals(min_value=-100, max_value=500, places=2).filter(bool),
    step_sizes,
)
def test_a_change_never_turns_a_position_round(held: Decimal, percent: Decimal, step: Decimal) -> None:
    leg = Leg(instrument="X", method=Method.CHANGE, percent=percent)
    share = shares_of(leg, [Party(account_id="a", step=step, held=held)])["a"]
    after = held + share.side.sign * share.quantity
    assert after * held >= 0
    assert share.quantity % step == 0
    raw = abs(Fraction(held)) * abs(Fraction(percent)) / 100
    assert 0 <= raw - Fraction(share.quantity) < Fraction(step)
    assert (percent < 0) == share.reduces


@given(
    st.decimals(min_value=D("0.01"), max_value=10**12, places=8),
    st.decimals(min_value=D("0.01"), max_value=100, places=2),
    st.decimals(min_value=D("0.00000001"), max_value=10**6, places=8),
    step_sizes,
)
def test_nav_percent_is_the_exact_floor(nav: Decimal, percent: Decimal, value: Decimal, step: Decimal) -> None:
    party = Party(account_id="a", step=step, nav=nav, unit_value=value)
    share = shares_of(buy(Method.NAV_PERCENT, percent=percent), [party])["a"]
    raw = Fraction(percent) * Fraction(nav) / 100 / Fraction(value)
    assert Fraction(share.quantity) == raw // Fraction(step) * Fraction(step)


@given(ids, st.integers(1, 10**6), st.decimals(min_value=-(10**6), max_value=10**6, places=2))
def test_a_reducing_share_never_exceeds_what_it_closes(accounts: list[str], steps: int, held: Decimal) -> None:
    leg = Leg(instrument="X", method=Method.EQUAL, side=Side.SELL, quantity=D(steps), reduce_only=True)
    for share in shares_of(leg, [Party(account_id=a, step=D(1), held=held) for a in accounts]).values():
        assert 0 <= share.quantity <= max(D(0), held)
        assert share.reduces


def parties_of(draw: st.DrawFn, step: Decimal) -> list[Party]:
    amount = st.decimals(min_value=D("0.01"), max_value=10**9, places=2)
    return [
        Party(
            account_id=a,
            step=step,
            weight=draw(amount),
            nav=draw(amount),
            available=draw(amount),
            held=draw(st.decimals(min_value=-(10**6), max_value=10**6, places=3)),
        )
        for a in draw(ids)
    ]


@st.composite
def spreads(draw: st.DrawFn) -> tuple[Leg, list[Party]]:
    step = draw(step_sizes)
    method = draw(st.sampled_from([Method.EQUAL, Method.LEVEL, Method.NAV, Method.AVAILABLE, Method.RATIO]))
    quantity = step * draw(st.integers(1, 10**7))
    leg = Leg(
        instrument="X",
        method=method,
        side=draw(st.sampled_from(Side)),
        quantity=quantity,
        residual=draw(st.sampled_from(Residual)),
    )
    return leg, parties_of(draw, step)


@given(spreads(), st.randoms(use_true_random=False))
def test_a_spread_invents_nothing_and_leaves_at_most_the_residual(made: tuple[Leg, list[Party]], rng: Random) -> None:
    leg, parties = made
    assert leg.quantity is not None
    step = parties[0].step
    assert step is not None
    shares = shares_of(leg, parties)
    given_out = sum(share.quantity for share in shares.values())
    if leg.residual is Residual.FLOOR:
        assert leg.quantity - step * len(parties) < given_out <= leg.quantity
    else:
        assert given_out == leg.quantity
    assert all(share.quantity >= 0 and share.quantity % step == 0 for share in shares.values())
    if leg.residual is Residual.LARGEST_REMAINDER:
        assert all(abs(share.quantity - share.raw) < step * D("1.000001") for share in shares.values())
    rng.shuffle(parties)
    assert shares_of(leg, parties) == shares


@given(spreads())
def test_who_weighs_more_never_gets_less(made: tuple[Leg, list[Party]]) -> None:
    leg, parties = made
    shares = sorted(shares_of(leg, parties).values(), key=lambda share: share.raw)
    assert all(few.quantity <= more.quantity for few, more in pairwise(shares) if few.raw < more.raw)


@given(spreads())
def test_levelling_brings_nobody_past_the_level_of_the_others(made: tuple[Leg, list[Party]]) -> None:
    leg = msgspec.structs.replace(made[0], method=Method.LEVEL)
    parties = made[1]
    assert leg.side is not None
    assert parties[0].step is not None
    shares = shares_of(leg, parties)
    sign = leg.side.sign
    after = {p.account_id: sign * p.held + shares[p.account_id].quantity for p in parties}
    got = [after[a] for a, share in shares.items() if share.quantity > 0]
    if got:  # whoever got something stands at the level, give or take the steps of rounding
        assert max(got) - min(got) <= 2 * parties[0].step
        assert all(after[a] >= max(got) - 2 * parties[0].step for a in after)


@given(spreads(), st.integers(1, 50))
def test_with_a_minimum_nobody_of_weight_gets_less_and_the_sum_stays(
    made: tuple[Leg, list[Party]], minimum: int
) -> None:
    leg = msgspec.structs.replace(made[0], method=Method.RATIO, residual=Residual.LARGEST_REMAINDER)
    step = made[1][0].step
    assert step is not None
    parties = [msgspec.structs.replace(party, minimum=step * minimum) for party in made[1]]
    found = allocate(leg, parties, BelowMinimum.RAISE)
    assert leg.quantity is not None
    if isinstance(found, Denial):
        assert found.code == "minimum_sum"
        assert leg.quantity < step * minimum * len(parties)
    else:
        assert all(share.quantity >= step * minimum for share in found)
        assert sum(share.quantity for share in found) == leg.quantity


@given(
    st.decimals(min_value=-(10**6), max_value=10**6, places=3),
    st.decimals(min_value=0, max_value=300, places=2),
    st.decimals(min_value=D("0.01"), max_value=10**6, places=2),
    st.decimals(min_value=1, max_value=10**9, places=2),
    step_sizes,
)
def test_after_a_target_the_weight_is_nearer_and_within_one_step(
    held: Decimal, percent: Decimal, value: Decimal, nav: Decimal, step: Decimal
) -> None:
    party = Party(account_id="a", step=step, nav=nav, held=held, unit_value=value)
    share = shares_of(Leg(instrument="X", method=Method.TARGET, percent=percent), [party])["a"]
    wanted = Fraction(percent) * Fraction(nav) / 100 / Fraction(value)
    after = Fraction(held) + share.side.sign * Fraction(share.quantity)
    assert abs(wanted - after) < Fraction(step)
    assert (wanted - after) * (wanted - Fraction(held)) >= 0, "it never goes past the target"


@given(st.decimals(min_value=0, max_value=10**9, places=2), st.decimals(min_value=D("0.01"), max_value=10**5, places=2))
def test_money_never_costs_more_than_was_given(amount: Decimal, value: Decimal) -> None:
    share = shares_of(buy(Method.MONEY, amount=amount), [Party(account_id="a", step=D(10), unit_value=value)])["a"]
    assert share.quantity * value <= amount < (share.quantity + 10) * value
