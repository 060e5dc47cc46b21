"""Decides. T-Invest over HTTP: which requests tell what, and how to read their answers. T-Invest dossier §4, §6, §7.

The orders service is the quick and exact one, but knows today only; operations reach back for ever, but late, and
with numbers that may be others than the orders service's. So fills are told by the orders service as far as it
reaches: today's by its list, earlier ones by asking it for the order behind each operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from engine.core import spelling
from engine.core.facts import Fact, FillFact, MarkFact, OrderFact, OrderStatus
from engine.core.instruments import Instrument
from engine.core.orders import Command, Outcome
from engine.core.venue import Catalogue, ErrorClass, Identity, Page, Read, Request, Response, Rest, VenueError
from engine.venues.tinvest import rows
from engine.venues.tinvest.errors import Status, trouble
from engine.venues.tinvest.names import ListedRow, Names, listed, ref_of
from engine.venues.tinvest.numbers import UNREADABLE, Enum, Money, Time, instant, moment, number, word
from engine.venues.tinvest.orders import asked, lookup, outcome, request_for

_DAY_MS = 86_400_000
_LIMIT = 1000  # rows of operations on a page: the most there are, for pages go wrong at their borders (§7.1)
_PRICES = 1000  # last prices in one request
_LISTS = ("Shares", "Etfs", "Bonds", "Currencies", "Futures")
_STATES = ("NEW", "PARTIALLYFILL", "FILL", "CANCELLED", "REJECTED")
_NO_SUCH_ORDER = frozenset({"50005", "50006"})
_NO_ACCOUNT = "50004"


class _Row(msgspec.Struct, gc=False, rename="camel"):
    """Absent, null and the default are alike."""


class _Listings(_Row):
    instruments: list[msgspec.Raw] | None = None


class _Account(_Row):
    id: str | None = None
    type: Enum = None
    status: Enum = None
    access_level: Enum = None


class _Accounts(_Row):
    accounts: list[_Account] | None = None


class _Orders(_Row):
    orders: list[rows.OrderState] | None = None


class _StopOrders(_Row):
    stop_orders: list[rows.StopOrder] | None = None


class _Operations(_Row):
    has_next: bool | None = None
    next_cursor: str | None = None
    items: list[rows.Operation] | None = None


class _LastPrice(_Row):
    price: Money | None = None
    time: Time = None
    instrument_uid: str | None = None
    ticker: str | None = None
    class_code: str | None = None


class _LastPrices(_Row):
    last_prices: list[_LastPrice] | None = None


_status = msgspec.json.Decoder(Status).decode
_listings = msgspec.json.Decoder(_Listings).decode
_listed_row = msgspec.json.Decoder(ListedRow).decode
_accounts = msgspec.json.Decoder(_Accounts).decode
_order_state = msgspec.json.Decoder(rows.OrderState).decode
_orders = msgspec.json.Decoder(_Orders).decode
_stop_orders = msgspec.json.Decoder(_StopOrders).decode
_operations = msgspec.json.Decoder(_Operations).decode
_positions = msgspec.json.Decoder(rows.Positions).decode
_portfolio = msgspec.json.Decoder(rows.Portfolio).decode
_last_prices = msgspec.json.Decoder(_LastPrices).decode

Tell = Callable[[Response], Page]


class TInvestRest(Rest):
    """The venue over HTTP, described."""

    def __init__(self, catalogue: Catalogue, *, ref: str, options: Mapping[str, str]) -> None:
        self._names = Names(catalogue)
        self._catalogue, self._ref, self._options = catalogue, ref, options

    # ---- The venue

    def server_time(self) -> Read:
        """No method tells it; every answer is dated, to the second."""
        return _read(asked("UsersService", "GetInfo", "users", {}), lambda r: Page(server_time_ms=_dated(r)))

    def instruments(self) -> Sequence[Read]:
        kind = f"INSTRUMENT_STATUS_{self._options.get('listed', 'all').upper()}"
        body = {"instrumentStatus": kind}
        return [_read(asked("InstrumentsService", name, "instruments", body), _read_listings) for name in _LISTS]

    def marks(self) -> Sequence[Read]:
        uids = [ref_of(i).uid for i in self._catalogue.listed()]
        return [
            _read(
                asked("MarketDataService", "GetLastPrices", "market", {"instrumentId": uids[n : n + _PRICES]}),
                self._read_last_prices,
            )
            for n in range(0, len(uids), _PRICES)
        ]

    # ---- One account

    def identity(self) -> Read:
        body = {"status": "ACCOUNT_STATUS_ALL"}
        return _read(asked("UsersService", "GetAccounts", "users", body), self._read_identity)

    def statement(self) -> Sequence[Read]:
        """The portfolio values the account; quantities are the positions' alone (§4.5)."""
        return [_read(self._of_account("OperationsService", "GetPortfolio", "operations"), self._read_portfolio)]

    def open_orders(self) -> Sequence[Read]:
        stops = self._of_account("StopOrdersService", "GetStopOrders", "stop-orders", status="STOP_ORDER_STATUS_ACTIVE")
        return [
            _read(self._of_account("OrdersService", "GetOrders", "get-orders"), self._read_orders(0)),
            _read(stops, self._read_stops),
        ]

    def orders(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """The orders service lists the orders of today; what was known at work before is asked for by itself.

        So are stop orders: their requests are the fewest of all (§6.3).
        """
        return [_read(self._todays(), self._read_orders(since_ms))]

    def order(self, instrument: Instrument, client_order_id: str, venue_order_id: str) -> Read:
        """By the id; where that finds nothing, in the list of today, for looking up by our id was in doubt (§5.1)."""
        if not (client_order_id or venue_order_id):
            raise ValueError("an order is looked up by one of its ids")
        if venue_order_id.startswith(rows.STOP_PREFIX):
            return self._stop_by_id(client_order_id, venue_order_id)
        request = lookup(venue_order_id, client_order_id, self._ref)
        scan = _read(self._todays(), self._find(instrument, client_order_id, venue_order_id))

        def tell(response: Response) -> Page:
            try:
                row = _order_state(_body(response))
            except VenueError as error:
                if error.error_class is ErrorClass.NOT_FOUND:
                    return Page(next=scan)
                raise
            return Page(facts=(self._numbered(row),))

        return Read(request=request, read=_careful(request, tell))

    def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """Today's first; from them the walk through the operations knows what need not be asked for."""
        return [_FillWalk(self, since_ms, now_ms).begin()]

    def cash(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        movements = rows.Movements(self._names)

        def facts(operations: Sequence[rows.Operation]) -> list[Fact]:
            return [m for row in operations for m in movements.of(row) if m.booked_at_ms >= since_ms]

        def page(cursor: str, seen: frozenset[str]) -> Read:
            def tell(response: Response) -> Page:
                answer = _operations(_body(response))
                following = _following(answer, seen)
                return Page(
                    facts=tuple(facts(answer.items or ())),
                    next=page(following, seen | {following}) if following else None,
                )

            return _read(self.operations_request(since_ms, now_ms, cursor), tell)

        return [page("", frozenset())]

    # ---- Orders over HTTP

    def orders_request(self, commands: Sequence[Command]) -> Request:
        return request_for(commands, self._ref, self._options)

    def read_outcomes(self, commands: Sequence[Command], response: Response) -> tuple[Outcome, ...]:
        return tuple(outcome(command, response) for command in commands)

    # ---- Requests

    def _of_account(self, service: str, method: str, rule: str, **more: Any) -> Request:
        return asked(service, method, rule, {"accountId": self._ref, **more})

    def _todays(self) -> Request:
        states = [f"EXECUTION_REPORT_STATUS_{state}" for state in _STATES]
        return self._of_account("OrdersService", "GetOrders", "get-orders", advancedFilters={"executionStatus": states})

    def operations_request(self, since_ms: int, now_ms: int, cursor: str) -> Request:
        more: dict[str, Any] = {"from": instant(since_ms), "to": instant(now_ms + _DAY_MS), "limit": _LIMIT}
        if cursor:
            more["cursor"] = cursor
        return self._of_account(
            "OperationsService",
            "GetOperationsByCursor",
            "operations",
            **more,
            state="OPERATION_STATE_EXECUTED",
            withoutCommissions=False,
            withoutTrades=False,
            withoutOvernights=False,
        )

    # ---- Answers

    def _read_last_prices(self, response: Response) -> Page:
        found = list[Fact]()
        for row in _last_prices(_body(response)).last_prices or ():
            price, at_ms = number(row.price), moment(row.time)
            if price and at_ms is not None:
                known = self._names.known(row.instrument_uid, row.class_code, row.ticker, at_ms)
                found.append(
                    MarkFact(instrument=known.name, price=price, basis="last", at_ms=at_ms, market=spelling.MOEX)
                )
        return Page(facts=tuple(found))

    def _read_identity(self, response: Response) -> Page:
        for account in _accounts(_body(response)).accounts or ():
            if account.id == self._ref:
                break
        else:
            raise VenueError(ErrorClass.AUTH, _NO_ACCOUNT, f"this token does not show the account {self._ref}")
        kind, state = word(account.type, "ACCOUNT_TYPE_"), word(account.status, "ACCOUNT_STATUS_")
        full = word(account.access_level, "ACCOUNT_ACCESS_LEVEL_") == "full_access"
        return Page(
            identity=Identity(
                venue_ref=self._ref,
                may_trade=full and state == "open" and kind != "invest_box",
                may_withdraw=False,
                address_bound=None,
                account_mode=kind,
            )
        )

    def _read_portfolio(self, response: Response) -> Page:
        at_ms, portfolio = _dated(response), _portfolio(_body(response))
        averages = rows.averages_of(portfolio)

        def tell(response: Response) -> Page:
            found = _positions(_body(response))
            if found.limits_loading_in_progress:
                raise VenueError(ErrorClass.RETRYABLE_READ, "loading", "the positions are not complete yet")
            return Page(facts=tuple(rows.positions(found, self._names, _dated(response), "", averages)))

        request = self._of_account("OperationsService", "GetPositions", "operations")
        return Page(facts=tuple(rows.equity(portfolio, at_ms, "")), next=_read(request, tell))

    def _read_orders(self, since_ms: int) -> Tell:
        def tell(response: Response) -> Page:
            found = self.numbered(_orders(_body(response)).orders or ())
            facts = (rows.state_order(row, self._names) for row in found)
            return Page(facts=tuple(f for f in facts if f.created_at_ms >= since_ms))

        return tell

    def _read_stops(self, response: Response) -> Page:
        found = _stop_orders(_body(response)).stop_orders or ()
        return Page(facts=tuple(rows.stop_order(row, self._names) for row in found))

    def numbered(self, found: Iterable[rows.OrderState]) -> list[rows.OrderState]:
        """Those with a number of the exchange; one that got none shows under its number soon, or has ended (§3.1)."""
        return [row for row in found if not _awaits_number(row)]

    def _numbered(self, row: rows.OrderState) -> OrderFact:
        if _awaits_number(row):
            raise VenueError(ErrorClass.RETRYABLE_READ, "no number", "the order has no number of the exchange yet")
        return rows.state_order(row, self._names)

    def _find(self, instrument: Instrument, client_order_id: str, venue_order_id: str) -> Tell:
        def tell(response: Response) -> Page:
            for row in _orders(_body(response)).orders or ():
                if (venue_order_id and row.order_id == venue_order_id) or (
                    client_order_id and (row.order_request_id or "").lower() == client_order_id.lower()
                ):
                    return Page(facts=(self._numbered(row),))
            if venue_order_id and "-" not in venue_order_id:
                raise VenueError(ErrorClass.NOT_FOUND, "50005", "neither by its number nor among today's orders")
            return Page(next=_read(self._every_stop(), self._no_stop_may_be_it(instrument)))

        return tell

    def _every_stop(self) -> Request:
        return self._of_account("StopOrdersService", "GetStopOrders", "stop-orders", status="STOP_ORDER_STATUS_ALL")

    def _no_stop_may_be_it(self, instrument: Instrument) -> Tell:
        """Lists of stop orders do not tell our ids (§4.4): one that may be it forbids the word "not found"."""

        def tell(response: Response) -> Page:
            recently_ms, uid = _dated(response) - _DAY_MS, ref_of(instrument).uid
            for row in _stop_orders(_body(response)).stop_orders or ():
                created_ms = moment(row.create_date)
                if row.instrument_uid == uid and (created_ms is None or created_ms >= recently_ms):
                    raise VenueError(
                        ErrorClass.REFUSED,
                        "stop orders",
                        f"the stop order {row.stop_order_id} may be it: stop orders do not tell our ids",
                    )
            raise VenueError(ErrorClass.NOT_FOUND, "50005", "neither by our id nor among today's orders")

        return tell

    def _stop_by_id(self, client_order_id: str, venue_order_id: str) -> Read:
        """One that was triggered leads on to the order it made, which stands for it from then on."""

        def tell(response: Response) -> Page:
            for row in _stop_orders(_body(response)).stop_orders or ():
                if rows.STOP_PREFIX + (row.stop_order_id or "") == venue_order_id:
                    break
            else:
                raise VenueError(ErrorClass.NOT_FOUND, "50006", "there is no such stop order")
            fact = rows.stop_order(row, self._names)
            if not row.exchange_order_id:
                # Where it has ended or waits, ours is the id that it was asked for by.
                return Page(facts=(msgspec.structs.replace(fact, client_order_id=client_order_id),))
            made = lookup(row.exchange_order_id, "", self._ref)

            def of_made(response: Response) -> Page:
                try:
                    order = self._numbered(_order_state(_body(response)))
                except VenueError as error:
                    if error.error_class is ErrorClass.NOT_FOUND:
                        return Page()  # forgotten after a day (§4.3): of the stop itself that is no word
                    raise
                return Page(facts=(msgspec.structs.replace(order, client_order_id=client_order_id),))

            return Page(facts=(fact,), next=_read(made, of_made))

        return _read(self._every_stop(), tell)


class _FillWalk:
    """One walk over the fills since a moment: today's orders, then the operations, then the orders behind those."""

    def __init__(self, rest: TInvestRest, since_ms: int, now_ms: int) -> None:
        self._rest, self._since_ms, self._now_ms = rest, since_ms, now_ms
        self._names = rest._names
        self._today_ms = now_ms - now_ms % _DAY_MS
        self._told: set[str] = set()  # fills, by their ids
        self._orders: set[str] = set()  # orders that told theirs
        self._asked: set[str] = set()  # operations

    def begin(self) -> Read:
        return _read(self._rest._todays(), self._of_today)

    def _of_today(self, response: Response) -> Page:
        found = self._rest.numbered(_orders(_body(response)).orders or ())
        facts = [fact for row in found for fact in self._of_order(row)]
        return Page(facts=tuple(facts), next=self._operations("", frozenset()))

    def _of_order(self, row: rows.OrderState) -> list[FillFact]:
        self._orders.add(row.order_id or "")
        fills = rows.state_fills(row, self._names)
        self._told |= {f.fill_id for f in fills}
        return [f for f in fills if f.traded_at_ms >= self._since_ms]

    def _operations(self, cursor: str, seen: frozenset[str]) -> Read:
        def tell(response: Response) -> Page:
            answer = _operations(_body(response))
            following = _following(answer, seen)
            after = self._operations(following, seen | {following}) if following else None
            return Page(next=self._behind([r for r in answer.items or () if self._wanted(r)], after))

        return _read(self._rest.operations_request(self._since_ms, self._now_ms, cursor), tell)

    def _wanted(self, row: rows.Operation) -> bool:
        side = rows.traded(row)
        trades = rows.operation_trades(row)
        if side is None or not trades or (row.id or "") in self._orders | self._asked:
            return False
        self._asked.add(row.id or "")
        at_ms = moment(row.date) or 0
        if self._numbers_differ and at_ms >= self._today_ms:
            return False  # the list of today told it, under other numbers
        known = self._names.known(row.instrument_uid, row.class_code, row.ticker, at_ms)
        return any(rows.fill_id(known, t.num or "", side) not in self._told for t in trades)

    @property
    def _numbers_differ(self) -> bool:
        return self._rest._options.get("operation_trade_ids", "differ") == "differ"

    def _behind(self, left: Sequence[rows.Operation], after: Read | None) -> Read | None:
        """Asks for the order of one operation after the other: the operation's id is understood there (§7.1)."""
        if not left:
            return after
        row, rest = left[0], left[1:]
        request = asked("OrdersService", "GetOrderState", "orders", {"accountId": self._rest._ref, "orderId": row.id})

        def tell(response: Response) -> Page:
            try:
                state = _order_state(_body(response))
            except VenueError as error:
                if error.error_class is not ErrorClass.NOT_FOUND:
                    raise
                return Page(facts=tuple(self._without_order(row)), next=self._behind(rest, after))
            facts: list[Fact] = [*self._of_order(state), rows.state_order(state, self._names)]
            return Page(facts=tuple(facts), next=self._behind(rest, after))

        return Read(request=request, read=_careful(request, tell))

    def _without_order(self, row: rows.Operation) -> list[FillFact]:
        """The orders service has forgotten the order. Only where numbers agree is the fill still known by its own."""
        side = rows.traded(row)
        assert side is not None, "only trades are asked for"
        if self._numbers_differ:
            raise VenueError(
                ErrorClass.REFUSED,
                "trade numbers",
                f"the order of operation {row.id} is forgotten, and its trades may have other numbers than were heard; "
                'compare with the broker\'s report, then set operation_trade_ids = "same" to take them as they are',
            )
        fills = rows.operation_fills(row, self._names, side)
        return [f for f in fills if f.traded_at_ms >= self._since_ms and f.fill_id not in self._told]


def _awaits_number(row: rows.OrderState) -> bool:
    working = rows.status_of(row.execution_report_status, 1, 0, completed=False) is OrderStatus.WORKING
    return working and rows.is_internal(row.order_id or "", row.order_request_id or "")


def _following(answer: _Operations, seen: frozenset[str]) -> str:
    """Where the walk goes on; "" at its proven end."""
    if not answer.has_next:
        return ""
    cursor = answer.next_cursor or ""
    if not cursor or cursor in seen:
        raise ValueError(f"a page that does not lead on (cursor {cursor!r})")
    return cursor


# ---- Reading


def _read(request: Request, tell: Tell) -> Read:
    return Read(request=request, read=_careful(request, tell))


def _careful(request: Request, tell: Tell) -> Tell:
    """A row left out would make an incomplete answer look whole, so one unreadable row fails the read."""

    def read(response: Response) -> Page:
        try:
            return tell(response)
        except LookupError as error:
            raise VenueError(ErrorClass.RETRYABLE_READ, "not listed", str(error)[:300]) from error
        except UNREADABLE as error:
            told = f"{request.path}: {type(error).__name__}: {error}"[:300]
            raise VenueError(ErrorClass.REFUSED, "unreadable", told) from error

    return read


def _body(response: Response) -> bytes:
    """The body of a success; VenueError otherwise."""
    if response.status == 200:
        if b"\\u0000" in response.body:
            raise ValueError("a text with a NUL in it")
        return response.body
    try:
        status = _status(response.body)
    except UNREADABLE:
        status = Status()
    found = trouble(status, response.status)
    error_class = found.error_class
    if error_class is ErrorClass.NOT_FOUND and found.code not in _NO_SUCH_ORDER:
        error_class = ErrorClass.AUTH if found.code == _NO_ACCOUNT else ErrorClass.REFUSED
    elif error_class is ErrorClass.UNKNOWN_OUTCOME:
        error_class = ErrorClass.RETRYABLE_READ
    elif error_class is ErrorClass.TARGET_GONE:
        error_class = ErrorClass.REFUSED
    raise VenueError(error_class, found.code, found.reason)


def _dated(response: Response) -> int:
    for name, value in response.headers.items():
        if name.lower() == "date":
            try:
                return round(parsedate_to_datetime(value).timestamp() * 1000)
            except (ValueError, TypeError, IndexError):
                break
    if response.status != 200:
        _body(response)
    raise VenueError(ErrorClass.RETRYABLE_READ, "no date", "the answer does not tell its time")


def _read_listings(response: Response) -> Page:
    """A listing that we cannot read does not exist here, so an order in it is denied; the others stay."""
    found = list[Instrument]()
    for raw in _listings(_body(response)).instruments or ():
        try:
            instrument = listed(_listed_row(raw))
        except UNREADABLE:
            continue
        if instrument is not None:
            found.append(instrument)
    return Page(instruments=tuple(found))
