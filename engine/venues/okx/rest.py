"""Decides. OKX over HTTP: which requests tell what, and how to read their answers. OKX dossier §6, §9.

History comes newest first and is walked backwards by a cursor. A page with fewer rows than were asked for is the only
proof of a walk's end; a full one always means another request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import quote

import msgspec

from engine.core.facts import Fact, FillFact
from engine.core.instruments import Instrument
from engine.core.orders import Cancel, Command, Outcome, Refused, Unknown
from engine.core.venue import Catalogue, ErrorClass, Identity, Page, Read, Request, Response, Rest, VenueError
from engine.venues.okx import rows
from engine.venues.okx.errors import of_read, of_request, reason
from engine.venues.okx.numbers import moment
from engine.venues.okx.orders import Answer, argument, deadline, operation, outcomes
from engine.venues.okx.rows import UNREADABLE
from engine.venues.okx.symbols import InstrumentRow, instrument_of, symbol_of

_NO_QUERY: Mapping[str, str] = {}
_LIMIT = 100  # rows a page holds at most, and unless told otherwise
_DAY_MS = 86_400_000
# How far back the near endpoints reach, less a margin: a request that waits its turn must not fall off the edge.
_FILLS_MS = 3 * _DAY_MS - 3_600_000
_NEAR_MS = 7 * _DAY_MS - 3_600_000
_ORDER_TYPES = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION")
_LISTED_TYPES = ("SPOT", "SWAP", "FUTURES")
_ACCOUNT_MODES = {"1": "spot", "2": "futures", "3": "multi_currency", "4": "portfolio"}


class _Body(msgspec.Struct, gc=False):
    code: str | int = ""
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Time(msgspec.Struct, gc=False):
    ts: str


class _Config(msgspec.Struct, gc=False):
    uid: str
    acctLv: str
    posMode: str
    perm: str = ""
    ip: str = ""


_body = msgspec.json.Decoder(_Body).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_answers = msgspec.json.Decoder(list[Answer]).decode
_times = msgspec.json.Decoder(list[_Time]).decode
_configs = msgspec.json.Decoder(list[_Config]).decode
_order_rows = msgspec.json.Decoder(list[rows.OrderRow]).decode
_fill_rows = msgspec.json.Decoder(list[rows.FillRow]).decode
_position_rows = msgspec.json.Decoder(list[rows.PositionRow]).decode
_account_rows = msgspec.json.Decoder(list[rows.AccountRow]).decode
_balance_row = msgspec.json.Decoder(rows.BalanceRow).decode
_bill_rows = msgspec.json.Decoder(list[rows.BillRow]).decode
_mark_rows = msgspec.json.Decoder(list[rows.MarkRow]).decode
_ticker_rows = msgspec.json.Decoder(list[rows.TickerRow]).decode
_instrument_row = msgspec.json.Decoder(InstrumentRow).decode
_encode = msgspec.json.Encoder().encode


class OkxRest(Rest):
    """The venue over HTTP, described."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    # ---- The venue

    def server_time(self) -> Read:
        return _read(_get("public/time", "time", signed=False), lambda d: Page(server_time_ms=moment(_times(d)[0].ts)))

    def instruments(self) -> Sequence[Read]:
        """Options are left out: they are listed by family only, and nothing here trades them."""
        return [
            _read(_get("public/instruments", "instruments", {"instType": t}, signed=False), _read_instruments)
            for t in _LISTED_TYPES
        ]

    def marks(self) -> Sequence[Read]:
        """Mark prices of derivatives; spot has none and is valued by its last trade and best prices."""
        return [
            _read(_get("public/mark-price", "mark-price", {"instType": "SWAP"}, signed=False), _read_marks),
            _read(_get("public/mark-price", "mark-price", {"instType": "FUTURES"}, signed=False), _read_marks),
            _read(_get("market/tickers", "tickers", {"instType": "SPOT"}, signed=False), _read_tickers),
        ]

    # ---- One account

    def identity(self) -> Read:
        return _read(_get("account/config", "config"), _read_identity)

    def statement(self) -> Sequence[Read]:
        """Each of the two answers is whole, without pages, and leaves out what is zero (§6.4)."""
        return [
            _read(_get("account/positions", "positions"), _read_positions),
            _read(_get("account/balance", "balance"), _read_balance),
        ]

    def open_orders(self) -> Sequence[Read]:
        return [_walk("trade/orders-pending", "orders-pending", _read_orders)]

    def order(self, instrument: Instrument, client_order_id: str, venue_order_id: str) -> Read:
        ids = {"ordId": venue_order_id} if venue_order_id else {"clOrdId": client_order_id}
        if not (venue_order_id or client_order_id):
            raise ValueError("an order is looked up by one of its ids")
        return _read(_get("trade/order", "order", {"instId": symbol_of(instrument.name), **ids}), _read_order)

    def orders(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """The near history alone shows unfilled cancelled orders (2 h), so the archive is only ever read beside it."""
        span = _span(since_ms, now_ms)
        walks = [
            _walk("trade/orders-history", "orders-history", _read_orders, instType=t, **span) for t in _ORDER_TYPES
        ]
        if now_ms - since_ms > _NEAR_MS:
            archive = "trade/orders-history-archive"
            walks += [_walk(archive, "orders-history-archive", _read_orders, instType=t, **span) for t in _ORDER_TYPES]
        return walks

    def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        """`trade/fills` is the fresher one, so it is read also where the gap is older than its three days."""
        span = _span(since_ms, now_ms)
        walks = [_fill_walk("trade/fills", "fills", **span)]
        if now_ms - since_ms > _FILLS_MS:
            walks += [_fill_walk("trade/fills-history", "fills-history", instType=t, **span) for t in _ORDER_TYPES]
        return walks

    def cash(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        span = _span(since_ms, now_ms)
        walks = [_walk("account/bills", "bills", _read_bills, **span)]
        if now_ms - since_ms > _NEAR_MS:
            walks.append(_walk("account/bills-archive", "bills-archive", _read_bills, **span))
        return walks

    # ---- Orders over HTTP

    def orders_request(self, commands: Sequence[Command]) -> Request:
        """The same rules and units count for the same orders over the stream (§5.5)."""
        kind, count = operation(commands), len(commands)
        args = [argument(command, stream=False) for command in commands]
        expires_at_ms = deadline(commands)
        rule = kind.rule if count == 1 else f"{kind.rule}-batch"
        return Request(
            method="POST",
            path=f"/api/v5/trade/{kind.path if count == 1 else kind.batch_path}",
            body=_encode(args[0] if count == 1 else args),
            headers=() if expires_at_ms is None else (("expTime", str(expires_at_ms)),),
            rules=(rule,) if isinstance(commands[0], Cancel) else (rule, "orders-all"),
            rule_key=commands[0].instrument.name,
            units=count,
        )

    def read_outcomes(self, commands: Sequence[Command], response: Response) -> tuple[Outcome, ...]:
        """The status goes first: behind a 5xx the order may have been executed, whatever the body says."""
        if response.status >= 500:
            return _all(commands, Unknown(f"HTTP {response.status}"))
        try:
            body = _body(response.body)
            answers = _answers(body.data) if body.data else []
        except UNREADABLE:
            if response.status == 429:
                return _all(commands, Refused("429", "too many requests", again=True))
            return _all(commands, Unknown(f"HTTP {response.status} with an answer that cannot be read"))
        code = str(body.code)
        if response.status == 429 and of_request(code) is ErrorClass.UNKNOWN_OUTCOME:
            return _all(commands, Refused(code or "429", "too many requests", again=True))
        return outcomes(commands, code, body.msg, answers)


def _all(commands: Sequence[Command], outcome: Outcome) -> tuple[Outcome, ...]:
    return tuple(outcome for _ in commands)


# ---- Requests and walks


def _get(path: str, rule: str, query: Mapping[str, str] = _NO_QUERY, *, signed: bool = True) -> Request:
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    full = f"/api/v5/{path}{'?' if asked else ''}{asked}"
    return Request(method="GET", path=full, rules=(rule,), signed=signed)


def _read(request: Request, tell: Callable[[bytes | msgspec.Raw], Page]) -> Read:
    def read(response: Response) -> Page:
        data = _data(response)
        try:
            return tell(data)
        except UNREADABLE as error:
            raise _cannot_read(request, error) from error

    return Read(request=request, read=read)


def _data(response: Response) -> msgspec.Raw:
    """The rows of an answer that is a success; VenueError otherwise."""
    try:
        body = _body(response.body)
    except UNREADABLE:
        # A page for people, or half an answer: of the venue's state it tells nothing.
        error_class = ErrorClass.RATE if response.status == 429 else ErrorClass.RETRYABLE_READ
        raise VenueError(error_class, f"HTTP {response.status}", "the answer is no JSON of OKX") from None
    code = str(body.code)
    if code != "0" or response.status >= 400:
        raise VenueError(of_read(response.status, code), code or f"HTTP {response.status}", reason(code, body.msg))
    return body.data


def _cannot_read(request: Request, error: Exception) -> VenueError:
    """A row left out would make an incomplete answer look whole, so one unreadable row fails the read."""
    path = request.path.partition("?")[0]
    return VenueError(ErrorClass.REFUSED, "unreadable", f"{path}: {type(error).__name__}: {error}"[:300])


def _span(since_ms: int, now_ms: int) -> dict[str, str]:
    """From `since_ms` on, told with an end as well, well past now: with a `begin` alone the first page would hold the
    rows closest to it (§6.2), and a walk from there backwards would miss all that came later."""
    return {"begin": str(since_ms), "end": str(now_ms + _DAY_MS)}


Tell = Callable[[bytes | msgspec.Raw], tuple[Sequence[Fact], int, str]]
"""Rows of one page -> their facts, how many rows there were, and the last one's cursor."""


def _walk(path: str, rule: str, tell: Tell, **query: str) -> Read:
    def at(after: dict[str, str]) -> Read:
        def page(data: bytes | msgspec.Raw) -> Page:
            facts, count, cursor = tell(data)
            return Page(facts=tuple(facts), next=_older(at, count, cursor, after))

        return _read(_get(path, rule, {**query, **after, "limit": str(_LIMIT)}), page)

    return at({})


def _fill_walk(path: str, rule: str, **query: str) -> Read:
    """A walk that joins two rows of one fill (§6.3), also when a page ends between them.

    They share their match time, so on a full page the fills of its last match time wait for the next page.
    """

    def at(after: dict[str, str], waiting: tuple[FillFact, ...]) -> Read:
        def page(data: bytes | msgspec.Raw) -> Page:
            fetched = _fill_rows(data)
            fills = [*waiting, *map(rows.history_fill, fetched)]
            full = len(fetched) >= _LIMIT
            last_ms = fills[-1].traded_at_ms if full else None
            whole = _join(fill for fill in fills if fill.traded_at_ms != last_ms)
            rest = tuple(fill for fill in fills if fill.traded_at_ms == last_ms)
            cursor = fetched[-1].billId if fetched else ""
            return Page(facts=whole, next=_older(lambda a: at(a, rest), len(fetched), cursor, after))

        return _read(_get(path, rule, {**query, **after, "limit": str(_LIMIT)}), page)

    return at({}, ())


def _join(fills: Iterable[FillFact]) -> tuple[FillFact, ...]:
    by_id = dict[str, FillFact]()
    for fill in fills:
        known = by_id.get(fill.fill_id)
        by_id[fill.fill_id] = fill if known is None else rows.joined(known, fill)
    return tuple(by_id.values())


def _older(at: Callable[[dict[str, str]], Read], count: int, cursor: str, after: dict[str, str]) -> Read | None:
    if count < _LIMIT:
        return None
    if not cursor or after.get("after") == cursor:
        raise ValueError(f"a full page that does not lead on (cursor {cursor!r})")
    return at({"after": cursor})


# ---- Answers


def _read_instruments(data: bytes | msgspec.Raw) -> Page:
    """An instrument that we cannot read does not exist here, so an order in it is denied; the others stay."""
    found = list[Instrument]()
    for raw in _raws(data):
        try:
            found.append(instrument_of(_instrument_row(raw)))
        except UNREADABLE:
            continue
    return Page(instruments=tuple(found))


def _read_marks(data: bytes | msgspec.Raw) -> Page:
    return Page(facts=tuple(map(rows.mark_fact, _mark_rows(data))))


def _read_tickers(data: bytes | msgspec.Raw) -> Page:
    return Page(facts=tuple(fact for row in _ticker_rows(data) for fact in rows.ticker_facts(row)))


def _read_identity(data: bytes | msgspec.Raw) -> Page:
    config = _configs(data)[0]
    permissions = set(config.perm.split(","))
    identity = Identity(
        venue_ref=config.uid,
        may_trade="trade" in permissions,
        may_withdraw="withdraw" in permissions,
        address_bound=bool(config.ip),
        account_mode=_ACCOUNT_MODES.get(config.acctLv, config.acctLv),
        spot_margin_mode="cross" if config.acctLv in ("3", "4") else "cash",  # §5.3
        hedged=config.posMode == "long_short_mode",
    )
    return Page(identity=identity)


def _read_order(data: bytes | msgspec.Raw) -> Page:
    found = _order_rows(data)
    if not found:
        # "There is none" has a code of its own (51603). An empty success proves nothing.
        raise VenueError(ErrorClass.RETRYABLE_READ, "0", "an order look-up was answered with nothing")
    return Page(facts=(rows.order_fact(found[0]),))


def _read_orders(data: bytes | msgspec.Raw) -> tuple[Sequence[Fact], int, str]:
    found = _order_rows(data)
    return [rows.order_fact(row) for row in found], len(found), found[-1].ordId if found else ""


def _read_bills(data: bytes | msgspec.Raw) -> tuple[Sequence[Fact], int, str]:
    found = _bill_rows(data)
    return [rows.cash_fact(row) for row in found], len(found), found[-1].billId if found else ""


def _read_positions(data: bytes | msgspec.Raw) -> Page:
    return Page(facts=tuple(map(rows.position_fact, _position_rows(data))))


def _read_balance(data: bytes | msgspec.Raw) -> Page:
    facts = list[Fact]()
    for account in _account_rows(data):
        equity = rows.equity_fact(account)
        if equity is not None:
            facts.append(equity)
        facts += [rows.balance_fact(_balance_row(raw)) for raw in account.details]
    return Page(facts=tuple(facts))
