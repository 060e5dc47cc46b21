"""Decides. T-Invest's numbers: money in two signed parts, 64-bit integers as texts, times of any fraction. Dossier §1.

The real proxies emit defaults, leave them out or write null, so all of these are read alike (§1.3). What is no number
of a sane size is refused here, so that it cannot reach a book.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

import msgspec

ZERO = Decimal(0)
NANO = 1_000_000_000
_INT = re.compile(r"-?[0-9]{1,19}")
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,12}))?(Z|[+-]00:00)")
_EXACT = Decimal("0.000000001")

Int64 = int | str | None
Enum = str | int | None  # a number is a value that the server's own schema lacks
Time = str | None

UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, RecursionError)
"""What reading something strange may raise."""


class Money(msgspec.Struct, gc=False):
    """MoneyValue and Quotation: the second has no currency."""

    units: Int64 = None
    nano: int | None = None
    currency: str | None = None


def integer(value: Int64) -> int:
    """Absent, null, "" and 0 are all 0 (§1.3)."""
    if not value:
        return 0
    if isinstance(value, str):
        if not _INT.fullmatch(value):
            raise ValueError(f"no integer: {value[:64]!r}")
        value = int(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError("no 64-bit integer")
    return value


def number(money: Money | None) -> Decimal:
    """Units and billionths; both carry the sign, so -0.01 is zero units and a negative nano (§1.4)."""
    if money is None:
        return ZERO
    units, nano = integer(money.units), money.nano or 0
    if not -NANO < nano < NANO:
        raise ValueError(f"no nano: {nano}")
    if (units > 0 > nano) or (units < 0 < nano):
        raise ValueError(f"mixed signs: {units} and {nano}")
    return Decimal(units) if not nano else units + (nano * _EXACT).normalize()


def optional(money: Money | None) -> Decimal | None:
    """A price; zero is none."""
    return number(money) or None


def parts(value: Decimal) -> dict[str, object]:
    """A number as it is sent. ValueError for more than nine decimals: nothing is rounded silently."""
    if not value.is_finite() or abs(value) >= 2**63:
        raise ValueError(f"{value} is no number for T-Invest")
    whole = int(value)  # towards zero: never floor
    nano = (value - whole) * NANO
    if nano != int(nano):
        raise ValueError(f"{value} has more than nine decimals")
    return {"units": str(whole), "nano": int(nano)}


@lru_cache(maxsize=64)
def _day_s(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def moment(text: Time) -> int | None:
    """Milliseconds since 1970; None for what is not set: absent, null, "", the epoch, the year 1 (§3.1, §4.2)."""
    if not text:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"no time: {text[:64]!r}")
    day, hours, minutes, seconds, fraction, _ = match.groups()
    at_s = _day_s(day) + int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    if at_s <= 0:
        return None
    return at_s * 1000 + (int(fraction[:3].ljust(3, "0")) if fraction else 0)


def instant(milliseconds: int) -> str:
    """A time as it is sent."""
    at = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def word(value: Enum, prefix: str) -> str:
    """`ORDER_TYPE_LIMIT` -> `limit`; what we do not know is kept as it is, in small letters."""
    text = "" if value is None else str(value)
    return text.removeprefix(prefix).lower()


def key_of(client_order_id: str) -> str:
    """The idempotency key: a UUID with its dashes (§5.1). ValueError for what is none."""
    return str(UUID(client_order_id))
