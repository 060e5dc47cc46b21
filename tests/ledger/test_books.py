from __future__ import annotations

from decimal import Decimal

import pytest

from engine.core.book import Book
from engine.core.facts import AccountFact, BalanceFact
from engine.core.instruments import Instrument
from engine.ledger import Ledger, books
from tests.ledger.samples import SWAP, as_row, fill, order, position

pytestmark = pytest.mark.anyio


def lookup(name: str) -> Instrument | None:
    return SWAP if name == SWAP.name else None


def take(ledger: Ledger, book: Book, *facts: AccountFact) -> None:
    """As the engine does: folded and appended in one go."""
    for fact in facts:
        book.fold(fact)
    ledger.append([as_row(fact) for fact in facts])


def loaded(ledger: Ledger) -> Book:
    with ledger.read() as connection:
        return books.load(connection, "ann", lookup)


async def settled(ledger: Ledger) -> None:
    await ledger.write(lambda connection: None)


async def test_without_a_checkpoint_a_book_is_all_its_facts(ledger: Ledger) -> None:
    book = Book("ann", lookup)
    take(ledger, book, order(), fill(1), fill(2), position(2), order(filled=Decimal(2), updated_at_ms=2000))
    ledger.append([as_row(fill(9), "bob")])
    await settled(ledger)
    assert loaded(ledger).snapshot() == book.snapshot()
    assert book.quantities() == {(SWAP.name, "net"): 2}


async def test_an_account_nobody_recorded_has_an_empty_book(ledger: Ledger) -> None:
    assert loaded(ledger).snapshot() == Book("ann", lookup).snapshot()


async def test_a_checkpoint_and_what_came_after_it_are_the_same_book(ledger: Ledger) -> None:
    book = Book("ann", lookup)
    book.open_with([position(5)], [BalanceFact(currency="USDT", cash=Decimal(100), updated_at_ms=900)], 1000)
    take(ledger, book, fill(1), fill(2))
    await books.keep(ledger, book)
    take(ledger, book, fill(3), fill(4))
    await settled(ledger)
    assert loaded(ledger).snapshot() == book.snapshot()
    assert loaded(ledger).quantities() == {(SWAP.name, "net"): 9}
    assert loaded(ledger).cash == {"USDT": Decimal("99.6")}


async def test_what_is_appended_right_after_a_checkpoint_is_counted_once_though_it_is_forgotten(
    ledger: Ledger,
) -> None:
    """Both land in the writer's queue together; the fill is older than the horizon, so no id would tell."""
    book = Book("ann", lookup)
    take(ledger, book, fill(1))
    book.prune(100_000)
    books.post(ledger, book)
    late = fill(2)
    assert book.fold(late) is None
    ledger.append([as_row(late)])
    await settled(ledger)
    assert loaded(ledger).quantities() == {(SWAP.name, "net"): 2}


async def test_a_later_checkpoint_replaces_the_one_before(ledger: Ledger) -> None:
    book = Book("ann", lookup)
    for number in range(3):
        take(ledger, book, fill(number))
        books.post(ledger, book)
    await settled(ledger)
    assert loaded(ledger).quantities() == {(SWAP.name, "net"): 3}


async def test_a_fee_that_came_later_is_in_the_book_again(ledger: Ledger) -> None:
    book = Book("ann", lookup)
    take(ledger, book, fill(1, fee=None))
    take(ledger, book, fill(1))
    await settled(ledger)
    assert loaded(ledger).cash == book.cash == {"USDT": Decimal("-0.1")}


async def test_the_fee_of_a_forgotten_fill_does_not_count_the_fill_again(ledger: Ledger) -> None:
    book = Book("ann", lookup)
    take(ledger, book, fill(1, fee=None))
    book.prune(100_000)
    books.post(ledger, book)
    ledger.append([as_row(fill(1)), as_row(fill(2, fee=None)), as_row(fill(2))])
    await settled(ledger)
    assert loaded(ledger).quantities() == {(SWAP.name, "net"): 2}
    assert ledger.unrecorded("ann", [fill(1), fill(2), fill(3)]) == [fill(3)], "with its fee or without"
