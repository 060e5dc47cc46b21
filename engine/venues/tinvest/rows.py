"""Decides. T-Invest's rows -> facts. The same facts come of streams and of reads. T-Invest dossier §3, §4, §5.3, §7.4.

Stages and `lots…` fields count lots; trades of streams, operations and positions count pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from engine.core import spelling
from engine.core.facts import (
    REPLACED,
    BalanceFact,
    CashFact,
    EquityFact,
    Fact,
    FillFact,
    OrderFact,
    OrderStatus,
    PositionFact,
    Side,
)
from engine.core.instruments import InstrumentKind
from engine.venues.tinvest.names import Known, Names, holding
from engine.venues.tinvest.numbers import Enum, Int64, Money, Time, integer, moment, number, optional, word

_STATE = "EXECUTION_REPORT_STATUS_"
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_KINDS = {"unspecified": "limit", "": "limit"}  # stated so at times, of limit orders (§3.1)
_IN_FORCE = {"fill_and_kill": "ioc", "fill_or_kill": "fok"}
STOP_PREFIX = "stop:"  # stop orders have ids of their own


class _Row(msgspec.Struct, gc=False, rename="camel"):
    """Absent, null and the default are alike."""


# ---- Orders


class StreamTrade(_Row):
    date_time: Time = None
    price: Money | None = None
    quantity: Int64 = None
    trade_id: str | None = None


class StreamOrder(_Row):
    order_id: str | None = None
    order_request_id: str | None = None
    created_at: Time = None
    completion_time: Time = None
    execution_report_status: Enum = None
    status_info: Enum = None
    ticker: str | None = None
    class_code: str | None = None
    instrument_uid: str | None = None
    lot_size: int | None = None
    direction: Enum = None
    time_in_force: Enum = None
    order_type: Enum = None
    account_id: str | None = None
    order_price: Money | None = None
    executed_order_price: Money | None = None
    lots_requested: Int64 = None
    lots_executed: Int64 = None
    lots_left: Int64 = None
    lots_cancelled: Int64 = None
    marker: Enum = None
    trades: list[StreamTrade] | None = None


class OrderTrades(_Row):
    order_id: str | None = None
    created_at: Time = None
    direction: Enum = None
    account_id: str | None = None
    instrument_uid: str | None = None
    trades: list[StreamTrade] | None = None


class Stage(_Row):
    price: Money | None = None
    quantity: Int64 = None
    trade_id: str | None = None
    execution_time: Time = None


class OrderState(_Row):
    """Over HTTP."""

    order_id: str | None = None
    order_request_id: str | None = None
    execution_report_status: Enum = None
    lots_requested: Int64 = None
    lots_executed: Int64 = None
    average_position_price: Money | None = None
    initial_security_price: Money | None = None
    direction: Enum = None
    stages: list[Stage] | None = None
    order_type: Enum = None
    order_date: Time = None
    instrument_uid: str | None = None
    ticker: str | None = None
    class_code: str | None = None


class StopOrder(_Row):
    stop_order_id: str | None = None
    lots_requested: Int64 = None
    direction: Enum = None
    order_type: Enum = None
    create_date: Time = None
    activation_date_time: Time = None
    price: Money | None = None
    stop_price: Money | None = None
    instrument_uid: str | None = None
    status: Enum = None
    exchange_order_id: str | None = None
    ticker: str | None = None
    class_code: str | None = None


def side_of(direction: Enum, prefix: str = "ORDER_DIRECTION_") -> Side:
    side = _SIDES.get(word(direction, prefix))
    if side is None:
        raise ValueError(f"neither bought nor sold: {direction!r}")
    return side


def fill_id(known: Known, trade_id: str, side: Side) -> str:
    """The exchange numbers its trades; whoever trades with himself has one number on both sides."""
    return f"{known.uid or known.name}:{trade_id}:{side.value}"


def is_internal(order_id: str, request_id: str) -> bool:
    """The first word of an order has no exchange number yet but an id of the venue's own (§3.1)."""
    return not order_id or "-" in order_id or order_id == request_id


def status_of(state: Enum, requested: int, executed: int, *, completed: bool) -> OrderStatus:
    """One that ended after a part of it was filled may stay PARTIALLYFILL for ever, with a time of completion."""
    match word(state, _STATE):
        case "fill":
            return OrderStatus.FILLED
        case "rejected":
            return OrderStatus.REJECTED
        case "cancelled":
            return OrderStatus.CANCELLED
    if not completed:
        return OrderStatus.WORKING
    return OrderStatus.FILLED if executed >= requested else OrderStatus.CANCELLED


def kind_of(order_type: Enum, in_force: Enum = None) -> str:
    known = word(order_type, "ORDER_TYPE_")
    return _IN_FORCE.get(word(in_force, "TIME_IN_FORCE_"), _KINDS.get(known, known))


def stream_order(row: StreamOrder, names: Names, now_ms: int, ref: str) -> tuple[OrderFact, list[FillFact]]:
    created_ms = moment(row.created_at) or now_ms
    ended_ms = moment(row.completion_time)
    known = names.known(row.instrument_uid, row.class_code, row.ticker, created_ms)
    side, order_id, request_id = side_of(row.direction), row.order_id or "", row.order_request_id or ""
    requested, executed = integer(row.lots_requested), integer(row.lots_executed)
    fills = [
        FillFact(
            instrument=known.name,
            fill_id=fill_id(known, trade.trade_id or "", side),
            venue_order_id=order_id,
            client_order_id=request_id,
            side=side,
            quantity=_lots(known, integer(trade.quantity), row.lot_size),
            price=number(trade.price),
            realised=realised(known),
            traded_at_ms=moment(trade.date_time) or now_ms,
            account_ref=ref,
        )
        for trade in row.trades or ()
        if trade.trade_id and integer(trade.quantity)
    ]
    latest_ms = max((f.traded_at_ms for f in fills), default=created_ms)
    status = status_of(row.execution_report_status, requested, executed, completed=ended_ms is not None)
    cause = word(row.status_info, "CAUSE_")
    marker = word(row.marker, "MARKER_")
    order = OrderFact(
        instrument=known.name,
        venue_order_id=order_id,
        client_order_id=request_id,
        side=side,
        order_type=kind_of(row.order_type, row.time_in_force),
        quantity=Decimal(requested),
        price=optional(row.order_price),
        filled=Decimal(executed),
        avg_price=optional(row.executed_order_price) if executed else None,
        status=status,
        reason="" if cause in ("", "unspecified") else cause.replace("_", " "),
        venue_action="margin" if marker == "margin" else "",
        created_at_ms=created_ms,
        updated_at_ms=max(ended_ms or 0, latest_ms),
        account_ref=ref,
    )
    return order, fills


def realised(known: Known) -> Decimal | None:
    """The gain of a future is paid as variation margin, in rows of its own; its fills move no cash."""
    instrument = known.instrument
    future = instrument.kind is InstrumentKind.FUTURE if instrument is not None else ":" in known.name
    return Decimal(0) if future else None


def _lots(known: Known, pieces: int, lot_size: int | None) -> Decimal:
    return Decimal(pieces) / lot_size if lot_size and lot_size > 0 else known.lots(pieces)


def order_trades(row: OrderTrades, names: Names, now_ms: int, ref: str) -> list[FillFact]:
    """TradesStream: fills alone, without the client's id."""
    known = names.known(row.instrument_uid, None, None, now_ms)
    side = side_of(row.direction)
    return [
        FillFact(
            instrument=known.name,
            fill_id=fill_id(known, trade.trade_id or "", side),
            venue_order_id=row.order_id or "",
            side=side,
            quantity=known.lots(integer(trade.quantity)),
            price=number(trade.price),
            realised=realised(known),
            traded_at_ms=moment(trade.date_time) or moment(row.created_at) or now_ms,
            account_ref=ref,
        )
        for trade in row.trades or ()
        if trade.trade_id and integer(trade.quantity)
    ]


def state_order(row: OrderState, names: Names) -> OrderFact:
    """An order over HTTP. It tells no time of its end: the last one that it tells stands for it."""
    created_ms = moment(row.order_date) or 0
    known = names.known(row.instrument_uid, row.class_code, row.ticker, created_ms)
    requested, executed = integer(row.lots_requested), integer(row.lots_executed)
    latest_ms = max((moment(s.execution_time) or 0 for s in row.stages or ()), default=0)
    return OrderFact(
        instrument=known.name,
        venue_order_id=row.order_id or "",
        client_order_id=row.order_request_id or "",
        side=side_of(row.direction),
        order_type=kind_of(row.order_type),
        quantity=Decimal(requested),
        price=optional(row.initial_security_price),
        filled=Decimal(executed),
        avg_price=optional(row.average_position_price) if executed else None,
        status=status_of(row.execution_report_status, requested, executed, completed=False),
        created_at_ms=created_ms,
        updated_at_ms=max(created_ms, latest_ms),
    )


def state_fills(row: OrderState, names: Names) -> list[FillFact]:
    """Stages count lots, and are of today's orders and maybe a day more (§4.3)."""
    created_ms = moment(row.order_date) or 0
    known = names.known(row.instrument_uid, row.class_code, row.ticker, created_ms)
    side = side_of(row.direction)
    return [
        FillFact(
            instrument=known.name,
            fill_id=fill_id(known, stage.trade_id or "", side),
            venue_order_id=row.order_id or "",
            client_order_id=row.order_request_id or "",
            side=side,
            quantity=Decimal(integer(stage.quantity)),
            price=number(stage.price),
            realised=realised(known),
            traded_at_ms=moment(stage.execution_time) or created_ms,
        )
        for stage in row.stages or ()
        if stage.trade_id and integer(stage.quantity)
    ]


def stop_order(row: StopOrder, names: Names) -> OrderFact:
    """One that was triggered goes on as the order that it made, which tells nothing of our id (§4.4)."""
    created_ms = moment(row.create_date) or 0
    known = names.known(row.instrument_uid, row.class_code, row.ticker, created_ms)
    state = word(row.status, "STOP_ORDER_STATUS_")
    ended = state in ("executed", "canceled", "expired")
    triggered, made = state == "executed", row.exchange_order_id or ""
    reason = (f"triggered: order {made}" if made else "triggered") if triggered else ""
    return OrderFact(
        instrument=known.name,
        venue_order_id=STOP_PREFIX + (row.stop_order_id or ""),
        side=side_of(row.direction, "STOP_ORDER_DIRECTION_"),
        order_type="stop_limit" if word(row.order_type, "STOP_ORDER_TYPE_") == "stop_limit" else "stop",
        quantity=Decimal(integer(row.lots_requested)),
        price=optional(row.price),
        filled=Decimal(0),
        status=(OrderStatus.EXPIRED if state == "expired" else OrderStatus.CANCELLED) if ended else OrderStatus.WORKING,
        reason=reason,
        venue_action=REPLACED if triggered else "",
        replaced_by=made if triggered else "",
        created_at_ms=created_ms,
        updated_at_ms=moment(row.activation_date_time) or created_ms,
    )


# ---- Positions


class MoneyPair(_Row):
    available_value: Money | None = None
    blocked_value: Money | None = None


class Security(_Row):
    instrument_uid: str | None = None
    ticker: str | None = None
    class_code: str | None = None
    blocked: Int64 = None
    balance: Int64 = None


class PositionChange(_Row):
    account_id: str | None = None
    money: list[MoneyPair] | None = None
    securities: list[Security] | None = None
    futures: list[Security] | None = None
    options: list[Security] | None = None
    date: Time = None


class Positions(_Row):
    account_id: str | None = None
    money: list[Money] | None = None
    blocked: list[Money] | None = None
    securities: list[Security] | None = None
    futures: list[Security] | None = None
    options: list[Security] | None = None
    limits_loading_in_progress: bool | None = None


def position_change(row: PositionChange, names: Names, now_ms: int, ref: str) -> list[Fact]:
    """Only what changed, each row whole (§3.3)."""
    at_ms = moment(row.date) or now_ms
    money = [
        _balance(m.available_value, number(m.blocked_value), at_ms, ref) for m in row.money or () if m.available_value
    ]
    return [*money, *_holdings(row.securities, row.futures, row.options, names, at_ms, ref, {})]


def positions(
    row: Positions, names: Names, at_ms: int, ref: str, averages: dict[str, Decimal] | None = None
) -> list[Fact]:
    """All of an account: what is absent is zero."""
    blocked: dict[str, Decimal] = {}
    for m in row.blocked or ():
        code = spelling.currency(m.currency or "")
        blocked[code] = blocked.get(code, Decimal(0)) + number(m)
    available = {spelling.currency(m.currency or ""): m for m in row.money or ()}
    money = [
        _balance(
            available.get(code, Money(currency=code)),
            blocked.get(code, Decimal(0)),
            at_ms,
            ref,
        )
        for code in dict.fromkeys([*available, *blocked])
    ]
    return [*money, *_holdings(row.securities, row.futures, row.options, names, at_ms, ref, averages or {})]


def _balance(available: Money | None, blocked: Decimal, at_ms: int, ref: str) -> BalanceFact:
    assert available is not None, "asked before"
    free = number(available)
    return BalanceFact(
        currency=spelling.currency(available.currency or ""),
        cash=free + blocked,
        available=free,
        updated_at_ms=at_ms,
        account_ref=ref,
    )


def _holdings(
    securities: Iterable[Security] | None,
    futures: Iterable[Security] | None,
    options: Iterable[Security] | None,
    names: Names,
    at_ms: int,
    ref: str,
    averages: dict[str, Decimal],
) -> list[Fact]:
    facts: list[Fact] = []
    for row in securities or ():
        known = names.known(row.instrument_uid, row.class_code, row.ticker, at_ms)
        free = integer(row.balance)
        currency, cash = holding(known, free + integer(row.blocked))
        available = holding(known, free)[1]
        facts.append(
            BalanceFact(currency=currency, cash=cash, available=available, updated_at_ms=at_ms, account_ref=ref)
        )
    for row in (*(futures or ()), *(options or ())):
        known = names.known(row.instrument_uid, row.class_code, row.ticker, at_ms)
        pieces = integer(row.balance) + integer(row.blocked)
        lots = known.lots(pieces) if known.instrument is not None else Decimal(pieces)  # a contract is one piece
        facts.append(
            PositionFact(
                instrument=known.name,
                quantity=lots,
                avg_price=averages.get(row.instrument_uid or "") if pieces else None,
                updated_at_ms=at_ms,
                account_ref=ref,
            )
        )
    return facts


# ---- Portfolio


class PortfolioPosition(_Row):
    instrument_uid: str | None = None
    instrument_type: str | None = None
    average_position_price_pt: Money | None = None


class Portfolio(_Row):
    account_id: str | None = None
    total_amount_portfolio: Money | None = None
    positions: list[PortfolioPosition] | None = None


def equity(row: Portfolio, at_ms: int, ref: str) -> list[Fact]:
    total = row.total_amount_portfolio
    if total is None:
        return []
    currency = spelling.currency(total.currency or "RUB")
    return [EquityFact(currency=currency, total=number(total), updated_at_ms=at_ms, account_ref=ref)]


def averages_of(row: Portfolio) -> dict[str, Decimal]:
    """Average prices of futures in points, by uid."""
    found = {
        p.instrument_uid or "": number(p.average_position_price_pt)
        for p in row.positions or ()
        if p.instrument_type == "futures"
    }
    return {uid: price for uid, price in found.items() if price}


# ---- Operations


class OperationTrade(_Row):
    num: str | None = None
    date: Time = None
    quantity: Int64 = None
    price: Money | None = None


class TradesOf(_Row):
    trades: list[OperationTrade] | None = None


class Operation(_Row):
    id: str | None = None
    date: Time = None
    type: Enum = None
    state: Enum = None
    instrument_uid: str | None = None
    ticker: str | None = None
    class_code: str | None = None
    payment: Money | None = None
    accrued_int: Money | None = None
    quantity: Int64 = None
    quantity_rest: Int64 = None
    cancel_date_time: Time = None
    trades_info: TradesOf | None = None


_TRADES = {
    "buy": Side.BUY,
    "buy_card": Side.BUY,
    "buy_margin": Side.BUY,
    "delivery_buy": Side.BUY,
    "sell": Side.SELL,
    "sell_card": Side.SELL,
    "sell_margin": Side.SELL,
    "delivery_sell": Side.SELL,
}
_CASH_KINDS = {
    # A commission is a row of its own here and no part of a fill, so it counts by itself.
    "broker_fee": "commission",
    "service_fee": "commission",
    "margin_fee": "interest",
    "accruing_varmargin": "variation",
    "writing_off_varmargin": "variation",
    "funding": "funding",
    "input": "transfer",
    "output": "transfer",
    "inp_multi": "transfer",
    "out_multi": "transfer",
    "trans_iis_bs": "transfer",
    "trans_bs_bs": "transfer",
    "dividend": "dividend",
    "coupon": "interest",
}

_SECURITIES = {"input_securities": 1, "output_securities": -1}  # what is moved is the paper


def operation_type(row: Operation) -> str:
    return word(row.type, "OPERATION_TYPE_")


def traded(row: Operation) -> Side | None:
    """Which way a trade went; None for an operation that is none."""
    return _TRADES.get(operation_type(row))


def operation_fills(row: Operation, names: Names, side: Side) -> list[FillFact]:
    """By the operation's own trade numbers; it names no order."""
    at_ms = moment(row.date) or 0
    known = names.known(row.instrument_uid, row.class_code, row.ticker, at_ms)
    return [
        FillFact(
            instrument=known.name,
            fill_id=fill_id(known, trade.num or "", side),
            venue_order_id="",
            side=side,
            quantity=known.lots(integer(trade.quantity)),
            price=number(trade.price),
            realised=realised(known),
            history_id=row.id or "",
            traded_at_ms=moment(trade.date) or at_ms,
        )
        for trade in operation_trades(row)
    ]


def operation_trades(row: Operation) -> Sequence[OperationTrade]:
    trades = row.trades_info.trades if row.trades_info is not None else None
    return [t for t in trades or () if t.num and integer(t.quantity)]


class Movements:
    """Cash movements of one walk. An operation's id may change later, so its content names it (§7.4); rows that are
    alike but have ids of their own are counted through."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._ids: set[str] = set()
        self._alike: dict[str, int] = {}

    def of(self, row: Operation) -> list[CashFact]:
        if row.id:
            if row.id in self._ids:
                return []  # pages may repeat rows at their borders (§7.1)
            self._ids.add(row.id)
        kind = operation_type(row)
        at_ms = moment(row.date)
        if at_ms is None:
            return []
        known = None
        if row.ticker or row.instrument_uid:
            known = self._names.known(row.instrument_uid, row.class_code, row.ticker, at_ms)
        currency = spelling.currency((row.payment and row.payment.currency) or "")
        if kind in _SECURITIES and known is not None:
            currency, amount = holding(known, integer(row.quantity))
            amount, kind = amount * _SECURITIES[kind], "transfer"
        elif traded(row) is not None:
            amount, kind = _accrued(row), "interest"
        else:
            amount, kind = number(row.payment), _CASH_KINDS.get(kind, kind or "other")
        if not amount or not currency:
            return []
        alike = f"{row.type}:{row.date}:{row.instrument_uid or ''}:{amount}:{integer(row.quantity)}"
        count = self._alike[alike] = self._alike.get(alike, 0) + 1
        return [
            CashFact(
                cash_id=alike if count == 1 else f"{alike}:{count}",
                currency=currency,
                amount=amount,
                kind=kind,
                instrument="" if known is None else known.name,
                booked_at_ms=at_ms,
            )
        ]


def _accrued(row: Operation) -> Decimal:
    """Accrued interest of a bond is paid with the trade and is no part of its price. The row of an order at work
    still grows."""
    if integer(row.quantity_rest) and moment(row.cancel_date_time) is None:
        return Decimal(0)
    interest = abs(number(row.accrued_int))
    return -interest if traded(row) is Side.BUY else interest
