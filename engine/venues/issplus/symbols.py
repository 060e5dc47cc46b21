"""Decides. Our names <-> the exchange's markets, boards and tickers; and what a channel asks for. ISS+ dossier §5, §10.

A ticker of ISS+ is `MXSE.TQBR.SBER`: marketplace, board, security. Over HTTP the same board is a path. Only the main
boards are named: on another one the same paper has other prices, which must not pass for its price.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from engine.core import spelling
from engine.core.venue import Catalogue

_MONTHS = "FGHJKMNQUVXZ"
_PAIRS = {"USD": "USD000UTS", "EUR": "EUR_RUB__"}  # the others are called CNYRUB_TOM, CNYRUB_TOD
_LOWER = {"SI": "Si", "EU": "Eu"}  # families of futures whose second letter is a small one
_CURRENCIES = frozenset(
    [
        "USD",
        "EUR",
        "CNY",
        "HKD",
        "TRY",
        "BYN",
        "KZT",
        "AMD",
        "UZS",
        "KGS",
        "TJS",
        "AED",
        "GEL",
        "GBP",
        "CHF",
        "JPY",
        "INR",
        "ZAR",
    ]
)
_FUTURE = re.compile(r"([A-Z0-9]{2})/RUB:RUB-([0-9]{2})(0[1-9]|1[0-2])")
_PAIR = re.compile(r"([A-Z]{3})/RUB(_TOD)?")
_PAPER = re.compile(r"([A-Za-z0-9.-]{1,24})/([A-Z]{3})")
_TICKER = re.compile(r"([A-Z]+)\.([A-Z0-9_]+)\.([A-Za-z0-9._-]{1,36})")
_DESTINATION = re.compile(r"[A-Z]+(?:\.[a-z]+)+")
_TERM = re.compile(r'\s*([A-Za-z]+)\s*=\s*"([^"\r\n\0]*)"\s*')

QUERIES = frozenset(
    {"SEARCH.ticker", "COMMON.boards", "COMMON.engines", "COMMON.markets", "COMMON.news.content", "COMMON.ticker.card"}
)
"""Asked once and answered once; everything else is subscribed to."""

INTERVALS = {60: "M1", 600: "M10", 3600: "H1", 86_400: "D1", 604_800: "W1"}
"""Seconds -> the name of that length; months and quarters have no fixed one."""


class Board(msgspec.Struct, frozen=True):
    """A main board, over both ways."""

    marketplace: str
    board: str
    engine: str
    market: str

    @property
    def path(self) -> str:
        return f"/engines/{self.engine}/markets/{self.market}/boards/{self.board}"


BOARDS = {
    board.board: board
    for board in (
        Board("MXSE", "TQBR", "stock", "shares"),
        Board("MXSE", "TQTF", "stock", "shares"),
        Board("MXSE", "TQIF", "stock", "shares"),
        Board("MXCX", "CETS", "currency", "selt"),
        Board("FORTS", "RFUD", "futures", "forts"),
    )
}
_SHARES, _MONEY, _FUTURES = BOARDS["TQBR"], BOARDS["CETS"], BOARDS["RFUD"]


def name_of(ticker: str, year: int, quote: str = "RUB") -> str | None:
    """`MXSE.TQBR.SBER` -> `SBER/RUB`; None for what is on no main board or has no name of ours."""
    match = _TICKER.fullmatch(ticker)
    board = BOARDS.get(match[2]) if match else None
    if match is None or board is None or board.marketplace != match[1]:
        return None
    return name_on(board, match[3], year, quote)


def name_on(board: Board, secid: str, year: int, quote: str = "RUB") -> str | None:
    if board is _MONEY:
        return spelling.pair(secid)
    if board is _FUTURES:
        return spelling.future(secid, year)
    name = spelling.security(secid, quote)
    return name if _PAPER.fullmatch(name) else None


class Place(msgspec.Struct, frozen=True):
    """Where an instrument is found. `sure` false: the board was assumed."""

    board: Board
    secid: str
    sure: bool = True

    @property
    def ticker(self) -> str:
        return f"{self.board.marketplace}.{self.board.board}.{self.secid}"


def place_of(name: str, catalogue: Catalogue) -> Place | None:
    """Our name -> its place; as the catalogue has it, else by the name alone. None: nothing on MOEX is named so."""
    known = catalogue.by_name(name)
    if known is not None and (match := _TICKER.fullmatch(known.venue_ref)) and match[2] in BOARDS:
        return Place(BOARDS[match[2]], match[3])
    if match := _FUTURE.fullmatch(name):
        family = _LOWER.get(match[1], match[1])
        return Place(_FUTURES, f"{family}{_MONTHS[int(match[3]) - 1]}{int(match[2]) % 10}")
    if (match := _PAIR.fullmatch(name)) and match[1] in _CURRENCIES:
        stem = _PAIRS.get(match[1], f"{match[1]}RUB_")
        return Place(_MONEY, stem + ("TOD" if match[2] else "TOM"))
    if match := _PAPER.fullmatch(name):
        return Place(_SHARES, match[1], sure=False)
    return None


class Topic(msgspec.Struct, frozen=True):
    """What a channel asks for. `selector` holds the ticker, unless the board has to be asked for first: `search`."""

    destination: str
    selector: str
    name: str = ""  # our name of its instrument, where it is about one
    search: str = ""

    @property
    def query(self) -> bool:
        return self.destination in QUERIES


def topic_of(channel: str, catalogue: Catalogue) -> Topic:
    """`securities:SBER/RUB`, `orderbooks:SBER/RUB`, `candles:SBER/RUB:M1`, or in the exchange's own words
    `MXSE.securities|TICKER="MXSE.TQBR.SBER"`. ValueError for anything else."""
    destination, bar, own = channel.partition("|")
    if bar or _DESTINATION.fullmatch(channel):
        if not _DESTINATION.fullmatch(destination):
            raise ValueError(f"no destination: {destination[:40]!r}")
        terms(own)
        return Topic(destination, own)
    kind, _, narrowed = channel.partition(":")
    interval = ""
    if kind == "candles":
        narrowed, _, interval = narrowed.rpartition(":")
        if interval not in (*INTERVALS.values(), "m1", "m3", "Q1"):
            raise ValueError(f"no length of candles: {interval[:40]!r}")
    elif kind not in ("securities", "orderbooks"):
        raise ValueError(f"no channel: {channel[:80]!r}")
    place = place_of(narrowed, catalogue)
    if place is None:
        raise ValueError(f"nothing on MOEX is called {narrowed[:40]!r}")
    parameter = "TICKER" if place.board.marketplace != "FORTS" and kind != "candles" else "ticker"
    selector = f'{parameter}="{place.ticker}"'
    if interval:
        selector += f' and interval="{interval}"'
    return Topic(f"{place.board.marketplace}.{kind}", selector, narrowed, "" if place.sure else place.secid)


def terms(selector: str) -> dict[str, str]:
    """`NAME="value" and NAME="value"`, names in lower case. ValueError for anything else: nothing is smuggled in."""
    found: dict[str, str] = {}
    for part in re.split(r" and (?=[A-Za-z]+\s*=)", selector) if selector.strip() else ():
        match = _TERM.fullmatch(part)
        if match is None or match[1].lower() in found:
            raise ValueError(f"no selector: {selector[:80]!r}")
        found[match[1].lower()] = match[2]
    return found


def found_in(rows: Iterable[Mapping[str, object]], secid: str) -> str | None:
    """The ticker of a paper among the rows of SEARCH.ticker: on its primary board, else on the first main one."""
    tickers = dict[str, bool]()
    for row in rows:
        ticker = str(row.get("ticker"))
        match = _TICKER.fullmatch(ticker)
        if match and match[3] == secid and match[2] in BOARDS and BOARDS[match[2]].marketplace == match[1]:
            tickers[ticker] = row.get("primary_boardid") == match[2]
    return next((ticker for ticker, primary in tickers.items() if primary), next(iter(tickers), None))
