"""Decides. What a manager asked for -> a plan in DRAFT, or everything that is wrong with it at once.

A draft is checked here for what can be known without the market: words that fit together, members that exist, numbers
that are numbers. Sizes, prices and money are the preview's matter.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from accounts.model import Group, Weight
from engine.core.limits import Rules, plain
from engine.core.orders import OrderType
from engine.core.plans import Leg, Method, Plan

_MOST_LEGS = 50
_MOST_MINUTES = 7 * 24 * 60
_BEFORE, _AFTER = 15, 12  # digits round the point: more is a slip of the hand, and 28 are what Decimal divides with


class PlanRefused(Exception):
    """The step was not taken and nothing was changed; the sentences say everything that stands against it."""

    def __init__(self, *complaints: str) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a manager asks for. Members are the groups' accounts and those named one by one."""

    title: str = ""
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    legs: tuple[Leg, ...]
    expires_minutes: int | None = None
    max_drift_percent: Decimal | None = None
    by: str = ""


def read_draft(value: Any) -> Draft:
    """A draft from decoded JSON or TOML. Raises PlanRefused that names the field."""
    try:
        return msgspec.convert(value, Draft, strict=False)
    except msgspec.ValidationError as error:
        raise PlanRefused(str(error)) from None


def read_plan_file(text: str) -> dict[str, Any]:
    """A plan written as TOML: the draft's fields, and a table [[legs]] for each leg. Numbers stay exact."""
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PlanRefused(f"it is not TOML: {error}") from None


def drafted(
    draft: Draft,
    group: Callable[[str], Group | None],
    known: Callable[[str], bool],
    rules: Rules,
    *,
    plan_id: str,
    now_ms: int,
    rotation_seed: int,
) -> Plan:
    """The plan in DRAFT. `known` tells whether an account is under management. Raises PlanRefused."""
    complaints = list[str]()
    if not draft.by:
        complaints.append("it does not say who plans it")
    minutes = draft.expires_minutes
    if minutes is not None and not 1 <= minutes <= _MOST_MINUTES:
        complaints.append(f"it must expire within 1 to {_MOST_MINUTES} minutes, not {minutes}")
    drift = draft.max_drift_percent
    if drift is not None and not 0 < drift <= rules.max_drift_percent:
        limit = plain(rules.max_drift_percent)
        complaints.append(f"its price drift must be above 0 and at most {limit} %, the office's limit, not {drift} %")
    if not 1 <= len(draft.legs) <= _MOST_LEGS:
        complaints.append(f"it has {len(draft.legs)} legs; a plan has 1 to {_MOST_LEGS}")
    weights = dict[str, Weight]()
    try:
        weights = members(draft.groups, draft.accounts, group, known)
    except PlanRefused as refused:
        complaints += refused.complaints
    instruments = [leg.instrument for leg in draft.legs]
    for name in sorted({name for name in instruments if instruments.count(name) > 1}):
        complaints.append(f"{name} is in it {instruments.count(name)} times; a plan has one leg an instrument")
    for number, leg in enumerate(draft.legs, start=1):
        prefix = f"leg {number}: " if len(draft.legs) > 1 else ""
        complaints += [prefix + complaint for complaint in _leg_complaints(leg)]
        if weights and (strangers := sorted(leg.units.keys() - weights.keys())):
            complaints.append(f"{prefix}units are given for {', '.join(strangers)}, no member of the plan")
    if complaints:
        raise PlanRefused(*complaints)
    return Plan(
        plan_id=plan_id,
        title=draft.title.strip(),
        groups=draft.groups,
        accounts=draft.accounts,
        legs=draft.legs,
        created_at_ms=now_ms,
        created_by=draft.by,
        expires_at_ms=now_ms + (minutes * 60_000 if minutes is not None else rules.expiry_ms),
        max_drift_percent=drift if drift is not None else rules.max_drift_percent,
        rotation_seed=rotation_seed,
        attempts=rules.attempts,
    )


def members(
    groups: tuple[str, ...],
    accounts: tuple[str, ...],
    group: Callable[[str], Group | None],
    known: Callable[[str], bool],
) -> dict[str, Weight]:
    """Every member once, by account id, with its weight of the group (0 for one named by itself).

    An account that comes in twice is refused, not counted once: two groups with the same client in them are more
    often a mistake than a wish. Raises PlanRefused.
    """
    found, complaints = dict[str, Weight](), list[str]()
    came_by = dict[str, str]()

    def join(weight: Weight, way: str) -> None:
        account_id = weight.account_id
        if account_id in found:
            complaints.append(f"account {account_id} is in the plan twice: {came_by[account_id]} and {way}")
        elif not known(account_id):
            complaints.append(f"there is no account {account_id} under management ({way})")
        found[account_id], came_by[account_id] = weight, way

    for group_id in groups:
        if (one := group(group_id)) is None:
            complaints.append(f"there is no group {group_id}")
            continue
        if not one.weights:
            complaints.append(f"group {group_id} has no accounts")
        for weight in one.weights:
            join(weight, f"by group {group_id}")
    for account_id in accounts:
        join(Weight(account_id, Decimal(0)), "by name")
    if not groups and not accounts:
        complaints.append("it names no group and no account")
    if complaints:
        raise PlanRefused(*complaints)
    return dict(sorted(found.items()))


# What each method is given, and what it must not be given: (field, needed)
_GIVEN: dict[Method, frozenset[str]] = {
    Method.EQUAL: frozenset({"quantity", "side"}),
    Method.PERCENT: frozenset({"quantity", "side"}),
    Method.UNITS: frozenset({"units", "side"}),
    Method.NAV_PERCENT: frozenset({"percent", "side"}),
    Method.CHANGE: frozenset({"percent"}),
}
_MAY: dict[Method, frozenset[str]] = {Method.UNITS: frozenset({"quantity"})}


def _leg_complaints(leg: Leg) -> Iterator[str]:
    method = leg.method.value
    given = {
        "side": leg.side is not None,
        "quantity": leg.quantity is not None,
        "percent": leg.percent is not None,
        "units": bool(leg.units),
    }
    needed = _GIVEN[leg.method]
    for field, is_given in given.items():
        if field in needed and not is_given:
            yield f"method {method} needs {field}"
        elif is_given and field not in needed | _MAY.get(leg.method, frozenset()):
            yield f"method {method} takes no {field}"
    if not leg.instrument:
        yield "it names no instrument"
    if leg.order_type is OrderType.MARKET and leg.price is not None:
        yield "a market order takes no price"
    if leg.order_type is not OrderType.MARKET and leg.price is None:
        yield f"a {leg.order_type.value} order needs a price"
    if leg.price is not None:
        yield from _positive("price", leg.price)
    if leg.quantity is not None:
        yield from _positive("quantity", leg.quantity)
    for account_id, units in leg.units.items():
        yield from _positive(f"units of {account_id}", units)
    if leg.percent is not None:
        if leg.method is Method.CHANGE and leg.percent.is_finite() and leg.percent < 0:
            if leg.percent < -100:
                yield f"a change of {plain(leg.percent)} % would go past flat; -100 closes"
        else:
            yield from _positive("percent", leg.percent)


def _positive(name: str, number: Decimal) -> Iterator[str]:
    """Nothing when it is an ordinary number above zero."""
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        yield f"{name} is {number}, no number"
    elif number <= 0:
        yield f"{name} must be above 0, not {plain(number)}"
    elif number.adjusted() >= _BEFORE or exponent < -_AFTER:
        yield f"{name} {number} has more than {_BEFORE} digits before the point or {_AFTER} after it"
