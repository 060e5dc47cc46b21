"""Decides. Model portfolios: how far each account is from its model, and the fewest orders that bring it back.

An account is left alone where every line lies within its band. Only a line outside of it gets an order, so there are
never more orders than lines that are off; a line that stays off is told with its reason. Weights and bands are in per
cent of the account's net asset value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

import msgspec

from accounts.model import Mandate, Model, ModelLine
from engine.core.drafts import Draft
from engine.core.facts import Side
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.limits import plain, usable
from engine.core.orders import OrderType
from engine.core.plans import Leg, Method, Plan
from engine.core.preview import AccountView, MarketView

_ZERO, _HUNDRED = Decimal(0), Decimal(100)
_ROUNDING_PERCENT = Decimal("0.5")  # whole steps and fees take that much from the cash line


class Why(StrEnum):
    """Why a line that is off its target gets no order, or stays off after it."""

    WITHIN_BAND = "within_band"
    UNKNOWN_ACCOUNT = "unknown_account"
    NO_NAV = "no_nav"
    NOT_LISTED = "not_listed"
    NOT_TRADABLE = "not_tradable"
    NO_PRICE = "no_price"
    CURRENCY = "currency"  # it is priced in another currency than the model is reckoned in
    RESTRICTED = "restricted"
    STEP = "step"  # one step is worth more than the band is wide
    BELOW_MINIMUM = "below_minimum"
    CASH = "cash"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of the model in one account, as it stands. Quantities in the venue unit, money in quote."""

    held: Decimal = _ZERO
    unit_value: Decimal = _ZERO  # what one unit is worth
    step: Decimal = Decimal(1)
    minimum: Decimal = _ZERO
    pays: bool = True  # paid in full (spot); a derivative binds only margin, which the preview looks after
    fee_rate: Decimal = _ZERO
    against: Why | None = None  # why it cannot be traded at all
    detail: str = ""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One account, as it stands."""

    account_id: str
    nav: Decimal | None
    cash: Decimal | None  # free for buying
    lines: Mapping[str, Line] = {}


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One line of one account: where it is, where it ought to be, and what brings it there."""

    account_id: str
    instrument: str
    target: Decimal
    band: Decimal
    weight: Decimal | None  # None: cannot be told
    quantity: Decimal = _ZERO  # signed: what to buy (above zero) or sell
    weight_after: Decimal | None = None
    why: Why | None = None  # None: the order brings it into its band
    detail: str = ""

    @property
    def off(self) -> Decimal | None:
        return None if self.weight is None else self.weight - self.target


class GroupDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One line over several accounts together, each weighing by its net asset value."""

    instrument: str
    target: Decimal
    weight: Decimal
    weight_after: Decimal
    orders: int


class Rebalance(msgspec.Struct, frozen=True, kw_only=True):
    """How far accounts are from a model, one by one and together, and what would bring them back."""

    model: Model
    currency: str
    drifts: tuple[Drift, ...]
    together: tuple[GroupDrift, ...]
    plan_id: str = ""  # of the draft that was proposed


# ---- One account


def drifts(model: Model, subject: Subject) -> tuple[Drift, ...]:
    """Every line of the model in this account, in the model's order."""
    if subject.nav is None or subject.nav <= 0:
        told = "not known" if subject.nav is None else plain(subject.nav)
        detail = f"its net asset value is {told}"
        return tuple(_told(model_line, subject, None, Why.NO_NAV, detail) for model_line in model.lines)
    found = [_drift(model_line, subject, subject.nav) for model_line in model.lines]
    return tuple(_within_cash(found, subject, subject.nav, model.cash))


def _told(line: ModelLine, subject: Subject, weight: Decimal | None, why: Why, detail: str = "") -> Drift:
    return Drift(
        account_id=subject.account_id,
        instrument=line.instrument,
        target=line.weight,
        band=line.band,
        weight=weight,
        weight_after=weight,
        why=why,
        detail=detail,
    )


def _drift(line: ModelLine, subject: Subject, nav: Decimal) -> Drift:
    there = subject.lines.get(line.instrument, Line(against=Why.NOT_LISTED))
    if there.unit_value <= 0:
        held = None if there.held or there.against is None else _ZERO
        return _told(line, subject, held, there.against or Why.NO_PRICE, there.detail)
    weight = _weight(there.held, there, nav)
    if abs(weight - line.weight) <= line.band:
        return _told(line, subject, weight, Why.WITHIN_BAND)
    if there.against is not None:
        return _told(line, subject, weight, there.against, there.detail)
    value = Fraction(there.unit_value)
    missing = Fraction(line.weight) * Fraction(nav) / 100 - Fraction(there.held) * value
    sign = 1 if missing > 0 else -1
    quantity = int(abs(missing) / value / Fraction(there.step)) * there.step  # towards what is held
    for one in (quantity, quantity + there.step):
        within_holding = sign > 0 or not there.pays or one <= there.held
        if one >= there.minimum and within_holding and _in(line, there, sign * one, nav):
            quantity = one
            break
    if 0 < quantity < there.minimum or (not quantity and there.step < there.minimum):
        least = -_whole(-there.minimum, there.step)
        too_much = sign < 0 and there.pays and least > there.held
        if too_much or not _in(line, there, sign * least, nav):
            detail = f"{plain(quantity)} is below the minimum {plain(there.minimum)}"
            return _told(line, subject, weight, Why.BELOW_MINIMUM, detail)
        quantity = least
    if not quantity:
        worth = plain(round(there.step * there.unit_value * _HUNDRED / nav, 4))
        return _told(line, subject, weight, Why.STEP, f"one step is worth {worth} %")
    return _ordered(line, subject, there, sign * quantity, nav)


def _ordered(
    line: ModelLine, subject: Subject, there: Line, quantity: Decimal, nav: Decimal, short: bool = False
) -> Drift:
    """With this order; where it does not reach the band, the step (or the cash) is why."""
    after = _weight(there.held + quantity, there, nav)
    why = None if abs(after - line.weight) <= line.band else Why.CASH if short else Why.STEP
    return Drift(
        account_id=subject.account_id,
        instrument=line.instrument,
        target=line.weight,
        band=line.band,
        weight=_weight(there.held, there, nav),
        quantity=quantity,
        weight_after=after,
        why=why,
        detail="" if why is None else f"{plain(round(abs(after - line.weight), 4))} % are left",
    )


def _within_cash(found: list[Drift], subject: Subject, nav: Decimal, cash_line: Decimal) -> list[Drift]:
    """Buys are made smaller, to the band's edge, while they would eat into the model's cash line (per cent of NAV);
    and further where the account's cash and its sells cannot pay them at all.

    The one that is off by least gives way first.
    """
    lines, free = subject.lines, subject.cash or _ZERO
    kept = (cash_line - _ROUNDING_PERCENT) * nav / _HUNDRED

    def cost(drift: Drift, quantity: Decimal) -> Decimal:
        there = lines[drift.instrument]
        value = quantity * there.unit_value
        return value + abs(value) * there.fee_rate if there.pays else _ZERO

    if not any(d.quantity > 0 and lines[d.instrument].pays for d in found):
        return found
    spent = sum((cost(d, d.quantity) for d in found if d.quantity), _ZERO)
    order = sorted((d for d in found if d.quantity > 0), key=lambda d: (abs(d.off or _ZERO), d.instrument))
    new = {d.instrument: d for d in found}
    for to_edge in (True, False):
        for drift in order:
            there, now = lines[drift.instrument], new[drift.instrument]
            short = spent - free + (kept if to_edge else _ZERO)
            if short <= 0 or not there.pays or not now.quantity:
                continue
            least = _ZERO
            if to_edge:
                edge = (drift.target - drift.band) * nav / _HUNDRED / there.unit_value - there.held
                least = max(_ZERO, -_whole(-edge, there.step))
            spare = short / (there.unit_value * (1 + there.fee_rate))
            quantity = max(least, now.quantity + _whole(-spare, there.step))
            if quantity < max(there.minimum, there.step):
                if to_edge:
                    continue  # for the sake of the cash line no line stays out of its band
                quantity = _ZERO
            if quantity >= now.quantity:
                continue
            spent -= cost(drift, now.quantity) - cost(drift, quantity)
            line = ModelLine(instrument=drift.instrument, weight=drift.target, band=drift.band)
            if quantity:
                new[drift.instrument] = _ordered(line, subject, there, quantity, nav, short=True)
            else:
                new[drift.instrument] = _told(line, subject, drift.weight, Why.CASH, "its cash does not pay for it")
    left = (free - spent) * _HUNDRED / nav
    if left < cash_line - _ROUNDING_PERCENT:
        told = f"cash falls to {plain(round(left, 2))} %, its line is {plain(cash_line)} %"
        for drift in order:
            now = new[drift.instrument]
            if now.quantity > 0 and not now.detail and lines[drift.instrument].pays:
                new[drift.instrument] = msgspec.structs.replace(now, detail=told)
    return [new[d.instrument] for d in found]


def _weight(quantity: Decimal, there: Line, nav: Decimal) -> Decimal:
    return quantity * there.unit_value * _HUNDRED / nav


def _in(line: ModelLine, there: Line, quantity: Decimal, nav: Decimal) -> bool:
    return abs(_weight(there.held + quantity, there, nav) - line.weight) <= line.band


def _whole(quantity: Decimal, step: Decimal) -> Decimal:
    """In whole steps, rounded down, also below zero."""
    whole, rest = divmod(quantity, step)
    return (whole - 1 if rest < 0 else whole) * step


# ---- Many accounts


def group_drifts(model: Model, subjects: Sequence[Subject], found: Iterable[Drift]) -> tuple[GroupDrift, ...]:
    """Each line over all accounts whose weight can be told."""
    navs = {s.account_id: s.nav for s in subjects if s.nav is not None and s.nav > 0}
    sums, orders = dict[str, tuple[Decimal, Decimal, Decimal]](), Counter[str]()
    for drift in found:
        nav = navs.get(drift.account_id)
        if nav is None or drift.weight is None or drift.weight_after is None:
            continue
        whole, before, after = sums.get(drift.instrument, (_ZERO, _ZERO, _ZERO))
        sums[drift.instrument] = (whole + nav, before + drift.weight * nav, after + drift.weight_after * nav)
        orders[drift.instrument] += 1 if drift.quantity else 0
    return tuple(
        GroupDrift(
            instrument=line.instrument,
            target=line.weight,
            weight=sums[line.instrument][1] / sums[line.instrument][0],
            weight_after=sums[line.instrument][2] / sums[line.instrument][0],
            orders=orders[line.instrument],
        )
        for line in model.lines
        if line.instrument in sums
    )


def basket(model: Model, found: Iterable[Drift], by: str) -> Draft | None:
    """One plan with all the orders; None where there is nothing to do."""
    orders = ((drift.account_id, drift.instrument, drift.quantity) for drift in found)
    return ordered(f"Rebalance to {model.name}", orders, by)


def ordered(title: str, orders: Iterable[tuple[str, str, Decimal]], by: str) -> Draft | None:
    """One plan with these orders (account, instrument, signed quantity), sells first; None where there is none.

    A leg for each instrument and side, for the accounts that need it.
    """
    units: dict[tuple[Side, str], dict[str, Decimal]] = {}
    for account_id, instrument, quantity in orders:
        if quantity:
            side = Side.BUY if quantity > 0 else Side.SELL
            units.setdefault((side, instrument), {})[account_id] = abs(quantity)
    if not units:
        return None
    legs = tuple(
        Leg(
            instrument=instrument,
            method=Method.UNITS,
            side=side,
            units=of_accounts,
            accounts=tuple(sorted(of_accounts)),
            order_type=OrderType.MARKET,
        )
        for (side, instrument), of_accounts in sorted(units.items(), key=lambda one: (one[0][0] is Side.BUY, one[0][1]))
    )
    sides = {leg.side for leg in legs}
    return Draft(title=title, legs=legs, sells_first=len(sides) > 1, by=by)


def looked_at(model: Model, groups: tuple[str, ...], accounts: tuple[str, ...], now_ms: int) -> Plan:
    """The accounts and instruments that a rebalance looks at, in the shape in which prices are asked for."""
    return Plan(
        plan_id="",
        title=model.name,
        groups=groups,
        accounts=accounts,
        legs=tuple(Leg(instrument=x.instrument, method=Method.TARGET, percent=x.weight) for x in model.lines),
        created_at_ms=now_ms,
        created_by="",
        expires_at_ms=now_ms,
        max_drift_percent=_ZERO,
        rotation_seed=0,
    )


# ---- From what the engine knows


def subject(model: Model, account_id: str, view: AccountView | None, market: MarketView, quote: str) -> Subject:
    """The account as the model sees it. What its mandate, or one of its groups', forbids is restricted."""
    if view is None:
        missing = Line(against=Why.UNKNOWN_ACCOUNT, detail="it is not under management")
        return Subject(
            account_id=account_id, nav=None, cash=None, lines={line.instrument: missing for line in model.lines}
        )
    lines = {line.instrument: _line(line.instrument, view, market, quote) for line in model.lines}
    return Subject(account_id=account_id, nav=view.nav(quote), cash=view.available(quote), lines=lines)


def _line(name: str, view: AccountView, market: MarketView, quote: str) -> Line:
    account = view.account
    instrument = market.instrument(account.venue, account.environment, name)
    if instrument is None or not usable(instrument):
        return Line(against=Why.NOT_LISTED, detail=f"{account.venue} does not list it")
    if instrument.quote != quote:
        return Line(against=Why.CURRENCY, detail=f"it is priced in {instrument.quote}, the model in {quote}")
    reference = market.reference(account.venue, account.environment, name)
    held = view.held(instrument).get("net", _ZERO)
    if reference is None or reference.price <= 0:
        return Line(held=held, against=Why.NO_PRICE, detail="there is no price of it")
    against, detail = _against(instrument, view.mandate)
    return Line(
        held=held,
        unit_value=instrument.notional(Decimal(1), reference.price),
        step=instrument.quantity_step,
        minimum=instrument.min_quantity,
        pays=instrument.kind is InstrumentKind.SPOT,
        fee_rate=market.venue(account.venue).default_fee_rate,
        against=against,
        detail=detail,
    )


def _against(instrument: Instrument, mandate: Mandate | None) -> tuple[Why | None, str]:
    name = instrument.name
    if not instrument.tradable:
        return Why.NOT_TRADABLE, f"it cannot be traded now: {instrument.status}"
    if mandate is not None and name in mandate.do_not_trade:
        return Why.RESTRICTED, "the mandate forbids it"
    if mandate is not None and mandate.allowed_instruments and name not in mandate.allowed_instruments:
        return Why.RESTRICTED, "the mandate does not allow it"
    return None, ""
