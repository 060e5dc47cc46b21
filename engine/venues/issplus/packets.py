"""Decides. The JSON inside a frame: packets of rows, their cells, and Moscow's time. ISS+ dossier §7.

A decimal travels as [number, digits]; which columns a packet has changes from one to the next.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec

MOSCOW = timezone(timedelta(hours=3))
_DAY_MS = 86_400_000
_END_MS = 10_000_000_000_000  # the year 2286
_AHEAD_MS = 600_000  # so far may the exchange's clock be before the packet's
_LARGEST = 40  # decimal exponent
_DIGITS = 20

Cell = Decimal | str | bool | None

UNREADABLE = (ValueError, ArithmeticError, msgspec.MsgspecError, RecursionError)
"""What reading a packet may raise; ValueError covers UnicodeDecodeError."""


class _Properties(msgspec.Struct, gc=False):
    type: str = ""
    seqnum: int | None = None
    timestamp: int | Decimal | None = None


class _Packet(msgspec.Struct, gc=False):
    columns: list[str]
    data: list[list[Any]]
    properties: _Properties | None = None


class Packet(msgspec.Struct, frozen=True, gc=False):
    """`kind`: snapshot, updates or removal; "" for an answer to a query, which needs none."""

    kind: str
    seqnum: int | None
    at_ms: int | None  # when it was made, as it says itself
    columns: tuple[str, ...]
    rows: list[dict[str, Cell]]


_decode = msgspec.json.Decoder(_Packet, float_hook=Decimal).decode


def packet(body: bytes) -> Packet:
    """Raises one of UNREADABLE."""
    read = _decode(body)
    columns = tuple(read.columns)
    if len(set(columns)) != len(columns):
        raise ValueError("two columns of one name")
    rows = [dict(zip(columns, map(cell, row), strict=True)) for row in read.data]
    told = read.properties or _Properties()
    return Packet(told.type, told.seqnum, None if told.timestamp is None else _epoch_ms(told.timestamp), columns, rows)


def cell(value: Any) -> Cell:
    """ValueError and ArithmeticError for what is none."""
    match value:
        case None | str() | bool():
            return value
        case int() | Decimal():
            return _number(value)
        case [None] | [None, _]:
            return None
        case [number] if not isinstance(number, list):
            return cell(number)
        case [int() | Decimal() | str() as number, int() as digits] if 0 <= digits <= _DIGITS:
            return _number(number).quantize(Decimal(1).scaleb(-digits))
        case _:
            raise ValueError(f"no cell: {str(value)[:40]}")


def number(told: Any) -> Decimal:
    """ValueError and ArithmeticError for what is none."""
    read = cell(told)
    if not isinstance(read, Decimal):
        raise ValueError(f"no number: {str(told)[:40]}")
    return read


def _number(value: int | str | Decimal) -> Decimal:
    if isinstance(value, str) and len(value) > 64:
        raise ValueError("a number that long is none")
    number = Decimal(value)
    if not number.is_finite() or not -_LARGEST < number.adjusted() < _LARGEST:
        raise ValueError("no number of a sane size")
    return number


def price(told: Any) -> Decimal | None:
    """A price that can be dealt at; 0, nothing and what is no number are none."""
    try:
        number = _number(told) if isinstance(told, str) else cell(told)
    except UNREADABLE:
        return None
    return number if isinstance(number, Decimal) and number > 0 else None


def _epoch_ms(stamp: int | Decimal) -> int:
    """The unit is not documented: seconds, milliseconds or microseconds, told apart by their size."""
    number = _number(stamp)
    for factor in (1000, 1, Decimal("0.001")):
        at_ms = int(number * factor)
        if _END_MS // 100 <= at_ms < _END_MS:
            return at_ms
    raise ValueError(f"no moment: {stamp}")


def moment_ms(text: Cell) -> int:
    """`2026-01-22 10:00:00` or `2026-01-22`, Moscow's time. ValueError for anything else."""
    if not isinstance(text, str) or not text.isascii() or len(text) not in (10, 19):
        raise ValueError(f"no moment: {str(text)[:40]}")
    at = datetime.fromisoformat(text)
    if at.tzinfo is not None or at.year < 1980:
        raise ValueError(f"no moment of Moscow's: {text}")
    return round(at.replace(tzinfo=MOSCOW).timestamp() * 1000)


def time_of_day_ms(text: Cell, by_ms: int) -> int | None:
    """`10:15:00`, Moscow's time: the last time that it was so late, seen from `by_ms`; None for no time."""
    if not isinstance(text, str) or len(text) != 8 or text.count(":") != 2:
        return None
    try:
        hours, minutes, seconds = (int(part) for part in text.split(":"))
    except ValueError:
        return None
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 60):
        return None
    at_ms = midnight_ms(by_ms) + ((hours * 60 + minutes) * 60 + seconds) * 1000
    return at_ms if at_ms <= by_ms + _AHEAD_MS else at_ms - _DAY_MS


def midnight_ms(at_ms: int) -> int:
    """When the day in Moscow began."""
    return at_ms - (at_ms + 3 * 3_600_000) % _DAY_MS


def moscow(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).astimezone(MOSCOW)
