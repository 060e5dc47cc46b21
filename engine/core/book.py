"""Decides. What one account's facts add up to: orders, fills, positions and cash.

A book is folded from facts in whatever order and however often they come; it remembers by the venue's own ids what
it has counted. What the venue states of itself (positions, balances, equity) is kept beside what was folded, never
instead of it, so that the two can be compared.

**Opening.** A book starts empty, or from a statement (`open_with`): then only what the statement does not contain
yet is counted on top of it.

**Memory.** Ids are exact for everything at or after the horizon. `prune` moves the horizon on and forgets ids before
it; of an older fill or cash movement the book cannot say whether it was counted, so `fold` answers None: ask the
ledger, whose unique key knows, and fold it with `unseen=True` when it is new there.

**Cash.** A fill moves cash by itself (spot: base against quote; derivatives: what it realised; both: its fee). A cash
movement that a fill caused is the same money told again: it counts only until its fill is known, as a stand-in. Where
such a movement does not name its fill (kinds `trade` and `fee`) it never counts: a fill that is missing then shows as
a difference in cash, which is better than money counted twice.

**Cost.** What is owned outright is cash like any other; its average cost, what it realised and what was charged are
found when asked for, from the entries of what is remembered on top of what was kept of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from engine.core.entries import REALISED, TRADE, Entry, Holding, Kept, holding_lot, of_fill, of_movement
from engine.core.facts import (
    AccountFact,
    BalanceFact,
    CashFact,
    EquityFact,
    FillFact,
    OrderFact,
    OrderStatus,
    PositionFact,
    Side,
)
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.lots import Lot, Step, Walked

KEPT_ENDED = 100  # ended orders that outlive the horizon

_ZERO = Decimal(0)
_NEVER_MS = -1
_BOOKING_LAG_MS = 60_000  # a venue books the cash of a fill at most so much later
_CAUSED_BY_FILLS = frozenset({"trade", "fee"})
Charged = tuple[str, str, str]
"""Instrument ("" where none is named), kind (fee, funding, interest, transfer, …) and currency of what was charged."""

_Sums = tuple[Decimal, Decimal]  # quantity, and quantity times price
_NOTHING: _Sums = (_ZERO, _ZERO)
_WORKING, _BUY, _SPOT = OrderStatus.WORKING, Side.BUY, InstrumentKind.SPOT
replace = msgspec.structs.replace


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One folded position. `realised` excludes fees, is in the settle currency and counts from the opening."""

    instrument: str
    position_side: str
    quantity: Decimal  # signed, in the instrument's venue unit
    avg_price: Decimal | None  # None while flat, or where the opening did not tell
    realised: Decimal
    unpriced: Decimal = _ZERO  # closed while the average was not known: `realised` leaves out what that gained
    changed_at_ms: int


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """The venue's statement that a book starts from."""

    at_ms: int
    positions: tuple[PositionFact, ...]
    balances: tuple[BalanceFact, ...]


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """The venue states one thing, the facts add up to another. Neither has moved since `since_ms`."""

    name: str  # instrument, or currency for cash
    position_side: str  # "" for cash
    stated: Decimal
    folded: Decimal
    since_ms: int


class Short(msgspec.Struct, frozen=True):
    """An order whose fills we know add up to less than the venue says was filled."""

    order: OrderFact
    known: Decimal


def supersedes(new: OrderFact, old: OrderFact) -> bool:
    """Which of two observations of one order holds (OKX dossier §8).

    Ended beats working, then more filled, then later. An ended order never reopens. An amendment's answer that
    changes nothing else is told by its id.
    """
    if (new.status is _WORKING) is not (old.status is _WORKING):
        return old.status is _WORKING
    if new.filled != old.filled:
        return new.filled > old.filled
    if new.updated_at_ms != old.updated_at_ms:
        return new.updated_at_ms > old.updated_at_ms
    return bool(new.amend_id) and new.amend_id != old.amend_id


class _Contained(msgspec.Struct, frozen=True):
    """What a statement contains of one position: everything up to this trade number, or up to this time."""

    trade_number: int | None
    at_ms: int


class Book:
    """Orders, fills, positions and cash of one account. Plain state, no I/O; not thread-safe."""

    def __init__(self, account_id: str, lookup: Callable[[str], Instrument | None]) -> None:
        """`lookup` gives an instrument by our name, None while it is not known: its fills then wait in `unmapped`."""
        self.account_id = account_id
        self._lookup = lookup
        self._instruments: dict[str, Instrument] = {}  # those that were used: a snapshot carries them along
        self._horizon_ms = 0
        self._opened_at_ms = _NEVER_MS
        self._opening: Opening | None = None
        self._position_openings: dict[tuple[str, str], _Contained] = {}
        self._cash_openings: dict[str, int] = {}
        self._orders: dict[str, OrderFact] = {}
        self._fills: dict[str, FillFact] = {}
        self._filled: dict[str, _Sums] = {}  # by venue order id: what the fills we know add up to
        self._waiting: dict[str, list[str]] = {}  # fills of unknown instruments, by instrument
        self._lots: dict[tuple[str, str], Lot] = {}
        self._cash: dict[str, Decimal] = {}
        self._cash_changed: dict[str, int] = {}
        self._movements: dict[str, CashFact] = {}
        self._stand_ins: dict[str, list[CashFact]] = {}  # counted until their fill is known, by fill id
        self._holdings: dict[str, Kept] = {}  # of what is forgotten, by currency
        self._charged: dict[Charged, Decimal] = {}  # of what is forgotten
        self._stated_positions: dict[tuple[str, str, str], PositionFact] = {}
        self._stated_balances: dict[str, BalanceFact] = {}
        self._equities: dict[str, EquityFact] = {}

    # ---- folding

    def fold(self, fact: AccountFact, *, unseen: bool = False) -> bool | None:
        """True: news. False: a duplicate, or older than what is known. None: too old to say, ask the ledger.

        `unseen`: the ledger was asked, and it is new there.
        """
        kind = type(fact)
        if kind is OrderFact:
            return self._fold_order(fact)  # type: ignore[arg-type]
        if kind is FillFact:
            return self._fold_fill(fact, unseen)  # type: ignore[arg-type]
        if kind is PositionFact:
            return self._fold_position(fact)  # type: ignore[arg-type]
        if kind is BalanceFact:
            return self._fold_balance(fact)  # type: ignore[arg-type]
        if kind is EquityFact:
            return self._fold_equity(fact)  # type: ignore[arg-type]
        return self._fold_movement(fact, unseen)  # type: ignore[arg-type]

    def _fold_order(self, fact: OrderFact) -> bool:
        known = self._orders.get(fact.venue_order_id)
        if known is not None:
            if not supersedes(fact, known):
                return False
            if fact.filled < known.filled:  # the end was told with less than was filled: it is not undone by that
                fact = replace(fact, filled=known.filled, avg_price=known.avg_price)
        self._orders[fact.venue_order_id] = fact
        return True

    def _fold_fill(self, fact: FillFact, unseen: bool) -> bool | None:
        known = self._fills.get(fact.fill_id)
        if known is not None:
            if known.fee is not None or fact.fee is None:
                return False
            self._take_back(known)  # the fuller account of the same fill replaces the first one
        elif fact.traded_at_ms < self._horizon_ms:
            if not unseen:
                return None
            if (instrument := self._instruments.get(fact.instrument) or self._learn(fact.instrument)) is not None:
                self._keep_of(self._counted(of_fill(fact, instrument)))
            self._count(fact, forgotten=True)
            return True
        self._fills[fact.fill_id] = fact
        self._count(fact)
        return True

    def _count(self, fact: FillFact, *, forgotten: bool = False) -> None:
        """`forgotten`: older than the horizon, so it goes straight into the base."""
        if self._stand_ins and fact.fill_id in self._stand_ins:
            for movement in self._stand_ins.pop(fact.fill_id):
                if movement.cash_id not in self._movements:
                    self._keep_of(self._counted([of_movement(replace(movement, amount=-movement.amount))]))
                self._move(movement.currency, -movement.amount, movement.booked_at_ms)
        order = fact.venue_order_id
        value, known = fact.quantity * fact.price, self._filled.get(order)
        self._filled[order] = (fact.quantity, value) if known is None else (known[0] + fact.quantity, known[1] + value)
        instrument = self._instruments.get(fact.instrument) or self._learn(fact.instrument)
        if instrument is None:
            self._fills[fact.fill_id] = fact
            self._waiting.setdefault(fact.instrument, []).append(fact.fill_id)
            return
        self._book(fact, instrument, forgotten)

    def _book(self, fact: FillFact, instrument: Instrument, forgotten: bool = False) -> None:
        """Positions and cash of one fill."""
        at_ms = fact.traded_at_ms
        signed = fact.quantity if fact.side is _BUY else -fact.quantity
        if instrument.kind is _SPOT:
            units = signed * instrument.multiplier
            self._move(instrument.base, units, at_ms)
            self._move(instrument.quote, -units * fact.price, at_ms)
        else:
            realised, settle = fact.realised, instrument.settle
            if realised:
                self._move(settle, realised, at_ms)
            key = (fact.instrument, fact.position_side)
            if not self._opening_has(key, fact):
                lot = self._lots.get(key)
                if lot is None:
                    lot = self._lots[key] = Lot(instrument, _ZERO, None, at_ms)
                step = (
                    at_ms,
                    fact.trade_number or 0,
                    fact.fill_id,
                    signed,
                    fact.price,
                    realised,
                    # What is settled daily becomes cash when the venue says so, as a movement of its own.
                    not instrument.settled_daily and at_ms > self._cash_openings.get(settle, self._opened_at_ms),
                )
                if forgotten:
                    lot.add_to_base(step)
                else:
                    lot.add(step)
        if fact.fee:
            self._move(fact.fee_currency, fact.fee, at_ms)

    def _take_back(self, fact: FillFact) -> None:
        quantity, value = self._filled[fact.venue_order_id]
        self._filled[fact.venue_order_id] = quantity - fact.quantity, value - fact.quantity * fact.price
        waiting = self._waiting.get(fact.instrument)
        if waiting is not None and fact.fill_id in waiting:
            waiting.remove(fact.fill_id)
            return
        instrument, at_ms = self._instruments[fact.instrument], fact.traded_at_ms
        signed = fact.quantity if fact.side is _BUY else -fact.quantity
        if instrument.kind is _SPOT:
            units = signed * instrument.multiplier
            self._move(instrument.base, -units, at_ms)
            self._move(instrument.quote, units * fact.price, at_ms)
        else:
            if fact.realised:
                self._move(instrument.settle, -fact.realised, at_ms)
            lot = self._lots.get((fact.instrument, fact.position_side))
            if lot is not None:
                lot.remove(fact.fill_id)

    def _fold_movement(self, fact: CashFact, unseen: bool) -> bool | None:
        if fact.cash_id in self._movements:
            return False
        if fact.booked_at_ms >= self._horizon_ms:
            self._movements[fact.cash_id] = fact
        elif not unseen:
            return None
        elif not fact.fill_id and fact.kind not in _CAUSED_BY_FILLS:
            self._keep_of(self._counted([of_movement(fact)]))
        self._count_movement(fact)
        return True

    def _count_movement(self, fact: CashFact) -> None:
        if fact.fill_id:
            # Of a fill before the horizon nobody here knows whether it was counted: it is taken for counted.
            remembered = not self._horizon_ms or fact.booked_at_ms >= self._horizon_ms + _BOOKING_LAG_MS
            if remembered and fact.fill_id not in self._fills:
                self._stand_ins.setdefault(fact.fill_id, []).append(fact)
                self._move(fact.currency, fact.amount, fact.booked_at_ms)
        elif fact.kind not in _CAUSED_BY_FILLS:
            self._move(fact.currency, fact.amount, fact.booked_at_ms)

    def _move(self, currency: str, amount: Decimal, at_ms: int) -> None:
        """Cash, unless the opening contains it already."""
        if at_ms <= self._cash_openings.get(currency, self._opened_at_ms):
            return
        known = self._cash.get(currency)
        self._cash[currency] = amount if known is None else known + amount
        if at_ms > self._cash_changed.get(currency, _NEVER_MS):
            self._cash_changed[currency] = at_ms

    def _opening_has(self, key: tuple[str, str], fact: FillFact) -> bool:
        """Is this fill in the opening position already? Trade numbers decide where both sides have one (OKX dossier
        §9.4; those of liquidations are negative and take no part), else the time."""
        opening = self._position_openings.get(key)
        if opening is None:
            return fact.traded_at_ms <= self._opened_at_ms
        theirs, ours = opening.trade_number, fact.trade_number
        if theirs is not None and ours is not None and theirs > 0 and ours > 0:
            return ours <= theirs
        return fact.traded_at_ms <= opening.at_ms

    def _fold_position(self, fact: PositionFact) -> bool:
        key = (fact.instrument, fact.position_side, fact.margin_mode)
        known = self._stated_positions.get(key)
        if known is not None:
            new = (fact.updated_at_ms, fact.last_trade_number or 0)
            old = (known.updated_at_ms, known.last_trade_number or 0)
            if new < old:
                return False
            if new == old and fact.quantity == known.quantity:
                self._stated_positions[key] = fact  # told again, maybe valued afresh: no news
                return False
        self._stated_positions[key] = fact
        return True

    def _fold_balance(self, fact: BalanceFact) -> bool:
        known = self._stated_balances.get(fact.currency)
        if known is None:
            self._stated_balances[fact.currency] = fact
            return True
        if fact.updated_at_ms < known.updated_at_ms:
            return False
        news = fact.updated_at_ms > known.updated_at_ms or fact.cash != known.cash
        if fact.available is None or fact.equity is None:  # not every way of hearing a balance tells all of it
            fact = replace(
                fact,
                available=known.available if fact.available is None else fact.available,
                equity=known.equity if fact.equity is None else fact.equity,
            )
        self._stated_balances[fact.currency] = fact
        return news

    def _fold_equity(self, fact: EquityFact) -> bool:
        known = self._equities.get(fact.currency)
        if known is not None and fact.updated_at_ms <= known.updated_at_ms:
            return False
        self._equities[fact.currency] = fact
        return True

    def _learn(self, name: str) -> Instrument | None:
        """Asks for an instrument; once it is known, its waiting fills are booked."""
        instrument = self._lookup(name)
        if instrument is not None:
            self._instruments[name] = instrument
            for (lot_name, _), lot in self._lots.items():
                if lot_name == name:
                    lot.know(instrument)
            for fill_id in self._waiting.pop(name, ()):
                self._book(self._fills[fill_id], instrument)
        return instrument

    def _learn_waiting(self) -> None:
        for name in list(self._waiting):
            self._learn(name)

    # ---- opening and forgetting

    def open_with(self, positions: Iterable[PositionFact], balances: Iterable[BalanceFact], at_ms: int) -> None:
        """Start from a complete statement taken at `at_ms`: what is absent from it is flat, or no cash.

        Fills and movements that are remembered and that the statement does not contain are counted on top of it:
        a position contains what lies up to its last trade number or, without one, up to its own time.
        """
        self._learn_waiting()
        rows, cash = tuple(positions), tuple(balances)
        self._opened_at_ms, self._opening = at_ms, Opening(at_ms=at_ms, positions=rows, balances=cash)
        self._holdings, self._charged = {}, {}
        self._lots, self._position_openings = {}, {}
        self._cash, self._cash_openings, self._cash_changed = {}, {}, {}
        for stated in rows:
            self._open_position(stated)
        for balance in cash:
            self._cash[balance.currency] = balance.cash
            self._cash_openings[balance.currency] = self._cash_changed[balance.currency] = balance.updated_at_ms
        fills, self._fills, self._filled = self._fills, {}, {}
        movements, self._movements, self._stand_ins = self._movements, {}, {}
        self._waiting = {}
        for fill in fills.values():
            self._fold_fill(fill, True)
        for movement in movements.values():
            self._fold_movement(movement, True)

    def _open_position(self, stated: PositionFact) -> None:
        """One row of the statement; the margin modes of one side add up."""
        key = (stated.instrument, stated.position_side)
        instrument = self._instruments.get(stated.instrument) or self._learn(stated.instrument)
        quantity, at_ms, number = stated.quantity, stated.updated_at_ms, stated.last_trade_number
        avg = stated.avg_price if quantity else None
        other, opening = self._lots.get(key), self._position_openings.get(key)
        if other is not None and opening is not None:
            total = quantity + other.quantity
            if not quantity:
                avg = other.avg
            elif other.quantity:
                one_way = (quantity > 0) is (other.quantity > 0)
                first, second = avg, other.avg
                avg = None
                if one_way and first is not None and second is not None:
                    avg = (first * quantity + second * other.quantity) / total
            quantity, at_ms = total, max(at_ms, opening.at_ms)
            number = None if number is None or opening.trade_number is None else max(number, opening.trade_number)
        self._lots[key] = Lot(instrument, quantity, avg, at_ms)
        self._position_openings[key] = _Contained(number, at_ms)

    def prune(self, horizon_ms: int) -> None:
        """Forget ids from before the horizon; what they added up to stays. The horizon never moves back."""
        if horizon_ms <= self._horizon_ms:
            return
        self._learn_waiting()
        self._keep_of([e for e in self.entries() if e.at_ms < horizon_ms])
        self._horizon_ms = horizon_ms
        waiting = {fill_id for ids in self._waiting.values() for fill_id in ids}
        self._fills = {k: f for k, f in self._fills.items() if f.traded_at_ms >= horizon_ms or k in waiting}
        self._movements = {k: m for k, m in self._movements.items() if m.booked_at_ms >= horizon_ms}
        for lot in self._lots.values():
            lot.prune(horizon_ms)
        old = [o for o in self._orders.values() if o.status is not _WORKING and o.updated_at_ms < horizon_ms]
        old.sort(key=lambda o: o.updated_at_ms, reverse=True)
        at_work = {o.client_order_id for o in self._orders.values() if o.status is _WORKING and o.client_order_id}
        for order in old[KEPT_ENDED:]:
            if order.client_order_id not in at_work:  # else another one has taken its place, and is not all there was
                del self._orders[order.venue_order_id]
        needed = self._orders.keys() | {f.venue_order_id for f in self._fills.values()}
        self._filled = {k: sums for k, sums in self._filled.items() if k in needed}

    # ---- what it adds up to

    @property
    def opened_at_ms(self) -> int | None:
        """When the statement was taken that the book starts from; None when it starts from nothing."""
        return None if self._opened_at_ms == _NEVER_MS else self._opened_at_ms

    @property
    def horizon_ms(self) -> int:
        return self._horizon_ms

    def order(self, venue_order_id: str) -> OrderFact | None:
        return self._orders.get(venue_order_id)

    def orders(self) -> list[OrderFact]:
        """Those at work, and the latest that ended."""
        return list(self._orders.values())

    def open_orders(self) -> list[OrderFact]:
        return [o for o in self._orders.values() if o.status is _WORKING]

    def has_forgotten(self, fact: AccountFact) -> bool:
        """Older than the book remembers: whether it was counted, only the ledger knows."""
        kind = type(fact)
        return (kind is FillFact or kind is CashFact) and fact.at_ms < self._horizon_ms

    def knows_fill(self, fill_id: str) -> bool:
        """Remembered, that is: counted, and not older than the horizon."""
        return fill_id in self._fills

    def positions(self) -> list[Position]:
        """Every position that was ever touched since the opening, flat ones too."""
        self._learn_waiting()
        return [
            Position(
                instrument=name,
                position_side=side,
                quantity=lot.quantity,
                avg_price=lot.avg,
                realised=lot.realised,
                unpriced=lot.unpriced,
                changed_at_ms=lot.changed_at_ms,
            )
            for (name, side), lot in self._lots.items()
        ]

    def quantities(self) -> dict[tuple[str, str], Decimal]:
        """Signed quantity by (instrument, position side)."""
        if self._waiting:
            self._learn_waiting()
        return {key: lot.quantity for key, lot in self._lots.items()}

    @property
    def cash(self) -> dict[str, Decimal]:
        """Folded cash by currency."""
        self._learn_waiting()
        cash = dict(self._cash)
        for (name, _), lot in self._lots.items():
            if computed := lot.computed:
                settle = self._instruments[name].settle
                cash[settle] = cash.get(settle, _ZERO) + computed
        return cash

    @property
    def cash_changed_ms(self) -> dict[str, int]:
        """When each currency last moved."""
        return dict(self._cash_changed)

    def entries(self, currency: str = "") -> list[Entry]:
        """Of all that is remembered, what moved cash since the opening, in the order in which it happened."""
        self._learn_waiting()
        found = list[Entry]()
        for fill in self._fills.values():
            if fill.instrument not in self._waiting:
                found += of_fill(fill, self._instruments[fill.instrument])
        for cash in self._movements.values():
            if cash in self._stand_ins.get(cash.fill_id, ()) if cash.fill_id else cash.kind not in _CAUSED_BY_FILLS:
                found.append(of_movement(cash))
        for (name, side), lot in self._lots.items():
            if any(stated is None and moves_cash for *_, stated, moves_cash in lot.steps):
                found += self._computed_gains(name, side)
        return sorted((e for e in self._counted(found) if currency in ("", e.currency)), key=lambda e: e.order)

    def _computed_gains(self, name: str, side: str) -> Iterator[Entry]:
        """What a derivative's fills realised where the venue does not say it."""
        for step, gain, _, _ in self._lots[name, side].walked():
            if gain and step[5] is None and step[6]:
                yield Entry(self._instruments[name].settle, gain, REALISED, self._fills[step[2]])

    def _counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Those that the opening does not contain."""
        for entry in entries:
            if entry.at_ms > self._cash_openings.get(entry.currency, self._opened_at_ms):
                yield entry

    def _keep_of(self, forgotten: Iterable[Entry]) -> None:
        """What is about to be forgotten stays in averages and sums."""
        by_currency = dict[str, list[Entry]]()
        for entry in forgotten:
            by_currency.setdefault(entry.currency, []).append(entry)
            if entry.kind not in (TRADE, REALISED):
                key = _charged(entry)
                self._charged[key] = self._charged.get(key, _ZERO) + entry.amount
        owned = self._owned() & by_currency.keys()
        cash, entries = (self.cash, self.entries()) if owned else ({}, [])
        for currency in owned:
            kept = self._holdings.get(currency, Kept())
            before = cash.get(currency, _ZERO) - sum((e.amount for e in entries if e.currency == currency), _ZERO)
            lot, paid_in = holding_lot(before, kept, by_currency[currency])
            self._holdings[currency] = Kept(avg=lot.avg, realised=lot.realised, unpriced=lot.unpriced, paid_in=paid_in)

    def _owned(self) -> set[str]:
        """What is bought and sold outright, as far as fills told."""
        return {i.base for i in self._instruments.values() if i.kind is _SPOT}

    def owned_as(self, currency: str) -> list[Instrument]:
        """The instruments that it was traded as here."""
        return [i for i in self._instruments.values() if i.kind is _SPOT and i.base == currency]

    def holdings(self) -> list[Holding]:
        """What is owned outright and was ever traded here, flat ones too, at its average cost."""
        found = list[Holding]()
        cash, entries = self.cash, self.entries()
        for currency in sorted(self._owned()):
            lot, paid_in = self._holding_lot(currency, cash, [e for e in entries if e.currency == currency])
            found.append(
                Holding(
                    currency=currency,
                    quantity=cash.get(currency, _ZERO),
                    paid_in=paid_in,
                    avg_price=lot.avg,
                    realised=lot.realised,
                    unpriced=lot.unpriced,
                    changed_at_ms=self._cash_changed.get(currency, 0),
                )
            )
        return found

    def _holding_lot(self, currency: str, cash: Mapping[str, Decimal], entries: Sequence[Entry]) -> tuple[Lot, str]:
        """`entries`: all that are remembered of it."""
        before = cash.get(currency, _ZERO) - sum((e.amount for e in entries), _ZERO)
        return holding_lot(before, self._holdings.get(currency, Kept()), entries)

    def holding_walked(self, currency: str) -> list[tuple[Entry, Walked]]:
        """What moved a holding, of what is remembered, with what it made of it."""
        entries = self.entries(currency)
        lot, _ = self._holding_lot(currency, self.cash, entries)
        return list(zip(entries, lot.walked(), strict=True))

    def walked(self, instrument: str, position_side: str) -> list[Walked]:
        """Each remembered fill of a derivative's position, with what it made of it."""
        self._learn_waiting()
        lot = self._lots.get((instrument, position_side))
        return [] if lot is None else list(lot.walked())

    def charges(self) -> dict[Charged, Decimal]:
        """Fees, funding, interest, transfers since the opening."""
        sums = dict(self._charged)
        for entry in self.entries():
            if entry.kind not in (TRADE, REALISED):
                sums[_charged(entry)] = sums.get(_charged(entry), _ZERO) + entry.amount
        return sums

    def instrument(self, name: str) -> Instrument | None:
        """As it was when this book first came to know it."""
        return self._instruments.get(name) or self._learn(name)

    @property
    def opening(self) -> Opening | None:
        """The statement that the book starts from; None when it starts from nothing."""
        return self._opening

    def fill(self, fill_id: str) -> FillFact | None:
        """As far back as is remembered."""
        return self._fills.get(fill_id)

    @property
    def unmapped(self) -> dict[str, int]:
        """Instruments nobody knows, and how many fills wait for each: neither positions nor cash contain them."""
        self._learn_waiting()
        return {name: len(ids) for name, ids in self._waiting.items()}

    def short_of_fills(self) -> list[Short]:
        """Orders that changed since the opening and were filled further than the fills we know add up to."""
        return [
            Short(order, known)
            for order in self._orders.values()
            if order.updated_at_ms > self._opened_at_ms
            and order.filled > (known := self._filled.get(order.venue_order_id, _NOTHING)[0])
        ]

    def average(self, order: OrderFact) -> Decimal | None:
        """What the order's fills were made at; None while those we know add up to less than it says was filled."""
        quantity, value = self._filled.get(order.venue_order_id, _NOTHING)
        return value / quantity if quantity and quantity >= order.filled else None

    # ---- what the venue states

    @property
    def stated_positions(self) -> list[PositionFact]:
        """The latest of each, flat ones too."""
        return list(self._stated_positions.values())

    @property
    def stated_balances(self) -> dict[str, BalanceFact]:
        """The latest of each currency. `available` may be carried over from the last one that told it."""
        return dict(self._stated_balances)

    @property
    def equity(self) -> EquityFact | None:
        """The latest value of the whole account."""
        return max(self._equities.values(), key=lambda e: e.updated_at_ms, default=None)

    def absent_from(self, statement: Iterable[AccountFact], at_ms: int) -> list[AccountFact]:
        """What a **complete** statement taken at `at_ms` says by silence: flat positions and empty balances, as facts.

        Without them a position that was closed while nobody listened would stay stated for ever.
        """
        positions, currencies = set[tuple[str, str, str]](), set[str]()
        for fact in statement:
            if isinstance(fact, PositionFact):
                positions.add((fact.instrument, fact.position_side, fact.margin_mode))
            elif isinstance(fact, BalanceFact):
                currencies.add(fact.currency)
        flat: list[AccountFact] = [
            replace(p, quantity=_ZERO, avg_price=None, unrealised=None, last_trade_number=None, updated_at_ms=at_ms)
            for key, p in self._stated_positions.items()
            if key not in positions and p.quantity and p.updated_at_ms < at_ms
        ]
        flat += [
            replace(b, cash=_ZERO, available=_ZERO, equity=None, updated_at_ms=at_ms)
            for currency, b in self._stated_balances.items()
            if currency not in currencies and b.cash and b.updated_at_ms < at_ms
        ]
        return flat

    def mismatches(self) -> list[Mismatch]:
        """Where the latest statement of something differs from what the facts add up to."""
        self._learn_waiting()
        stated: dict[tuple[str, str], tuple[Decimal, int]] = {}
        for p in self._stated_positions.values():
            quantity, at_ms = stated.get((p.instrument, p.position_side), (_ZERO, 0))
            stated[p.instrument, p.position_side] = (quantity + p.quantity, max(at_ms, p.updated_at_ms))
        found = []
        for (name, side), (quantity, at_ms) in stated.items():
            lot = self._lots.get((name, side))
            folded, changed_ms = (_ZERO, 0) if lot is None else (lot.quantity, lot.changed_at_ms)
            if folded != quantity:
                found.append(_mismatch(name, side, quantity, folded, max(at_ms, changed_ms)))
        cash = self.cash
        for currency, balance in self._stated_balances.items():
            folded = cash.get(currency, _ZERO)
            if folded != balance.cash:
                since_ms = max(balance.updated_at_ms, self._cash_changed.get(currency, 0))
                found.append(_mismatch(currency, "", balance.cash, folded, since_ms))
        return found

    def mismatched_for_ms(self, now_ms: int) -> int:
        """How long the oldest difference between stated and folded positions has stood still; 0 without one."""
        return max((now_ms - m.since_ms for m in self.mismatches() if m.position_side), default=0)

    # ---- keeping

    def snapshot(self) -> bytes:
        """The whole book as one JSON document; `restore` makes the same book of it."""
        return msgspec.json.encode(
            _Snapshot(
                account_id=self.account_id,
                horizon_ms=self._horizon_ms,
                opened_at_ms=self._opened_at_ms,
                opening=self._opening,
                holdings=self._holdings,
                charged=[(*key, amount) for key, amount in self._charged.items()],
                instruments=list(self._instruments.values()),
                position_openings=[(name, side, o) for (name, side), o in self._position_openings.items()],
                cash_openings=self._cash_openings,
                orders=list(self._orders.values()),
                fills=list(self._fills.values()),
                filled=self._filled,
                waiting=self._waiting,
                lots=[
                    _KeptLot(
                        instrument=name,
                        position_side=side,
                        quantity=lot.base_quantity,
                        avg=lot.base_avg,
                        realised=lot.base_realised,
                        computed=lot.base_computed,
                        unpriced=lot.base_unpriced,
                        changed_at_ms=lot.changed_at_ms,
                        steps=lot.steps,
                    )
                    for (name, side), lot in self._lots.items()
                ],
                cash=self._cash,
                cash_changed=self._cash_changed,
                movements=list(self._movements.values()),
                stand_ins=self._stand_ins,
                stated_positions=list(self._stated_positions.values()),
                stated_balances=list(self._stated_balances.values()),
                equities=list(self._equities.values()),
            )
        )

    @classmethod
    def restore(cls, document: bytes | str, lookup: Callable[[str], Instrument | None]) -> Book:
        """Raises msgspec.ValidationError for a document of another form."""
        kept = msgspec.json.decode(document, type=_Snapshot)
        book = cls(kept.account_id, lookup)
        book._horizon_ms, book._opened_at_ms, book._opening = kept.horizon_ms, kept.opened_at_ms, kept.opening
        book._holdings = kept.holdings
        book._charged = {(name, kind, currency): amount for name, kind, currency, amount in kept.charged}
        book._instruments = {i.name: i for i in kept.instruments}
        book._position_openings = {(name, side): o for name, side, o in kept.position_openings}
        book._cash_openings = kept.cash_openings
        book._orders = {o.venue_order_id: o for o in kept.orders}
        book._fills = {f.fill_id: f for f in kept.fills}
        book._filled, book._waiting = kept.filled, kept.waiting
        for k in kept.lots:
            lot = Lot(book._instruments.get(k.instrument), k.quantity, k.avg, k.changed_at_ms)
            lot.resume(k.realised, k.computed, k.unpriced, k.steps)
            book._lots[k.instrument, k.position_side] = lot
        book._cash, book._cash_changed = kept.cash, kept.cash_changed
        book._movements = {m.cash_id: m for m in kept.movements}
        book._stand_ins = kept.stand_ins
        book._stated_positions = {(p.instrument, p.position_side, p.margin_mode): p for p in kept.stated_positions}
        book._stated_balances = {b.currency: b for b in kept.stated_balances}
        book._equities = {e.currency: e for e in kept.equities}
        return book


class _KeptLot(msgspec.Struct, kw_only=True):
    instrument: str
    position_side: str
    quantity: Decimal
    avg: Decimal | None
    realised: Decimal
    computed: Decimal
    unpriced: Decimal
    changed_at_ms: int
    steps: list[Step]


class _Snapshot(msgspec.Struct, kw_only=True):
    form: Literal["unisono.book/3"] = "unisono.book/3"
    account_id: str
    horizon_ms: int
    opened_at_ms: int
    opening: Opening | None
    holdings: dict[str, Kept]
    charged: list[tuple[str, str, str, Decimal]]
    instruments: list[Instrument]
    position_openings: list[tuple[str, str, _Contained]]
    cash_openings: dict[str, int]
    orders: list[OrderFact]
    fills: list[FillFact]
    filled: dict[str, _Sums]
    waiting: dict[str, list[str]]
    lots: list[_KeptLot]
    cash: dict[str, Decimal]
    cash_changed: dict[str, int]
    movements: list[CashFact]
    stand_ins: dict[str, list[CashFact]]
    stated_positions: list[PositionFact]
    stated_balances: list[BalanceFact]
    equities: list[EquityFact]


def _mismatch(name: str, side: str, stated: Decimal, folded: Decimal, since_ms: int) -> Mismatch:
    return Mismatch(name=name, position_side=side, stated=stated, folded=folded, since_ms=since_ms)


def _charged(entry: Entry) -> Charged:
    return entry.fact.instrument, entry.kind, entry.currency
