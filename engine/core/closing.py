"""Decides. Which market orders bring an account to nothing, by what its venue states, and what of it cannot be closed.

Flat means: no position, and no holding but money. A rest smaller than the smallest order stays, and is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal

import msgspec

from engine.core.facts import BalanceFact, Fact, PositionFact, Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.limits import plain, usable
from engine.core.orders import OrderType
from engine.core.venue import Catalogue

_ZERO = Decimal(0)


class Close(msgspec.Struct, frozen=True):
    """One market order. `quantity` is in the venue's unit."""

    instrument: Instrument
    side: Side
    quantity: Decimal


class Closing(msgspec.Struct, frozen=True):
    orders: tuple[Close, ...]
    cannot: tuple[str, ...] = ()  # what is held and cannot be closed by an order of ours, and why
    stubs: tuple[str, ...] = ()  # what is smaller than the smallest order

    @property
    def flat(self) -> bool:
        return not self.orders and not self.cannot


def closing(
    stated: Iterable[Fact], catalogue: Catalogue, money: Collection[str], order_types: Collection[OrderType]
) -> Closing:
    """Of a complete statement: what is absent from it is zero. `money`: currencies that count as money here."""
    orders, cannot, stubs = list[Close](), list[str](), list[str]()
    for fact in stated:
        if isinstance(fact, PositionFact) and fact.quantity:
            held, instrument, name = fact.quantity, catalogue.by_name(fact.instrument), fact.instrument
            if fact.position_side != "net":
                cannot.append(f"{name}: it is held {fact.position_side} side by side; orders go to net positions only")
                continue
            if instrument is None:
                cannot.append(f"{name}: {plain(held)} in an instrument unknown here")
                continue
        elif isinstance(fact, BalanceFact) and fact.cash and fact.currency not in money:
            name, instrument = fact.currency, _market(fact.currency, catalogue, money)
            if instrument is None:
                cannot.append(f"{name}: {plain(fact.cash)} that no instrument here sells for money")
                continue
            held = fact.cash / instrument.multiplier
        else:
            continue
        step = instrument.quantity_step
        quantity = abs(held) // step * step
        if quantity < max(instrument.min_quantity, step):
            stubs.append(f"{instrument.name}: {plain(held)}, less than the smallest order")
        elif OrderType.MARKET not in order_types:
            cannot.append(f"{instrument.name}: {plain(held)}; the venue has no market orders")
        elif not instrument.tradable or not usable(instrument):
            cannot.append(f"{instrument.name}: {plain(held)}; it cannot be traded now: {instrument.status}")
        else:
            most = instrument.max_market_quantity  # the rest goes with a later order
            quantity = quantity if most is None else min(quantity, most // step * step)
            orders.append(Close(instrument, Side.SELL if held > 0 else Side.BUY, quantity))
    return Closing(tuple(orders), tuple(cannot), tuple(stubs))


def _market(currency: str, catalogue: Catalogue, money: Collection[str]) -> Instrument | None:
    """Where this is sold for money: the first by name that trades, else the first."""
    found = [i for i in catalogue.listed() if i.kind is InstrumentKind.SPOT and i.base == currency and i.quote in money]
    return min(found, key=lambda i: (not i.tradable, i.name), default=None)


def as_stated(stated: Iterable[Fact]) -> frozenset[tuple[str, str, Decimal]]:
    """What two statements are compared by: holdings, not their times or values."""
    return frozenset(
        (f.instrument, f.position_side, f.quantity) if isinstance(f, PositionFact) else (f.currency, "", _ZERO + f.cash)
        for f in stated
        if (isinstance(f, PositionFact) and f.quantity) or (isinstance(f, BalanceFact) and f.cash)
    )
