"""Decides. A plan's grid: every member's part of every leg, priced, sized and checked, as it stands at one moment.

The ports say what planning asks of the rest of the engine: plain questions, answered at once from memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

import msgspec

from accounts.model import Account, Group, Mandate, Weight
from engine.core.allocation import Party, Share, allocate
from engine.core.drafts import members
from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.limits import (
    Ask,
    Code,
    Recent,
    Reference,
    Rules,
    Standing,
    check,
    deny,
    needs,
    plain,
    standing,
    usable,
)
from engine.core.plans import Denial, Leg, Plan, Preview, PreviewRow
from engine.core.venue import Venue

_ZERO = Decimal(0)


# ---- Ports: what planning asks of the rest of the engine


class AccountView(Standing, Protocol):
    """One account as the engine knows it at this moment. Quantities in the instrument's venue unit."""

    @property
    def account(self) -> Account: ...
    @property
    def mandate(self) -> Mandate | None: ...

    def nav(self, currency: str) -> Decimal | None:
        """The account's net asset value in that currency; None where it cannot be told."""

    def available(self, currency: str) -> Decimal | None:
        """What new orders may bind of that currency; zero for one never held, None while not known."""

    def held(self, instrument: Instrument) -> Mapping[str, Decimal]:
        """Signed position by position side (net, long, short); for spot the base currency's cash as net."""

    def recent_orders(self, instrument: str) -> Sequence[Recent]:
        """Our orders that went out lately, at least as far back as the duplicate window."""


class AccountsView(Protocol):
    """Who is under management."""

    def group(self, group_id: str) -> Group | None: ...
    def view(self, account_id: str) -> AccountView | None: ...


class MarketView(Protocol):
    """Venues, their instruments and reference prices."""

    def venue(self, name: str) -> Venue: ...
    def instrument(self, venue: str, environment: str, name: str) -> Instrument | None: ...
    def reference(self, venue: str, environment: str, name: str) -> Reference | None: ...


# ---- The grid


def preview(plan: Plan, accounts: AccountsView, market: MarketView, rules: Rules, now_ms: int) -> Preview:
    """Every member's part of every leg, with whatever stands against it. Changes nothing.

    A denied account keeps its row and its share: the share goes to nobody else and is counted in `unallocated`.
    Raises PlanRefused when the groups have changed so that it is not clear who the members are.
    """
    weights = members(plan.groups, plan.accounts, accounts.group, lambda account_id: True)
    seats = [_Seat(weight, accounts.view(account_id)) for account_id, weight in weights.items()]
    prices, rows, unallocated = dict[str, Decimal](), list[PreviewRow](), dict[int, Decimal]()
    for number, leg in enumerate(plan.legs):
        quotes = _quotes(leg, seats, market)
        prices.update(
            (key, q.reference.price) for key, q in quotes.items() if q is not None and q.reference is not None
        )
        seated = [(seat, quotes[seat.place(leg)]) for seat in seats]
        for seat, quote in seated:
            seat.look(quote)
        split = allocate(leg, [_party(seat, quote) for seat, quote in seated])
        sheet = _Sheet(plan, number, leg, rules, now_ms)
        if isinstance(split, Denial):
            leg_rows = [_row(sheet, seat, quote, _no_share(seat, leg), (split,)) for seat, quote in seated]
        else:
            shared = zip(seated, split, strict=True)
            leg_rows = [_row(sheet, seat, quote, share, ()) for (seat, quote), share in shared]
        rows += leg_rows
        wanted = leg.quantity if leg.quantity is not None else sum((row.quantity for row in leg_rows), _ZERO)
        unallocated[number] = wanted - sum((row.quantity for row in leg_rows if row.takes_part), _ZERO)
    return Preview(taken_at_ms=now_ms, prices=prices, rows=tuple(rows), unallocated=unallocated)


class _Seat:
    """One member while the legs are gone through: what earlier legs bind is not there for later ones."""

    __slots__ = ("account_id", "against", "bound", "nav", "notional", "positions", "view", "weight")

    def __init__(self, weight: Weight, view: AccountView | None) -> None:
        self.account_id, self.weight, self.view = weight.account_id, weight.weight, view
        self.against = (deny(Code.UNKNOWN_ACCOUNT, account=self.account_id),) if view is None else standing(view)
        self.bound: dict[str, Decimal] = {}
        self.notional = _ZERO
        self.nav: Decimal | None = None
        self.positions: Mapping[str, Decimal] = {}

    def look(self, quote: _Quote | None) -> None:
        """What the next leg is sized from."""
        if self.view is not None and quote is not None and quote.instrument is not None:
            self.nav = self.view.nav(quote.instrument.quote)
            self.positions = self.view.held(quote.instrument)

    def place(self, leg: Leg) -> str:
        """The key of the instrument that this member would trade."""
        return "" if self.view is None else place_key(self.view.account, leg.instrument)


def place_key(account: Account, instrument: str) -> str:
    """Where an account would trade an instrument: prices and steps are the same for all accounts there."""
    return f"{account.venue}|{account.environment}|{instrument}"


class _Quote(msgspec.Struct, frozen=True):
    """One leg's instrument at one venue and environment, and what it is sized with."""

    venue: Venue
    instrument: Instrument | None
    reference: Reference | None
    price: Decimal | None  # the leg's own, or else the reference; None: neither
    unit_value: Decimal | None


class _Sheet(msgspec.Struct, frozen=True):
    """What is the same for all rows of a leg."""

    plan: Plan
    number: int
    leg: Leg
    rules: Rules
    now_ms: int


def _quotes(leg: Leg, seats: Sequence[_Seat], market: MarketView) -> dict[str, _Quote | None]:
    quotes: dict[str, _Quote | None] = {"": None}
    for seat in seats:
        if seat.view is None or (key := seat.place(leg)) in quotes:
            continue
        account = seat.view.account
        instrument = market.instrument(account.venue, account.environment, leg.instrument)
        reference = market.reference(account.venue, account.environment, leg.instrument)
        price = leg.price
        if price is None and reference is not None and reference.price > 0:
            price = reference.price
        sizable = instrument is not None and usable(instrument) and price is not None
        value = instrument.notional(Decimal(1), price) if sizable and instrument and price else None
        quotes[key] = _Quote(market.venue(account.venue), instrument, reference, price, value)
    return quotes


def _party(seat: _Seat, quote: _Quote | None) -> Party:
    instrument = quote.instrument if quote is not None else None
    if seat.view is None or quote is None or instrument is None or not usable(instrument):
        return Party(account_id=seat.account_id, step=None, weight=seat.weight)
    return Party(
        account_id=seat.account_id,
        step=instrument.quantity_step,
        unit=instrument.unit if instrument.multiplier == 1 else f"{instrument.unit} of {plain(instrument.multiplier)}",
        weight=seat.weight,
        nav=seat.nav,
        held=seat.positions.get("net", _ZERO),
        unit_value=quote.unit_value,
    )


def _no_share(seat: _Seat, leg: Leg) -> Share:
    return Share(account_id=seat.account_id, side=leg.side or Side.BUY, quantity=_ZERO, raw=_ZERO)


def _row(sheet: _Sheet, seat: _Seat, quote: _Quote | None, share: Share, against: tuple[Denial, ...]) -> PreviewRow:
    """One account's part: its numbers, and everything that stands against it."""
    leg, view = sheet.leg, seat.view
    against = (*seat.against, *against, *((share.denial,) if share.denial is not None else ()))
    if view is None or quote is None:
        return _bare_row(sheet, seat, "", share, against)
    account, instrument = view.account, quote.instrument
    if instrument is None:
        unknown = deny(
            Code.UNKNOWN_INSTRUMENT,
            venue=account.venue,
            environment=account.environment,
            instrument=leg.instrument,
        )
        return _bare_row(sheet, seat, account.venue, share, (*against, unknown))
    if not usable(instrument):
        status = f"its lot is {instrument.quantity_step}, its tick {instrument.price_tick}"
        broken = deny(Code.NOT_TRADABLE, instrument=instrument.name, status=status)
        return _bare_row(sheet, seat, account.venue, share, (*against, broken))

    quantity, price = share.quantity, quote.price if quote.price is not None else _ZERO
    before = seat.positions.get("net", _ZERO)
    after = before + share.side.sign * quantity
    notional = instrument.notional(quantity, price)
    fee = notional * quote.venue.default_fee_rate
    currency, needed = instrument.settle, _ZERO
    if quantity and price:
        currency, needed = needs(
            instrument,
            share.side,
            quantity,
            price,
            held=before,
            margin_percent=sheet.rules.margin_percent,
            fee_rate=quote.venue.default_fee_rate,
        )
    available = _left(view, currency, seat)
    ask = Ask(
        plan_id=sheet.plan.plan_id,
        instrument=instrument,
        order_types=quote.venue.capabilities.order_types,
        order_type=leg.order_type,
        side=share.side,
        quantity=quantity,
        raw_share=share.raw,
        price=leg.price,
        reference=quote.reference,
        notional=notional,
        plan_notional=seat.notional + notional,
        currency=currency,
        needed=needed,
        available=available,
        mandate=view.mandate,
        recent=view.recent_orders(instrument.name),
        long=seat.positions.get("long", _ZERO),
        short=seat.positions.get("short", _ZERO),
        sized=not against,
    )
    denials = (*against, *check(ask, sheet.rules, sheet.now_ms))
    cash_before = _left(view, instrument.settle, seat)
    if not denials:
        seat.notional += notional
        seat.bound[currency] = seat.bound.get(currency, _ZERO) + needed
    nav = seat.nav
    cash_after = None
    if cash_before is not None:
        sells_spot = instrument.kind is InstrumentKind.SPOT and share.side is Side.SELL
        cash_after = cash_before + notional - fee if sells_spot else cash_before - needed
    in_quote = price if instrument.inverse else Decimal(1)
    return PreviewRow(
        account_id=seat.account_id,
        leg=sheet.number,
        venue=account.venue,
        instrument=instrument.name,
        side=share.side,
        quantity=quantity,
        unit=instrument.unit,
        base_quantity=instrument.base_quantity(quantity, price) if price else _ZERO,
        price=price,
        notional=notional,
        fee_estimate=fee,
        raw_share=share.raw,
        residual=share.raw - quantity,
        held_before=before,
        held_after=after,
        nav=nav,
        available=cash_before * in_quote if cash_before is not None else None,
        cash_after=cash_after * in_quote if cash_after is not None else None,
        weight_after=instrument.notional(after, price) / nav * 100 if nav is not None and nav > 0 else None,
        reduce_only=instrument.kind is not InstrumentKind.SPOT and (leg.reduce_only or share.reduces),
        denials=denials,
    )


def _left(view: AccountView, currency: str, seat: _Seat) -> Decimal | None:
    """What is available of a currency after the plan's earlier legs."""
    available = view.available(currency)
    return None if available is None else available - seat.bound.get(currency, _ZERO)


def _bare_row(sheet: _Sheet, seat: _Seat, venue: str, share: Share, denials: tuple[Denial, ...]) -> PreviewRow:
    """A row for whom there is nothing to price: no such account, or no such instrument there."""
    return PreviewRow(
        account_id=seat.account_id,
        leg=sheet.number,
        venue=venue,
        instrument=sheet.leg.instrument,
        side=share.side,
        quantity=share.quantity,
        unit="",
        base_quantity=_ZERO,
        price=_ZERO,
        notional=_ZERO,
        fee_estimate=_ZERO,
        raw_share=share.raw,
        residual=share.raw - share.quantity,
        held_before=_ZERO,
        held_after=_ZERO,
        denials=denials,
    )
