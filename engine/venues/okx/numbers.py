"""Decides. OKX's numbers are texts: "" means unknown and never zero. OKX dossier §3.

What is no finite number of a sane size is refused here, so that a NaN or an endless exponent in one frame cannot
reach a book or a database.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

_ZERO = Decimal(0)
_LONGEST = 64  # characters; the longest honest number has about 30
_LARGEST = 40  # decimal exponent
_END_MS = 10_000_000_000_000  # the year 2286


def number(text: str) -> Decimal:
    """Raises ValueError for everything that is not a finite number, "" among it."""
    if text == "0":  # the most frequent one
        return _ZERO
    try:
        value = Decimal(text) if len(text) <= _LONGEST else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or not -_LARGEST < value.adjusted() < _LARGEST:
        raise ValueError(f"no number: {text[:_LONGEST]!r}")
    return value


def optional(text: str) -> Decimal | None:
    """A number, or None for ""."""
    return number(text) if text else None


def moment(text: str) -> int:
    """Milliseconds since 1970."""
    value = int(text) if len(text) <= _LONGEST else -1
    if not 0 <= value < _END_MS:
        raise ValueError(f"no moment: {text[:_LONGEST]!r}")
    return value


def plain(value: Decimal) -> str:
    """A number as OKX reads it: never an exponent."""
    return format(value, "f")
