from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.core.book import KEPT_ENDED, Book, Mismatch
from engine.core.facts import (
    AccountFact,
    BalanceFact,
    CashFact,
    EquityFact,
    FillFact,
    OrderFact,
    OrderStatus,
    PositionFact,
    Side,
)
from engine.core.instruments import Instrument, InstrumentKind

D = Decimal


def instrument(name: str, kind: InstrumentKind, multiplier: str = "1", **changes: Any) -> Instrument:
    made = Instrument(
        name=name,
        venue="okx",
        kind=kind,
        base="BTC",
        quote="USDT",
        settle="USDT",
        unit="contract",
        multiplier=D(multiplier),
        quantity_step=D(1),
        min_quantity=D(1),
        price_tick=D("0.1"),
    )
    return replace(made, **changes)


SPOT = instrument("BTC/USDT", InstrumentKind.SPOT)
SWAP = instrument("BTC/USDT:USDT", InstrumentKind.SWAP, "0.01")
INVERSE = instrument("BTC/USD:BTC", InstrumentKind.SWAP, "100", quote="USD", settle="BTC", inverse=True)
KNOWN = {i.name: i for i in (SPOT, SWAP, INVERSE)}


def empty() -> Book:
    return Book("ann", KNOWN.get)


def folded(facts: Sequence[AccountFact]) -> Book:
    book = empty()
    for fact in facts:
        book.fold(fact)
    return book


def fill(number: int, side: Side, quantity: int | str, price: int | str, **changes: Any) -> FillFact:
    made = FillFact(
        instrument=SWAP.name,
        fill_id=f"f{number}",
        venue_order_id="o1",
        side=side,
        quantity=D(quantity),
        price=D(price),
        fee=D(0),
        fee_currency="USDT",
        trade_number=number,
        traded_at_ms=1000 + number,
    )
    return replace(made, **changes)


def buy(number: int, quantity: int | str, price: int | str, **changes: Any) -> FillFact:
    return fill(number, Side.BUY, quantity, price, **changes)


def sell(number: int, quantity: int | str, price: int | str, **changes: Any) -> FillFact:
    return fill(number, Side.SELL, quantity, price, **changes)


def order(**changes: Any) -> OrderFact:
    made = OrderFact(
        instrument=SWAP.name,
        venue_order_id="o1",
        side=Side.BUY,
        order_type="limit",
        quantity=D(10),
        filled=D(0),
        status=OrderStatus.WORKING,
        created_at_ms=1000,
        updated_at_ms=1000,
    )
    return replace(made, **changes)


def stated(quantity: int, **changes: Any) -> PositionFact:
    made = PositionFact(instrument=SWAP.name, quantity=D(quantity), avg_price=D(100), updated_at_ms=2000)
    return replace(made, **changes)


def balance(cash: int | str, **changes: Any) -> BalanceFact:
    return replace(BalanceFact(currency="USDT", cash=D(cash), updated_at_ms=2000), **changes)


def moved(number: int, amount: int | str, **changes: Any) -> CashFact:
    made = CashFact(cash_id=f"c{number}", currency="USDT", amount=D(amount), kind="funding", booked_at_ms=3000 + number)
    return replace(made, **changes)


def only(book: Book) -> tuple[Decimal, Decimal | None, Decimal]:
    [position] = book.positions()
    return position.quantity, position.avg_price, position.realised


# ---- orders


W, F, C = OrderStatus.WORKING, OrderStatus.FILLED, OrderStatus.CANCELLED


@pytest.mark.parametrize(
    ("known", "told", "holds"),
    [
        ((W, 0, 1), (W, 0, 1), False),  # told twice
        ((W, 0, 1), (W, 0, 2), True),  # amended
        ((W, 0, 2), (W, 0, 1), False),
        ((W, 0, 2), (W, 1, 1), True),  # further filled counts more than later
        ((W, 2, 1), (W, 1, 9), False),  # filled never falls
        ((W, 2, 1), (C, 2, 1), True),
        ((C, 2, 1), (W, 2, 9), False),  # ended never reopens
        ((C, 2, 1), (W, 3, 9), False),
        ((C, 2, 1), (F, 3, 1), True),  # an end that knows of more
        ((C, 2, 1), (C, 2, 1), False),
    ],
)
def test_which_of_two_observations_of_an_order_holds(
    known: tuple[OrderStatus, int, int], told: tuple[OrderStatus, int, int], holds: bool
) -> None:
    first, second = (order(status=s, filled=D(f), updated_at_ms=t) for s, f, t in (known, told))
    book = folded([first])
    assert book.fold(second) is holds
    assert book.order("o1") == (second if holds else first)


def test_an_end_told_with_less_than_was_filled_does_not_undo_a_fill() -> None:
    book = folded([order(filled=D(3), avg_price=D(5))])
    assert book.fold(order(status=C, filled=D(2), updated_at_ms=2000))
    found = book.order("o1")
    assert found is not None
    assert (found.status, found.filled, found.avg_price) == (C, 3, 5)


def test_a_refused_amendment_is_news_though_nothing_else_changed() -> None:
    book = folded([order()])
    refused = order(amend_id="a1", amend_failed="too late")
    assert book.fold(refused)
    assert not book.fold(refused)


def test_an_order_filled_further_than_its_known_fills_is_short() -> None:
    book = folded([order(filled=D(5)), buy(1, 3, 100)])
    assert [(s.order.venue_order_id, s.known) for s in book.short_of_fills()] == [("o1", 3)]
    book.fold(buy(2, 2, 100))
    assert book.short_of_fills() == []


def test_an_order_has_the_average_of_its_fills_once_they_are_all_known() -> None:
    filled = order(filled=D(4))
    book = folded([filled, buy(1, 3, 100, fee=None), buy(9, 5, 7, venue_order_id="o2")])
    assert book.average(filled) is None
    book.fold(buy(2, 1, 104))
    book.fold(buy(1, 3, 100, fee=D(-1)))  # the same one, told in full
    assert book.average(filled) == 101
    book.fold(buy(2, 1, 104))
    assert Book.restore(book.snapshot(), KNOWN.get).average(filled) == 101
    book.open_with([], [], 999)
    assert book.average(filled) == 101


def test_an_order_that_was_over_before_the_opening_is_not_short() -> None:
    book = folded([order(status=F, filled=D(10), updated_at_ms=500), order(venue_order_id="o2", filled=D(1))])
    book.open_with([], [], 999)
    assert [s.order.venue_order_id for s in book.short_of_fills()] == ["o2"]


# ---- positions


@pytest.mark.parametrize(
    ("fills", "position"),
    [
        ([buy(1, 2, 100), buy(2, 2, 200)], (4, 150, 0)),
        ([sell(1, 2, 100), sell(2, 2, 200)], (-4, 150, 0)),
        ([buy(1, 4, 100), sell(2, 1, 300)], (3, 100, 2)),
        ([sell(1, 4, 100), buy(2, 1, 300)], (-3, 100, -2)),
        ([buy(1, 4, 100), sell(2, 4, 90)], (0, None, D("-0.4"))),
        ([buy(1, 2, 100), sell(2, 5, 200)], (-3, 200, 2)),  # through zero
        ([buy(1, 2, 100), sell(2, 2, 200), buy(3, 1, 50)], (1, 50, 2)),
        ([buy(1, 2, 100, realised=D(7))], (2, 100, 7)),  # what the venue states counts, not what we make of it
    ],
)
def test_positions_are_averaged_and_realised(fills: list[FillFact], position: tuple[Any, Any, Any]) -> None:
    assert only(folded(fills)) == position


def test_inverse_contracts_average_and_realise_in_coin() -> None:
    buys = [buy(n, 1, price, instrument=INVERSE.name) for n, price in ((1, 10_000), (2, 40_000))]
    book = folded([*buys, sell(3, 2, 20_000, instrument=INVERSE.name)])
    assert only(folded(buys))[:2] == (2, 16_000)
    assert only(book) == (0, None, 200 * (1 / D(16_000) - 1 / D(20_000)))
    assert book.cash["BTC"] == D("0.0025")


def test_long_and_short_sides_are_positions_of_their_own() -> None:
    book = folded(
        [
            buy(1, 5, 100, position_side="long"),
            sell(2, 3, 100, position_side="short"),
            sell(3, 1, 200, position_side="long"),
            buy(4, 3, 90, position_side="short"),
        ]
    )
    assert book.quantities() == {(SWAP.name, "long"): 4, (SWAP.name, "short"): 0}
    assert {p.position_side: p.realised for p in book.positions()} == {"long": 1, "short": D("0.3")}


def test_fills_are_averaged_in_the_order_they_were_traded_not_heard() -> None:
    traded = [buy(1, 1, 100), sell(2, 1, 150), buy(3, 1, 120)]
    late = empty()
    for fact in (traded[2], traded[0]):
        late.fold(fact)
    assert only(late) == (2, 110, 0)
    late.fold(traded[1])
    assert only(late) == only(folded(traded)) == (1, 120, D("0.5"))


# ---- cash


def test_a_spot_trade_moves_base_against_quote_and_its_fee_in_its_own_currency() -> None:
    book = folded([buy(1, 2, 100, instrument=SPOT.name, fee=D("-0.002"), fee_currency="BTC")])
    assert book.cash == {"BTC": D("1.998"), "USDT": D(-200)}
    assert book.positions() == []
    book.fold(sell(2, 1, 150, instrument=SPOT.name, fee=D(-1)))
    assert book.cash == {"BTC": D("0.998"), "USDT": D(-51)}


def test_a_derivative_moves_what_it_realised_and_its_fee() -> None:
    book = folded([buy(1, 4, 100, fee=D(-1)), sell(2, 4, 300, fee=D(-2), realised=D(9))])
    assert book.cash == {"USDT": D(6)}
    assert folded([buy(1, 4, 100), sell(2, 4, 300)]).cash["USDT"] == 8, "computed where the venue does not say"


def test_a_fee_that_comes_later_is_counted_once() -> None:
    book = folded([buy(1, 4, 100, fee=None), sell(2, 2, 200)])
    whole = buy(1, 4, 100, fee=D(-1))
    assert book.fold(whole) is True
    assert book.fold(whole) is False
    assert book.fold(buy(1, 4, 100, fee=None)) is False
    assert book.cash == {"USDT": D(1)}
    assert only(book) == (2, 100, 2)
    assert book.short_of_fills() == []


def test_the_fuller_account_of_a_fill_replaces_the_first() -> None:
    """The first way of hearing it did not tell the position's side (OKX dossier §3.5)."""
    book = folded([buy(1, 4, 100, fee=None), buy(1, 4, 100, fee=D(-1), position_side="long")])
    assert book.quantities() == {(SWAP.name, "net"): 0, (SWAP.name, "long"): 4}
    spot = folded(
        [
            buy(1, 4, 100, fee=None, instrument=SPOT.name),
            buy(1, 4, 100, fee=D("-0.1"), fee_currency="BTC", instrument=SPOT.name),
        ]
    )
    assert spot.cash == {"BTC": D("3.9"), "USDT": D(-400)}


@pytest.mark.parametrize(
    ("movements", "cash"),
    [
        ([moved(1, 5), moved(1, 5)], {"USDT": D(5)}),
        ([moved(1, 5), moved(2, -2, kind="transfer")], {"USDT": D(3)}),
        ([moved(1, 5, kind="trade")], {}),  # its fill counts, or is missed
        ([moved(1, -1, kind="fee")], {}),
    ],
)
def test_cash_movements_count_unless_a_fill_caused_them(movements: list[CashFact], cash: dict[str, Decimal]) -> None:
    assert folded(movements).cash == cash


def test_a_movement_stands_in_for_its_fill_until_the_fill_is_known() -> None:
    movement, cause = moved(1, -3, kind="trade", fill_id="f1"), buy(1, 1, 100, fee=D(-3))
    book = folded([movement])
    assert book.cash == {"USDT": D(-3)}
    book.fold(cause)
    assert book.cash == {"USDT": D(-3)}
    assert folded([cause, movement]).cash == {"USDT": D(-3)}


# ---- what the venue states


def test_the_latest_statement_of_each_thing_is_kept() -> None:
    book = folded([stated(3), stated(5, updated_at_ms=1999), balance(9), balance(7, updated_at_ms=1999)])
    assert [p.quantity for p in book.stated_positions] == [3]
    assert book.stated_balances["USDT"].cash == 9
    assert book.fold(stated(3)) is False
    assert book.fold(stated(4, last_trade_number=7)) is True
    assert book.equity is None
    for total, at_ms in ((1, 5), (2, 6), (3, 6)):
        book.fold(EquityFact(currency="USD", total=D(total), updated_at_ms=at_ms))
    assert book.equity is not None
    assert book.equity.total == 2


def test_a_balance_heard_in_part_keeps_what_the_other_way_told() -> None:
    book = folded([balance(9, available=D(4), equity=D(10)), balance(8, updated_at_ms=2001)])
    assert book.stated_balances["USDT"] == balance(8, available=D(4), equity=D(10), updated_at_ms=2001)


def test_a_statement_told_again_refreshes_values_without_being_news() -> None:
    book = folded([stated(3), balance(9)])
    assert book.fold(stated(3, unrealised=D(2))) is False
    assert book.fold(balance(9, available=D(4))) is False
    assert book.stated_positions[0].unrealised == 2
    assert book.stated_balances["USDT"].available == 4


def test_statement_and_facts_that_differ_are_named_with_since_when() -> None:
    book = folded([buy(1, 3, 100), stated(3)])
    assert book.mismatches() == []
    assert book.mismatched_for_ms(9000) == 0
    book.fold(stated(5, updated_at_ms=2500))
    book.fold(balance(4))
    assert book.mismatches() == [
        Mismatch(name=SWAP.name, position_side="net", stated=D(5), folded=D(3), since_ms=2500),
        Mismatch(name="USDT", position_side="", stated=D(4), folded=D(0), since_ms=2000),
    ]
    assert book.mismatched_for_ms(9000) == 6500
    book.fold(buy(2, 2, 100, traded_at_ms=2600))
    assert [m.name for m in book.mismatches()] == ["USDT"]


def test_margin_modes_of_one_side_add_up() -> None:
    book = folded([buy(1, 5, 100), stated(3, margin_mode="cross"), stated(2, margin_mode="isolated")])
    assert book.mismatches() == []


def test_silence_of_a_complete_statement_is_a_fact() -> None:
    book = folded([stated(3), balance(9), balance(1, currency="BTC")])
    flats = book.absent_from([balance(9)], 3000)
    assert [(type(f), f.at_ms) for f in flats] == [(PositionFact, 3000), (BalanceFact, 3000)]
    for fact in flats:
        assert book.fold(fact)
    assert book.mismatches() == [
        Mismatch(name="USDT", position_side="", stated=D(9), folded=D(0), since_ms=2000),
    ]
    assert book.absent_from([balance(9)], 4000) == []
    assert folded([stated(3)]).absent_from([], 1999) == [], "stated after the statement was taken"


# ---- opening


def test_an_opening_counts_only_what_it_does_not_contain() -> None:
    book = empty()
    book.open_with([stated(10, last_trade_number=5, updated_at_ms=1500)], [balance(100, updated_at_ms=1500)], 2000)
    assert book.opened_at_ms == 2000
    for number, traded_at_ms in ((5, 1600), (6, 1400)):  # the trade number decides, not the time
        assert book.fold(buy(number, 1, 100, traded_at_ms=traded_at_ms)) is True
    assert only(book) == (11, 100, 0)
    assert book.fold(buy(5, 1, 100)) is False


@pytest.mark.parametrize(("number", "traded_at_ms"), [(None, 1500), (-4, 1500), (None, 1501), (-4, 1501)])
def test_without_trade_numbers_the_time_of_the_position_decides(number: int | None, traded_at_ms: int) -> None:
    book = empty()
    book.open_with([stated(10, last_trade_number=5, updated_at_ms=1500)], [], 2000)
    book.fold(buy(1, 1, 100, trade_number=number, traded_at_ms=traded_at_ms))
    assert book.quantities() == {(SWAP.name, "net"): 10 if traded_at_ms <= 1500 else 11}


def test_what_the_opening_does_not_name_is_flat_as_of_its_own_time() -> None:
    book = empty()
    book.open_with([], [balance(100, updated_at_ms=1500)], 2000)
    for number, traded_at_ms in ((1, 1500), (2, 1501), (3, 2000), (4, 2001)):
        book.fold(buy(number, 1, 100, instrument=SPOT.name, traded_at_ms=traded_at_ms))
        book.fold(buy(number + 10, 1, 100, traded_at_ms=traded_at_ms, realised=D(0)))
    assert book.cash == {"USDT": D(100 - 300), "BTC": D(1)}
    assert book.quantities() == {(SWAP.name, "net"): 1}


def test_an_opening_from_two_margin_modes_adds_them_up() -> None:
    book = empty()
    rows = [
        stated(4, margin_mode="cross", avg_price=D(100), last_trade_number=7),
        stated(1, margin_mode="isolated", avg_price=D(200), last_trade_number=9),
    ]
    book.open_with(rows, [], 2000)
    assert only(book) == (5, 120, 0)
    book.fold(buy(9, 1, 100, traded_at_ms=5000))
    assert only(book) == (5, 120, 0)
    book.open_with([rows[0], replace(rows[1], quantity=D(-4))], [], 2000)
    assert only(book) == (0, None, 0)


def test_an_opening_after_facts_is_the_same_as_before_them() -> None:
    facts = [buy(1, 1, 100), buy(2, 2, 110, traded_at_ms=5000), moved(1, 5), moved(2, 6, booked_at_ms=100)]
    rows, cash = [stated(10)], [balance(100)]
    before, after = empty(), folded(facts)
    before.open_with(rows, cash, 2000)
    for fact in facts:
        before.fold(fact)
    after.open_with(rows, cash, 2000)
    assert before.cash == after.cash == {"USDT": D(105)}
    assert only(before) == only(after)


# ---- instruments nobody knows


def test_fills_of_an_unknown_instrument_wait_until_it_is_known() -> None:
    known: dict[str, Instrument] = {}
    book = Book("ann", known.get)
    book.open_with([stated(10, avg_price=D(100))], [balance(0)], 2000)
    assert book.fold(sell(1, 2, 150, traded_at_ms=3000)) is True
    assert book.unmapped == {SWAP.name: 1}
    assert book.quantities() == {(SWAP.name, "net"): 10}
    known[SWAP.name] = SWAP
    assert book.unmapped == {}
    assert only(book) == (8, 100, 1)
    assert book.cash == {"USDT": D(1)}


def test_a_waiting_fill_survives_pruning_and_a_fuller_account_of_it_counts_once() -> None:
    known: dict[str, Instrument] = {}
    book = Book("ann", known.get)
    book.fold(buy(1, 2, 100, fee=None))
    book.prune(9000)
    assert book.fold(buy(1, 2, 100, fee=D(-1))) is True
    known[SWAP.name] = SWAP
    assert only(book) == (2, 100, 0)
    assert book.cash == {"USDT": D(-1)}


# ---- forgetting


def test_what_is_forgotten_still_counts_and_is_asked_about_when_it_comes_again() -> None:
    book = folded([buy(1, 2, 100), buy(2, 2, 200), sell(3, 1, 250), moved(1, 5)])
    before = only(book), book.cash
    book.prune(1003)
    assert (only(book), book.cash) == before
    assert book.fold(buy(2, 2, 200)) is None
    assert book.fold(sell(3, 1, 250)) is False
    assert book.fold(moved(2, 1, booked_at_ms=10)) is None
    assert (only(book), book.cash) == before
    assert book.fold(moved(2, 1, booked_at_ms=10), unseen=True) is True
    assert book.fold(buy(0, 1, 100, traded_at_ms=10), unseen=True) is True
    assert book.quantities() == {(SWAP.name, "net"): 4}
    assert (book.knows_fill("f2"), book.knows_fill("f3"), book.horizon_ms) == (False, True, 1003)


def test_the_horizon_never_moves_back() -> None:
    book = folded([buy(1, 2, 100)])
    book.prune(5000)
    book.prune(10)
    assert book.fold(buy(2, 2, 100)) is None


def test_open_orders_and_the_latest_ended_ones_outlive_the_horizon() -> None:
    ended = [order(venue_order_id=f"e{n}", status=C, updated_at_ms=n) for n in range(KEPT_ENDED + 5)]
    book = folded([*ended, order(venue_order_id="old", updated_at_ms=1)])
    book.prune(10_000)
    assert len(book.orders()) == KEPT_ENDED + 1
    assert [o.venue_order_id for o in book.open_orders()] == ["old"]
    assert book.order("e4") is None
    assert book.order("e5") is not None


# ---- properties

SIDES = st.sampled_from(list(Side))
AMOUNTS = st.integers(1, 50).map(D)
PRICES = st.integers(1, 9).map(lambda n: D(n * 100))


@st.composite
def histories(draw: st.DrawFn) -> list[AccountFact]:
    """Facts as a venue may tell of one account: orders with their fills, movements, statements of both."""
    facts: list[AccountFact] = []
    clock = iter(range(1000, 100_000, 7))
    for number in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from([SPOT, SWAP, INVERSE]))
        side, filled = draw(SIDES), D(0)
        hedged = kind is SWAP and draw(st.booleans())
        at_order = order(venue_order_id=f"o{number}", instrument=kind.name, side=side, updated_at_ms=next(clock))
        facts.append(at_order)
        for part in range(draw(st.integers(0, 3))):
            quantity, price, now_ms = draw(AMOUNTS), draw(PRICES), next(clock)
            filled += quantity
            made = FillFact(
                instrument=kind.name,
                fill_id=f"f{number}.{part}",
                venue_order_id=f"o{number}",
                side=side,
                position_side="long" if hedged else "net",
                quantity=quantity,
                price=price,
                fee=-draw(AMOUNTS) / 100,
                fee_currency=draw(st.sampled_from(["USDT", "BTC"])),
                realised=draw(st.none() | AMOUNTS),
                trade_number=now_ms,
                traded_at_ms=now_ms,
            )
            facts.append(made)
            if draw(st.booleans()):
                facts.append(replace(made, fee=None))
            if draw(st.booleans()):
                facts.append(moved(now_ms, "-0.5", kind="trade", fill_id=made.fill_id, booked_at_ms=now_ms + 1))
            facts.append(replace(at_order, filled=filled, updated_at_ms=now_ms))
        if draw(st.booleans()):
            facts.append(replace(at_order, filled=filled, status=C, updated_at_ms=next(clock)))
    for number in range(draw(st.integers(0, 3))):
        facts.append(moved(number, draw(AMOUNTS), booked_at_ms=next(clock)))
        facts.append(stated(draw(st.integers(-5, 5)), updated_at_ms=next(clock)))
        facts.append(balance(draw(st.integers(-5, 5)), updated_at_ms=next(clock)))
        facts.append(EquityFact(currency="USD", total=draw(AMOUNTS), updated_at_ms=next(clock)))
    return facts


def views(book: Book) -> dict[str, Any]:
    """Everything a book says, in an order that does not depend on how it came to know it."""
    return {
        "orders": sorted(book.orders(), key=lambda o: o.venue_order_id),
        "positions": {(p.instrument, p.position_side): p for p in book.positions() if p.quantity or p.realised},
        "cash": {currency: cash for currency, cash in book.cash.items() if cash},
        "holdings": [h for h in book.holdings() if h.quantity or h.realised or h.unpriced],
        "charges": {key: amount for key, amount in book.charges().items() if amount},
        "short": sorted((s.order.venue_order_id, s.known) for s in book.short_of_fills()),
        "stated": sorted((p.key, p.unrealised) for p in book.stated_positions),
        "balances": book.stated_balances,
        "equity": book.equity,
        "mismatches": sorted((m.name, m.position_side, m.stated, m.folded) for m in book.mismatches()),
    }


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_neither_order_nor_repetition_of_facts_changes_a_book(data: st.DataObject) -> None:
    facts = data.draw(histories())
    again = data.draw(st.lists(st.sampled_from(facts))) if facts else []
    shuffled = data.draw(st.permutations([*facts, *again]))
    assert views(folded(shuffled)) == views(folded(facts))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_an_opening_may_come_at_any_moment(data: st.DataObject) -> None:
    facts = data.draw(histories())
    moment = data.draw(st.integers(0, len(facts)))
    at_ms = data.draw(st.integers(900, 1500))
    rows = [stated(10, updated_at_ms=at_ms - 50, last_trade_number=data.draw(st.none() | st.integers(1000, 1500)))]
    cash = [balance(100, updated_at_ms=at_ms - 100)]
    first, between = empty(), empty()
    first.open_with(rows, cash, at_ms)
    for number, fact in enumerate(facts):
        first.fold(fact)
        if number == moment:
            between.open_with(rows, cash, at_ms)
        between.fold(fact)
    if moment == len(facts):
        between.open_with(rows, cash, at_ms)
    assert views(between) == views(first)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_book_restored_is_the_same_book(data: st.DataObject) -> None:
    facts = data.draw(histories())
    cut = data.draw(st.integers(0, len(facts)))
    book = folded(facts[:cut])
    if data.draw(st.booleans()):
        book.prune(data.draw(st.integers(900, 1500)))
    document = book.snapshot()
    restored = Book.restore(document, KNOWN.get)
    assert restored.snapshot() == document
    assert views(restored) == views(book)
    for fact in facts[cut:]:
        assert restored.fold(fact) == book.fold(fact)
    assert views(restored) == views(book)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_forgetting_changes_nothing_that_a_book_says(data: st.DataObject) -> None:
    facts = data.draw(histories())
    kept, pruned = empty(), empty()
    for fact in facts:  # in the order of time, as far as the venue tells
        assert kept.fold(fact) in (True, False)
        if pruned.fold(fact) is None:
            assert not isinstance(fact, OrderFact)
        if data.draw(st.integers(0, 4)) == 0:
            pruned.prune(fact.at_ms)
    assert views(pruned) == views(kept)


def test_a_restored_book_knows_its_instruments_without_asking() -> None:
    restored = Book.restore(folded([buy(1, 2, 100)]).snapshot(), lambda name: None)
    restored.fold(sell(2, 1, 200))
    assert only(restored) == (1, 100, 1)


# ---- what is owned outright, and what it cost


def trade(number: int, side: Side, quantity: int | str, price: int | str, **changes: Any) -> FillFact:
    return fill(number, side, quantity, price, **{"instrument": SPOT.name, **changes})


def bought(number: int, quantity: int | str, price: int | str, **changes: Any) -> FillFact:
    return trade(number, Side.BUY, quantity, price, **changes)


def sold(number: int, quantity: int | str, price: int | str, **changes: Any) -> FillFact:
    return trade(number, Side.SELL, quantity, price, **changes)


COIN = {"fee": D("-0.5"), "fee_currency": "BTC"}
PAID_IN = moved(1, 2, currency="BTC", kind="transfer", booked_at_ms=1002)


@pytest.mark.parametrize(
    ("facts", "holding"),  # quantity, average price, realised, sold at unknown cost
    [
        ([bought(1, 2, 100), bought(2, 2, 200)], (4, 150, 0, 0)),
        ([bought(1, 4, 100), sold(2, 1, 300)], (3, 100, 200, 0)),
        ([bought(1, 4, 100), sold(2, 4, 90)], (0, None, -40, 0)),
        ([bought(1, 2, 100, **COIN), sold(2, 1, 300)], (D("0.5"), 100, 200, 0)),  # a fee is no sale
        ([bought(1, 2, 100), bought(2, 2, 100, fee=D(1), fee_currency="BTC")], (5, 80, 0, 0)),  # a rebate costs nothing
        ([bought(1, 2, 100), PAID_IN], (4, None, 0, 0)),  # what it cost nobody told
        ([bought(1, 2, 100), PAID_IN, sold(3, 3, 300)], (1, None, 0, 3)),
        ([bought(1, 2, 100), PAID_IN, sold(3, 4, 300), bought(4, 1, 70)], (1, 70, 0, 4)),  # flat once, and known again
        ([bought(1, 2, 100), moved(1, -1, currency="BTC", kind="transfer", booked_at_ms=1002)], (1, 100, 0, 0)),
        ([sold(1, 2, 100), bought(2, 2, 90)], (0, None, 20, 0)),  # borrowed and bought back
    ],
)
def test_what_is_owned_outright_has_an_average_cost(facts: list[AccountFact], holding: tuple[Any, ...]) -> None:
    [found] = folded(facts).holdings()
    assert (found.quantity, found.avg_price, found.realised, found.unpriced) == holding
    assert (found.currency, found.paid_in) == ("BTC", "USDT")


def test_what_the_opening_held_was_had_at_a_cost_that_nobody_told() -> None:
    book = empty()
    book.open_with([], [balance(10, currency="BTC"), balance(5000)], 2000)
    book.fold(bought(1, 2, 100, traded_at_ms=2100))
    book.fold(sold(2, 3, 150, traded_at_ms=2200))
    [held] = book.holdings()
    assert (held.quantity, held.avg_price, held.realised, held.unpriced) == (9, None, 0, 3)


def test_papers_are_counted_in_pieces_and_their_cost_is_for_one() -> None:
    paper = instrument("SBER/RUB", InstrumentKind.SPOT, "10", base="SBER", quote="RUB", settle="RUB", unit="lot")
    book = Book("ann", {paper.name: paper}.get)
    for fact in (bought(1, 3, 300, instrument=paper.name), sold(2, 1, 310, instrument=paper.name)):
        book.fold(fact)
    [held] = book.holdings()
    assert (held.quantity, held.avg_price, held.realised, held.paid_in) == (20, 300, 100, "RUB")


def test_a_cost_in_two_currencies_is_not_added_up() -> None:
    other = replace(SPOT, name="BTC/USDC", quote="USDC")
    book = Book("ann", {**KNOWN, other.name: other}.get)
    for fact in (bought(1, 1, 100), bought(2, 1, 100, instrument=other.name), sold(3, 1, 150)):
        book.fold(fact)
    [held] = book.holdings()
    assert (held.quantity, held.avg_price, held.unpriced, held.paid_in) == (1, None, 1, "USDT")


def test_a_position_whose_opening_told_no_price_says_how_much_was_closed_at_a_gain_nobody_knows() -> None:
    book = empty()
    book.open_with([stated(5, avg_price=None)], [], 2000)
    book.fold(sell(1, 2, 100, traded_at_ms=2100))
    [position] = book.positions()
    assert (position.quantity, position.avg_price, position.realised, position.unpriced) == (3, None, 0, 2)


def test_fees_and_funding_are_summed_by_instrument() -> None:
    funding = moved(1, -3, instrument=SWAP.name, booked_at_ms=5000)
    book = folded([buy(1, 1, 100, fee=D(-1)), sell(2, 1, 100, fee=D("0.5")), funding, moved(2, 9, kind="transfer")])
    whole = {
        (SWAP.name, "fee", "USDT"): D("-0.5"),
        (SWAP.name, "funding", "USDT"): D(-3),
        ("", "transfer", "USDT"): D(9),
    }
    assert book.charges() == whole
    book.prune(9000)
    assert book.charges() == whole
