from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.book import Book
from engine.core.explain import Explained, Origin, explain_cash, explain_position
from engine.core.facts import CashFact, FillFact
from tests.core.test_book import (
    INVERSE,
    KNOWN,
    SPOT,
    SWAP,
    balance,
    bought,
    buy,
    empty,
    histories,
    moved,
    sell,
    sold,
    stated,
)

D = Decimal
HEARD = Origin(source="stream", connection_key="c1", received_at_ms=5)


def origin(kind: str, key: str) -> Origin:
    return HEARD


def positions(book: Book, shown: Book) -> list[Explained]:
    """Of every position and holding that either knows."""
    found = []
    for (name, side), quantity in shown.quantities().items():
        found.append(explain_position(book, quantity, KNOWN[name], side, origin))
    for held in shown.holdings():
        found.append(explain_position(book, held.quantity, SPOT, "net", origin))
    return found


def lines(explained: Explained) -> list[tuple[str, Decimal, Decimal]]:
    return [(line.what, line.change, line.after) for line in explained.lines]


def sums(explained: Explained) -> None:
    assert explained.unexplained == 0
    assert sum((line.change for line in explained.lines), D(0)) == explained.shown
    for before, after in pairwise(explained.lines):
        assert before.after + after.change == after.after


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_lines_add_up_to_what_is_shown_in_whatever_order_and_however_often_facts_came(data: st.DataObject) -> None:
    facts = data.draw(histories())
    again = data.draw(st.lists(st.sampled_from(facts))) if facts else []
    shown, whole = empty(), empty()
    if data.draw(st.booleans()):
        at_ms = data.draw(st.integers(900, 1300))
        rows = [stated(10, updated_at_ms=at_ms), stated(-2, margin_mode="isolated", updated_at_ms=at_ms - 20)]
        cash = [balance(100, updated_at_ms=at_ms - 10), balance(3, currency="BTC", updated_at_ms=at_ms)]
        for book in (shown, whole):
            book.open_with(rows, cash, at_ms)
    for fact in data.draw(st.permutations([*facts, *again])):
        shown.fold(fact)
    for fact in data.draw(st.permutations([f for f in facts if isinstance(f, FillFact | CashFact)])):
        whole.fold(fact)
    if data.draw(st.booleans()):
        shown.prune(data.draw(st.integers(900, 1600)))
    for explained in positions(whole, shown):
        sums(explained)
    for currency, amount in shown.cash.items():
        sums(explain_cash(whole, amount, currency, origin))
    known = {(p.instrument, p.position_side): p for p in shown.positions()}
    for explained in positions(whole, shown):
        if (position := known.get((explained.name, explained.position_side))) is not None:
            assert (explained.avg_price, explained.realised) == (position.avg_price, position.realised)
            assert sum((x.realised or D(0) for x in explained.lines), D(0)) == position.realised


def test_a_position_is_its_opening_and_every_fill_with_what_it_realised() -> None:
    book = empty()
    book.open_with([stated(4, avg_price=D(100))], [], 2000)
    book.fold(buy(1, 1, 200, traded_at_ms=1990))  # the opening has it
    book.fold(buy(2, 4, 200, traded_at_ms=2010, fee=D(-1), venue_action="trigger"))
    book.fold(sell(3, 2, 250, traded_at_ms=2020))
    explained = explain_position(book, book.quantities()[SWAP.name, "net"], SWAP, "net", origin)
    assert lines(explained) == [("opening", 4, 4), ("bought", 4, 8), ("sold", -2, 6)]
    assert [x.avg_after for x in explained.lines] == [100, 150, 150]
    assert [x.realised for x in explained.lines] == [None, None, 2]
    assert (explained.avg_price, explained.realised, explained.realised_in, explained.unit) == (
        150,
        2,
        "USDT",
        "contract",
    )
    assert [(c.kind, c.currency, c.amount) for c in explained.charges] == [("fee", "USDT", -1)]
    second = explained.lines[1]
    assert (second.id, second.price, second.fee, second.venue_action, second.origin) == (
        "f2",
        200,
        -1,
        "trigger",
        HEARD,
    )


def test_a_paper_is_explained_in_pieces_with_what_was_had_at_an_unknown_cost() -> None:
    book = empty()
    book.open_with([], [balance(10, currency="BTC")], 2000)
    book.fold(bought(1, 2, 100, traded_at_ms=2100, fee=D("-0.5"), fee_currency="BTC"))
    book.fold(sold(2, 3, 150, traded_at_ms=2200))
    explained = explain_position(book, book.cash["BTC"], SPOT, "net", origin)
    assert lines(explained) == [
        ("opening", 10, 10),
        ("bought", 2, 12),
        ("fee", D("-0.5"), D("11.5")),
        ("sold", -3, D("8.5")),
    ]
    assert [x.unpriced for x in explained.lines] == [False, False, False, True]
    assert (explained.avg_price, explained.realised, explained.unpriced) == (None, 0, 3)


def test_cash_is_its_opening_and_every_movement_with_its_cause() -> None:
    book = empty()
    book.open_with([], [balance(1000)], 2000)
    for fact in (
        buy(1, 1, 100, traded_at_ms=2100, fee=D(-1)),
        sell(2, 1, 300, traded_at_ms=2200, fee=D(-2)),  # the venue does not say what it realised
        moved(1, -5, instrument=SWAP.name, booked_at_ms=2300),
        moved(2, 7, fill_id="f9", booked_at_ms=2400),  # its fill is not known yet
        bought(3, 2, 50, traded_at_ms=2500),
    ):
        book.fold(fact)
    explained = explain_cash(book, book.cash["USDT"], "USDT", origin)
    assert lines(explained) == [
        ("opening", 1000, 1000),
        ("fee", -1, 999),
        ("fee", -2, 997),
        ("realised", 2, 999),
        ("funding", -5, 994),
        ("funding", 7, 1001),
        ("bought", -100, 901),
    ]


def test_what_no_fact_explains_is_said_and_not_hidden() -> None:
    explained = explain_position(empty(), D(3), INVERSE, "net", origin)
    assert (explained.lines, explained.shown, explained.unexplained) == ((), 3, 3)
