"""Decides. May this account take this part? Every reason why not is a code of one closed list, with its numbers.

`REASONS` is the list: the sentences, the numbers each carries and the reference page all come from it. Nothing here
decides whom a denial concerns or what becomes of the share; that is the plan's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from string import Formatter
from typing import Protocol

import msgspec

from accounts.model import Account, AccountState, Mandate, Trading
from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import OrderType
from engine.core.plans import Denial, Override


class Code(StrEnum):
    """The closed list."""

    UNKNOWN_ACCOUNT = "unknown_account"
    ACCOUNT_PAUSED = "account_paused"
    ACCOUNT_CLOSED = "account_closed"
    ACCOUNT_HALTED = "account_halted"
    ACCOUNT_REDUCING = "account_reducing"
    DAILY_LOSS = "daily_loss"
    CREDENTIALS_REFUSED = "credentials_refused"
    ACCOUNT_NOT_LIVE = "account_not_live"
    ACCOUNT_NOT_PROVEN = "account_not_proven"
    KILL_SWITCH = "kill_switch"
    LEDGER_DOWN = "ledger_down"
    PLAN_EXPIRED = "plan_expired"
    PLAN_REFUSED = "plan_refused"
    OVERRIDE_EXPIRED = "override_expired"

    UNKNOWN_INSTRUMENT = "unknown_instrument"
    NOT_LISTED = "not_listed"
    NOT_TRADABLE = "not_tradable"
    INSTRUMENT_CHANGED = "instrument_changed"
    ORDER_TYPE_MISSING = "order_type_missing"
    ICEBERG_MISSING = "iceberg_missing"
    NOT_ALLOWED = "not_allowed"
    DO_NOT_TRADE = "do_not_trade"
    POSITION_SIDES = "position_sides"

    NO_PRICE = "no_price"
    STALE_PRICE = "stale_price"
    OFF_TICK = "off_tick"
    PRICE_COLLAR = "price_collar"
    TRIGGER_SIDE = "trigger_side"
    STOP_SIDE = "stop_side"
    PRICE_DRIFT = "price_drift"

    NOTHING_TO_DO = "nothing_to_do"
    WITHIN_BAND = "within_band"
    NO_NAV = "no_nav"
    SPLIT_NAV = "split_nav"
    SPLIT_AVAILABLE = "split_available"
    OFF_LOT = "off_lot"
    BELOW_MINIMUM = "below_minimum"
    ABOVE_MAXIMUM = "above_maximum"
    WEIGHT_SUM = "weight_sum"
    NEGATIVE_WEIGHT = "negative_weight"
    NO_WEIGHT = "no_weight"
    MINIMUM_SUM = "minimum_sum"
    CAP_CURRENCY = "cap_currency"
    UNITS_TOTAL = "units_total"
    MIXED_UNITS = "mixed_units"

    BUYING_POWER = "buying_power"
    ORDER_NOTIONAL = "order_notional"
    PLAN_NOTIONAL = "plan_notional"
    DAY_NOTIONAL = "day_notional"
    INSTRUMENT_NOTIONAL = "instrument_notional"
    DUPLICATE = "duplicate"
    ORDER_RATE = "order_rate"


class Reason(msgspec.Struct, frozen=True):
    """What a code says, with its numbers in braces, and what a person can do about it."""

    sentence: str
    remedy: str
    overridable: bool = False  # a judgement of the office, that a person may set aside; not what a venue would refuse

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(name for _, name, _, _ in Formatter().parse(self.sentence) if name)


_C = Code
REASONS: dict[Code, Reason] = {
    _C.UNKNOWN_ACCOUNT: Reason("no account {account} is under management", "Name an account of the registry."),
    _C.ACCOUNT_PAUSED: Reason("the account is paused", "Resume it, or leave it out."),
    _C.ACCOUNT_CLOSED: Reason("the account is closed", "Leave it out of the plan and its groups."),
    _C.ACCOUNT_HALTED: Reason("the account is halted: {why}", "Clear what halted it; `unisono doctor` names it."),
    _C.ACCOUNT_REDUCING: Reason(
        "the account may only reduce its positions, and this would open {opened}", "A smaller part, or leave it out."
    ),
    _C.DAILY_LOSS: Reason(
        "the account has lost {lost} today and pauses at {limit}; it may only reduce",
        "Wait for the next day, or another mandate.",
        True,
    ),
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
    _C.PLAN_REFUSED: Reason(
        "the whole plan is refused because of {account}: {denial}", "Settle that denial, or let the plan go without it."
    ),
    _C.OVERRIDE_EXPIRED: Reason(
        "the override of {denial} by {by} ended {ended}", "Override it again, or take the denial as it is."
    ),
    _C.UNKNOWN_INSTRUMENT: Reason(
        "{venue} ({environment}) has no instrument {instrument}", "Check the spelling, as in BTC/USDT:USDT."
    ),
    _C.NOT_LISTED: Reason(
        "{venue} ({environment}) does not list {instrument}; the account is left out of this leg",
        "A leg of its own for the accounts there.",
    ),
    _C.NOT_TRADABLE: Reason("{instrument} cannot be traded now: {status}", "Wait until the venue trades it."),
    _C.INSTRUMENT_CHANGED: Reason(
        "{instrument} has changed since the preview: its lot is now {lot}, its contract value {value}",
        "Preview again.",
    ),
    _C.ORDER_TYPE_MISSING: Reason("{venue} has no order type {order_type}", "Choose a type that the venue has."),
    _C.ICEBERG_MISSING: Reason(
        "{venue} has no orders that show only a part of their quantity", "Leave the visible quantity out."
    ),
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
        "the price {price} is {distance} % from the reference {reference}, at most {limit} %",
        "Correct the price.",
        True,
    ),
    _C.TRIGGER_SIDE: Reason(
        "a {side} is triggered at {trigger}, which the reference {reference} has passed already",
        "A trigger above the price for a buy, below it for a sell.",
    ),
    _C.STOP_SIDE: Reason(
        "a {side} loses nothing at {stop}: the stop lies on the wrong side of the price", "Correct the stop."
    ),
    _C.PRICE_DRIFT: Reason(
        "the price moved by {drift} % since the preview, {then} to {now}, at most {limit} %", "Preview again."
    ),
    _C.NOTHING_TO_DO: Reason(
        "the share {share} is less than one step of {step}", "A larger quantity, or leave the account out."
    ),
    _C.WITHIN_BAND: Reason(
        "it stands at {weight} %, within {band} of the target {target} %", "Nothing: it is where it should be."
    ),
    _C.NO_NAV: Reason("the account's net asset value is {nav}", "Wait for the account's statement, or leave it out."),
    _C.SPLIT_NAV: Reason(
        "the net asset value of {account} is {nav}: no quantity can be split by it",
        "Wait for its statement, or leave the account out.",
    ),
    _C.SPLIT_AVAILABLE: Reason(
        "what {account} has available is not known: no quantity can be split by it",
        "Wait for its statement, or leave the account out.",
    ),
    _C.OFF_LOT: Reason("the quantity {quantity} is no multiple of the lot {lot}", "Give a multiple of the lot."),
    _C.BELOW_MINIMUM: Reason("the quantity {quantity} is below the minimum {minimum}", "A larger quantity."),
    _C.ABOVE_MAXIMUM: Reason("the quantity {quantity} is above the maximum {maximum}", "Split it over several plans."),
    _C.WEIGHT_SUM: Reason("the weights sum to {sum}, not to 100", "Correct the group's weights."),
    _C.NEGATIVE_WEIGHT: Reason("the weight of {account} is {weight}, below zero", "Correct the group's weights."),
    _C.NO_WEIGHT: Reason(
        "nobody has a weight above zero to be given anything by {method}", "Set the weights, or another method."
    ),
    _C.MINIMUM_SUM: Reason(
        "the quantity {quantity} is less than the {needed} that give everybody the minimum",
        "A larger quantity, or let small shares be skipped.",
    ),
    _C.CAP_CURRENCY: Reason("one cap cannot hold for orders in {currencies}", "A plan for each currency, or no cap."),
    _C.UNITS_TOTAL: Reason("the units sum to {sum}, the given total is {total}", "Correct the units or the total."),
    _C.MIXED_UNITS: Reason(
        "one quantity cannot be split over venues that count {instrument} in {units}",
        "A plan for each venue, or nav_percent or units.",
    ),
    _C.BUYING_POWER: Reason("it needs {needed} {currency}, available {available}", "A smaller part, or more cash."),
    _C.ORDER_NOTIONAL: Reason(
        "the order's notional {notional} is above the mandate's {limit}", "A smaller part, or another mandate.", True
    ),
    _C.PLAN_NOTIONAL: Reason(
        "the account's notional in this plan {notional} is above the mandate's {limit}",
        "A smaller part, or another mandate.",
        True,
    ),
    _C.DAY_NOTIONAL: Reason(
        "the account's orders of this day would come to {notional}, the mandate allows {limit}",
        "A smaller part, another day, or another mandate.",
        True,
    ),
    _C.INSTRUMENT_NOTIONAL: Reason(
        "its position in {instrument} would be worth {notional}, the mandate allows {limit}",
        "A smaller part, or another mandate.",
        True,
    ),
    _C.DUPLICATE: Reason(
        "the same order went out {age_s} s ago ({order}), the window is {window_s} s",
        "If it is meant, wait until the window has passed.",
        True,
    ),
    _C.ORDER_RATE: Reason(
        "it would be the account's order number {orders} within a minute, at most {limit} are sent",
        "Wait a minute, or fewer legs.",
        True,
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
    def account(self) -> Account: ...
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
        and account.account.trading is not Trading.HALTED
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
    if account.account.trading is Trading.HALTED:
        found.append(deny(Code.ACCOUNT_HALTED, why="the registry says so"))
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
    max_orders_a_minute: int = 0  # of one account; 0: no limit
    abort_refused_percent: Decimal | None = None  # these: see Plan
    abort_unknown: int | None = None
    abort_slippage_percent: Decimal | None = None
    abort_dispersion_percent: Decimal | None = None
    abort_after_ms: int | None = None
    abort_cancels: bool = False


class Reference(msgspec.Struct, frozen=True):
    """A price to measure with: what it is, when it was said, by which feed."""

    price: Decimal
    at_ms: int
    source: str


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """An order that went out lately."""

    plan_id: str
    side: Side
    quantity: Decimal
    order_type: OrderType
    price: Decimal | None = None
    trigger_price: Decimal | None = None
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
    opens: Decimal  # how much of it enlarges the position or turns it round
    position_notional: Decimal  # of the position after it, without sign
    day_notional: Decimal  # of the account's orders of this day, those of this plan and this one included
    lost_today: Decimal | None  # since the day began; None: not known
    orders_lately: int  # of the account within a minute, this one included
    reducing: bool = False  # the account may only reduce
    iceberg: bool = False  # the venue has orders that show a part
    trigger_price: Decimal | None = None
    visible_quantity: Decimal | None = None


def check(ask: Ask, rules: Rules, now_ms: int) -> tuple[Denial, ...]:
    """Everything that stands against this part, not only the first reason; empty when nothing does."""
    found = [*_instrument(ask), *_prices(ask, rules, now_ms)]
    if ask.quantity > 0:
        found += [
            *_size(ask),
            *_money(ask),
            *_account(ask, rules),
            *duplicates(ask, ask.recent, ask.plan_id, ask.side, ask.quantity, rules, now_ms),
        ]
    elif ask.sized and not found:
        found.append(deny(Code.NOTHING_TO_DO, share=_short(ask.raw_share), step=ask.instrument.quantity_step))
    return tuple(found)


WITH_LESS = frozenset(
    {
        Code.ABOVE_MAXIMUM,
        Code.BUYING_POWER,
        Code.ORDER_NOTIONAL,
        Code.PLAN_NOTIONAL,
        Code.DAY_NOTIONAL,
        Code.INSTRUMENT_NOTIONAL,
        Code.ACCOUNT_REDUCING,
        Code.DAILY_LOSS,
    }
)
"""Denials that a smaller quantity may not meet with."""

OFFLINE = frozenset({Code.ACCOUNT_NOT_LIVE, Code.ACCOUNT_NOT_PROVEN})
"""What an account that is offline or stale is denied for."""


def opened(before: Decimal, after: Decimal) -> Decimal:
    """How much of the way from one position to another enlarges it or turns it round."""
    return abs(after) if after * before <= 0 else max(Decimal(0), abs(after) - abs(before))


def set_aside(
    denials: Iterable[Denial], overrides: Sequence[Override], account_id: str, now_ms: int
) -> tuple[tuple[Denial, ...], tuple[Denial, ...]]:
    """The denials that stand, and those that a person has set aside for now."""
    if not overrides:
        return tuple(denials), ()
    lifted = {o.code for o in overrides if o.account_id in ("", account_id) and now_ms < o.expires_at_ms}
    stand, aside = list[Denial](), list[Denial]()
    for denial in denials:
        (aside if denial.code in lifted else stand).append(denial)
    return tuple(stand), tuple(aside)


def usable(instrument: Instrument) -> bool:
    """Are its steps numbers one can divide by?"""
    return instrument.quantity_step > 0 and instrument.price_tick > 0 and instrument.multiplier > 0


def _instrument(ask: Ask) -> Iterator[Denial]:
    instrument, mandate = ask.instrument, ask.mandate
    if not instrument.tradable:
        yield deny(Code.NOT_TRADABLE, instrument=instrument.name, status=instrument.status)
    if ask.order_type not in ask.order_types or ask.order_type in instrument.refuses:
        yield deny(Code.ORDER_TYPE_MISSING, venue=instrument.venue, order_type=ask.order_type.value)
    if ask.visible_quantity is not None and not ask.iceberg:
        yield deny(Code.ICEBERG_MISSING, venue=instrument.venue)
    if ask.long or ask.short:
        yield deny(Code.POSITION_SIDES, long=ask.long, short=ask.short)
    if mandate is not None:
        if mandate.allowed_instruments and instrument.name not in mandate.allowed_instruments:
            allowed = len(mandate.allowed_instruments)
            yield deny(Code.NOT_ALLOWED, allowed=allowed, instrument=instrument.name)
        if instrument.name in mandate.do_not_trade:
            yield deny(Code.DO_NOT_TRADE, instrument=instrument.name)


def _prices(ask: Ask, rules: Rules, now_ms: int) -> Iterator[Denial]:
    """A stop that waits for its trigger is measured with that: its price may lie far from today's."""
    instrument, reference, trigger = ask.instrument, ask.reference, ask.trigger_price
    if trigger is None:
        yield from against_price(ask.price, instrument, reference, rules, now_ms)
        return
    if trigger % instrument.price_tick:
        yield deny(Code.OFF_TICK, price=trigger, tick=instrument.price_tick)
    if (against := unpriced(instrument.name, reference, rules, now_ms)) is not None:
        yield against
    elif reference is not None and ask.side.sign * (trigger - reference.price) <= 0:
        yield deny(Code.TRIGGER_SIDE, side=ask.side.value, trigger=trigger, reference=reference.price)
    if ask.price is not None:
        yield from against_price(ask.price, instrument, Reference(trigger, now_ms, "trigger"), rules, now_ms)


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
    age_ms = abs(now_ms - reference.at_ms)  # one from the future says that the clock was set: it may be of any age
    if age_ms > rules.max_price_age_ms:
        return deny(Code.STALE_PRICE, age_s=_seconds(age_ms), limit_s=_seconds(rules.max_price_age_ms))
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
    if ask.visible_quantity is not None and ask.visible_quantity % instrument.quantity_step:
        yield deny(Code.OFF_LOT, quantity=ask.visible_quantity, lot=instrument.quantity_step)
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
        if mandate.max_day_notional is not None and ask.day_notional > mandate.max_day_notional:
            yield deny(Code.DAY_NOTIONAL, notional=ask.day_notional, limit=mandate.max_day_notional)
        largest = mandate.max_instrument_notional
        if ask.opens > 0 and largest is not None and ask.position_notional > largest:
            yield deny(
                Code.INSTRUMENT_NOTIONAL,
                instrument=ask.instrument.name,
                notional=ask.position_notional,
                limit=largest,
            )


def _account(ask: Ask, rules: Rules) -> Iterator[Denial]:
    """What a position may be opened for. Getting smaller is always allowed."""
    if 0 < rules.max_orders_a_minute < ask.orders_lately:
        yield deny(Code.ORDER_RATE, orders=ask.orders_lately, limit=rules.max_orders_a_minute)
    if not ask.opens:
        return
    if ask.reducing:
        yield deny(Code.ACCOUNT_REDUCING, opened=ask.opens)
    most = ask.mandate.max_daily_loss if ask.mandate is not None else None
    if most is not None and (ask.lost_today is None or ask.lost_today >= most):
        yield deny(Code.DAILY_LOSS, lost="not known how much" if ask.lost_today is None else ask.lost_today, limit=most)


class Form(Protocol):
    """How an order is to be carried out: what a leg says of it, whatever the account."""

    @property
    def order_type(self) -> OrderType: ...
    @property
    def price(self) -> Decimal | None: ...
    @property
    def trigger_price(self) -> Decimal | None: ...


def duplicates(
    form: Form, recent: Sequence[Recent], plan_id: str, side: Side, quantity: Decimal, rules: Rules, now_ms: int
) -> Iterator[Denial]:
    """At most one denial: the same order went out within the window, from another plan.

    Another kind of order, or one at another price, is another order: a stop and the one that backs it up a tick away.
    """
    wanted = (side, quantity, form.order_type, form.price, form.trigger_price)
    for order in recent:
        age_ms = now_ms - order.at_ms
        out = (order.side, order.quantity, order.order_type, order.price, order.trigger_price)
        if out == wanted and order.plan_id != plan_id and age_ms < rules.duplicate_window_ms:
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
    opens = opened(held, held + side.sign * quantity)
    if not opens:
        return instrument.settle, Decimal(0)
    bound = instrument.notional(opens, price) * margin_percent / 100 + notional * fee_rate
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
        "preview with the code and the numbers below; nothing is sent for it, and its share is not given to others",
        "unless the plan says so.",
        "",
        "Those marked `*` are judgements of the office: a person may set them aside for one plan, by name, with a",
        "reason and until a time (`unisono plan override`). The others are not for anybody to set aside.",
        "",
        "| code | what it says | numbers | what to do |",
        "|---|---|---|---|",
    ]
    for code, reason in REASONS.items():
        numbers = ", ".join(f"`{name}`" for name in reason.numbers) or "–"
        mark = "\\*" if reason.overridable else ""
        lines.append(f"| `{code.value}`{mark} | {reason.sentence} | {numbers} | {reason.remedy} |")
    return "\n".join(lines) + "\n"
