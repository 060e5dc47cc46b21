"""Decides. What a manager asked for -> a plan in DRAFT, or everything that is wrong with it at once.

A draft is checked here for what can be known without the market: words that fit together, members that exist, numbers
that are numbers. Sizes, prices and money are the preview's matter.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

import msgspec

from accounts.model import Group, Weight
from engine.core.limits import Rules, plain
from engine.core.orders import OrderType
from engine.core.plans import BelowMinimum, Cannot, Leg, Method, Offline, Plan

T = TypeVar("T")

_MOST_LEGS = 50
_MOST_MINUTES = 7 * 24 * 60
_MINUTE_MS = 60_000
_SELLS_WAIT_MINUTES = 5
_BEFORE, _AFTER = 15, 12  # digits round the point: more is a slip of the hand, and 28 are what Decimal divides with


class PlanRefused(Exception):
    """The step was not taken and nothing was changed; the sentences say everything that stands against it."""

    def __init__(self, *complaints: str) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a manager asks for. Members are the groups' accounts and those named one by one; a leg may have its own."""

    title: str = ""
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    legs: tuple[Leg, ...]
    expires_minutes: int | None = None
    max_drift_percent: Decimal | None = None
    below_minimum: BelowMinimum = BelowMinimum.SKIP
    cannot: Cannot = Cannot.DROP
    cap_notional: Decimal | None = None
    offline: Offline = Offline.SKIP
    queue_minutes: int | None = None
    sells_first: bool = False
    sells_wait_minutes: int | None = None
    abort_refused_percent: Decimal | None = None  # of all abort rules: else the office's
    abort_unknown: int | None = None
    abort_slippage_percent: Decimal | None = None
    abort_dispersion_percent: Decimal | None = None
    abort_after_s: int | None = None
    abort_cancels: bool | None = None
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
    complaints += _policy_complaints(draft, minutes, rules)
    try:
        of_legs = members(draft.groups, draft.accounts, draft.legs, group, known)
    except PlanRefused as refused:
        complaints += refused.complaints
        of_legs = [{} for _ in draft.legs]
    complaints += _twice(draft.legs, of_legs)
    for number, (leg, weights) in enumerate(zip(draft.legs, of_legs, strict=True), start=1):
        prefix = f"leg {number}: " if len(draft.legs) > 1 else ""
        complaints += [prefix + complaint for complaint in _leg_complaints(leg)]
        for what, told in (("units are", leg.units), ("amounts are", leg.amounts)):
            if weights and (strangers := sorted(told.keys() - weights.keys())):
                complaints.append(f"{prefix}{what} given for {', '.join(strangers)}, no member of the plan")
    if complaints:
        raise PlanRefused(*complaints)
    queue = draft.queue_minutes
    return Plan(
        plan_id=plan_id,
        title=draft.title.strip(),
        groups=draft.groups,
        accounts=draft.accounts,
        legs=draft.legs,
        created_at_ms=now_ms,
        created_by=draft.by,
        expires_at_ms=now_ms + (minutes * _MINUTE_MS if minutes is not None else rules.expiry_ms),
        max_drift_percent=drift if drift is not None else rules.max_drift_percent,
        rotation_seed=rotation_seed,
        below_minimum=draft.below_minimum,
        cannot=draft.cannot,
        cap_notional=draft.cap_notional,
        offline=draft.offline,
        queue_until_ms=now_ms + queue * _MINUTE_MS if queue is not None else None,
        sells_first=draft.sells_first,
        sells_wait_ms=(draft.sells_wait_minutes or _SELLS_WAIT_MINUTES) * _MINUTE_MS if draft.sells_first else 0,
        abort_refused_percent=_told(draft.abort_refused_percent, rules.abort_refused_percent),
        abort_unknown=_told(draft.abort_unknown, rules.abort_unknown),
        abort_slippage_percent=_told(draft.abort_slippage_percent, rules.abort_slippage_percent),
        abort_dispersion_percent=_told(draft.abort_dispersion_percent, rules.abort_dispersion_percent),
        abort_after_ms=draft.abort_after_s * 1000 if draft.abort_after_s is not None else rules.abort_after_ms,
        abort_cancels=draft.abort_cancels if draft.abort_cancels is not None else rules.abort_cancels,
        attempts=rules.attempts,
    )


def _told(own: T | None, office: T | None) -> T | None:
    return own if own is not None else office


def _policy_complaints(draft: Draft, minutes: int | None, rules: Rules) -> Iterator[str]:
    if draft.cap_notional is not None:
        yield from _positive("cap_notional", draft.cap_notional)
    queue, live_minutes = draft.queue_minutes, minutes if minutes is not None else rules.expiry_ms // _MINUTE_MS
    if draft.offline is Offline.QUEUE and queue is None:
        yield "offline queue needs queue_minutes: until when an order may wait for its account"
    elif draft.offline is not Offline.QUEUE and queue is not None:
        yield "queue_minutes needs offline queue"
    elif queue is not None and not 1 <= queue <= live_minutes:
        yield f"an order may wait for its account 1 to {live_minutes} minutes, while the plan lives, not {queue}"
    if (most := draft.abort_refused_percent) is not None and not 0 <= most < 100:
        yield f"abort_refused_percent must be at least 0 and below 100, not {most}"
    for name in ("abort_slippage_percent", "abort_dispersion_percent"):
        if (percent := getattr(draft, name)) is not None and not 0 < percent < 100:
            yield f"{name} must be above 0 and below 100, not {percent}"
    if draft.abort_unknown is not None and draft.abort_unknown < 0:
        yield f"abort_unknown must not be below 0, it is {draft.abort_unknown}"
    if draft.abort_after_s is not None and not 1 <= draft.abort_after_s <= _MOST_MINUTES * 60:
        yield f"abort_after_s must lie between 1 and {_MOST_MINUTES * 60}, not {draft.abort_after_s}"
    wait = draft.sells_wait_minutes
    if wait is not None and not draft.sells_first:
        yield "sells_wait_minutes needs sells_first"
    elif wait is not None and not 1 <= wait <= live_minutes:
        yield f"buys may wait for sells 1 to {live_minutes} minutes, while the plan lives, not {wait}"


def _twice(legs: Sequence[Leg], of_legs: Sequence[Mapping[str, Weight]]) -> Iterator[str]:
    """An instrument may be in several legs only where these are for different accounts."""
    for name in sorted({leg.instrument for leg in legs}):
        sharing = [weights for leg, weights in zip(legs, of_legs, strict=True) if leg.instrument == name]
        if len(sharing) > 1 and len({a for weights in sharing for a in weights}) < sum(map(len, sharing)):
            yield f"{name} is in it {len(sharing)} times for the same account; a plan has one leg an instrument"


def without_feeds(draft: Draft, feeds: Collection[str]) -> Draft:
    """The draft. Raises PlanRefused where it names a feed of prices."""
    named = {*draft.accounts, *(account_id for leg in draft.legs for account_id in leg.accounts)}
    if found := sorted(named.intersection(feeds)):
        raise PlanRefused(*(f"{one} is a feed of prices: it holds no money and takes no orders" for one in found))
    return draft


def members(
    groups: tuple[str, ...],
    accounts: tuple[str, ...],
    legs: Sequence[Leg],
    group: Callable[[str], Group | None],
    known: Callable[[str], bool],
) -> list[dict[str, Weight]]:
    """Of each leg its members by account id, with their weight of the group (0 for one named by itself).

    An account that comes in by two ways, in one leg or in two, is refused, not counted once: two groups with the
    same client in them are more often a mistake than a wish. Raises PlanRefused.
    """
    complaints = dict[str, None]()  # in order, each once
    came_by = dict[str, str]()

    def join(found: dict[str, Weight], weight: Weight, way: str) -> None:
        account_id = weight.account_id
        before = came_by.setdefault(account_id, way)
        if before != way or account_id in found:
            complaints[f"account {account_id} is in the plan twice: {before} and {way}"] = None
        elif not known(account_id):
            complaints[f"there is no account {account_id} under management ({way})"] = None
        found[account_id] = weight

    @cache
    def selected(groups: tuple[str, ...], accounts: tuple[str, ...]) -> dict[str, Weight]:
        found = dict[str, Weight]()
        for group_id in groups:
            if (one := group(group_id)) is None:
                complaints[f"there is no group {group_id}"] = None
                continue
            if not one.weights:
                complaints[f"group {group_id} has no accounts"] = None
            for weight in one.weights:
                join(found, weight, f"by group {group_id}")
        for account_id in accounts:
            join(found, Weight(account_id, Decimal(0)), "by name")
        return dict(sorted(found.items()))

    of_plan, of_legs = selected(groups, accounts), list[dict[str, Weight]]()
    for leg in legs:
        if leg.groups or leg.accounts:
            of_legs.append(selected(leg.groups, leg.accounts))
            continue
        if not groups and not accounts:
            complaints["it names no group and no account"] = None
        of_legs.append(of_plan)
    if complaints:
        raise PlanRefused(*complaints)
    return of_legs


# What each method is given: the fields it needs, and those it may have besides.
_SPLIT = frozenset({"side", "quantity"})
_NEEDS: dict[Method, frozenset[str]] = {
    Method.EQUAL: _SPLIT,
    Method.LEVEL: _SPLIT,
    Method.NAV: _SPLIT,
    Method.AVAILABLE: _SPLIT,
    Method.PERCENT: _SPLIT,
    Method.RATIO: _SPLIT,
    Method.UNITS: frozenset({"units", "side"}),
    Method.MONEY: frozenset({"side"}),  # and an amount: the same for all, or told per account
    Method.NAV_PERCENT: frozenset({"percent", "side"}),
    Method.CHANGE: frozenset({"percent"}),
    Method.TARGET: frozenset({"percent"}),
    Method.RISK: frozenset({"percent", "side", "stop_price"}),
}
_MAY: dict[Method, frozenset[str]] = {
    Method.UNITS: frozenset({"quantity"}),
    Method.MONEY: frozenset({"amount", "amounts"}),
    Method.TARGET: frozenset({"band"}),
}
_STOPS = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
_PRICELESS = frozenset({OrderType.MARKET, OrderType.STOP})
_SHOWN = frozenset({OrderType.LIMIT, OrderType.POST_ONLY})  # what can be an iceberg


def _leg_complaints(leg: Leg) -> Iterator[str]:
    method = leg.method.value
    numbers = {
        "quantity": leg.quantity,
        "percent": leg.percent,
        "amount": leg.amount,
        "band": leg.band,
        "stop_price": leg.stop_price,
    }
    told = {"units": leg.units, "amounts": leg.amounts}
    given = {
        "side": leg.side is not None,
        **{field: number is not None for field, number in numbers.items()},
        **{field: bool(by_account) for field, by_account in told.items()},
    }
    needed = _NEEDS[leg.method]
    for field, is_given in given.items():
        if field in needed and not is_given:
            yield f"method {method} needs {field}"
        elif is_given and field not in needed | _MAY.get(leg.method, frozenset()):
            yield f"method {method} takes no {field}"
    if leg.method is Method.MONEY and given["amount"] == given["amounts"]:
        yield "method money needs either amount or amounts"
    if leg.reduce_only and leg.method is Method.TARGET:
        yield "method target takes no reduce_only: the position decides"
    if not leg.instrument:
        yield "it names no instrument"
    yield from _order_complaints(leg)
    for field in ("quantity", "amount", "stop_price"):
        if (number := numbers[field]) is not None:
            yield from _positive(field, number)
    for field, by_account in told.items():
        for account_id, number in by_account.items():
            yield from _positive(f"{field} of {account_id}", number)
    if leg.band is not None and leg.band != 0:
        yield from _positive("band", leg.band)
    if leg.percent is not None:
        yield from _percent_complaints(leg, leg.percent)


def _order_complaints(leg: Leg) -> Iterator[str]:
    kind = leg.order_type.value.replace("_", "-")
    if leg.order_type in _PRICELESS and leg.price is not None:
        yield f"a {kind} order takes no price"
    if leg.order_type not in _PRICELESS and leg.price is None:
        yield f"a {kind} order needs a price"
    if leg.order_type in _STOPS and leg.trigger_price is None:
        yield f"a {kind} order needs a trigger_price"
    if leg.order_type not in _STOPS and leg.trigger_price is not None:
        yield f"a {kind} order takes no trigger_price"
    if leg.visible_quantity is not None and leg.order_type not in _SHOWN:
        yield f"a {kind} order takes no visible_quantity"
    for field, number in (
        ("price", leg.price),
        ("trigger_price", leg.trigger_price),
        ("visible_quantity", leg.visible_quantity),
    ):
        if number is not None:
            yield from _positive(field, number)


def _percent_complaints(leg: Leg, percent: Decimal) -> Iterator[str]:
    if leg.method is Method.CHANGE and percent.is_finite() and percent < 0:
        if percent < -100:
            yield f"a change of {plain(percent)} % would go past flat; -100 closes"
    elif leg.method is not Method.TARGET or percent != 0:
        yield from _positive("percent", percent)


def _positive(name: str, number: Decimal) -> Iterator[str]:
    """Nothing when it is an ordinary number above zero."""
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        yield f"{name} is {number}, no number"
    elif number <= 0:
        yield f"{name} must be above 0, not {plain(number)}"
    elif number.adjusted() >= _BEFORE or exponent < -_AFTER:
        yield f"{name} {number} has more than {_BEFORE} digits before the point or {_AFTER} after it"


def new_plan_id(now_ms: int, rng: random.Random) -> str:
    """The day and five letters, as in P20261121-7KQ3F: short enough to be said on the phone."""
    day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
    return f"P{day}-" + "".join(rng.choices("23456789ABCDEFGHJKLMNPQRSTUVWXYZ", k=5))
