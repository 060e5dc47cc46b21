"""Opening + fills = closing, or it is said in numbers what differs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.core.book import Book
from engine.core.conservation import differences
from engine.core.facts import BalanceFact
from tests.ledger import samples

AT_MS = 5000


def book(cash: str, position: int) -> Book:
    made = Book("ann", {samples.SWAP.name: samples.SWAP}.get)
    made.open_with([samples.position(position)], [balance(cash)], AT_MS)
    return made


def balance(cash: str, currency: str = "USDT") -> BalanceFact:
    return BalanceFact(currency=currency, cash=Decimal(cash), updated_at_ms=AT_MS)


def told(one: Book, *balances: BalanceFact, cash_history: bool = True) -> list[str]:
    return differences(one, [samples.position(1), *balances], venue="okx", cash_history=cash_history)


def test_what_agrees_is_not_told() -> None:
    assert told(book("10", 1), balance("10")) == []


@pytest.mark.parametrize(
    ("stated", "found"),
    [("10.000000001", []), ("10.01", ["USDT: book 10, venue 10.01"]), ("0", ["USDT: book 10, venue 0"])],
)
def test_cash_may_differ_by_its_tolerance_and_no_more(stated: str, found: list[str]) -> None:
    assert told(book("10", 1), balance(stated)) == found


def test_a_currency_that_only_one_side_has_differs() -> None:
    assert told(book("10", 1), balance("10"), balance("5", "EUR")) == ["EUR: book 0, venue 5"]
    assert told(book("10", 1), balance("5", "EUR")) == ["EUR: book 0, venue 5", "USDT: book 10, venue 0"]


def test_cash_is_not_compared_where_its_movements_cannot_be_read_or_no_balance_is_told() -> None:
    assert told(book("10", 1), balance("99"), cash_history=False) == []
    assert told(book("10", 1)) == []


def test_a_position_that_differs_is_told_with_both_numbers() -> None:
    assert told(book("10", 3), balance("10")) == [f"{samples.SWAP.name} net: book 3, venue 1"]
