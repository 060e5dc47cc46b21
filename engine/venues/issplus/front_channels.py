"""Decides. What the ISS+ front tells of each destination: rows, what of them changed, and the packets they go in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from engine.venues.issplus.front_market import MINUTE_MS, Row, Ticker, stamp
from engine.venues.issplus.front_rules import LISTINGS, Rules, Turned

if TYPE_CHECKING:
    from engine.venues.issplus.front import IssFront

_TERM = re.compile(r'([A-Za-z]+)="([^"]*)"')
_MINUTES = {"M1": 1, "M10": 10, "H1": 60, "D1": 1440, "W1": 10_080, "m1": 43_200, "m3": 129_600, "Q1": 129_600}
_KEYS = {"securities": "TICKER", "candles": "FROM", "news": "ID"}
_KNOWN = {
    "securities": {"ticker", "language"},
    "orderbooks": {"ticker", "language"},
    "candles": {"ticker", "language", "interval", "quantity", "till"},
}
_FIXED = {"VALUE": 2}

Change = tuple[str, list[str], list[list[Any]]]
"""Type, columns, rows; Decimals are still plain."""


class Feed:
    """One subscription, and what it was told last."""

    def __init__(self, asked_as: str, destination: str, selector: str, ticker: Ticker | None) -> None:
        self.asked_as, self.destination, self.selector, self.ticker = asked_as, destination, selector, ticker
        self.kind = destination.partition(".")[2]
        self.terms = _terms(selector)
        self.number = 0
        self.delay_ms = 0
        self._told: dict[Any, Row] | None = None
        self._version = -1

    def restart(self) -> None:
        self._told = None

    def changes(self, front: IssFront, now_ms: int) -> Iterator[Change]:
        before, ticker = self._told, self.ticker
        if before is not None and ticker is not None and not self.delay_ms and ticker.version == self._version:
            return
        self._version = ticker.version if ticker is not None else 0
        rows = self._rows(front, now_ms)
        key = _KEYS.get(self.kind)
        keyed = {row[key] if key else number: row for number, row in enumerate(rows)}
        if self.kind == "candles" and before is not None:
            keyed = before | keyed  # those that have ended do not change
        self._told = keyed
        if before is None or (key is None and before != keyed):
            yield "snapshot", list(rows[0]) if rows else _COLUMNS[self.kind], [list(row.values()) for row in rows]
            return
        if key is None:
            return
        if removed := [old for k, old in before.items() if k not in keyed]:
            columns = list(removed[0]) if front.rules.removal_whole_rows else [key]
            yield "removal", columns, [[old[column] for column in columns] for old in removed]
        for k, row in ((k, row) for k, row in keyed.items() if row is not before.get(k)):
            old = before.get(k, {})
            changed = [column for column, value in row.items() if column == key or old.get(column, ...) != value]
            if len(changed) > 1:
                yield "updates", changed, [[row[column] for column in changed]]

    def _rows(self, front: IssFront, now_ms: int) -> list[Row]:
        if self.kind == "news":
            return list(front.news)
        assert self.ticker is not None, "everything else is about a ticker"
        if self.kind == "securities":
            return [self.ticker.row_at(now_ms - self.delay_ms, now_ms)]
        if self.kind == "orderbooks":
            return self.ticker.book_rows()
        minutes, most = _MINUTES[self.terms.get("interval", "M1")], int(self.terms.get("quantity", "256"))
        if self._told is not None:
            most = 2
        return [
            {
                "FROM": stamp(bar.begin_ms),
                "TILL": stamp(bar.begin_ms + minutes * MINUTE_MS - 1000),
                "OPEN": bar.open,
                "HIGH": bar.high,
                "LOW": bar.low,
                "CLOSE": bar.close,
                "VALUE": bar.value,
                "VOLUME": bar.volume,
            }
            for bar in self.ticker.candles(minutes, now_ms, most)
        ]


_COLUMNS = {"orderbooks": ["BUYSELL", "PRICE", "QUANTITY"], "news": ["ID", "CAPTION", "SHORTCUT", "PUBLIC_TIME"]}


def feed_of(asked_as: str, destination: str, selector: str, tickers: Mapping[str, Ticker]) -> Feed:
    """Raises Turned for what there is not, and for what cannot be understood."""
    market, _, kind = destination.partition(".")
    if destination == "COMMON.news":
        return Feed(asked_as, destination, selector, None)
    if kind not in _KNOWN or (kind == "orderbooks" and market == "FORTS"):
        raise Turned("gateway.invalidrequest")
    terms = _terms(selector)
    ticker = tickers.get(terms.get("ticker", ""))
    wrong = (
        ticker is None
        or ticker.listing.marketplace != market
        or not set(terms) <= _KNOWN[kind]
        or terms.get("interval", "M1") not in _MINUTES
        or not terms.get("quantity", "1").isdecimal()
    )
    if wrong:
        raise Turned("gateway.invalidrequest")
    return Feed(asked_as, destination, selector, ticker)


def reply_rows(destination: str, selector: str, tickers: Mapping[str, Ticker]) -> tuple[list[str], list[list[Any]]]:
    """The answer to a query; raises Turned."""
    terms = _terms(selector)
    match destination:
        case "SEARCH.ticker":
            pattern = terms.get("pattern", terms.get("ticker", "")).rstrip("*").upper()
            found = [x for x in LISTINGS if pattern in x.secid.upper() or pattern in x.caption.upper()]
            columns = ["ticker", "secid", "boardid", "marketplace", "shortname", "primary_boardid"]
            return columns, [[x.ticker, x.secid, x.board, x.marketplace, x.caption, x.board] for x in found]
        case "COMMON.boards":
            boards = dict.fromkeys((x.board, x.engine, x.market) for x in LISTINGS)
            columns = ["ID", "NAME", "CAPTION", "ENGINEID", "MARKETID", "IS_TRADED", "IS_PRIMARY"]
            return columns, [[n, board, board, 1, n, True, True] for n, (board, _, _) in enumerate(boards, 1)]
        case "COMMON.engines":
            engines = dict.fromkeys(x.engine for x in LISTINGS)
            return ["ID", "NAME", "CAPTION"], [[n, name, name.title()] for n, name in enumerate(engines, 1)]
        case "COMMON.markets":
            markets = dict.fromkeys(x.market for x in LISTINGS)
            return ["ID", "NAME", "CAPTION", "ENGINEID"], [[n, name, name, 1] for n, name in enumerate(markets, 1)]
        case _:
            raise Turned("gateway.invalidrequest")


def packet(
    kind: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], number: int, now_ms: int, rules: Rules
) -> bytes:
    properties: dict[str, Any] = {"type": kind, "seqnum": number}
    if rules.timestamps != "none":
        properties["timestamp"] = {"s": now_ms // 1000, "us": now_ms * 1000}.get(rules.timestamps, now_ms)
    data = [[_cell(column, cell, rules) for column, cell in zip(columns, row, strict=True)] for row in rows]
    return _encode({"properties": properties, "columns": columns, "data": data})


_encode = msgspec.json.Encoder(decimal_format="number").encode


def _cell(column: str, cell: Any, rules: Rules) -> Any:
    if not isinstance(cell, Decimal) or rules.bare_numbers:
        return cell
    digits = _FIXED.get(column, max(0, -int(cell.normalize().as_tuple().exponent)) if cell else 0)
    return [cell, digits]


def _terms(selector: str) -> dict[str, str]:
    """Names are compared without their case. Raises Turned for what is no selector."""
    found = {name.lower(): value for name, value in _TERM.findall(selector)}
    left = _TERM.sub("", selector).split()
    if any(word != "and" for word in left) or (selector and len(left) != len(found) - 1):
        raise Turned("gateway.invalidrequest")
    return found
