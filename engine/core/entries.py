"""Decides. What one fact moves: currencies and pieces, line by line, each with the fact that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec

from engine.core.facts import CashFact, FillFact
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.lots import Lot, Step

TRADE, REALISED, FEE = "trade", "realised", "fee"

_ZERO = Decimal(0)
_COSTS_NOTHING = frozenset({FEE, "funding", "interest"})  # what such a movement brings was not bought


class Entry(msgspec.Struct, frozen=True):
    """One movement of one currency (or paper). Everything that a book's cash consists of is an opening and these."""

    currency: str
    amount: Decimal
    kind: str  # trade, realised, fee, or a movement's own: funding, transfer, interest, …
    fact: FillFact | CashFact
    priced_in: str = ""  # of what was bought or sold: the currency that paid for it

    @property
    def at_ms(self) -> int:
        return self.fact.at_ms

    @property
    def order(self) -> tuple[int, int, str, str]:
        """When it happened among others; of one fill the trade goes before its fee."""
        number = self.fact.trade_number if isinstance(self.fact, FillFact) else None
        return self.at_ms, number or 0, self.fact.key, "" if self.kind == TRADE else self.kind


def of_fill(fill: FillFact, instrument: Instrument) -> Iterator[Entry]:
    """What the fill moves by itself; what a derivative's fill realised only where the venue says so."""
    if instrument.kind is InstrumentKind.SPOT:
        units = fill.quantity * fill.side.sign * instrument.multiplier
        yield Entry(instrument.base, units, TRADE, fill, instrument.quote)
        yield Entry(instrument.quote, -units * fill.price, TRADE, fill)
    elif fill.realised:
        yield Entry(instrument.settle, fill.realised, REALISED, fill)
    if fill.fee:
        yield Entry(fill.fee_currency, fill.fee, FEE, fill)


def of_movement(movement: CashFact) -> Entry:
    return Entry(movement.currency, movement.amount, movement.kind, movement)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a holding's fills that are forgotten: their average, and what they realised."""

    avg: Decimal | None = None
    realised: Decimal = _ZERO
    unpriced: Decimal = _ZERO
    paid_in: str = ""  # what its cost is in; "": never bought or sold


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Something owned outright (a paper, a coin, a currency that is traded): how much, and what it cost on average.

    `realised` excludes fees and counts from the opening. What the opening held, and what was paid in, was had at a cost
    that nobody told: while any of that is held `avg_price` is None, and `unpriced` counts what was sold meanwhile.
    """

    currency: str
    quantity: Decimal  # in pieces
    paid_in: str
    avg_price: Decimal | None
    realised: Decimal
    unpriced: Decimal
    changed_at_ms: int


def holding_lot(before: Decimal, kept: Kept, entries: Iterable[Entry]) -> tuple[Lot, str]:
    """The lot of a currency or paper, and what its cost is in. `before`: what there was before these entries.

    Each entry is a step of it, in their order.
    """
    lot = Lot.of_pieces(before, kept.avg if before else None, 0)
    steps, paid_in = list[Step](), kept.paid_in
    for entry in sorted(entries, key=lambda e: e.order):
        price = stated = None
        if entry.priced_in:
            paid_in = paid_in or entry.priced_in
            if entry.priced_in == paid_in and isinstance(entry.fact, FillFact):  # else: an exchange rate is not guessed
                price = entry.fact.price
        elif not paid_in:
            stated = _ZERO  # it was no more than money until it was traded for the first time
        elif entry.kind != TRADE:
            stated = _ZERO  # no sale
            price = _ZERO if entry.kind in _COSTS_NOTHING else None
        at_ms, number, key, kind = entry.order
        steps.append((at_ms, number, f"{key}\0{kind}", entry.amount, price, stated, False))
    lot.resume(kept.realised, _ZERO, kept.unpriced, steps)
    lot.changed_at_ms = steps[-1][0] if steps else 0
    return lot, paid_in
