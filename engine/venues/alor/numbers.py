"""Decides. ALOR's numbers, times and ids, checked at the edge. ALOR dossier §4.5, §5.6, §6.3.

Numbers are JSON numbers and become Decimal without a float between; a NaN or an endless exponent stops here. Times
are ISO texts in UTC, with or without their `Z`. Ids are texts, and numbers where the server forgot: those of the
derivatives market do not fit into a float.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from functools import lru_cache

ZERO = Decimal(0)

_LARGEST = 40  # decimal exponent
_END_MS = 10_000_000_000_000  # the year 2286
_EPOCH = date(1970, 1, 1).toordinal()
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|\+00:00)?")
_ID = re.compile(r"[0-9A-Za-z_.-]{1,40}")

Ident = str | int


def number(value: Decimal) -> Decimal:
    """Raises ValueError for what is not a finite number of a sane size."""
    if not value.is_finite() or not -_LARGEST < value.adjusted() < _LARGEST:
        raise ValueError(f"no number: {str(value)[:64]!r}")
    return value


def optional(value: Decimal | None) -> Decimal | None:
    return None if value is None else number(value)


def ident(value: Ident) -> str:
    text = value if isinstance(value, str) else str(value)
    if not _ID.fullmatch(text):
        raise ValueError(f"no id: {text[:64]!r}")
    return text


def moment(text: str) -> int:
    """Milliseconds since 1970. What lies behind the milliseconds is cut off."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"no moment: {text[:64]!r}")
    day, hour, minute, second, fraction = match.groups()
    hours, minutes, seconds = int(hour), int(minute), int(second)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError(f"no moment: {text[:64]!r}")
    ms = int((fraction or "")[:3].ljust(3, "0"))
    return check_ms(((_days(day) * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1000 + ms)


def check_ms(value: int) -> int:
    if not 0 <= value < _END_MS:
        raise ValueError(f"no moment: {value}")
    return value


@lru_cache(maxsize=1024)
def _days(day: str) -> int:
    return date.fromisoformat(day).toordinal() - _EPOCH


def year_of(at_ms: int) -> int:
    return date.fromordinal(_EPOCH + at_ms // 86_400_000).year


def iso(at_ms: int) -> str:
    """A moment as ALOR writes it."""
    days, ms = divmod(at_ms, 86_400_000)
    seconds, ms = divmod(ms, 1000)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{date.fromordinal(_EPOCH + days).isoformat()}T{clock}.{ms:03d}0000Z"


def whole(value: Decimal, what: str) -> int:
    """A quantity as ALOR takes it: whole lots."""
    count = int(value)
    if count != value or count <= 0:
        raise ValueError(f"{what} is counted in whole lots, not {value}")
    return count
