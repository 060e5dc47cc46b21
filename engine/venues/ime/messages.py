"""Decides. One message, or one entry of an overview: the whole of a contract at an instant, in our words. IME §7.

There are no deltas and no numbers: the newest message is complete. 0 is an empty side, never a price; a section that
is missing says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import MarkFact

IME = "IME"
TEHRAN = timezone(timedelta(hours=3, minutes=30))
_TEHRAN_MS, _DAY_MS = 12_600_000, 86_400_000
_ZONES = {"auto": None, "tehran": TEHRAN, "utc": UTC}
_NEAR_US = 120_000_000  # a message is that fresh when it teaches the zone
_END_US = 10_000_000_000_000_000
_LARGEST = 40
_NAME = re.compile(r"[^\s/:|\x00-\x1f](?:[^/:|\x00-\x1f]{0,62}[^\s/:|\x00-\x1f])?")
_IDENTIFIERS = ("contractName", "ContractName", "contractId", "ContractId")

UNREADABLE = (ValueError, ArithmeticError, msgspec.MsgspecError, RecursionError)


class Level(msgspec.Struct, frozen=True, gc=False):
    bid: Decimal | None
    bid_quantity: Decimal
    ask: Decimal | None
    ask_quantity: Decimal


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A contract at an instant. None and empty: not told, or nothing there."""

    at_us: int
    levels: tuple[Level, ...] = ()  # the best first, at most three
    last: Decimal | None = None
    closing: Decimal | None = None
    previous_close: Decimal | None = None
    dealt_us: int | None = None  # the last deal, as far as that is told
    trades: Decimal | None = None
    volume: Decimal | None = None
    value: Decimal | None = None
    lowest_allowed: Decimal | None = None
    highest_allowed: Decimal | None = None
    open_interest: Decimal | None = None
    open_interest_change: Decimal | None = None

    def marks(self, name: str) -> Iterator[MarkFact]:
        at_ms = self.at_us // 1000
        dealt_ms = at_ms if self.dealt_us is None else min(at_ms, self.dealt_us // 1000)
        best = self.levels[0] if self.levels else None
        close = (self.closing, dealt_ms)
        if self.closing is None:
            close = (
                self.previous_close,
                min(dealt_ms, at_ms - (at_ms + _TEHRAN_MS) % _DAY_MS),
            )  # before this day began
        told = (
            ("last", self.last, dealt_ms),
            ("close", *close),
            ("bid", best.bid if best else None, at_ms),
            ("ask", best.ask if best else None, at_ms),
        )
        for basis, price, moment_ms in told:
            if price is not None:
                yield MarkFact(instrument=name, price=price, basis=basis, at_ms=moment_ms, market=IME)


class Zone:
    """Which zone the server's times are in: nobody says so, not even where a Z stands behind them.

    `auto` learns it from the first message that is fresh in one of the two. Until then it is Tehran: the earlier of
    both, so that nothing passes for newer than it is.
    """

    def __init__(self, setting: str) -> None:
        if setting not in _ZONES:
            raise ValueError(f"option zone is one of {', '.join(_ZONES)}, not {setting!r}")
        self.known = _ZONES[setting]

    def learn(self, text: object, now_ms: int) -> None:
        if self.known is not None:
            return
        for zone in (TEHRAN, UTC):
            if abs(_micros(text, zone) - now_ms * 1000) <= _NEAR_US:
                self.known = zone
                return

    def us(self, text: object) -> int:
        """Microseconds since 1970. ValueError for what is no time."""
        return _micros(text, self.known or TEHRAN)


def _micros(text: object, zone: timezone) -> int:
    if not isinstance(text, str) or not text.isascii() or not 10 < len(text) <= 40:
        raise ValueError(f"no time: {str(text)[:40]!r}")
    at = datetime.fromisoformat(text.removesuffix("Z"))
    at = at.replace(tzinfo=zone) if at.tzinfo is None else at
    if not 1990 <= at.year < 2280:
        raise ValueError(f"no time of ours: {text}")
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


def identifier(message: Mapping[str, Any]) -> str:
    """Of which contract: each source spells the member in its own way (§2). Ids are texts. ValueError for none."""
    for member in _IDENTIFIERS:
        told = message.get(member)
        if isinstance(told, str) and told:
            return told
    raise ValueError("a message of no contract")


def snapshot(told: Mapping[str, Any], at_us: int, zone: Zone) -> Snapshot:
    """Raises one of UNREADABLE for what is of a wrong kind; what is missing is no fault."""
    aggregate, allowed = _section(told, "Aggregate"), _section(told, "AllowedPriceRange")
    contract, levels = _section(told, "ContractInfo"), _section(told, "BestLimit")
    dealt_us = None
    if aggregate.get("date") and aggregate.get("time"):
        dealt_us = zone.us(f"{aggregate['date']}T{aggregate['time']}")
    return Snapshot(
        at_us=at_us,
        levels=tuple(_level(levels[key]) for key in ("1", "2", "3") if levels.get(key) is not None),
        last=_price(aggregate.get("last_price")),
        closing=_price(aggregate.get("closing_price")),
        previous_close=_price(aggregate.get("previous_close")),
        dealt_us=dealt_us,
        trades=_number(aggregate.get("trade_count")),
        volume=_number(aggregate.get("total_volume")),
        value=_number(aggregate.get("total_value")),
        lowest_allowed=_price(allowed.get("minAllowedPrice")),
        highest_allowed=_price(allowed.get("maxAllowedPrice")),
        open_interest=_number(contract.get("open_interest")),
        open_interest_change=_number(contract.get("open_interest_changes")),
    )


def _section(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = told.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{name} is no section")
    return section


def _level(told: Any) -> Level:
    if not isinstance(told, dict):
        raise ValueError("a level is no object")
    return Level(
        _price(told.get("buy_price")),
        _number(told.get("buy_quantity")) or Decimal(0),
        _price(told.get("sell_price")),
        _number(told.get("sell_quantity")) or Decimal(0),
    )


def _number(told: Any) -> Decimal | None:
    if told is None:
        return None
    if (
        isinstance(told, bool)
        or not isinstance(told, int | Decimal | str)
        or (isinstance(told, str) and len(told) > 64)
    ):
        raise ValueError(f"no number: {str(told)[:40]!r}")
    number = Decimal(told)
    if not number.is_finite() or not -_LARGEST < number.adjusted() < _LARGEST:
        raise ValueError("no number of a sane size")
    return number


def _price(told: Any) -> Decimal | None:
    number = _number(told)
    return number if number is not None and number > 0 else None


number = _number


def spelt(contract: str, *, derivative: bool = False) -> str:
    """Our name of a contract: futures and options are settled in rials, certificates are had like a paper.

    ValueError for what can be no name.
    """
    if not _NAME.fullmatch(contract) or not contract.isprintable():
        raise ValueError(f"no name of a contract: {contract[:40]!r}")
    return f"{contract}/IRR:IRR" if derivative else f"{contract}/IRR"
