"""Decides. Splits a leg over accounts; not one step is lost or invented.

Two kinds of method. A *spread* method hands out the manager's quantity by weights; a *sized* method derives each
account's quantity from the account itself. A method is one row of one of the two tables. All arithmetic is exact:
whole steps as integers, products of decimals under a context that raises where a digit would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow

import msgspec

from engine.core.facts import Side
from engine.core.limits import Code, deny
from engine.core.plans import BelowMinimum, Denial, Leg, Method, Residual

_EXACT = Context(prec=200, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
_ZERO, _HUNDRED = Decimal(0), Decimal(100)


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """What an account brings to the split. Quantities are in the instrument's venue unit."""

    account_id: str
    step: Decimal | None  # smallest change of quantity; None: no such instrument there, its share stays with nobody
    unit: str = ""  # what one unit is: a quantity is split only among accounts that count alike
    minimum: Decimal = _ZERO  # the smallest order
    weight: Decimal = _ZERO  # from the plan's groups
    nav: Decimal | None = None  # in the instrument's quote currency
    available: Decimal | None = None  # free equity in the quote currency
    held: Decimal = _ZERO  # signed
    unit_value: Decimal | None = None  # value of one unit in the quote currency; None: no price
    unit_risk: Decimal | None = None  # what one unit loses from the price to the leg's stop, in the quote currency


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What an account gets. `raw` is the share before steps, to 28 digits."""

    account_id: str
    side: Side
    quantity: Decimal
    raw: Decimal
    reduces: bool = False  # sized from the account's own position, never more than it
    denial: Denial | None = None


def allocate(leg: Leg, parties: Sequence[Party], below: BelowMinimum = BelowMinimum.SKIP) -> tuple[Share, ...] | Denial:
    """Every account's share in the order of `parties`, or why the leg cannot be split at all.

    The order of `parties` changes nothing but the order of the answer. What nobody gets is `leg.quantity` less the
    sum of the shares. Of `below` only RAISE changes a size; the other ways of dealing with small shares are checks.
    """
    if (weigh := SPREAD.get(leg.method)) is not None:
        shares = _spread(leg, parties, weigh, below)
    else:
        sized = _unit_total(leg, parties) or tuple(SIZED[leg.method](leg, party) for party in parties)
        if below is BelowMinimum.RAISE and not isinstance(sized, Denial):
            sized = tuple(_raised(share, party) for share, party in zip(sized, parties, strict=True))
        shares = sized
    if leg.reduce_only and not isinstance(shares, Denial):
        shares = tuple(_within_position(share, party) for share, party in zip(shares, parties, strict=True))
    return shares


# ---- Spread: the manager's quantity by weights

Weigh = Callable[[Leg, Sequence[Party]], "dict[str, Decimal] | Denial"]


def _equal(leg: Leg, parties: Sequence[Party]) -> dict[str, Decimal] | Denial:
    return {party.account_id: Decimal(1) for party in parties}


def _told(leg: Leg, parties: Sequence[Party]) -> dict[str, Decimal] | Denial:
    weights = {party.account_id: party.weight for party in parties}
    for account_id, weight in sorted(weights.items()):
        if weight < 0:
            return deny(Code.NEGATIVE_WEIGHT, account=account_id, weight=weight)
    whole = sum(weights.values(), _ZERO)
    if leg.method is Method.PERCENT and whole != _HUNDRED:
        return deny(Code.WEIGHT_SUM, sum=whole)
    return weights


def _by_nav(leg: Leg, parties: Sequence[Party]) -> dict[str, Decimal] | Denial:
    """One NAV that is not known would change everybody's share, so nobody's is guessed."""
    weights = dict[str, Decimal]()
    for party in sorted(parties, key=lambda party: party.account_id):
        if party.nav is None or party.nav <= 0:
            nav = "not known" if party.nav is None else party.nav
            return deny(Code.SPLIT_NAV, account=party.account_id, nav=nav)
        weights[party.account_id] = party.nav
    return weights


def _by_available(leg: Leg, parties: Sequence[Party]) -> dict[str, Decimal] | Denial:
    """An account without free equity gets nothing; one whose free equity is not known stops the split."""
    weights = dict[str, Decimal]()
    for party in sorted(parties, key=lambda party: party.account_id):
        if party.available is None:
            return deny(Code.SPLIT_AVAILABLE, account=party.account_id)
        weights[party.account_id] = max(_ZERO, party.available)
    return weights


def _to_level(leg: Leg, parties: Sequence[Party]) -> dict[str, Decimal] | Denial:
    """Buying fills up the lowest holdings like water, selling takes from the highest; the weights are the raw shares.

    With the level L = (Q + sum of the k lowest) / k, a share of L - h is Q + sum - k × h in k-ths: whole numbers.
    """
    assert leg.quantity is not None, "a spread leg has a quantity"
    assert leg.side is not None, "a spread leg has a side"
    sign = leg.side.sign
    held = sorted(((sign * party.held, party.account_id) for party in parties), key=lambda one: one[0])
    filled = leg.quantity
    for count, (low, _) in enumerate(held, start=1):
        filled = _EXACT.add(filled, low)
        if count == len(held) or filled <= _EXACT.multiply(held[count][0], Decimal(count)):
            return {
                account_id: max(_ZERO, _EXACT.subtract(filled, _EXACT.multiply(h, Decimal(count))))
                for h, account_id in held
            }
    raise AssertionError("the highest holding is the last level")


SPREAD: Mapping[Method, Weigh] = {
    Method.EQUAL: _equal,
    Method.LEVEL: _to_level,
    Method.NAV: _by_nav,
    Method.AVAILABLE: _by_available,
    Method.PERCENT: _told,
    Method.RATIO: _told,
}


def _spread(leg: Leg, parties: Sequence[Party], weigh: Weigh, below: BelowMinimum) -> tuple[Share, ...] | Denial:
    assert leg.quantity is not None, "a spread leg has a quantity"
    assert leg.side is not None, "a spread leg has a side"
    if not parties:
        return ()
    weights = weigh(leg, parties)
    if isinstance(weights, Denial):
        return weights
    total = sum(weights.values(), _ZERO)
    if not total:
        return deny(Code.NO_WEIGHT, method=leg.method.value)
    counted = {(party.unit, party.step) for party in parties if party.step is not None}
    if not counted:
        return tuple(_nothing(party, leg.side) for party in parties)
    if len(counted) > 1:
        units = " and ".join(sorted(f"{unit or 'units'} by {step.normalize():f}" for unit, step in counted))
        return deny(Code.MIXED_UNITS, instrument=leg.instrument, units=units)
    [(_, step)] = counted
    steps, off = _EXACT.divmod(leg.quantity, step)
    if off:
        return deny(Code.OFF_LOT, quantity=leg.quantity, lot=step)
    shares = split(int(steps), weights, leg.residual)
    if below is BelowMinimum.RAISE:
        least = {party.account_id: _steps_up(party.minimum, step) for party in parties}
        if (at_least := split_at_least(int(steps), weights, least, leg.residual)) is None:
            needed = step * sum(least[account_id] for account_id, weight in weights.items() if weight)
            return deny(Code.MINIMUM_SUM, quantity=leg.quantity, needed=needed)
        shares = at_least
    return tuple(
        Share(
            account_id=party.account_id,
            side=leg.side,
            quantity=step * shares[party.account_id],
            raw=leg.quantity * weights[party.account_id] / total,
        )
        for party in parties
    )


def split(steps: int, weights: Mapping[str, Decimal], residual: Residual) -> dict[str, int]:
    """`steps` whole steps over `weights` (none below zero) by the residual rule.

    The sum is `steps`, except under `floor` or where all weights are zero. Ties go to the larger weight, then by
    account id, so the order of the mapping changes nothing.
    """
    parts = dict(zip(weights, _integers(tuple(weights.values())), strict=True))
    whole = sum(parts.values())
    if not whole:
        return dict.fromkeys(parts, 0)
    shares, remainders = dict[str, int](), dict[str, int]()
    for account_id, part in parts.items():
        shares[account_id], remainders[account_id] = divmod(steps * part, whole)
    left = steps - sum(shares.values())
    assert 0 <= left < len(parts), "flooring leaves less than one step an account"
    match residual:
        case Residual.FLOOR:
            return shares
        case Residual.LARGEST_REMAINDER:
            turn = sorted(parts, key=lambda account_id: (-remainders[account_id], -parts[account_id], account_id))
        case Residual.LARGEST_FIRST:
            turn = sorted(parts, key=lambda account_id: (-parts[account_id], account_id))
    for account_id in turn[:left]:
        shares[account_id] += 1
    assert sum(shares.values()) == steps, "allocation conserves steps"
    return shares


def split_at_least(
    steps: int, weights: Mapping[str, Decimal], least: Mapping[str, int], residual: Residual
) -> dict[str, int] | None:
    """As `split`, but nobody of weight gets less than their `least`, and the others have the less.

    None: it is too little for that.
    """
    raised = set[str]()
    while True:
        left = steps - sum(least[account_id] for account_id in raised)
        if left < 0:
            return None
        rest = split(left, {a: w for a, w in weights.items() if a not in raised}, residual)
        if not (low := {a for a, share in rest.items() if weights[a] > 0 and share < least[a]}):
            return rest | {account_id: least[account_id] for account_id in raised}
        raised |= low


def _steps_up(quantity: Decimal, step: Decimal) -> int:
    """The fewest whole steps that make the quantity."""
    whole, rest = _EXACT.divmod(quantity, step)
    return int(whole) + (1 if rest else 0)


def _integers(numbers: Sequence[Decimal]) -> list[int]:
    """The same proportions as whole numbers."""
    lowest = min((_exponent(number) for number in numbers), default=0)
    return [int(number.scaleb(-min(lowest, 0), _EXACT)) for number in numbers]


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "a weight is a finite number"
    return exponent


# ---- Sized: each account's quantity from the account itself

Size = Callable[[Leg, Party], Share]


def _units(leg: Leg, party: Party) -> Share:
    """As told; not rounded, a quantity off the lot is denied later."""
    assert leg.side is not None, "a leg of units has a side"
    quantity = leg.units.get(party.account_id, _ZERO)
    return Share(account_id=party.account_id, side=leg.side, quantity=quantity, raw=quantity)


def _unit_total(leg: Leg, parties: Sequence[Party]) -> Denial | None:
    if leg.method is not Method.UNITS or leg.quantity is None:
        return None
    told = sum((leg.units.get(party.account_id, _ZERO) for party in parties), _ZERO)
    return None if told == leg.quantity else deny(Code.UNITS_TOTAL, sum=told, total=leg.quantity)


def _without_nav(party: Party) -> Denial | None:
    if party.nav is None or party.nav <= 0:
        return deny(Code.NO_NAV, nav="not known" if party.nav is None else party.nav)
    return None


def _nav_percent(leg: Leg, party: Party) -> Share:
    assert leg.side is not None, "a leg of nav_percent has a side"
    assert leg.percent is not None, "a leg of nav_percent has a percentage"
    nothing = _nothing(party, leg.side)
    if (against := _without_nav(party)) is not None:
        return msgspec.structs.replace(nothing, denial=against)
    if party.nav is None or party.unit_value is None:
        return nothing  # without a price there is no size; the check of prices says so
    return _floored(
        nothing, _EXACT.multiply(leg.percent, party.nav), _EXACT.multiply(_HUNDRED, party.unit_value), party
    )


def _money(leg: Leg, party: Party) -> Share:
    assert leg.side is not None, "a leg of money has a side"
    nothing = _nothing(party, leg.side)
    amount = leg.amount if leg.amount is not None else leg.amounts.get(party.account_id, _ZERO)
    return nothing if party.unit_value is None else _floored(nothing, amount, party.unit_value, party)


def _risk(leg: Leg, party: Party) -> Share:
    """As much as loses `percent` of the account's NAV when the price goes from the leg's to its stop."""
    assert leg.side is not None, "a leg of risk has a side"
    assert leg.percent is not None, "a leg of risk has a percentage"
    nothing = _nothing(party, leg.side)
    if (against := _without_nav(party)) is not None:
        return msgspec.structs.replace(nothing, denial=against)
    if party.nav is None or party.unit_risk is None:
        return nothing
    if party.unit_risk <= 0:
        assert leg.stop_price is not None, "a leg of risk has a stop"
        return msgspec.structs.replace(nothing, denial=deny(Code.STOP_SIDE, side=leg.side.value, stop=leg.stop_price))
    return _floored(nothing, _EXACT.multiply(leg.percent, party.nav), _EXACT.multiply(_HUNDRED, party.unit_risk), party)


def _target(leg: Leg, party: Party) -> Share:
    """To `percent` of NAV, rounded towards what is held; left alone within the band."""
    assert leg.percent is not None, "a leg of target has a percentage"
    nothing = _nothing(party, Side.BUY)
    if (against := _without_nav(party)) is not None:
        return msgspec.structs.replace(nothing, denial=against)
    if party.nav is None or party.unit_value is None:
        return nothing
    held = _EXACT.multiply(_EXACT.multiply(party.held, party.unit_value), _HUNDRED)
    missing = _EXACT.subtract(_EXACT.multiply(leg.percent, party.nav), held)
    nothing = msgspec.structs.replace(nothing, side=Side.SELL if missing < 0 else Side.BUY)
    if leg.band is not None and abs(missing) <= _EXACT.multiply(leg.band, party.nav):
        against = deny(Code.WITHIN_BAND, weight=f"{held / party.nav:.4f}", target=leg.percent, band=leg.band)
        return msgspec.structs.replace(nothing, denial=against)
    share = _floored(nothing, abs(missing), _EXACT.multiply(_HUNDRED, party.unit_value), party)
    away = -share.side.sign * party.held
    return msgspec.structs.replace(share, reduces=away > 0 and share.quantity <= away)


def _change(leg: Leg, party: Party) -> Share:
    """A change of the account's own position: it can grow, shrink or close it, never turn it round."""
    assert leg.percent is not None, "a leg of change has a percentage"
    assert leg.percent >= -_HUNDRED, "a change never goes past flat"
    grows = leg.percent > 0
    side = Side.BUY if (party.held >= 0) is grows else Side.SELL
    nothing = msgspec.structs.replace(_nothing(party, side), reduces=not grows)
    return _floored(nothing, _EXACT.multiply(abs(party.held), abs(leg.percent)), _HUNDRED, party)


SIZED: Mapping[Method, Size] = {
    Method.UNITS: _units,
    Method.MONEY: _money,
    Method.NAV_PERCENT: _nav_percent,
    Method.CHANGE: _change,
    Method.TARGET: _target,
    Method.RISK: _risk,
}


def _floored(share: Share, over: Decimal, under: Decimal, party: Party) -> Share:
    """`share` with the quantity over/under, floored to whole steps."""
    if party.step is None:
        return share
    steps = _EXACT.divide_int(over, _EXACT.multiply(under, party.step))
    return msgspec.structs.replace(share, quantity=steps * party.step, raw=over / under)


def _raised(share: Share, party: Party) -> Share:
    """At least the venue's smallest order, where there is a share at all; a close is never made larger than itself."""
    if party.step is None or not share.raw > 0 or share.quantity >= party.minimum or share.denial is not None:
        return share
    quantity = party.step * _steps_up(party.minimum, party.step)
    if share.reduces and quantity > abs(party.held):
        return share
    return msgspec.structs.replace(share, quantity=quantity)


def _nothing(party: Party, side: Side) -> Share:
    return Share(account_id=party.account_id, side=side, quantity=_ZERO, raw=_ZERO)


def _within_position(share: Share, party: Party) -> Share:
    """A reducing order ends at flat at the latest; what it is cut by goes to nobody else."""
    closable = max(_ZERO, -share.side.sign * party.held)
    most = closable // party.step * party.step if party.step is not None else _ZERO
    return msgspec.structs.replace(share, quantity=min(share.quantity, most), reduces=True)
