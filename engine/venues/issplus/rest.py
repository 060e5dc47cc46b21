"""Decides. MOEX ISS over HTTP: what is listed, latest prices, candles. ISS+ dossier §10.

Everything is asked as nobody unless the option `iss_login` says `login`; nobody's data are 15 minutes old. Moscow's
time without a zone, plain numbers, blocks of columns and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from accounts.model import Credentials
from engine.core.facts import Candle, MarkFact
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.spelling import MOEX, currency
from engine.core.venue import Catalogue, ErrorClass, FeedRest, Identity, Page, Read, Request, Response, VenueError
from engine.venues.issplus.packets import UNREADABLE, moment_ms, moscow, number, price, time_of_day_ms
from engine.venues.issplus.symbols import BOARDS, Board, Place, name_on, place_of

API_KEYS, COOKIES = "apikey", "cookie"
"""Domains of logins for HTTP alone: their passcode is an API key, or the value of the passport's cookie."""

_COOKIE = "MicexPassportCert"
_MARKER = "x-micexpassport-marker"
_GUEST_DELAY_MS = 900_000
_INTERVALS = {60: 1, 600: 10, 3600: 60, 86_400: 24, 604_800: 7}
_SECURITIES = "SECID,LOTSIZE,LOTVOLUME,MINSTEP,STEPPRICE,STATUS,CURRENCYID,LASTTRADEDATE"
_MARKETDATA = "SECID,LAST,LCURRENTPRICE,BID,OFFER,TIME,UPDATETIME,SYSTIME"

_BOOK = (("BID", "bid"), ("OFFER", "ask"))

_Row = dict[str, Any]
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


def sign(request: Request, credentials: Credentials | None, environment: str, now_ms: int) -> Request:
    """VenueError AUTH for a login that opens streams only: its passcode must not be shown over HTTP."""
    if not request.signed:
        return request
    if credentials is None:
        raise ValueError(f"{request.path.partition('?')[0]} needs credentials")
    domain, passcode = credentials["domain"].reveal(), credentials["passcode"].reveal()
    if domain == API_KEYS:
        header = ("Authorization", f"Bearer {passcode}")
    elif domain == COOKIES:
        header = ("Cookie", f"{_COOKIE}={passcode}")
    else:
        raise VenueError(
            ErrorClass.AUTH, "domain", f"over HTTP a login's domain is {API_KEYS} or {COOKIES}, not {domain}"
        )
    return msgspec.structs.replace(request, headers=(*request.headers, header))


class IssRest(FeedRest):
    def __init__(self, catalogue: Catalogue, options: Mapping[str, str]) -> None:
        self._catalogue = catalogue
        self._signed = options["iss_login"] == "login"
        self._delay_ms = 0 if self._signed else _GUEST_DELAY_MS
        names = [name.strip() for name in options["boards"].split(",") if name.strip()]
        if unknown := [name for name in names if name not in BOARDS]:
            raise ValueError(f"option boards: {', '.join(unknown)} is none of {', '.join(BOARDS)}")
        self._boards = [BOARDS[name] for name in names]
        self._volume_in_lots = options["candle_volume"] == "lots"

    # ---- Small things

    def server_time(self) -> Read:
        return Read(request=self._request("/index.json", {"iss.only": "durations"}), read=_date)

    def identity(self) -> Read:
        return Read(request=self._request("/index.json", {"iss.only": "engines"}), read=_identity)

    # ---- Boards

    def instruments(self) -> Sequence[Read]:
        query = {"iss.only": "securities", "securities.columns": _SECURITIES}
        return [self._pages(f"{b.path}/securities.json", query, "securities", _listing(b)) for b in self._boards]

    def marks(self) -> Sequence[Read]:
        query = {"iss.only": "marketdata", "marketdata.columns": _MARKETDATA}
        return [self._pages(f"{b.path}/securities.json", query, "marketdata", self._quotes(b)) for b in self._boards]

    def _quotes(self, board: Board) -> _Take:
        def take(rows: Sequence[_Row]) -> Page:
            return Page(facts=tuple(mark for row in rows for mark in _marks(board, row, self._delay_ms)))

        return take

    # ---- Candles

    def candles(self, instrument: str, interval_s: int, since_ms: int, now_ms: int) -> Sequence[Read]:
        """From the candle in which `since_ms` lies: it was unfinished when it was read last."""
        place, length = place_of(instrument, self._catalogue), _INTERVALS.get(interval_s)
        if place is None or length is None:
            return ()
        shift_ms = 3 * 3_600_000  # days and hours begin with Moscow's
        begin_ms = since_ms - (since_ms + shift_ms) % (min(interval_s, 86_400) * 1000)
        query = {
            "from": f"{moscow(begin_ms):%Y-%m-%d %H:%M:%S}",
            "till": f"{moscow(now_ms):%Y-%m-%d %H:%M:%S}",
            "interval": str(length),
        }
        known_to_ms = now_ms - self._delay_ms

        def take(rows: Sequence[_Row]) -> Page:
            return Page(candles=tuple(self._candle(place, instrument, interval_s, known_to_ms, row) for row in rows))

        path = f"{place.board.path}/securities/{quote(place.secid)}/candles.json"
        return [self._pages(path, query, "candles", take)]

    def _candle(self, place: Place, name: str, interval_s: int, known_to_ms: int, row: _Row) -> Candle:
        begins_at_ms, volume = moment_ms(row["begin"]), number(row["volume"])
        known = self._catalogue.by_name(name)
        if place.board.market != "forts" and known is not None and not self._volume_in_lots:
            volume /= known.multiplier
        return Candle(
            instrument=name,
            begins_at_ms=begins_at_ms,
            interval_s=interval_s,
            open=number(row["open"]),
            high=number(row["high"]),
            low=number(row["low"]),
            close=number(row["close"]),
            volume=volume,
            finished=begins_at_ms + interval_s * 1000 <= known_to_ms,
        )

    # ---- Asking

    def _request(self, path: str, query: Mapping[str, str]) -> Request:
        asked = urlencode({"iss.meta": "off", **query}, quote_via=quote, safe=",:")
        return Request(method="GET", path=f"{path}?{asked}", rules=("iss",), signed=self._signed)

    def _pages(
        self, path: str, query: Mapping[str, str], block: str, take: _Take, start: int = 0, before: object = None
    ) -> Read:
        """Page after page by the rows that came, to the first that is empty: how long one is nobody promises.

        A board's list comes whole whatever `start` says; a page that begins like the one before ends the walk, too.
        """

        def read(response: Response) -> Page:
            rows = _rows(_told(response, signed=self._signed), block)
            first = rows[0].get("SECID", rows[0].get("begin")) if rows else None
            if first is None or first == before:
                return Page()
            try:
                page = take(rows)
            except (*UNREADABLE, KeyError, TypeError) as error:
                raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", f"{type(error).__name__}: {error}") from error
            follows = self._pages(path, query, block, take, start + len(rows), first)
            return msgspec.structs.replace(page, next=follows)

        return Read(request=self._request(path, {**query, "start": str(start)}), read=read)


_Take = Callable[[Sequence[_Row]], Page]


def _told(response: Response, *, signed: bool = False) -> dict[str, Any]:
    """Who is not entitled often gets a page to log in on, as a success; or, though `signed`, what guests get."""
    if response.status == 401:
        raise VenueError(ErrorClass.AUTH, "401", "ISS wants a login, or another one")
    if response.status == 403:
        if b"too many" in response.body[:2000].lower():
            raise VenueError(ErrorClass.RATE, "403", "too many requests")
        raise VenueError(ErrorClass.AUTH, "403", "not entitled")
    if response.status == 404:
        raise VenueError(ErrorClass.NOT_FOUND, "404", "there is no such thing")
    if response.status != 200:
        raise VenueError(ErrorClass.REFUSED, str(response.status), "refused")
    if "html" in _header(response, "content-type") or response.body.lstrip()[:1] == b"<":
        raise VenueError(ErrorClass.AUTH, "not_entitled", "a page for people: this login may not have it")
    if signed and _header(response, _MARKER) == "denied":
        raise VenueError(ErrorClass.AUTH, "guest", "the login was not taken: this is what guests are shown, late")
    try:
        return _decode(response.body)
    except UNREADABLE as error:
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", f"{type(error).__name__}: {error}") from error


def _rows(told: Mapping[str, Any], name: str) -> list[_Row]:
    """A block's rows by their columns' names. ValueError and TypeError for none: the whole answer is unreadable."""
    block = told.get(name)
    if not isinstance(block, dict):
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", f"no block {name}")
    try:
        return [dict(zip(block["columns"], row, strict=True)) for row in block["data"]]
    except (KeyError, TypeError, ValueError) as error:
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", f"block {name}: {error}") from error


def _header(response: Response, name: str) -> str:
    return next((value for key, value in response.headers.items() if key.lower() == name), "").lower()


def _date(response: Response) -> Page:
    """The server's own clock is in the header only, to the second."""
    _told(response)
    told = next((value for key, value in response.headers.items() if key.lower() == "date"), "")
    try:
        return Page(server_time_ms=round(parsedate_to_datetime(told).timestamp() * 1000))
    except (TypeError, ValueError) as error:
        raise VenueError(ErrorClass.RETRYABLE_READ, "unreadable", "no date") from error


def _identity(response: Response) -> Page:
    _told(response)
    return Page(
        identity=Identity(
            venue_ref="",  # a feed has readers, no accounts
            may_trade=False,
            may_withdraw=False,
            address_bound=None,
            account_mode=_header(response, _MARKER)[:20],
        )
    )


def _listing(board: Board) -> _Take:
    def take(rows: Sequence[_Row]) -> Page:
        return Page(instruments=tuple(i for row in rows if (i := _instrument(board, row)) is not None))

    return take


def _instrument(board: Board, row: _Row) -> Instrument | None:
    """None for what has no name of ours, or whose units are not told: it is left out, not guessed."""
    secid, tick = str(row.get("SECID")), price(row.get("MINSTEP"))
    futures = board.market == "forts"
    ends = str(row.get("LASTTRADEDATE"))[:4]  # a future's ticker has the last digit of its year only
    if futures and not (ends.isdecimal() and ends.isascii()):
        return None
    name = name_on(board, secid, int(ends) if futures else 0, currency(str(row.get("CURRENCYID") or "RUB")))
    step, lot = price(row.get("STEPPRICE")), price(row.get("LOTSIZE") or row.get("LOTVOLUME"))
    if name is None or tick is None or (futures and step is None) or (not futures and lot is None):
        return None
    multiplier = Decimal(f"{step / tick:f}") if futures and step is not None else lot
    assert multiplier is not None, "told above"
    money = name.partition("/")[2][:3]
    return Instrument(
        name=name,
        venue="issplus",
        kind=InstrumentKind.FUTURE if futures else InstrumentKind.SPOT,
        base=name.partition("/")[0],
        quote=money,
        settle=money,
        unit="contract" if futures else "lot",
        multiplier=multiplier,
        quantity_step=Decimal(1),
        min_quantity=Decimal(1),
        price_tick=tick,
        market=MOEX,
        tradable=False,  # here nothing is traded
        status=str(row.get("STATUS") or "A")[:20],
        venue_ref=Place(board, secid).ticker,
    )


def _marks(board: Board, row: _Row, delay_ms: int) -> Iterator[MarkFact]:
    """Of the last deal as of its own time, of bid and offer as of the row's; a row without a date tells nothing."""
    try:
        asked_ms = moment_ms(row.get("SYSTIME"))
    except ValueError:
        return
    name = name_on(board, str(row.get("SECID")), moscow(asked_ms).year)
    if name is None:
        return
    updated_ms = time_of_day_ms(row.get("UPDATETIME"), asked_ms)
    if updated_ms is None:
        updated_ms = asked_ms - delay_ms
    dealt_ms = time_of_day_ms(row.get("TIME"), asked_ms)
    last = price(row.get("LAST")) or price(row.get("LCURRENTPRICE"))
    told = [("last", last, updated_ms if dealt_ms is None else min(dealt_ms, updated_ms))]
    told += [(basis, price(row.get(column)), updated_ms) for column, basis in _BOOK]
    for basis, quote_, at_ms in told:
        if quote_ is not None:
            yield MarkFact(instrument=name, price=quote_, basis=basis, at_ms=max(0, at_ms), market=MOEX)
