"""Decides. Where a number of the book comes from: its opening and every fact after it, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import accumulate

import msgspec

from engine.core.book import Book, Opening
from engine.core.entries import FEE, REALISED, TRADE, Entry
from engine.core.facts import CashFact, FillFact, Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.lots import Walked

_ZERO = Decimal(0)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """How a fact came to us, and whose doing it was."""

    source: str = ""  # stream, history, statement
    connection_key: str = ""
    received_at_ms: int | None = None
    plan_id: str = ""  # "": no plan of ours
    external: bool = False  # placed elsewhere: no order of ours


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One fact and what it changed. `change` is in the unit of the number that is explained."""

    what: str
    change: Decimal
    after: Decimal
    id: str = ""  # the venue's: fill, cash movement, statement row
    at_ms: int | None = None
    instrument: str = ""
    side: str = ""
    price: Decimal | None = None
    realised: Decimal | None = None  # None: nothing, or (`unpriced`) not known
    unpriced: bool = False  # it closed something whose cost nobody told
    avg_after: Decimal | None = None
    fee: Decimal | None = None
    fee_currency: str = ""
    venue_order_id: str = ""
    venue_action: str = ""
    origin: Origin = Origin()


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    currency: str
    amount: Decimal


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """A number and its lines. `unexplained` is what they leave over: other than zero only where facts are missing."""

    account_id: str
    name: str  # instrument, or currency
    position_side: str  # "" for cash
    unit: str
    shown: Decimal
    unexplained: Decimal
    lines: tuple[Line, ...]
    avg_price: Decimal | None = None
    realised: Decimal | None = None
    realised_in: str = ""
    unpriced: Decimal = _ZERO
    charges: tuple[Charge, ...] = ()


OriginOf = Callable[[str, str], Origin]
"""The kind of a fact (fill, cash, position, balance) and its key -> how it came to us."""


def explain_position(whole: Book, shown: Decimal, instrument: Instrument, side: str, origin: OriginOf) -> Explained:
    """`whole` remembers everything since its opening; `shown` is what people see, in the same unit."""
    if instrument.kind is InstrumentKind.SPOT:
        return _holding(whole, shown, instrument, origin)
    name = instrument.name
    rows = _opening_rows(whole.opening, name, side, origin)
    walked = whole.walked(name, side)
    avg = realised = None
    unpriced = _ZERO
    for position in whole.positions():
        if (position.instrument, position.position_side) == (name, side):
            avg, realised, unpriced = position.avg_price, position.realised, position.unpriced
    lines = _with_afters([*rows, *(_step(one, whole.fill(one.step[2]), origin) for one in walked)])
    return Explained(
        account_id=whole.account_id,
        name=name,
        position_side=side,
        unit=instrument.unit,
        shown=shown,
        unexplained=(shown - _sum(lines)) or _ZERO,
        lines=lines,
        avg_price=avg,
        realised=realised,
        realised_in=instrument.settle,
        unpriced=unpriced,
        charges=_charges(whole, {name}),
    )


def explain_cash(whole: Book, shown: Decimal, currency: str, origin: OriginOf) -> Explained:
    rows = _opening_cash(whole.opening, currency, origin)
    lines = _with_afters([*rows, *(_movement(entry, origin) for entry in whole.entries(currency))])
    return Explained(
        account_id=whole.account_id,
        name=currency,
        position_side="",
        unit=currency,
        shown=shown,
        unexplained=(shown - _sum(lines)) or _ZERO,
        lines=lines,
    )


def _holding(whole: Book, shown: Decimal, instrument: Instrument, origin: OriginOf) -> Explained:
    """A paper or a coin, in pieces."""
    currency = instrument.base
    rows = _opening_cash(whole.opening, currency, origin)
    moved = [
        msgspec.structs.replace(
            _movement(entry, origin),
            realised=one.gain if entry.priced_in and one.gain else None,
            unpriced=bool(entry.priced_in) and one.gain is None,
            avg_after=one.avg,
        )
        for entry, one in whole.holding_walked(currency)
    ]
    held = next((h for h in whole.holdings() if h.currency == currency), None)
    lines = _with_afters([*rows, *moved])
    return Explained(
        account_id=whole.account_id,
        name=instrument.name,
        position_side="net",
        unit=currency,
        shown=shown,
        unexplained=(shown - _sum(lines)) or _ZERO,
        lines=lines,
        avg_price=None if held is None else held.avg_price,
        realised=None if held is None else held.realised,
        realised_in=instrument.quote if held is None else held.paid_in,
        unpriced=_ZERO if held is None else held.unpriced,
        charges=_charges(whole, {e.fact.instrument for e, _ in whole.holding_walked(currency) if e.priced_in}),
    )


def _opening_rows(opening: Opening | None, name: str, side: str, origin: OriginOf) -> list[Line]:
    rows = () if opening is None else opening.positions
    return [
        Line(
            what="opening",
            change=row.quantity,
            after=_ZERO,
            id=row.key,
            at_ms=row.updated_at_ms,
            instrument=name,
            price=row.avg_price if row.quantity else None,
            avg_after=row.avg_price if row.quantity else None,
            origin=origin("position", row.key),
        )
        for row in rows
        if (row.instrument, row.position_side) == (name, side)
    ]


def _opening_cash(opening: Opening | None, currency: str, origin: OriginOf) -> list[Line]:
    rows = () if opening is None else opening.balances
    return [
        Line(
            what="opening",
            change=row.cash,
            after=_ZERO,
            id=row.key,
            at_ms=row.updated_at_ms,
            origin=origin("balance", row.key),
        )
        for row in rows
        if row.currency == currency
    ]


def _step(one: Walked, fill: FillFact | None, origin: OriginOf) -> Line:
    at_ms, _, fill_id, signed, price, _, _ = one.step
    assert fill is not None, "a whole book has forgotten nothing"
    return Line(
        what=_trade(fill),
        change=signed,
        after=one.quantity,
        id=fill_id,
        at_ms=at_ms,
        instrument=fill.instrument,
        side=fill.side.value,
        price=price,
        realised=one.gain or None,
        unpriced=one.gain is None,
        avg_after=one.avg,
        fee=fill.fee,
        fee_currency=fill.fee_currency,
        venue_order_id=fill.venue_order_id,
        venue_action=fill.venue_action,
        origin=origin("fill", fill.key),
    )


def _movement(entry: Entry, origin: OriginOf) -> Line:
    fact = entry.fact
    if isinstance(fact, CashFact):
        return Line(
            what=entry.kind,
            change=entry.amount,
            after=_ZERO,
            id=fact.cash_id,
            at_ms=fact.booked_at_ms,
            instrument=fact.instrument,
            venue_order_id=fact.venue_order_id,
            origin=origin("cash", fact.key),
        )
    what = {TRADE: _trade(fact), REALISED: "realised", FEE: "fee"}[entry.kind]
    return Line(
        what=what,
        change=entry.amount,
        after=_ZERO,
        id=fact.fill_id,
        at_ms=fact.traded_at_ms,
        instrument=fact.instrument,
        side=fact.side.value,
        price=fact.price,
        venue_order_id=fact.venue_order_id,
        venue_action=fact.venue_action,
        origin=origin("fill", fact.key),
    )


def _trade(fill: FillFact) -> str:
    return "bought" if fill.side is Side.BUY else "sold"


def _with_afters(lines: Sequence[Line]) -> tuple[Line, ...]:
    sums = accumulate(line.change for line in lines)
    return tuple(msgspec.structs.replace(line, after=after) for line, after in zip(lines, sums, strict=True))


def _sum(lines: Iterable[Line]) -> Decimal:
    return sum((line.change for line in lines), _ZERO)


def _charges(whole: Book, instruments: set[str]) -> tuple[Charge, ...]:
    sums = dict[tuple[str, str], Decimal]()
    for (name, kind, currency), amount in whole.charges().items():
        if name in instruments:
            sums[kind, currency] = sums.get((kind, currency), _ZERO) + amount
    return tuple(Charge(kind=k, currency=c, amount=a) for (k, c), a in sorted(sums.items()))
