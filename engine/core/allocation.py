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
from engine.core.plans import Denial, Leg, Method, Residual

_EXACT = Context(prec=200, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
_ZERO, _HUNDRED = Decimal(0), Decimal(100)


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """What an account brings to the split. Quantities are in the instrument's venue unit."""

    account_id: str
    step: Decimal | None  # smallest change of quantity; None: no such instrument there, its share stays with nobody
    unit: str = ""  # what one unit is: a quantity is split only among accounts that count alike
    weight: Decimal = _ZERO  # from the plan's groups
    nav: Decimal | None = None  # in the instrument's quote currency
    held: Decimal = _ZERO  # signed
    unit_value: Decimal | None = None  # value of one unit in the quote currency; None: no price


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What an account gets. `raw` is the share before steps, to 28 digits."""

    account_id: str
    side: Side
    quantity: Decimal
    raw: Decimal
    reduces: bool = False  # sized from the account's own position, never more than it
    denial: Denial | None = None


def allocate(leg: Leg, parties: Sequence[Party]) -> tuple[Share, ...] | Denial:
    """Every account's share in the order of `parties`, or why the leg cannot be split at all.

    The order of `parties` changes nothing but the order of the answer. What nobody gets is `leg.quantity` less the
    sum of the shares.
    """
    if (weigh := SPREAD.get(leg.method)) is not None:
        shares = _spread(leg, parties, weigh)
    else:
        shares = _unit_total(leg, parties) or tuple(SIZED[leg.method](leg, party) for party in parties)
    if leg.reduce_only and not isinstance(shares, Denial):
        shares = tuple(_within_position(share, party) for share, party in zip(shares, parties, strict=True))
    return shares


# ---- Spread: the manager's quantity by weights

Weigh = Callable[[Party], Decimal]

SPREAD: Mapping[Method, Weigh] = {
    Method.EQUAL: lambda party: Decimal(1),
    Method.PERCENT: lambda party: party.weight,
}


def _spread(leg: Leg, parties: Sequence[Party], weigh: Weigh) -> tuple[Share, ...] | Denial:
    assert leg.quantity is not None, "a spread leg has a quantity"
    assert leg.side is not None, "a spread leg has a side"
    if not parties:
        return ()
    weights = {party.account_id: weigh(party) for party in parties}
    for account_id, weight in sorted(weights.items()):
        if weight < 0:
            return deny(Code.NEGATIVE_WEIGHT, account=account_id, weight=weight)
    if leg.method is Method.PERCENT and (whole := sum(weights.values(), _ZERO)) != _HUNDRED:
        return deny(Code.WEIGHT_SUM, sum=whole)
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
    total = sum(weights.values(), _ZERO)
    return tuple(
        Share(
            account_id=party.account_id,
            side=leg.side,
            quantity=step * shares[party.account_id],
            raw=leg.quantity * weights[party.account_id] / total if total else _ZERO,
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


def _nav_percent(leg: Leg, party: Party) -> Share:
    assert leg.side is not None, "a leg of nav_percent has a side"
    assert leg.percent is not None, "a leg of nav_percent has a percentage"
    nothing = _nothing(party, leg.side)
    if party.nav is None or party.nav <= 0:
        nav = "not known" if party.nav is None else format(party.nav, "f")
        return msgspec.structs.replace(nothing, denial=deny(Code.NO_NAV, nav=nav))
    if party.unit_value is None:
        return nothing  # without a price there is no size; the check of prices says so
    return _floored(
        nothing, _EXACT.multiply(leg.percent, party.nav), _EXACT.multiply(_HUNDRED, party.unit_value), party
    )


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
    Method.NAV_PERCENT: _nav_percent,
    Method.CHANGE: _change,
}


def _floored(share: Share, over: Decimal, under: Decimal, party: Party) -> Share:
    """`share` with the quantity over/under, floored to whole steps."""
    if party.step is None:
        return share
    steps = _EXACT.divide_int(over, _EXACT.multiply(under, party.step))
    return msgspec.structs.replace(share, quantity=steps * party.step, raw=over / under)


def _nothing(party: Party, side: Side) -> Share:
    return Share(account_id=party.account_id, side=side, quantity=_ZERO, raw=_ZERO)


def _within_position(share: Share, party: Party) -> Share:
    """A reducing order ends at flat at the latest; what it is cut by goes to nobody else."""
    closable = max(_ZERO, -share.side.sign * party.held)
    most = closable // party.step * party.step if party.step is not None else _ZERO
    return msgspec.structs.replace(share, quantity=min(share.quantity, most), reduces=True)
