from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
import sqlalchemy as sa

from engine.core.book import Book
from engine.core.facts import AccountFact, BalanceFact
from engine.core.instruments import Instrument
from engine.ledger import Ledger, books
from engine.ledger.tables import checkpoint
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


async def _of_another_form(ledger: Ledger, *, without: str = "") -> None:
    def write(connection: sa.Connection) -> None:
        body = msgspec.json.decode(connection.scalar(sa.select(checkpoint.c.body)) or "")
        body["form"] = "unisono.book/1"
        body.pop(without, None)
        connection.execute(sa.update(checkpoint).values(body=msgspec.json.encode(body).decode()))

    await ledger.write(write)


async def _opened(ledger: Ledger, *stated: AccountFact) -> Book:
    """An account that was opened, traded twice, and forgot its first fill."""
    book = Book("ann", lookup)
    positions = [f for f in stated if not isinstance(f, BalanceFact)]
    book.open_with(positions, [f for f in stated if isinstance(f, BalanceFact)], 1000)  # type: ignore[arg-type]
    ledger.append([as_row(f) for f in stated])
    take(ledger, book, fill(1), fill(2, traded_at_ms=9000))
    book.prune(5000)
    await books.keep(ledger, book)
    take(ledger, book, fill(3, traded_at_ms=9500))
    await settled(ledger)
    return book


@pytest.mark.parametrize("without", ["", "opening"], ids=["the opening is in it", "it only tells of when"])
async def test_a_checkpoint_of_another_form_counts_as_none(ledger: Ledger, without: str) -> None:
    usd = BalanceFact(currency="USDT", cash=Decimal(100), updated_at_ms=900)
    book = await _opened(ledger, position(5), usd)
    await _of_another_form(ledger, without=without)
    anew = loaded(ledger)
    assert anew.quantities() == book.quantities() == {(SWAP.name, "net"): 8}
    assert anew.cash == book.cash == {"USDT": Decimal("99.7")}
    assert anew.opening == book.opening


async def test_a_checkpoint_of_another_form_whose_opening_is_nowhere_names_the_account(ledger: Ledger) -> None:
    first = BalanceFact(currency="USDT", cash=Decimal(100), updated_at_ms=900)
    await _opened(ledger, first)
    ledger.append([as_row(BalanceFact(currency="USDT", cash=Decimal(7), updated_at_ms=900))])
    await _of_another_form(ledger, without="opening")
    with pytest.raises(books.UnreadableBook, match=r"The book of ann .* unisono restore FILE"):
        loaded(ledger)
    await _of_another_form(ledger, without="cash_openings")
    with pytest.raises(books.UnreadableBook, match="book of ann"):
        loaded(ledger)
