"""Holds. Who is under management: accounts, connections, groups, weights and mandates, as frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from typing import Any, final

import msgspec


@final
class Secret:
    """A value that must not be seen: its repr, str and JSON are `***`; `reveal()` is the only way in."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        raise TypeError("a Secret is never pickled")


Credentials = dict[str, Secret]
"""The venue's own field names (OKX: api_key, secret, passphrase) and their values."""


class AccountState(StrEnum):
    ACTIVE = "active"  # connected, takes part in plans
    PAUSED = "paused"  # stays known, its connections are closed, no new orders
    CLOSED = "closed"  # no longer under management; its history stays


class Trading(StrEnum):
    """What an active account's orders may do."""

    ACTIVE = "active"  # open and close
    REDUCING = "reducing"  # only make positions smaller
    HALTED = "halted"  # nothing


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One login at one venue."""

    account_id: str  # ours, unique, never changes: a-z, 0-9, '-', at most 32
    name: str  # for people; may change
    venue: str
    site: str  # which of the venue's sites the login was made on ("global", "eea", …)
    environment: str  # "prod" or "demo"
    state: AccountState = AccountState.ACTIVE
    trading: Trading = Trading.ACTIVE
    venue_ref: str = ""  # the venue's own name of the account (OKX: uid), "" until it is known
    version: int = 1  # grows with each recorded change


class Listener(StrEnum):
    """Whose connection it is."""

    ACCOUNT = "account"
    VENUE = "venue"  # a shared feed: one connection for all accounts


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the connection register."""

    connection_key: str  # ours, unique, assigned when made: names the connection in every log line
    client_key: str  # ours, unique per (listener, endpoint kind): names the client that uses it
    listener: Listener
    listener_id: str  # an account_id, or a venue's name
    venue: str
    site: str = ""  # tells shared feeds of one venue apart, when it has several sites
    environment: str
    kind: str  # endpoint kind, as the venue names it: "private", "public", "business", "rest"
    url: str
    requires_auth: bool
    keep_alive: bool  # false: temporary, the pulse leaves it alone
    channels: tuple[str, ...] = ()


class Weight(msgspec.Struct, frozen=True):
    account_id: str
    weight: Decimal  # its meaning belongs to the allocation method: parts, units or per cent


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts that trade together."""

    group_id: str
    name: str
    weights: tuple[Weight, ...] = ()


class Mandate(msgspec.Struct, frozen=True, kw_only=True):
    """What an account may do, or each account of a group. None means no limit of that kind; amounts are in the quote
    currency."""

    account_id: str = ""  # "" for that of a group
    group_id: str = ""
    max_order_notional: Decimal | None = None
    max_plan_notional: Decimal | None = None
    max_day_notional: Decimal | None = None  # of all orders of a day, in UTC
    max_instrument_notional: Decimal | None = None  # of the position in one instrument
    max_daily_loss: Decimal | None = None  # having lost so much since the day began, it may only reduce
    allowed_instruments: tuple[str, ...] = ()  # empty: all
    do_not_trade: tuple[str, ...] = ()


MANDATE_LIMITS = (
    "max_order_notional",
    "max_plan_notional",
    "max_day_notional",
    "max_instrument_notional",
    "max_daily_loss",
)


def tightest(mandates: Iterable[Mandate]) -> Mandate | None:
    """What all of them allow together; None where there is none."""
    found: Mandate | None = None
    for one in mandates:
        if found is None:
            found = one
            continue
        limits = {
            name: min((n for n in (getattr(found, name), getattr(one, name)) if n is not None), default=None)
            for name in MANDATE_LIMITS
        }
        allowed, further = found.allowed_instruments, one.allowed_instruments
        both = tuple(sorted(set(allowed) & set(further))) if allowed and further else allowed or further
        if allowed and further and not both:
            both = (NOTHING_ALLOWED,)
        banned = tuple(sorted({*found.do_not_trade, *one.do_not_trade}))
        found = msgspec.structs.replace(found, **limits, allowed_instruments=both, do_not_trade=banned)
    return found


NOTHING_ALLOWED = "-"
"""No instrument has this name: an empty list would allow all."""


class ModelLine(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of a model portfolio. Both numbers are in per cent of an account's net asset value."""

    instrument: str
    weight: Decimal
    band: Decimal = Decimal(0)  # so many percentage points off are left alone


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What accounts ought to hold. The lines and the cash come to exactly 100 per cent."""

    model_id: str
    name: str
    cash: Decimal  # the cash line, in per cent
    lines: tuple[ModelLine, ...] = ()


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the running engine last wrote about one connection; None: never happened."""

    connection_key: str
    phase: str
    opened_at_ms: int | None = None
    last_heard_at_ms: int | None = None
    last_pong_at_ms: int | None = None
    attempts: int = 0
    last_error: str = ""
    updated_at_ms: int = 0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded edit. Of credentials only field names and the key id are recorded, never a value."""

    change_id: int
    at_ms: int
    by: str
    why: str
    kind: str  # "account", "connection", "credentials", "mandate", "group", "model", "vault"
    subject_id: str  # an account_id, connection_key, group_id or model_id; "" for the vault
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
