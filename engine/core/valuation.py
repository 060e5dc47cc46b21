"""Decides. What an account is worth in one currency, by live marks, and what that number rests on.

Cash and securities are valued at their price against the base currency, directly or over other pairs (the fewest
first); derivatives by what they would gain if closed at their mark. What has no price is named and never counted as
nothing: a valuation with something missing is no valuation, and one that rests on an old price says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal

import msgspec

from engine.core.book import Position
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.marks import Mark

_ONE, _ZERO = Decimal(1), Decimal(0)
_LONGEST_WAY = 3  # pairs between a currency and the base: more would be arithmetic, not a price


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How one currency was turned into the base: the factor, and the prices it came from."""

    currency: str
    factor: Decimal
    marks: tuple[Mark, ...] = ()  # none: it is the base itself, or counts one to one with it

    @property
    def as_of_ms(self) -> int | None:
        return min((m.as_of_ms for m in self.marks), default=None)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One holding in the account's worth. `quantity` is cash, pieces, or venue units of a derivative."""

    name: str  # currency, security or instrument
    quantity: Decimal
    value: Decimal  # in the base currency
    rate: Rate
    mark: Mark | None = None  # of a derivative


class Valuation(msgspec.Struct, frozen=True, kw_only=True):
    """An account's worth in `currency`. `missing` and `stale` name what has no price, or an old one, and why."""

    account_id: str
    currency: str
    total: Decimal
    at_ms: int
    parts: tuple[Part, ...] = ()
    missing: Mapping[str, str] = {}
    stale: Mapping[str, str] = {}

    @property
    def whole(self) -> bool:
        return not self.missing

    @property
    def as_of_ms(self) -> int | None:
        """The oldest price in it; None where none was needed."""
        times = [t for part in self.parts for t in (part.rate.as_of_ms, part.mark and part.mark.as_of_ms) if t]
        return min(times, default=None)


class Rates:
    """Turns currencies into one base by the marks of pairs; asked again and again while the marks stand still."""

    def __init__(self, base: str, pairs: Iterable[tuple[Instrument, Mark]], at_par: Collection[str] = ()) -> None:
        """`pairs`: every spot instrument that has a price. `at_par`: currencies that count one to one."""
        self.base = base
        self._at_par = frozenset(at_par)
        self._ways: dict[str, list[tuple[str, Decimal, Mark]]] = {}
        for instrument, mark in sorted(pairs, key=lambda pair: (pair[0].name, pair[1].source)):
            if mark.price > 0:
                self._ways.setdefault(instrument.base, []).append((instrument.quote, mark.price, mark))
                self._ways.setdefault(instrument.quote, []).append((instrument.base, _ONE / mark.price, mark))
        self._known: dict[str, Rate | None] = {}

    def of(self, currency: str) -> Rate | None:
        """The way over the fewest pairs; None: there is none."""
        if currency not in self._known:
            self._known[currency] = self._find(currency)
        return self._known[currency]

    def _find(self, currency: str) -> Rate | None:
        seen, queue = {currency}, deque([(currency, _ONE, tuple[Mark, ...]())])
        while queue:
            here, factor, marks = queue.popleft()
            if here == self.base or {here, self.base} <= self._at_par:
                return Rate(currency=currency, factor=factor, marks=marks)
            if len(marks) == _LONGEST_WAY:
                continue
            ways = list(self._ways.get(here, ()))
            if here in self._at_par:  # one to one with its like, which may have a price
                ways += [way for like in sorted(self._at_par - {here}) for way in self._ways.get(like, ())]
            for there, price, mark in ways:
                if there not in seen:
                    seen.add(there)
                    queue.append((there, factor * price, (*marks, mark)))
        return None


def value(
    account_id: str,
    *,
    cash: Mapping[str, Decimal],
    positions: Iterable[Position],
    rates: Rates,
    instrument_of: Callable[[str], Instrument | None],
    mark_of: Callable[[Instrument], Mark | None],
    at_ms: int,
    max_age_ms: int,
) -> Valuation:
    """Everything the account holds, in the base currency of `rates`."""
    parts: list[Part] = []
    missing: dict[str, str] = {}
    for currency, amount in sorted(cash.items()):
        if not amount:
            continue
        rate = rates.of(currency)
        if rate is None:
            missing[currency] = f"no price of {currency} in {rates.base}"
        else:
            parts.append(Part(name=currency, quantity=amount, value=amount * rate.factor, rate=rate))
    for position in positions:
        if position.quantity:
            part = _derivative(position, rates, instrument_of, mark_of)
            if isinstance(part, Part):
                parts.append(part)
            else:
                missing[position.instrument] = part
    return Valuation(
        account_id=account_id,
        currency=rates.base,
        total=sum((p.value for p in parts), _ZERO),
        at_ms=at_ms,
        parts=tuple(parts),
        missing=missing,
        stale=_stale(parts, at_ms, max_age_ms),
    )


def _derivative(
    position: Position,
    rates: Rates,
    instrument_of: Callable[[str], Instrument | None],
    mark_of: Callable[[Instrument], Mark | None],
) -> Part | str:
    instrument = instrument_of(position.instrument)
    if instrument is None:
        return "the instrument is not in the catalogue"
    if instrument.settled_daily:
        return "its gain is settled in cash each day: what is still to come is known to the venue only"
    mark = mark_of(instrument)
    if mark is None:
        return "it has no price"
    if position.avg_price is None:
        return "what it was bought at is not known"
    rate = rates.of(instrument.settle)
    if rate is None:
        return f"no price of {instrument.settle} in {rates.base}"
    gain = unrealised(instrument, position.quantity, position.avg_price, mark.price)
    return Part(name=instrument.name, quantity=position.quantity, value=gain * rate.factor, rate=rate, mark=mark)


def unrealised(instrument: Instrument, quantity: Decimal, bought_at: Decimal, price: Decimal) -> Decimal:
    """The gain of a derivative closed at `price`, in its settle currency; `quantity` is signed."""
    assert instrument.kind is not InstrumentKind.SPOT, "what is owned outright has a value, not a gain"
    units = quantity * instrument.multiplier
    if instrument.inverse:
        return units * (_ONE / bought_at - _ONE / price) if bought_at and price else _ZERO
    return units * (price - bought_at)


def _stale(parts: Iterable[Part], at_ms: int, max_age_ms: int) -> dict[str, str]:
    stale: dict[str, str] = {}
    for part in parts:
        for mark in (*part.rate.marks, *((part.mark,) if part.mark else ())):
            age_ms = at_ms - mark.as_of_ms
            if age_ms > max_age_ms:
                stale[part.name] = f"{mark.instrument} from {mark.source} is {age_ms / 1000:.0f} s old"
    return stale


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One price as people see it."""

    instrument: str
    environment: str
    price: Decimal
    basis: str
    source: str
    market: str
    as_of_ms: int
    age_s: float
    stale: bool


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue says that the account is worth."""

    currency: str
    total: Decimal
    at_ms: int


class AccountWorth(msgspec.Struct, frozen=True, kw_only=True):
    """Our valuation beside the venue's own statement, where there is one."""

    valuation: Valuation
    stated: Stated | None


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What several accounts are worth together. Accounts without a whole valuation are named, not counted."""

    currency: str
    total: Decimal
    counted: tuple[str, ...]
    left_out: Mapping[str, str]


def together(valuations: Iterable[Valuation], currency: str) -> Worth:
    counted, left_out, total = [], dict[str, str](), _ZERO
    for valuation in valuations:
        if valuation.whole:
            counted.append(valuation.account_id)
            total += valuation.total
        else:
            left_out[valuation.account_id] = "; ".join(f"{n}: {why}" for n, why in sorted(valuation.missing.items()))
    return Worth(currency=currency, total=total, counted=tuple(counted), left_out=left_out)
