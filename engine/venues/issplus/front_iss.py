"""Decides. ISS over HTTP from the other side: boards, prices, candles, order books; guests see all of it late.

ISS+ dossier §10. Whoever is not entitled gets a page to log in on, as a success.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from engine.core import spelling
from engine.core.venue import Call, Response
from engine.venues.issplus.front_market import MINUTE_MS, Row, Ticker, clock, stamp
from engine.venues.issplus.front_rules import LISTINGS, Listing

if TYPE_CHECKING:
    from engine.venues.issplus.front import IssFront

_INTERVALS = {"1": 1, "10": 10, "60": 60, "24": 1440, "7": 10_080, "31": 43_200, "4": 129_600}
_encode = msgspec.json.Encoder(decimal_format="number").encode
_PAGE = b"<!DOCTYPE html><html><body>Sign in to continue</body></html>"


def name_of(listing: Listing) -> str | None:
    """Our name of it."""
    if listing.market == "selt":
        return spelling.pair(listing.secid)
    if listing.market == "forts":
        return spelling.future(listing.secid, int(listing.ends[:4]))
    return spelling.security(listing.secid)


def entitled(front: IssFront, call: Call) -> bool:
    """Is it asked with an API key, or the passport's cookie?"""
    bearer = call.headers.get("authorization") == f"Bearer {front.api_key}"
    return bearer or f"MicexPassportCert={front.cookie}" in call.headers.get("cookie", "").split("; ")


def answer(front: IssFront, call: Call, now_ms: int) -> Response | None:
    who = "issplus" if entitled(front, call) else ""
    if front.rules.limits and not front.windows.admit("iss", call.peer, front.rules.requests_per_s, 1000, now_ms):
        return _plain(429, "too many requests")
    if front.faults.strikes("rate_429", who, now_ms):
        return _plain(429, "too many requests")
    if front.faults.strikes("html_502", who, now_ms):
        return Response(status=502, body=b"<html>Bad Gateway</html>", headers={"content-type": "text/html"})
    if not front.rules.entitled or front.faults.strikes("refuse", who, now_ms):
        return Response(status=200, body=_PAGE, headers={"content-type": "text/html; charset=utf-8"})
    path, _, query_text = call.target.partition("?")
    query = dict(parse_qsl(query_text))
    lag = front.faults.strikes("read_lag", who, now_ms)
    delay_ms = (0 if who else front.rules.guest_delay_ms) + (lag.by_ms if lag else 0)
    parts = path.removeprefix("/iss").strip("/").split("/")
    told = _told(front, parts, query, delay_ms, now_ms, bool(who))
    if told is None:
        return Response(status=200, body=_PAGE, headers={"content-type": "text/html; charset=utf-8"})
    if not told:
        return _plain(404, "not found")
    only = query.get("iss.only", "").split(",")
    blocks = {name: block for name, block in told.items() if only == [""] or name in only}
    for name, block in blocks.items():
        if wanted := query.get(f"{name}.columns"):
            blocks[name] = _narrowed(block, wanted.split(","))
    if query.get("iss.meta") != "off":
        blocks = {name: {"metadata": _metadata(block), **block} for name, block in blocks.items()}
    headers = {
        "content-type": "application/json; charset=utf-8",
        "date": formatdate(now_ms / 1000, usegmt=True),
        "x-micexpassport-marker": "granted" if who else "denied",
    }
    return Response(status=200, body=_encode(blocks), headers=headers)


def _told(
    front: IssFront, parts: Sequence[str], query: Mapping[str, str], delay_ms: int, now_ms: int, known: bool
) -> dict[str, Any] | None:
    """Blocks by name; {} for what there is not, None for what this caller may not have."""
    match parts:
        case ["index.json"]:
            return _index()
        case ["engines", engine, "markets", market, "boards", board, "securities.json"]:
            listed = [x for x in LISTINGS if (x.engine, x.market, x.board) == (engine, market, board)]
            start = int(query.get("start", "0"))
            if front.rules.boards_paged:
                listed = listed[start : start + front.rules.page_rows]
            tickers = [front.tickers[x.ticker] for x in listed]
            return {
                "securities": _block([_static(t.listing, t) for t in tickers]),
                "marketdata": _block([_quotes(t, now_ms - delay_ms, now_ms) for t in tickers]),
            }
        case ["engines", engine, "markets", market, "boards", board, "securities", secid, last]:
            found = [x for x in LISTINGS if (x.engine, x.market, x.board, x.secid) == (engine, market, board, secid)]
            if not found:
                return {}
            ticker = front.tickers[found[0].ticker]
            if last == "candles.json":
                return {"candles": _block(_candles(ticker, query, delay_ms, now_ms, front.rules.page_rows), _CANDLE)}
            if last == "orderbook.json":
                return {"orderbook": _block(ticker.book_rows())} if known else None
    return {}


def _index() -> dict[str, Any]:
    engines = dict.fromkeys(x.engine for x in LISTINGS)
    boards = dict.fromkeys((x.board, x.market, x.marketplace) for x in LISTINGS)
    return {
        "engines": _block([{"id": n, "name": name, "title": name} for n, name in enumerate(engines, 1)]),
        "markets": _block([{"market_name": m, "marketplace": place} for _, m, place in boards]),
        "boards": _block([{"id": n, "boardid": board} for n, (board, _, _) in enumerate(boards, 1)]),
        "durations": _block([{"interval": int(n), "duration": m * 60} for n, m in _INTERVALS.items()]),
    }


def _static(listing: Listing, ticker: Ticker) -> Row:
    row: Row = {"SECID": listing.secid, "BOARDID": listing.board, "SHORTNAME": listing.caption}
    row |= {"PREVPRICE": ticker.previous, "DECIMALS": listing.digits, "MINSTEP": listing.tick}
    if listing.step_price is not None:
        return row | {"STEPPRICE": listing.step_price, "LASTTRADEDATE": listing.ends, "LOTVOLUME": 1000}
    return row | {"LOTSIZE": listing.lot, "STATUS": "A", "CURRENCYID": "SUR"}


def _quotes(ticker: Ticker, at_ms: int, now_ms: int) -> Row:
    row = ticker.row_at(at_ms, now_ms)
    return {
        "SECID": ticker.listing.secid,
        "BOARDID": ticker.listing.board,
        "LAST": row["LAST"],
        "LCURRENTPRICE": row.get("LCURRENTPRICE"),
        "BID": row["BID"],
        "OFFER": row["OFFER"],
        "NUMTRADES": row["NUMTRADES"],
        "TIME": row["TIME"],
        "UPDATETIME": clock(at_ms),
        "SYSTIME": stamp(now_ms),
    }


_CANDLE = ["open", "close", "high", "low", "value", "volume", "begin", "end"]


def _candles(ticker: Ticker, query: Mapping[str, str], delay_ms: int, now_ms: int, page: int) -> list[Row]:
    minutes = _INTERVALS.get(query.get("interval", "10"), 10)
    rows = [
        {
            "open": bar.open,
            "close": bar.close,
            "high": bar.high,
            "low": bar.low,
            "value": bar.value,
            "volume": bar.volume,
            "begin": stamp(bar.begin_ms),
            "end": stamp(bar.begin_ms + minutes * MINUTE_MS - 1000),
        }
        for bar in ticker.candles(minutes, now_ms - delay_ms)
    ]
    from_, till = query.get("from", ""), query.get("till", "9")
    rows = [row for row in rows if from_ <= str(row["begin"]) <= till]
    start = int(query.get("start", "0"))
    return rows[start : start + page]


def _block(rows: Sequence[Row], columns: Sequence[str] = ()) -> dict[str, Any]:
    names = list(rows[0]) if rows else list(columns)
    return {"columns": names, "data": [list(row.values()) for row in rows]}


_TIMES = {19: "datetime", 10: "date", 8: "time"}


def _metadata(block: Mapping[str, Any]) -> dict[str, Row]:
    """The type of each column, by its first value that is none."""
    return {
        column: {"type": _type_of(next((row[n] for row in block["data"] if row[n] is not None), ""))}
        for n, column in enumerate(block["columns"])
    }


def _type_of(value: Any) -> str:
    if isinstance(value, Decimal | float):
        return "double"
    if isinstance(value, int):
        return "int64"
    if re.fullmatch(r"[\d\-: ]{8,19}", value):
        return _TIMES.get(len(value), "string")
    return "string"


def _narrowed(block: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    names = [name for name in wanted if name in block["columns"]]
    at = [block["columns"].index(name) for name in names]
    return {"columns": names, "data": [[row[n] for n in at] for row in block["data"]]}


def _plain(status: int, text: str) -> Response:
    return Response(status=status, body=text.encode(), headers={"content-type": "text/plain"})
