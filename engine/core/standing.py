"""Decides. What an account holds, as people look at it: quantity, cost, price, result, and who moved it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

import msgspec

from engine.core.book import Book
from engine.core.entries import Holding
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.marks import Mark
from engine.core.valuation import unrealised

_ZERO = Decimal(0)
SETTLED_DAILY = "settled each day: what is still to come is known to the venue only"
NO_COST = "what it cost is not known"
NO_PRICE = "it has no price"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One position or holding. `quantity` is in the venue unit, money in `currency`, prices are for one base unit."""

    account_id: str
    instrument: str
    position_side: str
    quantity: Decimal
    unit: str
    base_quantity: Decimal | None = None  # coins or pieces; of an inverse contract only where there is a price
    currency: str  # of prices of what is owned outright, and of the results
    avg_price: Decimal | None  # None: flat, or not known
    mark: Decimal | None = None
    mark_basis: str = ""
    mark_source: str = ""
    mark_as_of_ms: int | None = None
    unrealised: Decimal | None = None
    why_not: str = ""  # why there is no unrealised result
    realised: Decimal  # since the opening, without fees
    unpriced: Decimal = _ZERO  # closed or sold (in base units of what is owned) at a gain that is not known
    charges: Mapping[str, Decimal] = {}  # fees, funding, interest of this instrument, by "kind currency"
    elsewhere: Mapping[str, Decimal] = {}  # lately moved by others than us: "external" or the venue's action -> signed
    updated_at_ms: int


def standings(
    book: Book, listed: Iterable[Instrument], mark_of: Callable[[Instrument], Mark | None] = lambda instrument: None
) -> list[Standing]:
    """Everything the account holds. `listed`: what its venue lists; papers nobody has traded yet are named by it."""
    found = list[Standing]()
    charges = book.charges()
    for position in book.positions():
        if not position.quantity:
            continue
        instrument = book.instrument(position.instrument)
        found.append(
            _with_mark(
                Standing(
                    account_id=book.account_id,
                    instrument=position.instrument,
                    position_side=position.position_side,
                    quantity=position.quantity,
                    unit="" if instrument is None else instrument.unit,
                    currency="" if instrument is None else instrument.settle,
                    avg_price=position.avg_price,
                    realised=position.realised,
                    unpriced=position.unpriced,
                    charges=_charges(charges, position.instrument),
                    updated_at_ms=position.changed_at_ms,
                ),
                instrument,
                mark_of,
            )
        )
    for holding, instrument in _held(book, list(listed)):
        found.append(
            _with_mark(
                Standing(
                    account_id=book.account_id,
                    instrument=instrument.name,
                    position_side="net",
                    quantity=holding.quantity / instrument.multiplier,
                    unit=instrument.unit,
                    currency=holding.paid_in or instrument.quote,
                    avg_price=holding.avg_price,
                    realised=holding.realised,
                    unpriced=holding.unpriced,
                    charges=_charges(charges, instrument.name),
                    updated_at_ms=holding.changed_at_ms,
                ),
                instrument,
                mark_of,
            )
        )
    return found


def _held(book: Book, listed: list[Instrument]) -> Iterable[tuple[Holding, Instrument]]:
    """What is owned outright, with the instrument that it is traded as.

    What nobody has traded here is shown where it is listed as something to buy and nothing is paid with it: other
    currencies are balances.
    """
    spot = [i for i in listed if i.kind is InstrumentKind.SPOT]
    paid_with = {i.quote for i in spot}
    traded = {h.currency: h for h in book.holdings()}
    changed_ms = book.cash_changed_ms
    for currency, quantity in sorted(book.cash.items()):
        if not quantity:
            continue
        holding = traded.get(currency)
        if holding is None:
            if currency in paid_with:
                continue
            holding = Holding(
                currency=currency,
                quantity=quantity,
                paid_in="",
                avg_price=None,
                realised=_ZERO,
                unpriced=_ZERO,
                changed_at_ms=changed_ms.get(currency, 0),
            )
        candidates = sorted(
            (i for i in (*book.owned_as(currency), *spot) if i.base == currency),
            key=lambda i: (i.quote != holding.paid_in, i.name),
        )
        if candidates:
            yield holding, candidates[0]


def _with_mark(one: Standing, instrument: Instrument | None, mark_of: Callable[[Instrument], Mark | None]) -> Standing:
    if instrument is None:
        return msgspec.structs.replace(one, why_not="the instrument is not known")
    mark, spot = mark_of(instrument), instrument.kind is InstrumentKind.SPOT
    base = None if instrument.inverse else one.quantity * instrument.multiplier
    gain, why = None, ""
    if mark is None:
        why = NO_PRICE
    elif instrument.settled_daily:
        why = SETTLED_DAILY
    elif one.avg_price is None or (spot and one.currency != instrument.quote):
        why = NO_COST
    elif spot:
        gain = one.quantity * instrument.multiplier * (mark.price - one.avg_price)
    else:
        gain = unrealised(instrument, one.quantity, one.avg_price, mark.price)
    if mark is None:
        return msgspec.structs.replace(one, base_quantity=base, why_not=why)
    if instrument.inverse and mark.price:
        base = instrument.base_quantity(one.quantity, mark.price)
    return msgspec.structs.replace(
        one,
        base_quantity=base,
        mark=mark.price,
        mark_basis=mark.basis,
        mark_source=mark.source,
        mark_as_of_ms=mark.as_of_ms,
        unrealised=gain,
        why_not=why,
    )


def _charges(charges: Mapping[tuple[str, str, str], Decimal], name: str) -> dict[str, Decimal]:
    return {f"{kind} {currency}": amount for (told, kind, currency), amount in charges.items() if told == name}
