"""Every difference is found, has the right code, and keeps its id; what could not be told is unknown, never equal."""

from __future__ import annotations

from decimal import Decimal as D
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.breaks import Cause, Code, Severity, aged, survive
from engine.core.facts import Side
from engine.core.limits import plain
from engine.core.orders import OrderState
from engine.core.runs import Verdict, account_verdict
from engine.core.statements import OpenGap, Part
from engine.core.tolerances import RULES
from tests.core.sides import BTC, ETH, LONG_AGO, NOW, balance, compared, fill, order, position

_GAP = OpenGap(gap_id="g1", from_ms=LONG_AGO - 10, to_ms=LONG_AGO + 10, state="open")
_MODES = (position(quantity=D(2)), position(quantity=D(3), margin_mode="isolated"))

Change = dict[str, Any]


@pytest.mark.parametrize(
    ("code", "stated", "booked"),
    [
        (Code.POS_QTY, {"positions": (position(quantity=D(6)),)}, {}),
        (Code.POS_QTY, {"positions": _MODES}, {"positions": (position(quantity=D(6), margin_mode=""),)}),
        (Code.POS_SIDE, {"positions": (position(quantity=D(-5)),)}, {}),
        (
            Code.POS_SIDE,
            {"positions": (position(quantity=D(5), position_side="long"),)},
            {"positions": (position(quantity=D(-5), position_side="short"),)},
        ),
        (Code.POS_ONLY_VENUE, {"positions": (position(), position(instrument=ETH))}, {}),
        (Code.POS_ONLY_VENUE, {"positions": (position(), position(margin_mode="isolated"))}, {}),
        (Code.POS_ONLY_LEDGER, {"positions": ()}, {}),
        (Code.POS_ONLY_LEDGER, {"positions": (position(quantity=D(0)),)}, {}),
        (Code.POS_AVGPX, {"positions": (position(avg_price=D("60006.1")),)}, {}),
        (Code.POS_DUST, {"positions": (position(quantity=D("5.4")),)}, {}),
        (Code.CASH_AMT, {"balances": (balance(cash=D("10000.50000002")),)}, {}),
        (Code.CASH_AMT, {"balances": ()}, {}),
        (Code.CASH_AMT, {"balances": (balance(), balance(currency="USD", cash=D("0.02")))}, {}),
        (Code.ORD_ONLY_VENUE, {}, {"orders": ()}),
        (Code.ORD_ONLY_LEDGER, {"orders": ()}, {}),
        (Code.ORD_STATE, {}, {"orders": (order(filled=D(2)),)}),
        (Code.ORD_STATE, {}, {"orders": (order(state=OrderState.FILLED),)}),
        (Code.ORD_STATE, {}, {"orders": (order(price=D(58_000)),)}),
        (Code.ORD_STATE, {}, {"orders": (order(quantity=D(4)),)}),
        (Code.ORD_STATE, {}, {"orders": (order(state=OrderState.UNKNOWN, venue_order_id=""),)}),
        (Code.ORD_UNKNOWN, {"orders": ()}, {"orders": (order(state=OrderState.UNKNOWN),)}),
        (Code.ORD_UNKNOWN, {"orders": ()}, {"orders": (order(state=OrderState.SENDING, venue_order_id=""),)}),
        (Code.FILL_MISSING, {}, {"fills": ()}),
        (Code.FILL_EXTRA, {"fills": ()}, {}),
        (Code.FILL_FIELD, {}, {"fills": (fill(price=D(59_001)),)}),
        (Code.FILL_FIELD, {}, {"fills": (fill(quantity=D(2)),)}),
        (Code.FILL_FIELD, {}, {"fills": (fill(side=Side.SELL),)}),
        (Code.FILL_FIELD, {}, {"fills": (fill(fee=D("-0.3")),)}),
        (Code.FILL_FIELD, {}, {"fills": (fill(fee_currency="BTC"),)}),
        (Code.GAP, {}, {"gaps": (_GAP,)}),
        (Code.STALE, {}, {"stale": "link down for 90 s"}),
        (Code.STALE, {"as_of_ms": NOW - 61_000}, {}),
        (Code.DUP_KEY, {"fills": (fill(), fill(price=D(1)))}, {}),
        (Code.DUP_KEY, {"positions": (position(), position(quantity=D(7)))}, {}),
    ],
)
def test_each_injected_difference_is_found_once_and_classified(code: Code, stated: Change, booked: Change) -> None:
    comparison = compared(stated, booked)
    assert [b.code for b in comparison.breaks] == [code]
    expected = Verdict.CLEAN if code is Code.POS_DUST else Verdict.BREAKS
    assert account_verdict(comparison) is expected


def test_sides_that_agree_are_clean_and_everything_was_counted() -> None:
    comparison = compared()
    assert account_verdict(comparison) is Verdict.CLEAN
    assert {c.part: (c.venue, c.ledger, c.agree) for c in comparison.counts} == dict.fromkeys(Part, (1, 1, 1))


def test_an_instrument_without_a_name_of_ours_makes_the_account_unknown() -> None:
    odd = (position(), position(instrument="odd"))
    comparison = compared({"positions": odd}, {"positions": odd})
    assert [b.code for b in comparison.breaks] == [Code.MAP]
    assert account_verdict(comparison) is Verdict.UNKNOWN


@pytest.mark.parametrize("leg", ["stated", "booked"])
@pytest.mark.parametrize("part", list(Part))
def test_a_missing_part_is_unknown_never_green_and_the_others_are_still_compared(leg: str, part: Part) -> None:
    lost = {"missing": {part: "timed out"}}
    comparison = compared(**{leg: lost})
    assert account_verdict(comparison) is Verdict.UNKNOWN
    assert comparison.breaks == ()
    assert {c.part for c in comparison.counts} == set(Part) - {part}


def test_a_missing_part_outranks_breaks_in_the_others() -> None:
    comparison = compared({"missing": {Part.FILLS: "refused"}, "positions": ()})
    assert [b.code for b in comparison.breaks] == [Code.POS_ONLY_LEDGER]
    assert account_verdict(comparison) is Verdict.UNKNOWN


def test_an_order_placed_elsewhere_is_external_whether_or_not_the_ledger_heard_of_it() -> None:
    elsewhere = order(client_order_id="x9", venue_order_id="v9")
    unheard = compared({"orders": (order(), elsewhere)})
    (found,) = unheard.breaks
    assert (found.code, found.external, found.cause) == (Code.ORD_ONLY_VENUE, True, Cause.FOREIGN_TRADE)
    heard = compared({"orders": (order(), elsewhere)}, {"orders": (order(), elsewhere)})
    assert heard.breaks == ()
    assert [(f.order.venue_order_id, f.in_ledger) for f in unheard.foreign + heard.foreign] == [
        ("v9", False),
        ("v9", True),
    ]


def test_an_order_placed_elsewhere_that_has_ended_is_told_and_is_no_break() -> None:
    ended = order(client_order_id="", venue_order_id="v9", state=OrderState.FILLED, filled=D(3))
    comparison = compared({}, {"orders": (order(), ended)})
    assert comparison.breaks == ()
    assert [(f.order.venue_order_id, f.in_ledger) for f in comparison.foreign] == [("v9", True)]


def test_one_client_id_on_two_orders_is_two_orders() -> None:
    comparison = compared({"orders": (order(venue_order_id="v2"),)})
    assert {b.code for b in comparison.breaks} == {Code.ORD_ONLY_VENUE, Code.ORD_ONLY_LEDGER}


def test_opposite_positions_in_two_margin_modes_are_not_netted() -> None:
    hidden = (position(), position(instrument=ETH), position(instrument=ETH, quantity=D(-5), margin_mode="isolated"))
    assert [b.code for b in compared({"positions": hidden}).breaks] == [Code.POS_ONLY_VENUE] * 2


@pytest.mark.parametrize(
    ("stated", "booked"),
    [
        ({"positions": (position(quantity=D(6), updated_at_ms=NOW - 4_000),)}, {}),
        ({"fills": (fill(), fill(fill_id="f2", traded_at_ms=NOW - 1_000))}, {}),
        ({}, {"orders": (order(filled=D(2), changed_at_ms=NOW + 50),)}),
        ({}, {"balances": (balance(cash=D(1), updated_at_ms=NOW - 1),)}),
    ],
)
def test_what_changed_within_the_guard_is_listed_as_timing_and_turns_nothing(stated: Change, booked: Change) -> None:
    comparison = compared(stated, booked)
    assert [b.cause for b in comparison.breaks] == [Cause.TIMING]
    assert account_verdict(comparison) is Verdict.CLEAN


def test_what_stays_under_way_for_a_minute_is_a_break() -> None:
    (found,) = compared({"positions": (position(quantity=D(6), updated_at_ms=NOW),)}).breaks
    assert aged(found, first_seen_ms=NOW - 30_000, runs_seen=4, rules=RULES).explained
    assert not aged(found, first_seen_ms=NOW - 60_000, runs_seen=5, rules=RULES).explained


def test_fills_traded_after_the_statement_was_begun_may_be_missing_from_it() -> None:
    assert compared({}, {"fills": (fill(), fill(fill_id="f2", traded_at_ms=NOW + 1))}).breaks == ()


def test_fills_from_before_our_records_begin_are_not_missing() -> None:
    assert compared({"fills": (fill(),)}, {"fills": (), "since_ms": LONG_AGO + 1}).breaks == ()


def test_a_lost_fill_inside_a_known_gap_explains_the_position_too() -> None:
    comparison = compared({}, {"fills": (), "positions": (position(quantity=D(4)),), "gaps": (_GAP,)})
    causes = {b.code: (b.cause, b.gap_id) for b in comparison.breaks}
    assert causes == {
        Code.FILL_MISSING: (Cause.GAP, "g1"),
        Code.POS_QTY: (Cause.GAP, ""),
        Code.GAP: (Cause.GAP, "g1"),
    }


def test_an_order_without_an_outcome_is_critical_after_fifteen_seconds() -> None:
    def severity(changed_at_ms: int) -> Severity:
        lost = order(state=OrderState.UNKNOWN, changed_at_ms=changed_at_ms)
        return compared({"orders": ()}, {"orders": (lost,)}).breaks[0].severity

    assert severity(NOW - 14_000) is Severity.MAJOR
    assert severity(NOW - 15_000) is Severity.CRITICAL


def test_every_difference_that_was_let_pass_is_reported_with_its_row() -> None:
    comparison = compared(
        {"balances": (balance(cash=D("10000.500000005")),), "positions": (position(avg_price=D("60005")),)},
        {"fills": (fill(fee=D("-0.200000001")),)},
    )
    assert comparison.breaks == ()
    assert [(u.field, plain(u.difference), plain(u.allowed)) for u in comparison.uses] == [
        ("avg_price", "5", "0.0001"),
        ("cash", "0.000000005", "0.00000001"),
        ("fee", "0.000000001", "0.00000001"),
    ]


def test_a_break_keeps_its_id_when_its_amount_changes_and_no_two_things_share_one() -> None:
    def ids(quantity: int, name: str = BTC) -> set[str]:
        there = (position(), position(instrument=ETH), position(instrument=name, quantity=D(quantity), margin_mode="x"))
        return {b.break_id for b in compared({"positions": there}).breaks}

    assert ids(6) == ids(7)
    assert len(ids(6) & ids(6, ETH)) == 1  # the other ETH position
    assert len(ids(6)) == 2


def test_a_difference_is_valued_at_the_price_at_hand() -> None:
    (found,) = compared({"positions": (position(quantity=D(7)),)}).breaks
    assert (found.difference, found.unit, found.value, found.value_currency) == (D(2), "contract", D(1200), "USDT")


def test_only_what_two_reads_show_survives_as_a_break() -> None:
    lost_order, wrong_cash = {"orders": ()}, {"balances": (balance(cash=D(1)),)}
    first, second = compared(lost_order), compared(lost_order | wrong_cash)
    assert {b.code: b.explained for b in survive(first, second).breaks} == {
        Code.ORD_ONLY_LEDGER: False,
        Code.CASH_AMT: True,
    }
    assert survive(second, first).breaks == first.breaks


def test_a_second_read_that_fails_neither_confirms_nor_forgets() -> None:
    kept = survive(compared({"orders": ()}), compared({"missing": {Part.ORDERS: "timed out"}}))
    assert [(b.code, b.cause) for b in kept.breaks] == [(Code.ORD_ONLY_LEDGER, Cause.TIMING)]
    assert account_verdict(kept) is Verdict.UNKNOWN


def test_every_code_says_what_it_means() -> None:
    assert len(Code) == 30
    for code in Code:
        assert code.sentence.endswith(".")
        assert code.severity in Severity


# ---- Properties over many lines

_quantity = st.integers(-50, 50).filter(bool).map(D)
_names = [BTC, ETH]


@st.composite
def _lines(draw: st.DrawFn) -> Change:
    held = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(_names), st.sampled_from(["cross", "isolated"])),
            st.tuples(_quantity, st.integers(1, 10**6)),
        )
    )
    cash = draw(st.dictionaries(st.sampled_from(["USDT", "BTC", "USD", "EUR"]), st.integers(-(10**6), 10**6).map(D)))
    asked = draw(st.dictionaries(st.integers(0, 99), st.tuples(st.integers(1, 9), st.booleans())))
    traded = draw(st.dictionaries(st.integers(0, 99), st.integers(1, 9)))
    return {
        "positions": tuple(
            position(instrument=name, margin_mode=mode, quantity=quantity, avg_price=D(price))
            for (name, mode), (quantity, price) in held.items()
        ),
        "balances": tuple(balance(currency=currency, cash=amount) for currency, amount in cash.items()),
        "orders": tuple(
            order(client_order_id=f"{'u' if own else 'x'}{n}", venue_order_id=f"v{n}", quantity=D(size), filled=D(0))
            for n, (size, own) in asked.items()
        ),
        "fills": tuple(fill(fill_id=f"f{n}", quantity=D(size)) for n, size in traded.items()),
    }


@given(_lines(), st.randoms(use_true_random=False))
def test_identical_sides_have_no_breaks_in_whatever_order_they_are_told(lines: Change, random: Any) -> None:
    shuffled = {part: tuple(random.sample(told, len(told))) for part, told in lines.items()}
    comparison = compared(lines, shuffled)
    assert comparison.breaks == ()
    assert comparison.uses == ()


_CHANGES: dict[str, tuple[str, Any]] = {
    "positions": ("quantity", lambda p: p.quantity + 100),
    "balances": ("cash", lambda b: b.cash + 1),
    "orders": ("filled", lambda o: o.filled + 1),
    "fills": ("price", lambda f: f.price + 1),
}


@given(_lines(), st.data())
def test_any_single_change_on_either_side_is_at_least_one_break(lines: Change, data: st.DataObject) -> None:
    told = [part for part in _CHANGES if lines[part]]
    if not told:
        return
    part = data.draw(st.sampled_from(told))
    at = data.draw(st.integers(0, len(lines[part]) - 1))
    one = lines[part][at]
    if data.draw(st.booleans()) and not (part == "balances" and not one.cash):
        changed: tuple[Any, ...] = ()
    else:
        field, value = _CHANGES[part]
        changed = (msgspec.structs.replace(one, **{field: value(one)}),)
    other = lines | {part: (*lines[part][:at], *changed, *lines[part][at + 1 :])}
    for stated, booked in ((lines, other), (other, lines)):
        comparison = compared(stated, booked)
        assert comparison.breaks
        assert account_verdict(comparison) is Verdict.BREAKS


def test_the_reference_page_has_every_code_and_tolerance() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/reconciliation.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert [r for r in rows if r.startswith("| `")] == [f"| `{c}` | {c.severity} | {c.sentence} |" for c in Code]
    assert f"version {RULES.version}" in page
    for t in RULES.tolerances:
        allowed = f"{plain(t.allowed * 100)} %" if t.relative else plain(t.allowed)
        assert f"| {t.field} | {t.asset} | {allowed} |" in rows
