"""Decides. Whether what was folded is what the venue states: opening + fills = closing, for positions and for cash."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from engine.core.book import Book
from engine.core.facts import BalanceFact, Fact, PositionFact
from engine.core.tolerances import RULES, within

_ZERO = Decimal(0)


def differences(book: Book, statement: Iterable[Fact], *, venue: str, cash_history: bool) -> list[str]:
    """Where the folded book and the venue's complete statement do not agree, as sentences.

    Cash is compared where the venue tells balances and its movements can be read (`cash_history`); where not, there
    is nothing that it could be conserved by.
    """
    stated_cash: dict[str, Decimal] = {}
    stated: dict[tuple[str, str], Decimal] = {}
    for fact in statement:
        if isinstance(fact, BalanceFact):
            stated_cash[fact.currency] = fact.cash
        elif isinstance(fact, PositionFact) and fact.quantity:
            key = (fact.instrument, fact.position_side)
            stated[key] = stated.get(key, _ZERO) + fact.quantity  # the margin modes of one side add up
    found = [*_short_orders(book), *_positions(book, stated)]
    if cash_history and stated_cash:
        found += _cash(book, stated_cash, venue)
    return found


def _short_orders(book: Book) -> list[str]:
    opened_ms = book.opened_at_ms or 0
    return [
        f"order {s.order.venue_order_id}: filled {s.order.filled}, fills known {s.known}"
        for s in book.short_of_fills()
        if s.order.created_at_ms > opened_ms and not s.order.quantity_in_quote  # else part of it is in the opening
    ]


def _positions(book: Book, stated: dict[tuple[str, str], Decimal]) -> list[str]:
    folded = {k: q for k, q in book.quantities().items() if q}
    return [
        f"{instrument} {side}: book {folded.get((instrument, side), 0)}, venue {stated.get((instrument, side), 0)}"
        for instrument, side in sorted(stated.keys() | folded.keys())
        if stated.get((instrument, side), _ZERO) != folded.get((instrument, side), _ZERO)
    ]


def _cash(book: Book, stated: dict[str, Decimal], venue: str) -> list[str]:
    folded = book.cash
    return [
        f"{currency}: book {folded.get(currency, 0)}, venue {stated.get(currency, 0)}"
        for currency in sorted(stated.keys() | folded.keys())
        if not within(
            RULES.tolerance(venue, "cash", currency), stated.get(currency, _ZERO), folded.get(currency, _ZERO)
        )
    ]
