"""Decides. A plan's grid: every member's part of every leg, priced, sized and checked, as it stands at one moment.

The ports say what planning asks of the rest of the engine: plain questions, answered at once from memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

import msgspec

from accounts.model import Account, Group, Mandate, Trading, Weight
from engine.core.allocation import SPREAD, Party, Share, allocate
from engine.core.drafts import members
from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.limits import (
    OFFLINE,
    WITH_LESS,
    Ask,
    Code,
    Recent,
    Reference,
    Rules,
    Standing,
    check,
    deny,
    needs,
    opened,
    plain,
    set_aside,
    standing,
    usable,
)
from engine.core.plans import BelowMinimum, Cannot, Denial, Leg, Method, Offline, Plan, Preview, PreviewRow
from engine.core.venue import Venue

_ZERO = Decimal(0)
_RESPREADS = 8  # rounds: each leaves out those that the one before denied


# ---- Ports: what planning asks of the rest of the engine


class AccountView(Standing, Protocol):
    """One account as the engine knows it at this moment. Quantities in the instrument's venue unit."""

    @property
    def mandate(self) -> Mandate | None:
        """What it and its groups' mandates allow together."""

    def day_notional(self, now_ms: int) -> Decimal:
        """Of the orders that went out since the day began (UTC), in their quote currencies."""

    def orders_lately(self, now_ms: int) -> int:
        """How many orders went out within the last minute."""

    def lost_today(self, currency: str, now_ms: int) -> Decimal | None:
        """What its net asset value has fallen by since the day began, in and out payments aside; None: not known."""

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
    def knows(self, venue: str, environment: str) -> bool:
        """Is what the venue lists there known? Until then, nothing can be said not to be listed."""

    def instrument(self, venue: str, environment: str, name: str) -> Instrument | None: ...
    def reference(self, venue: str, environment: str, name: str) -> Reference | None: ...


# ---- The grid


def preview(plan: Plan, accounts: AccountsView, market: MarketView, rules: Rules, now_ms: int) -> Preview:
    """Every member's part of every leg, with whatever stands against it. Changes nothing.

    A denied account keeps its row and, unless the plan says otherwise, its share: that goes to nobody else and is
    counted in `unallocated`. Raises PlanRefused when the groups have changed so that it is not clear who the members
    are.
    """
    of_legs = members(plan.groups, plan.accounts, plan.legs, accounts.group, lambda account_id: True)
    views = {account_id: accounts.view(account_id) for weights in of_legs for account_id in weights}
    look = _Look(plan, of_legs, views, market, rules, now_ms)
    rows = look.rows({})
    if plan.cannot is Cannot.RESPREAD:
        rows = _respread(plan, look, rows)
    rows = _refused_together(plan, rows)
    unallocated = dict[int, Decimal]()
    for number, leg in enumerate(plan.legs):
        mine = [row for row in rows if row.leg == number]
        wanted = leg.quantity if leg.quantity is not None else sum((row.quantity for row in mine), _ZERO)
        unallocated[number] = wanted - sum((row.quantity for row in mine if row.takes_part), _ZERO)
    return Preview(taken_at_ms=now_ms, prices=look.prices, rows=tuple(rows), unallocated=unallocated)


_NO_DENIED_PART = frozenset({Code.NOTHING_TO_DO, Code.WITHIN_BAND, Code.NOT_LISTED})  # there is nothing to be taken
# Said to everybody, and may be settled once those are left out who are denied for something else. Weights that do not
# sum are not among them: they are wrong whoever takes part.
_OF_THE_LEG = frozenset({Code.SPLIT_NAV, Code.SPLIT_AVAILABLE, Code.NO_WEIGHT, Code.MINIMUM_SUM, Code.MIXED_UNITS})
_SMALL = frozenset({Code.BELOW_MINIMUM, Code.NOTHING_TO_DO})


def _respread(plan: Plan, look: _Look, rows: list[PreviewRow]) -> list[PreviewRow]:
    """Split anew without those that cannot take their part, until all of the others can. They keep their rows."""
    without = dict[tuple[int, str], PreviewRow]()
    for _ in range(_RESPREADS):
        denied = {
            (row.leg, row.account_id): row
            for row in rows
            if plan.legs[row.leg].method in SPREAD
            and any(d.code not in _NO_DENIED_PART | _OF_THE_LEG for d in row.denials)
        }
        if denied.keys() <= without.keys():
            break
        without |= denied
        rows = look.rows(without)
    return rows


def _refused_together(plan: Plan, rows: list[PreviewRow]) -> list[PreviewRow]:
    """Where one account that cannot take its part, or whose part is too small, refuses the whole plan."""
    for row in rows:
        for denial in row.denials:
            small = denial.code in _SMALL
            if small and plan.below_minimum is BelowMinimum.REJECT and row.raw_share > 0:
                break
            if not small and plan.cannot is Cannot.REJECT and denial.code not in _NO_DENIED_PART:
                break
        else:
            continue
        refused = deny(Code.PLAN_REFUSED, account=row.account_id, denial=denial.code)
        return [r if r.denials else msgspec.structs.replace(r, denials=(refused,)) for r in rows]
    return rows


def place_key(account: Account, instrument: str) -> str:
    """Where an account would trade an instrument: prices and steps are the same for all accounts there."""
    return f"{account.venue}|{account.environment}|{instrument}"


class _Seat:
    """One member while the legs are gone through: what earlier parts bind is not there for later ones."""

    __slots__ = ("account_id", "against", "bound", "day_notional", "mandate", "notional", "orders", "queued", "view")

    def __init__(self, account_id: str, view: AccountView | None, offline: Offline, rules: Rules, now_ms: int) -> None:
        self.account_id, self.view = account_id, view
        self.against = (deny(Code.UNKNOWN_ACCOUNT, account=account_id),) if view is None else standing(view)
        self.queued = tuple[Denial, ...]()
        if offline is Offline.QUEUE and all(denial.code in OFFLINE for denial in self.against):
            self.against, self.queued = (), self.against
        self.bound: dict[str, Decimal] = {}
        self.notional = _ZERO
        self.mandate = None if view is None else view.mandate
        self.day_notional, self.orders = _ZERO, 0  # asked only where they are limited
        if view is not None and self.mandate is not None and self.mandate.max_day_notional is not None:
            self.day_notional = view.day_notional(now_ms)
        if view is not None and rules.max_orders_a_minute:
            self.orders = view.orders_lately(now_ms)


class _Quote(msgspec.Struct, frozen=True):
    """One leg's instrument at one venue and environment, and what it is sized with."""

    venue: Venue
    instrument: Instrument | None
    listed: bool  # false: the venue's list is known, and this is not on it
    reference: Reference | None
    price: Decimal | None  # the leg's own, or else the reference; None: neither
    unit_value: Decimal | None
    unit_risk: Decimal | None
    unit: str


class _Part:
    """One member's part of one leg while it is worked out."""

    __slots__ = ("against", "left_out", "leg", "nav", "number", "positions", "quote", "seat", "share", "weight")

    def __init__(self, number: int, leg: Leg, seat: _Seat, weight: Decimal, quote: _Quote | None) -> None:
        self.number, self.leg, self.seat, self.weight, self.quote = number, leg, seat, weight, quote
        self.share = Share(account_id=seat.account_id, side=leg.side or Side.BUY, quantity=_ZERO, raw=_ZERO)
        self.against = tuple[Denial, ...]()
        self.left_out = False  # its venue does not list what others trade here
        self.nav: Decimal | None = None
        self.positions: Mapping[str, Decimal] = {}
        if seat.view is not None and quote is not None and quote.instrument is not None:
            self.nav = seat.view.nav(quote.instrument.quote)
            self.positions = seat.view.held(quote.instrument)

    @property
    def held(self) -> Decimal:
        return self.positions.get("net", _ZERO)

    @property
    def instrument(self) -> Instrument | None:
        """What it would trade, where that can be sized at all."""
        found = self.quote.instrument if self.quote is not None else None
        return found if self.seat.view is not None and found is not None and usable(found) else None

    @property
    def notional(self) -> Decimal:
        if self.instrument is None or self.quote is None or self.quote.price is None:
            return _ZERO
        return self.instrument.notional(self.share.quantity, self.quote.price)


class _Look:
    """One look at the plan: what it is sized and checked with."""

    def __init__(
        self,
        plan: Plan,
        of_legs: Sequence[Mapping[str, Weight]],
        views: Mapping[str, AccountView | None],
        market: MarketView,
        rules: Rules,
        now_ms: int,
    ) -> None:
        self.plan, self.rules, self.now_ms = plan, rules, now_ms
        self._of_legs, self._views = of_legs, views
        self.prices = dict[str, Decimal]()
        self._quotes = list[Mapping[str, _Quote | None]]()
        for leg, weights in zip(plan.legs, of_legs, strict=True):
            quotes = _quotes(leg, [views[account_id] for account_id in weights], market)
            self._quotes.append(quotes)
            for key, quote in quotes.items():
                if quote is not None and quote.reference is not None:
                    self.prices[key] = quote.reference.price

    def rows(self, without: Mapping[tuple[int, str], PreviewRow]) -> list[PreviewRow]:
        """Every row, by leg and account; `without`: whom a leg is not split over, with the rows that they keep."""
        offline, rules, now_ms = self.plan.offline, self.rules, self.now_ms
        seats = {account_id: _Seat(account_id, v, offline, rules, now_ms) for account_id, v in self._views.items()}
        parts = list[_Part]()
        for number, leg in enumerate(self.plan.legs):
            parts += self._split(number, leg, seats, without.keys())
        if self.plan.cap_notional is not None:
            _cap(self.plan.cap_notional, parts)
        found = dict(without)
        turn = sorted(parts, key=lambda part: part.share.side is Side.BUY) if self.plan.sells_first else parts
        for part in turn:
            found[part.number, part.seat.account_id] = _row(self, part)
        return [found[key] for key in sorted(found)]

    def _split(
        self, number: int, leg: Leg, seats: Mapping[str, _Seat], without: AbstractSet[tuple[int, str]]
    ) -> list[_Part]:
        quotes, parts = self._quotes[number], list[_Part]()
        for account_id, weight in self._of_legs[number].items():
            if (number, account_id) not in without:
                seat = seats[account_id]
                key = "" if seat.view is None else place_key(seat.view.account, leg.instrument)
                parts.append(_Part(number, leg, seat, weight.weight, quotes[key]))
        # Who cannot trade it has no share to keep from the others, as long as anybody can.
        anywhere = any(quote is not None and quote.instrument is not None for quote in quotes.values())
        for part in parts:
            part.left_out = anywhere and part.quote is not None and not part.quote.listed
        seated = [part for part in parts if not part.left_out]
        if leg.method is Method.PERCENT and len(parts) < len(self._of_legs[number]):
            leg = msgspec.structs.replace(leg, method=Method.RATIO)  # of what is left of the hundred, in proportion
        split = allocate(leg, [_party(part) for part in seated], self.plan.below_minimum)
        if isinstance(split, Denial):
            for part in seated:
                part.against = (split,)
        else:
            for part, share in zip(seated, split, strict=True):
                part.share = share
        return parts


def _quotes(leg: Leg, views: Sequence[AccountView | None], market: MarketView) -> dict[str, _Quote | None]:
    quotes: dict[str, _Quote | None] = {"": None}
    for view in views:
        if view is None or (key := place_key(view.account, leg.instrument)) in quotes:
            continue
        account = view.account
        instrument = market.instrument(account.venue, account.environment, leg.instrument)
        reference = market.reference(account.venue, account.environment, leg.instrument)
        price = leg.sizing_price
        if price is None and reference is not None and reference.price > 0:
            price = reference.price
        value = risk = None
        unit = ""
        if instrument is not None and usable(instrument):
            unit = instrument.unit
            if instrument.multiplier != 1:
                unit = f"{instrument.unit} of {plain(instrument.multiplier)}"
            if price:
                value, risk = instrument.notional(Decimal(1), price), _risk_of_one(leg, instrument, price)
        quotes[key] = _Quote(
            venue=market.venue(account.venue),
            instrument=instrument,
            listed=instrument is not None or not market.knows(account.venue, account.environment),
            reference=reference,
            price=price,
            unit_value=value,
            unit_risk=risk,
            unit=unit,
        )
    return quotes


def _risk_of_one(leg: Leg, instrument: Instrument, price: Decimal) -> Decimal | None:
    """What one unit loses from `price` to the leg's stop, in the quote currency; negative: it would gain."""
    if leg.stop_price is None or leg.side is None:
        return None
    loss = (price - leg.stop_price) * leg.side.sign * instrument.multiplier
    return loss / leg.stop_price if instrument.inverse else loss


def _party(part: _Part) -> Party:
    instrument, quote, view = part.instrument, part.quote, part.seat.view
    if instrument is None or quote is None or view is None:
        return Party(account_id=part.seat.account_id, step=None, weight=part.weight, nav=part.nav)
    available = view.available(instrument.settle)
    if available is not None and instrument.inverse:
        available = available * quote.price if quote.price is not None else None
    return Party(
        account_id=part.seat.account_id,
        step=instrument.quantity_step,
        unit=quote.unit,
        minimum=instrument.min_quantity,
        weight=part.weight,
        nav=part.nav,
        available=available,
        held=part.held,
        unit_value=quote.unit_value,
        unit_risk=quote.unit_risk,
    )


def _cap(cap: Decimal, parts: Sequence[_Part]) -> None:
    """All parts scaled down by one factor and floored, where together they are above the cap."""
    sized = [part for part in parts if part.share.quantity > 0]
    currencies = {part.instrument.quote for part in sized if part.instrument is not None}
    if len(currencies) > 1:
        denial = deny(Code.CAP_CURRENCY, currencies=" and ".join(sorted(currencies)))
        for part in sized:
            part.against += (denial,)
        return
    total = sum((part.notional for part in sized), _ZERO)
    if total <= cap:
        return
    factor = Fraction(cap) / Fraction(total)
    for part in sized:
        if part.instrument is not None:
            step = part.instrument.quantity_step
            steps = Fraction(part.share.quantity) * factor // Fraction(step)
            part.share = msgspec.structs.replace(part.share, quantity=step * int(steps))


def _row(look: _Look, part: _Part) -> PreviewRow:
    """One account's part: its numbers, and everything that stands against it."""
    leg, seat, quote, share = part.leg, part.seat, part.quote, part.share
    against = (*seat.against, *part.against, *((share.denial,) if share.denial is not None else ()))
    if seat.view is None or quote is None:
        return _bare_row(part, "", against)
    account = seat.view.account
    if (instrument := quote.instrument) is None:
        code = Code.NOT_LISTED if part.left_out else Code.UNKNOWN_INSTRUMENT
        missing = deny(code, venue=account.venue, environment=account.environment, instrument=leg.instrument)
        return _bare_row(part, account.venue, (*against, missing))
    if not usable(instrument):
        status = f"its lot is {instrument.quantity_step}, its tick {instrument.price_tick}"
        broken = deny(Code.NOT_TRADABLE, instrument=instrument.name, status=status)
        return _bare_row(part, account.venue, (*against, broken))

    sheet = _Sheet(look, part, seat.view, instrument, quote, sized=not against)
    quantity = share.quantity
    ask = sheet.ask(quantity)
    found = check(ask, look.rules, look.now_ms)
    stand, aside = set_aside(found, look.plan.overrides, seat.account_id, look.now_ms)
    if look.plan.cannot is Cannot.REDUCE and any(denial.code in WITH_LESS for denial in stand):
        quantity = sheet.most(quantity)
        ask = sheet.ask(quantity)
        stand, aside = set_aside(check(ask, look.rules, look.now_ms), look.plan.overrides, seat.account_id, look.now_ms)
    denials = (*against, *stand)
    price, before = quote.price if quote.price is not None else _ZERO, part.held
    after = before + share.side.sign * quantity
    fee = ask.notional * quote.venue.default_fee_rate
    cash_before = _left(seat, instrument.settle)
    sells_spot = instrument.kind is InstrumentKind.SPOT and share.side is Side.SELL
    if not denials:
        seat.notional += ask.notional
        seat.orders += 1
        seat.bound[ask.currency] = seat.bound.get(ask.currency, _ZERO) + ask.needed
        if sells_spot and look.plan.sells_first:  # its buys wait for it
            seat.bound[instrument.quote] = seat.bound.get(instrument.quote, _ZERO) - (ask.notional - fee)
    cash_after = None
    if cash_before is not None:
        cash_after = cash_before + ask.notional - fee if sells_spot else cash_before - ask.needed
    in_quote = price if instrument.inverse else Decimal(1)
    nav = part.nav
    return PreviewRow(
        account_id=seat.account_id,
        leg=part.number,
        venue=account.venue,
        instrument=instrument.name,
        side=share.side,
        quantity=quantity,
        unit=instrument.unit,
        base_quantity=instrument.base_quantity(quantity, price) if price else _ZERO,
        price=price,
        notional=ask.notional,
        fee_estimate=fee,
        raw_share=share.raw,
        residual=share.raw - quantity,
        held_before=before,
        held_after=after,
        nav=nav,
        available=cash_before * in_quote if cash_before is not None else None,
        cash_after=cash_after * in_quote if cash_after is not None else None,
        weight_after=instrument.notional(after, price) / nav * 100 if nav is not None and nav > 0 else None,
        reduce_only=quote.venue.capabilities.reduce_only  # where not, it is sized by the position all the same
        and instrument.kind is not InstrumentKind.SPOT
        and (leg.reduce_only or share.reduces),
        denials=denials,
        overridden=aside,
        queued=seat.queued if not denials else (),
    )


class _Sheet(msgspec.Struct, frozen=True):
    """One part as it is asked about, for any quantity."""

    look: _Look
    part: _Part
    view: AccountView
    instrument: Instrument
    quote: _Quote
    sized: bool

    def ask(self, quantity: Decimal) -> Ask:
        part, instrument, quote, leg, seat = self.part, self.instrument, self.quote, self.part.leg, self.part.seat
        price = quote.price if quote.price is not None else _ZERO
        before, side = part.held, part.share.side
        after = before + side.sign * quantity
        notional = instrument.notional(quantity, price)
        currency, needed = instrument.settle, _ZERO
        if quantity and price:
            currency, needed = needs(
                instrument,
                side,
                quantity,
                price,
                held=before,
                margin_percent=self.look.rules.margin_percent,
                fee_rate=quote.venue.default_fee_rate,
            )
        mandate = seat.mandate
        counts_loss = mandate is not None and mandate.max_daily_loss is not None
        return Ask(
            plan_id=self.look.plan.plan_id,
            instrument=instrument,
            order_types=quote.venue.capabilities.order_types,
            order_type=leg.order_type,
            side=side,
            quantity=quantity,
            raw_share=part.share.raw,
            price=leg.price,
            reference=quote.reference,
            notional=notional,
            plan_notional=seat.notional + notional,
            currency=currency,
            needed=needed,
            available=_left(seat, currency),
            mandate=mandate,
            recent=self.view.recent_orders(instrument.name),
            long=part.positions.get("long", _ZERO),
            short=part.positions.get("short", _ZERO),
            opens=opened(before, after),
            position_notional=abs(instrument.notional(after, price)),
            day_notional=seat.day_notional + seat.notional + notional,
            lost_today=self.view.lost_today(instrument.quote, self.look.now_ms) if counts_loss else None,
            orders_lately=seat.orders + 1,
            reducing=self.view.account.trading is Trading.REDUCING,
            iceberg=quote.venue.capabilities.iceberg,
            trigger_price=leg.trigger_price,
            visible_quantity=leg.visible_quantity,
            sized=self.sized,
        )

    def most(self, quantity: Decimal) -> Decimal:
        """The largest part of it, in whole steps, that the account's money and limits allow."""
        look, step = self.look, self.instrument.quantity_step

        def allowed(steps: int) -> bool:
            found = check(self.ask(step * steps), look.rules, look.now_ms)
            stand, _ = set_aside(found, look.plan.overrides, self.part.seat.account_id, look.now_ms)
            return not any(denial.code in WITH_LESS for denial in stand)

        low, high = 0, int(quantity / step)
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if allowed(middle) else (low, middle)
        return step * low


def _left(seat: _Seat, currency: str) -> Decimal | None:
    """What is available of a currency after the plan's earlier parts."""
    available = None if seat.view is None else seat.view.available(currency)
    return None if available is None else available - seat.bound.get(currency, _ZERO)


def _bare_row(part: _Part, venue: str, denials: tuple[Denial, ...]) -> PreviewRow:
    """A row for whom there is nothing to price: no such account, or no such instrument there."""
    share = part.share
    return PreviewRow(
        account_id=part.seat.account_id,
        leg=part.number,
        venue=venue,
        instrument=part.leg.instrument,
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
