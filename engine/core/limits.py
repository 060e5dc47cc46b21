"""Decides. May this account take this part? Every reason why not is a code of one closed list, with its numbers.

`REASONS` is the list: the sentences, the numbers each carries and the reference page all come from it. Nothing here
decides whom a denial concerns or what becomes of the share; that is the plan's matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from string import Formatter
from typing import Protocol

import msgspec

from accounts.model import AccountState, Mandate
from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import OrderType
from engine.core.plans import Denial


class Code(StrEnum):
    """The closed list."""

    UNKNOWN_ACCOUNT = "unknown_account"
    ACCOUNT_PAUSED = "account_paused"
    ACCOUNT_CLOSED = "account_closed"
    ACCOUNT_HALTED = "account_halted"
    CREDENTIALS_REFUSED = "credentials_refused"
    ACCOUNT_NOT_LIVE = "account_not_live"
    ACCOUNT_NOT_PROVEN = "account_not_proven"
    KILL_SWITCH = "kill_switch"
    LEDGER_DOWN = "ledger_down"
    PLAN_EXPIRED = "plan_expired"

    UNKNOWN_INSTRUMENT = "unknown_instrument"
    NOT_TRADABLE = "not_tradable"
    INSTRUMENT_CHANGED = "instrument_changed"
    ORDER_TYPE_MISSING = "order_type_missing"
    NOT_ALLOWED = "not_allowed"
    DO_NOT_TRADE = "do_not_trade"
    POSITION_SIDES = "position_sides"

    NO_PRICE = "no_price"
    STALE_PRICE = "stale_price"
    OFF_TICK = "off_tick"
    PRICE_COLLAR = "price_collar"
    PRICE_DRIFT = "price_drift"

    NOTHING_TO_DO = "nothing_to_do"
    NO_NAV = "no_nav"
    OFF_LOT = "off_lot"
    BELOW_MINIMUM = "below_minimum"
    ABOVE_MAXIMUM = "above_maximum"
    WEIGHT_SUM = "weight_sum"
    NEGATIVE_WEIGHT = "negative_weight"
    UNITS_TOTAL = "units_total"
    MIXED_UNITS = "mixed_units"

    BUYING_POWER = "buying_power"
    ORDER_NOTIONAL = "order_notional"
    PLAN_NOTIONAL = "plan_notional"
    DUPLICATE = "duplicate"


class Reason(msgspec.Struct, frozen=True):
    """What a code says, with its numbers in braces, and what a person can do about it."""

    sentence: str
    remedy: str

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(name for _, name, _, _ in Formatter().parse(self.sentence) if name)


_C = Code
REASONS: dict[Code, Reason] = {
    _C.UNKNOWN_ACCOUNT: Reason("no account {account} is under management", "Name an account of the registry."),
    _C.ACCOUNT_PAUSED: Reason("the account is paused", "Resume it, or leave it out."),
    _C.ACCOUNT_CLOSED: Reason("the account is closed", "Leave it out of the plan and its groups."),
    _C.ACCOUNT_HALTED: Reason("the account is halted: {why}", "Clear what halted it; `unisono doctor` names it."),
    _C.CREDENTIALS_REFUSED: Reason("the venue refused the account's credentials: {why}", "Set new credentials."),
    _C.ACCOUNT_NOT_LIVE: Reason(
        "the account's connection is {phase}, last heard {last_heard}", "Wait until it is live, or preview again then."
    ),
    _C.ACCOUNT_NOT_PROVEN: Reason(
        "a gap in the account's record is not proven yet, open since {since}", "Wait for the backfill to prove it."
    ),
    _C.KILL_SWITCH: Reason("the kill switch is on: {why}", "Turn it off once its cause is settled."),
    _C.LEDGER_DOWN: Reason("the ledger cannot be written: {why}", "Free the disk or the database; nothing is sent."),
    _C.PLAN_EXPIRED: Reason("the plan expired {expired}, it is {now}", "Draft a new plan."),
    _C.UNKNOWN_INSTRUMENT: Reason(
        "{venue} ({environment}) has no instrument {instrument}", "Check the spelling, as in BTC/USDT:USDT."
    ),
    _C.NOT_TRADABLE: Reason("{instrument} cannot be traded now: {status}", "Wait until the venue trades it."),
    _C.INSTRUMENT_CHANGED: Reason(
        "{instrument} has changed since the preview: its lot is now {lot}, its contract value {value}",
        "Preview again.",
    ),
    _C.ORDER_TYPE_MISSING: Reason("{venue} has no order type {order_type}", "Choose a type that the venue has."),
    _C.NOT_ALLOWED: Reason(
        "the mandate allows {allowed} instruments and {instrument} is none of them", "Change the mandate or the plan."
    ),
    _C.DO_NOT_TRADE: Reason("the mandate forbids {instrument}", "Change the mandate or the plan."),
    _C.POSITION_SIDES: Reason(
        "the account holds long {long} and short {short} side by side; orders go to net positions only",
        "Put the account into net mode at the venue.",
    ),
    _C.NO_PRICE: Reason("there is no reference price of {instrument}", "Wait for the price feed."),
    _C.STALE_PRICE: Reason("the reference price is {age_s} s old, at most {limit_s} s", "Wait for the price feed."),
    _C.OFF_TICK: Reason("the price {price} is no multiple of the tick {tick}", "Round the price."),
    _C.PRICE_COLLAR: Reason(
        "the price {price} is {distance} % from the reference {reference}, at most {limit} %", "Correct the price."
    ),
    _C.PRICE_DRIFT: Reason(
        "the price moved by {drift} % since the preview, {then} to {now}, at most {limit} %", "Preview again."
    ),
    _C.NOTHING_TO_DO: Reason(
        "the share {share} is less than one step of {step}", "A larger quantity, or leave the account out."
    ),
    _C.NO_NAV: Reason("the account's net asset value is {nav}", "Wait for the account's statement, or leave it out."),
    _C.OFF_LOT: Reason("the quantity {quantity} is no multiple of the lot {lot}", "Give a multiple of the lot."),
    _C.BELOW_MINIMUM: Reason("the quantity {quantity} is below the minimum {minimum}", "A larger quantity."),
    _C.ABOVE_MAXIMUM: Reason("the quantity {quantity} is above the maximum {maximum}", "Split it over several plans."),
    _C.WEIGHT_SUM: Reason("the weights sum to {sum}, not to 100", "Correct the group's weights."),
    _C.NEGATIVE_WEIGHT: Reason("the weight of {account} is {weight}, below zero", "Correct the group's weights."),
    _C.UNITS_TOTAL: Reason("the units sum to {sum}, the given total is {total}", "Correct the units or the total."),
    _C.MIXED_UNITS: Reason(
        "one quantity cannot be split over venues that count {instrument} in {units}",
        "A plan for each venue, or nav_percent or units.",
    ),
    _C.BUYING_POWER: Reason("it needs {needed} {currency}, available {available}", "A smaller part, or more cash."),
    _C.ORDER_NOTIONAL: Reason(
        "the order's notional {notional} is above the mandate's {limit}", "A smaller part, or another mandate."
    ),
    _C.PLAN_NOTIONAL: Reason(
        "the account's notional in this plan {notional} is above the mandate's {limit}",
        "A smaller part, or another mandate.",
    ),
    _C.DUPLICATE: Reason(
        "the same order went out {age_s} s ago ({order}), the window is {window_s} s",
        "If it is meant, wait until the window has passed.",
    ),
}


def deny(code: Code, **numbers: Decimal | str | int) -> Denial:
    """One denial, its numbers as text and its sentence made of them."""
    reason = REASONS[code]
    assert set(numbers) == set(reason.numbers), f"{code} carries {reason.numbers}"
    texts = {name: number if isinstance(number, str) else plain(Decimal(number)) for name, number in numbers.items()}
    return Denial(code.value, texts, reason.sentence.format(**texts))


def plain(number: Decimal) -> str:
    """A number for people: no exponent, no trailing zeros."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def stamp(at_ms: int | None) -> str:
    """An instant for people, in UTC."""
    if at_ms is None:
        return "never"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# ---- The account: how it stands at this moment


class Standing(Protocol):
    """What decides whether an account may get orders at all."""

    @property
    def state(self) -> AccountState: ...
    @property
    def halted(self) -> str:
        """Why it is halted; "" when it is not."""

    @property
    def credentials_refused(self) -> str:
        """What the venue said when it refused them; "" when it did not."""

    @property
    def killed(self) -> str:
        """Which kill switch covers it, who turned it on and why; "" when none does."""

    @property
    def live(self) -> bool:
        """Its connection for orders is logged in, subscribed and heard."""

    @property
    def phase(self) -> str: ...
    @property
    def last_heard_ms(self) -> int | None: ...
    @property
    def proven(self) -> bool:
        """No gap in its record is open: what we hold is what the venue has."""

    @property
    def gap_since_ms(self) -> int | None: ...


def standing(account: Standing) -> tuple[Denial, ...]:
    """Why the account may get no order now; empty when it may. On the hot path of a fan-out."""
    if (
        account.live
        and account.proven
        and account.state is AccountState.ACTIVE
        and not account.killed
        and not account.halted
        and not account.credentials_refused
    ):
        return ()
    found = list[Denial]()
    if account.killed:
        found.append(deny(Code.KILL_SWITCH, why=account.killed))
    if account.state is AccountState.PAUSED:
        found.append(deny(Code.ACCOUNT_PAUSED))
    elif account.state is AccountState.CLOSED:
        found.append(deny(Code.ACCOUNT_CLOSED))
    if account.halted:
        found.append(deny(Code.ACCOUNT_HALTED, why=account.halted))
    if account.credentials_refused:
        found.append(deny(Code.CREDENTIALS_REFUSED, why=account.credentials_refused))
    if not account.live:
        found.append(deny(Code.ACCOUNT_NOT_LIVE, phase=account.phase, last_heard=stamp(account.last_heard_ms)))
    if not account.proven:
        found.append(deny(Code.ACCOUNT_NOT_PROVEN, since=stamp(account.gap_since_ms)))
    return tuple(found)


# ---- The order: its instrument, size, price, money


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The office's limits on every plan."""

    expiry_ms: int
    max_drift_percent: Decimal
    price_collar_percent: Decimal
    max_price_age_ms: int
    duplicate_window_ms: int
    margin_percent: Decimal
    four_eyes_notional: Decimal  # 0: never asked
    attempts: int = 1  # see Plan.attempts


class Reference(msgspec.Struct, frozen=True):
    """A price to measure with: what it is, when it was said, by which feed."""

    price: Decimal
    at_ms: int
    source: str


class Recent(msgspec.Struct, frozen=True):
    """An order that went out lately."""

    plan_id: str
    side: Side
    quantity: Decimal
    at_ms: int
    order: str  # its client order id


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One account's part of one leg, as it would be sent."""

    plan_id: str
    instrument: Instrument
    order_types: frozenset[OrderType]  # what the venue has
    order_type: OrderType
    side: Side
    quantity: Decimal
    raw_share: Decimal
    price: Decimal | None
    reference: Reference | None
    notional: Decimal
    plan_notional: Decimal  # of the account's parts of this plan so far, this one included
    currency: str  # of `needed` and `available`
    needed: Decimal
    available: Decimal | None  # None: not known
    mandate: Mandate | None
    recent: Sequence[Recent]
    sized: bool  # false: a denial that is known already is why the quantity is zero
    long: Decimal  # held on a position side of its own, 0 in net mode
    short: Decimal


def check(ask: Ask, rules: Rules, now_ms: int) -> tuple[Denial, ...]:
    """Everything that stands against this part, not only the first reason; empty when nothing does."""
    found = [*_instrument(ask), *against_price(ask.price, ask.instrument, ask.reference, rules, now_ms)]
    if ask.quantity > 0:
        found += [
            *_size(ask),
            *_money(ask),
            *duplicates(ask.recent, ask.plan_id, ask.side, ask.quantity, rules, now_ms),
        ]
    elif ask.sized and not found:
        found.append(deny(Code.NOTHING_TO_DO, share=_short(ask.raw_share), step=ask.instrument.quantity_step))
    return tuple(found)


def usable(instrument: Instrument) -> bool:
    """Are its steps numbers one can divide by?"""
    return instrument.quantity_step > 0 and instrument.price_tick > 0 and instrument.multiplier > 0


def _instrument(ask: Ask) -> Iterator[Denial]:
    instrument, mandate = ask.instrument, ask.mandate
    if not instrument.tradable:
        yield deny(Code.NOT_TRADABLE, instrument=instrument.name, status=instrument.status)
    if ask.order_type not in ask.order_types:
        yield deny(Code.ORDER_TYPE_MISSING, venue=instrument.venue, order_type=ask.order_type.value)
    if ask.long or ask.short:
        yield deny(Code.POSITION_SIDES, long=ask.long, short=ask.short)
    if mandate is not None:
        if mandate.allowed_instruments and instrument.name not in mandate.allowed_instruments:
            allowed = len(mandate.allowed_instruments)
            yield deny(Code.NOT_ALLOWED, allowed=allowed, instrument=instrument.name)
        if instrument.name in mandate.do_not_trade:
            yield deny(Code.DO_NOT_TRADE, instrument=instrument.name)


def against_price(
    price: Decimal | None, instrument: Instrument, reference: Reference | None, rules: Rules, now_ms: int
) -> Iterator[Denial]:
    """What stands against trading at this price now; None is a market order."""
    tick = instrument.price_tick
    if price is not None and price % tick:
        yield deny(Code.OFF_TICK, price=price, tick=tick)
    if (against := unpriced(instrument.name, reference, rules, now_ms)) is not None:
        yield against
    if price is not None and reference is not None and reference.price > 0:
        distance = percent_apart(reference.price, price)
        if distance > rules.price_collar_percent:
            yield deny(
                Code.PRICE_COLLAR,
                price=price,
                distance=_short(distance),
                reference=reference.price,
                limit=rules.price_collar_percent,
            )


def unpriced(instrument: str, reference: Reference | None, rules: Rules, now_ms: int) -> Denial | None:
    """Why `reference` cannot be measured with; None when it can."""
    if reference is None or reference.price <= 0:
        return deny(Code.NO_PRICE, instrument=instrument)
    if now_ms - reference.at_ms > rules.max_price_age_ms:
        return deny(
            Code.STALE_PRICE, age_s=_seconds(now_ms - reference.at_ms), limit_s=_seconds(rules.max_price_age_ms)
        )
    return None


def drifted(then: Decimal, now: Decimal, limit_percent: Decimal) -> Denial | None:
    """The denial when the reference price moved too far since the preview."""
    drift = percent_apart(then, now)
    if drift <= limit_percent:
        return None
    return deny(Code.PRICE_DRIFT, drift=_short(drift), then=then, now=now, limit=limit_percent)


def percent_apart(reference: Decimal, price: Decimal) -> Decimal:
    """How far `price` lies from `reference`, in per cent of it, without sign."""
    return abs(price - reference) / reference * 100


def _size(ask: Ask) -> Iterator[Denial]:
    instrument, quantity = ask.instrument, ask.quantity
    market = ask.order_type is OrderType.MARKET
    maximum = instrument.max_market_quantity if market else instrument.max_limit_quantity
    if quantity % instrument.quantity_step:
        yield deny(Code.OFF_LOT, quantity=quantity, lot=instrument.quantity_step)
    if quantity < instrument.min_quantity:
        yield deny(Code.BELOW_MINIMUM, quantity=quantity, minimum=instrument.min_quantity)
    if maximum is not None and quantity > maximum:
        yield deny(Code.ABOVE_MAXIMUM, quantity=quantity, maximum=maximum)


def _money(ask: Ask) -> Iterator[Denial]:
    if ask.needed > 0 and (ask.available is None or ask.available < ask.needed):
        available = "not known" if ask.available is None else plain(ask.available)
        yield deny(Code.BUYING_POWER, needed=ask.needed, currency=ask.currency, available=available)
    if (mandate := ask.mandate) is not None:
        if mandate.max_order_notional is not None and ask.notional > mandate.max_order_notional:
            yield deny(Code.ORDER_NOTIONAL, notional=ask.notional, limit=mandate.max_order_notional)
        if mandate.max_plan_notional is not None and ask.plan_notional > mandate.max_plan_notional:
            yield deny(Code.PLAN_NOTIONAL, notional=ask.plan_notional, limit=mandate.max_plan_notional)


def duplicates(
    recent: Sequence[Recent], plan_id: str, side: Side, quantity: Decimal, rules: Rules, now_ms: int
) -> Iterator[Denial]:
    """At most one denial: the same side and quantity went out within the window, from another plan."""
    for order in recent:
        age_ms = now_ms - order.at_ms
        same = order.side is side and order.quantity == quantity and order.plan_id != plan_id
        if same and age_ms < rules.duplicate_window_ms:
            window = _seconds(rules.duplicate_window_ms)
            yield deny(Code.DUPLICATE, age_s=_seconds(age_ms), order=order.order, window_s=window)
            return


def needs(
    instrument: Instrument,
    side: Side,
    quantity: Decimal,
    price: Decimal,
    *,
    held: Decimal,
    margin_percent: Decimal,
    fee_rate: Decimal,
) -> tuple[str, Decimal]:
    """The currency and how much of it the order binds: an estimate, the venue has the last word.

    Spot pays in full; a derivative binds margin for the part that opens and nothing for the part that closes, so
    that an account without cash can always get out.
    """
    notional = instrument.notional(quantity, price)
    if instrument.kind is InstrumentKind.SPOT:
        if side is Side.BUY:
            return instrument.quote, notional * (1 + fee_rate)
        return instrument.base, quantity * instrument.multiplier
    after = held + side.sign * quantity
    opened = abs(after) if after * held <= 0 else max(Decimal(0), abs(after) - abs(held))
    if not opened:
        return instrument.settle, Decimal(0)
    bound = instrument.notional(opened, price) * margin_percent / 100 + notional * fee_rate
    return instrument.settle, bound / price if instrument.inverse else bound


def _short(number: Decimal) -> str:
    return plain(round(number, 8))


def _seconds(milliseconds: int) -> Decimal:
    return Decimal(milliseconds) / 1000


# ---- The reference page


def reference_page() -> str:
    """docs/reference/denials.md, made from the list."""
    lines = [
        "# Denials: why an account does not take part",
        "",
        "Made from `engine/core/limits.py`; a test holds the two together. A denied account keeps its place in the",
        "preview with the code and the numbers below; nothing is sent for it, and its share is not given to others.",
        "",
        "| code | what it says | numbers | what to do |",
        "|---|---|---|---|",
    ]
    for code, reason in REASONS.items():
        numbers = ", ".join(f"`{name}`" for name in reason.numbers) or "–"
        lines.append(f"| `{code.value}` | {reason.sentence} | {numbers} | {reason.remedy} |")
    return "\n".join(lines) + "\n"
