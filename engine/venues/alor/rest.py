"""Decides. ALOR over HTTP: which requests tell what, and how to read their answers. ALOR dossier §5, §7.

Orders are listed for the current session only, trades of earlier sessions come from history in pages: the first page
that is not full is its end. Everything is asked with a token: without one, times and prices are a quarter of an hour
old (§1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from engine.core.facts import REPLACED, Candle, Fact, FillFact, OrderFact, OrderStatus
from engine.core.instruments import Instrument
from engine.core.orders import Amend, Cancel, Command, Outcome, Place, Refused
from engine.core.venue import Catalogue, ErrorClass, Identity, Page, Read, Request, Response, Rest, VenueError
from engine.venues.alor import rows
from engine.venues.alor.errors import meaning, reason
from engine.venues.alor.ids import owns
from engine.venues.alor.numbers import Ident, check_ms, ident, iso, moment, number
from engine.venues.alor.orders import Wording, encode, outcome, said
from engine.venues.alor.replacing import shared
from engine.venues.alor.rows import STOP, UNREADABLE
from engine.venues.alor.symbols import SecurityRow, asked_for, instrument_of, is_bond, split_account

T = TypeVar("T")

_LIMIT = 1000  # rows a page of history holds at most
_OVERLAP_MS = 1000  # pages of history overlap by so much
_ORDERS = "/commandapi/warptrans/TRADE/v2/client/orders"
_MARKETS = {"MOEX": ("FOND", "FORTS", "CURR"), "SPBX": ("SPBX",)}
_QUOTED_AT_ONCE = 50
_NO_QUERY: Mapping[str, str] = {}
_DAY_S = 86_400


class _Refusal(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Old(msgspec.Struct):
    statusCode: int
    body: msgspec.Raw = msgspec.Raw()


class _Ordered(msgspec.Struct):
    code: str = ""
    message: str = ""
    orderNumber: Ident | None = None
    oldResponse: _Old | None = None


class _History(msgspec.Struct):
    history: list[rows.BarRow]
    next: int | None = None


class _Quoted(rows.QuoteRow):
    symbol: str = ""


_refusal = msgspec.json.Decoder(_Refusal).decode
_text = msgspec.json.Decoder(str).decode
_ordered = msgspec.json.Decoder(_Ordered).decode
_seconds = msgspec.json.Decoder(int).decode
_order_row = msgspec.json.Decoder(rows.OrderRow).decode
_order_rows = msgspec.json.Decoder(list[rows.OrderRow]).decode
_trade_rows = msgspec.json.Decoder(list[rows.TradeRow]).decode
_position_rows = msgspec.json.Decoder(list[rows.PositionRow]).decode
_summary_row = msgspec.json.Decoder(rows.SummaryRow).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_security_row = msgspec.json.Decoder(SecurityRow).decode
_quoted_rows = msgspec.json.Decoder(list[_Quoted]).decode
_history = msgspec.json.Decoder(_History).decode


class AlorRest(Rest):
    """The venue over HTTP, described. `ref`: exchange:portfolio, "" for what is common to all."""

    def __init__(self, catalogue: Catalogue, ref: str, options: Mapping[str, str]) -> None:
        self._catalogue, self._ref, self._options = catalogue, ref, options
        self._empty_is_404 = options["empty_lists"] == "404"

    # ---- The venue

    def server_time(self) -> Read:
        return _read(_get("/md/v2/time"), _read_time)

    def instruments(self) -> Sequence[Read]:
        """Options are left out: nothing here trades them."""
        exchanges = [e.strip() for e in self._options["exchanges"].split(",")]
        return [
            _read(_get(f"/md/v2/Securities/{exchange}", {"market": market, "format": "Simple"}), _read_instruments)
            for exchange in exchanges
            for market in _MARKETS[exchange]
        ]

    def marks(self) -> Sequence[Read]:
        """Of the instruments that the settings name: there is no request for all of them."""
        names = [name.strip() for name in self._options["quoted"].split(",") if name.strip()]
        return [self._quotes(names[n : n + _QUOTED_AT_ONCE]) for n in range(0, len(names), _QUOTED_AT_ONCE)]

    def candles(self, instrument: str, interval_s: int, since_ms: int, now_ms: int) -> Sequence[Read]:
        if is_bond(asked_for(instrument, self._catalogue).board):
            return ()  # in per cent of the face value, which they do not tell
        return [self._candles(instrument, interval_s, since_ms // 1000, now_ms)]

    # ---- One account

    def identity(self) -> Read:
        """Nothing lists what a login holds (§2.3): that this account can be read is all there is to know."""

        def read(response: Response) -> Page:
            if response.status == 404:
                raise VenueError(ErrorClass.AUTH, "404", f"there is no portfolio {self._ref}")
            _checked(response)
            return Page(identity=Identity(venue_ref=self._ref, may_trade=True, may_withdraw=False, address_bound=None))

        return Read(request=self._of_account("summary"), read=read)

    def statement(self) -> Sequence[Read]:
        """What is held says no time: the clock is read first, so that it is never younger than it says."""
        return [_read(_get("/md/v2/time"), self._then_positions)]

    def open_orders(self) -> Sequence[Read]:
        def working(facts: Sequence[OrderFact]) -> Page:
            return Page(facts=tuple(f for f in facts if f.status is OrderStatus.WORKING))

        return [self._listed("orders", working), self._listed("stoporders", working)]

    def orders(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """Of the current session: there is no other history of orders (§5.1)."""

        def since(facts: Sequence[OrderFact]) -> Page:
            return self._all([f for f in facts if max(f.created_at_ms, f.updated_at_ms) >= since_ms])

        return [self._listed("orders", since), self._listed("stoporders", since)]

    def order(self, instrument: Instrument, client_order_id: str, venue_order_id: str) -> Read:
        """By our id the orders are looked through, then the stop orders: nothing finds an order by its comment."""
        if not (client_order_id or venue_order_id):
            raise ValueError("an order is looked up by one of its ids")
        if venue_order_id and not owns(client_order_id):
            return self._by_number(venue_order_id)

        def meant(facts: Sequence[OrderFact]) -> tuple[OrderFact, ...]:
            return tuple(f for f in facts if f.client_order_id == client_order_id)

        def in_orders(facts: Sequence[OrderFact]) -> Page:
            found = meant(facts)
            return Page(facts=found) if found else Page(next=self._listed("stoporders", in_stops))

        def in_stops(facts: Sequence[OrderFact]) -> Page:
            found = meant(facts)
            if not found:
                raise VenueError(
                    ErrorClass.NOT_FOUND, "404", f"no order of this session has the comment {client_order_id}"
                )
            return Page(facts=found)

        return self._listed("orders", in_orders)

    def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """The session's own first: what moves to history meanwhile has been seen here."""
        return [
            self._listed_as("trades", _trade_rows, lambda found: Page(facts=_since(since_ms, found))),
            self._past(iso(since_ms), "", frozenset()),
        ]

    def cash(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return ()

    # ---- Orders over HTTP

    def orders_request(self, commands: Sequence[Command]) -> Request:
        if len(commands) != 1:
            raise ValueError(f"one request is one command, not {len(commands)}")
        command = commands[0]
        words = said(command, self._ref, Wording.of(self._options))
        if isinstance(command, Amend):
            shared(self._catalogue).asked(self._ref, command.venue_order_id)
        if isinstance(command, Cancel):
            stop = "true" if words.kind == "stop" else "false"
            query = {"portfolio": split_account(self._ref)[1], "exchange": words.body["exchange"], "stop": stop}
            return Request(method="DELETE", path=_path(f"{_ORDERS}/{words.order_id}", query), rules=("orders",))
        tail = f"/{words.order_id}" if words.order_id else ""
        return Request(
            method="PUT" if isinstance(command, Amend) else "POST",
            path=f"{_ORDERS}/actions/{words.kind}{tail}",
            body=encode(words.body),
            headers=(("X-REQID", _request_id(command)),),
            rules=("orders",),
        )

    def read_outcomes(self, commands: Sequence[Command], response: Response) -> tuple[Outcome, ...]:
        """A request that was made before is answered with what became of it then (§5.4)."""
        command, status = commands[0], response.status
        body, text = _Ordered(), ""
        try:
            body = _ordered(response.body)
        except UNREADABLE:
            text = response.body[:300].decode("utf-8", "replace").strip().strip('"')
        if body.oldResponse is not None and status < 500:
            status = body.oldResponse.statusCode
            try:
                body = _ordered(body.oldResponse.body) if body.oldResponse.body else _Ordered()
            except UNREADABLE:
                body = _Ordered()
        words = body.message or text
        if 200 <= status < 300 and isinstance(command, Cancel) and words.lower() != "success":
            status, words = 500, f"an answer that nobody knows: {words}"
        number_ = "" if body.orderNumber is None else ident(body.orderNumber)
        became = outcome(command, status, words, number_, body.code)
        if isinstance(command, Amend) and isinstance(became, Refused):
            shared(self._catalogue).refused(self._ref, command.venue_order_id)
        return (became,)

    # ---- Requests

    def _of_account(self, what: str, query: Mapping[str, str] = _NO_QUERY) -> Request:
        exchange, portfolio = split_account(self._ref)
        return _get(f"/md/v2/Clients/{exchange}/{quote(portfolio, safe='')}/{what}", {**query, "format": "Simple"})

    def _listed(self, what: str, tell: Callable[[Sequence[OrderFact]], Page]) -> Read:
        fact = rows.order_fact if what == "orders" else rows.stop_fact
        return self._listed_as(what, _order_rows, lambda found: tell(_in_chains([fact(row, "") for row in found])))

    def _listed_as(self, what: str, decode: Callable[[bytes], list[T]], tell: Callable[[list[T]], Page]) -> Read:
        request = self._of_account(what)

        def read(response: Response) -> Page:
            # Observed of some, against the description: 404 where there is nothing (§5.1). Taken so only when told to:
            # a wrong address would else look like an account without orders.
            body = b"[]" if response.status == 404 and self._empty_is_404 else _checked(response)
            return _told(request, lambda: tell(decode(body)))

        return Read(request=request, read=read)

    def _all(self, facts: Sequence[OrderFact]) -> Page:
        """With those marked of which this process itself has a replacement on its way."""
        replacing = shared(self._catalogue)
        return Page(
            facts=tuple(
                msgspec.structs.replace(f, venue_action=REPLACED)
                if f.status is OrderStatus.CANCELLED
                and not f.venue_action
                and replacing.concerns(self._ref, f.venue_order_id)
                else f
                for f in facts
            )
        )

    def _by_number(self, venue_order_id: str) -> Read:
        stop, number_ = venue_order_id.startswith(STOP), quote(venue_order_id.removeprefix(STOP), safe="")
        fact = rows.stop_fact if stop else rows.order_fact
        request = self._of_account(f"{'stoporders' if stop else 'orders'}/{number_}")

        def read(response: Response) -> Page:
            if response.status == 404:
                raise VenueError(ErrorClass.NOT_FOUND, "404", f"there is no order {venue_order_id} in this session")
            body = _checked(response)
            return _told(request, lambda: Page(facts=(fact(_order_row(body), ""),)))

        return Read(request=request, read=read)

    def _past(self, date_from: str, from_id: str, known: frozenset[str]) -> Read:
        """A page of history, oldest first. `known`: fills that the page before told already."""
        exchange, portfolio = split_account(self._ref)
        query = {
            "dateFrom": date_from,
            **({"from": from_id} if from_id else {}),
            "limit": str(_LIMIT),
            "orderByTradeDate": "true",
            "descending": "false",
            "format": "Simple",
        }
        request = _get(f"/md/v2/Stats/{exchange}/{quote(portfolio, safe='')}/history/trades", query)

        def tell(body: bytes) -> Page:
            found = _trade_rows(body)
            fills = [rows.fill_fact(row, "") for row in found]
            fresh = tuple(f for f in fills if f.fill_id not in known)
            if len(fills) < _LIMIT:
                return Page(facts=fresh)
            times = [f.traded_at_ms for f in fills]
            if times != sorted(times):
                raise ValueError("a page of history that is not in the order of time")
            return Page(facts=fresh, next=self._further(found, fills, known, date_from, from_id))

        return _read(request, tell)

    def _further(
        self,
        found: Sequence[rows.TradeRow],
        fills: Sequence[FillFact],
        known: frozenset[str],
        date_from: str,
        from_id: str,
    ) -> Read:
        """From a little before the last trade on; where that leads nowhere, by the trades' own numbers (§7.1)."""
        last_ms = moment(found[-1].date)
        told = frozenset(f.fill_id for f in fills)
        later = iso(last_ms - _OVERLAP_MS)
        if not from_id and later > date_from:
            return self._past(later, "", told)
        if told <= known and from_id:
            raise ValueError(f"history does not lead on from trade {from_id}")
        return self._past(date_from, ident(found[-1].id), known | told)

    def _then_positions(self, body: bytes) -> Page:
        at_ms = check_ms(_seconds(body) * 1000)

        def positions(answer: bytes) -> Page:
            facts: list[Fact] = [rows.position_fact(row, at_ms, "") for row in _position_rows(answer)]
            return Page(facts=tuple(facts), next=_read(self._of_account("summary"), summary))

        def summary(answer: bytes) -> Page:
            return Page(facts=(rows.equity_fact(_summary_row(answer), at_ms, ""),))

        return Page(next=_read(self._of_account("positions"), positions))

    def _quotes(self, names: Sequence[str]) -> Read:
        asked = {(ref.exchange, ref.symbol): name for name in names for ref in [asked_for(name, self._catalogue)]}
        boards = {name: asked_for(name, self._catalogue).board for name in names}
        symbols = ",".join(f"{exchange}:{quote(symbol, safe='')}" for exchange, symbol in asked)

        def tell(body: bytes) -> Page:
            facts: list[Fact] = []
            for row in _quoted_rows(body):
                name = asked.get((row.exchange, row.symbol))
                last_s = row.last_price_timestamp
                at_ms = row.ob_ms_timestamp if last_s is None else last_s * 1000
                if name is not None and at_ms is not None:
                    if last_s is None:
                        row.last_price = None  # nobody says of when it is
                    facts += rows.quote_facts(row, name, bond=is_bond(boards[name]), now_ms=at_ms)
            return Page(facts=tuple(facts))

        return _read(_get(f"/md/v2/Securities/{symbols}/quotes", {"format": "Simple"}), tell)

    def _candles(self, name: str, interval_s: int, from_s: int, now_ms: int) -> Read:
        ref = asked_for(name, self._catalogue)
        query = {
            "symbol": ref.symbol,
            "exchange": ref.exchange,
            **({"instrumentGroup": ref.board} if ref.board else {}),
            "tf": "D" if interval_s == _DAY_S else str(interval_s),
            "from": str(from_s),
            "to": str(now_ms // 1000),
            "format": "Simple",
        }

        def tell(body: bytes) -> Page:
            told = _history(body)
            candles = tuple(_candle(row, name, interval_s, now_ms) for row in told.history)
            if told.next is None or not from_s < told.next <= now_ms // 1000:
                return Page(candles=candles)
            return Page(candles=candles, next=self._candles(name, interval_s, told.next, now_ms))

        return _read(_get("/md/v2/history", query), tell)


def _in_chains(facts: list[OrderFact]) -> list[OrderFact]:
    """Orders with one comment of ours are one after the other: whoever was cancelled and followed was replaced."""
    latest = dict[str, tuple[int, str]]()
    for fact in facts:
        if owns(fact.client_order_id):
            this = (fact.created_at_ms, fact.venue_order_id)
            latest[fact.client_order_id] = max(this, latest.get(fact.client_order_id, this))
    return [
        msgspec.structs.replace(f, venue_action=REPLACED)
        if f.status is OrderStatus.CANCELLED
        and not f.venue_action
        and latest.get(f.client_order_id, ("", ""))[1] not in ("", f.venue_order_id)
        else f
        for f in facts
    ]


def _since(since_ms: int, found: Sequence[rows.TradeRow]) -> tuple[FillFact, ...]:
    fills = (rows.fill_fact(row, "") for row in found)
    return tuple(fill for fill in fills if fill.traded_at_ms >= since_ms)


def _candle(row: rows.BarRow, name: str, interval_s: int, now_ms: int) -> Candle:
    begins_ms = check_ms(row.time * 1000)
    return Candle(
        instrument=name,
        begins_at_ms=begins_ms,
        interval_s=interval_s,
        open=number(row.open),
        high=number(row.high),
        low=number(row.low),
        close=number(row.close),
        volume=number(row.volume),
        finished=begins_ms + interval_s * 1000 <= now_ms,
    )


def _request_id(command: Place | Amend) -> str:
    """The same for the same command, whenever it is said (§6.5)."""
    return command.client_order_id if isinstance(command, Place) else command.amend_id


def _get(path: str, query: Mapping[str, str] = _NO_QUERY) -> Request:
    return Request(method="GET", path=_path(path, query), rules=("reads",))


def _path(path: str, query: Mapping[str, str]) -> str:
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{path}{'?' if asked else ''}{asked}"


# ---- Answers


def _read(request: Request, tell: Callable[[bytes], Page]) -> Read:
    def read(response: Response) -> Page:
        body = _checked(response)
        return _told(request, lambda: tell(body))

    return Read(request=request, read=read)


def _told(request: Request, tell: Callable[[], Page]) -> Page:
    """A row left out would make an incomplete answer look whole, so one unreadable row fails the read."""
    try:
        return tell()
    except UNREADABLE as error:
        path = request.path.partition("?")[0]
        message = f"{path}: {type(error).__name__}: {error}"[:300]
        raise VenueError(ErrorClass.REFUSED, "unreadable", message) from error


def _checked(response: Response) -> bytes:
    """The body of a success; VenueError otherwise. A 404 of what must be there proves nothing of anybody's orders."""
    status = response.status
    if status == 200:
        return response.body
    words, code = "", str(status)
    try:
        told = _refusal(response.body)
        words, code = told.message, told.code or code
    except UNREADABLE:
        words = response.body[:300].decode("utf-8", "replace").strip()
    error_class, sentence = meaning(status, f"{code} {words}")
    if status >= 500 or error_class is ErrorClass.UNKNOWN_OUTCOME:
        error_class = ErrorClass.RETRYABLE_READ
    elif error_class in (ErrorClass.NOT_FOUND, ErrorClass.TARGET_GONE):
        error_class = ErrorClass.REFUSED
    raise VenueError(error_class, code, reason(sentence, words))


def _read_time(body: bytes) -> Page:
    """Whole seconds: in their middle it is wrong by half a second at most."""
    return Page(server_time_ms=check_ms(_seconds(body) * 1000 + 500))


def _read_instruments(body: bytes) -> Page:
    """An instrument that we cannot express does not exist here, so an order in it is denied; the others stay."""
    found = dict[str, Instrument]()
    for raw in _raws(body):
        try:
            instrument = instrument_of(_security_row(raw))
        except UNREADABLE:
            continue
        found.setdefault(instrument.name, instrument)
    return Page(instruments=tuple(found.values()))
