from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from engine.core.book import Book
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.marks import Mark
from engine.core.standing import NO_COST, NO_PRICE, SETTLED_DAILY, Standing, standings
from tests.core.test_book import INVERSE, SPOT, SWAP, balance, bought, buy, instrument, moved, sell, stated

D = Decimal
DAILY = instrument("SR/RUB:RUB-2612", InstrumentKind.FUTURE, "100", quote="RUB", settle="RUB", settled_daily=True)
PAPER = instrument("SBER/RUB", InstrumentKind.SPOT, "10", base="SBER", quote="RUB", settle="RUB", unit="lot")
YUAN = instrument("CNY/RUB", InstrumentKind.SPOT, "1000", base="CNY", quote="RUB", settle="RUB", unit="lot")
LISTED = [SPOT, SWAP, INVERSE, DAILY, PAPER, YUAN, replace(SPOT, name="ETH/BTC", base="ETH", quote="BTC")]


def mark(of: Instrument) -> Mark:
    return Mark(instrument=of.name, price=D(200), basis="mark", at_ms=5, received_at_ms=7, source="okx")


def book(*facts: object) -> Book:
    made = Book("ann", {i.name: i for i in LISTED}.get)
    for fact in facts:
        made.fold(fact)  # type: ignore[arg-type]
    return made


def held(made: Book, name: str) -> Standing:
    return next(s for s in standings(made, LISTED, mark) if s.instrument == name)


def test_a_position_has_its_price_with_source_and_time_and_what_it_would_gain() -> None:
    found = held(book(buy(1, 4, 100, fee=D(-1)), sell(2, 1, 300), moved(1, -5, instrument=SWAP.name)), SWAP.name)
    assert (found.quantity, found.unit, found.base_quantity) == (3, "contract", D("0.03"))
    assert (found.avg_price, found.mark, found.unrealised, found.realised, found.currency) == (100, 200, 3, 2, "USDT")
    assert (found.mark_source, found.mark_basis, found.mark_as_of_ms) == ("okx", "mark", 7)
    assert found.charges == {"fee USDT": -1, "funding USDT": -5}


def test_an_inverse_contract_gains_in_coin() -> None:
    found = held(book(buy(1, 2, 100, instrument=INVERSE.name)), INVERSE.name)
    assert (found.unrealised, found.currency, found.base_quantity) == (1, "BTC", 1)


@pytest.mark.parametrize(
    ("made", "name", "why"),
    [
        (book(buy(1, 2, 100, instrument=DAILY.name)), DAILY.name, SETTLED_DAILY),
        (book(bought(1, 1, 100), moved(1, 1, currency="BTC", kind="transfer", booked_at_ms=1002)), SPOT.name, NO_COST),
    ],
)
def test_what_nobody_can_tell_is_said(made: Book, name: str, why: str) -> None:
    found = held(made, name)
    assert (found.unrealised, found.why_not) == (None, why)


def test_without_prices_there_is_the_rest() -> None:
    [found] = standings(book(buy(1, 2, 100)), LISTED)
    assert (found.avg_price, found.mark, found.unrealised, found.why_not) == (100, None, None, NO_PRICE)


def test_papers_are_shown_in_lots_and_pieces() -> None:
    found = held(book(bought(1, 3, 150, instrument=PAPER.name)), PAPER.name)
    assert (found.quantity, found.unit, found.base_quantity, found.unrealised) == (3, "lot", 30, 1500)


def test_papers_that_were_there_before_us_are_shown_though_nobody_knows_their_cost_and_money_is_not() -> None:
    made = book()
    cash = [balance(25, currency="SBER"), balance(1000, currency="RUB"), balance(3, currency="BTC")]
    made.open_with([stated(0)], [*cash, balance(2, currency="DOGE")], 2000)
    [found] = standings(made, LISTED, mark)
    assert (found.instrument, found.quantity, found.avg_price, found.why_not) == ("SBER/RUB", D("2.5"), None, NO_COST)


def test_a_position_in_what_nobody_lists_is_not_left_out() -> None:
    made = Book("ann", {SWAP.name: SWAP}.get)
    made.open_with([stated(2, instrument="X")], [], 2000)
    [found] = standings(made, [])
    assert (found.instrument, found.quantity, found.why_not) == ("X", 2, "the instrument is not known")
