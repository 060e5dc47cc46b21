"""Decides. ALOR's rows (format Simple) -> facts. The same rows come by subscription and over HTTP. ALOR dossier §4.5.

The structs name only the fields that we use; every other one is skipped unread. Quantities are lots on the exchange's
orders and trades, units (pieces, money) in holdings. A row that cannot be told without guessing raises one of
UNREADABLE. Trades, summaries and nothing else leave out whose they are: the subscription or the URL says it.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.core import spelling
from engine.core.facts import (
    REPLACED,
    BalanceFact,
    EquityFact,
    FillFact,
    MarkFact,
    OrderFact,
    OrderStatus,
    PositionFact,
    Side,
)
from engine.venues.alor.numbers import ZERO, Ident, check_ms, ident, moment, number, optional, year_of
from engine.venues.alor.symbols import UNNAMED, is_bond, is_future, name_of

UNREADABLE = (msgspec.MsgspecError, ValueError, LookupError, ArithmeticError, RecursionError)
"""What reading a frame can raise, and nothing else."""

STOP = "stop:"
"""Stop orders have numbers of their own, which may be those of exchange orders, too: theirs are told apart by this."""

_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_STATUSES = {
    "working": OrderStatus.WORKING,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELLED,
    "rejected": OrderStatus.REJECTED,
}
_BY_TIME_IN_FORCE = {"bookorcancel": "post_only", "immediateorcancel": "ioc", "fillorkill": "fok"}
_LARGEST_TRADE = 2**63
_PER_CENT = Decimal(100)


# ---- Orders


class OrderRow(msgspec.Struct, gc=False, kw_only=True):
    id: Ident
    symbol: str
    exchange: str
    comment: str | None = None
    type: str
    side: str
    status: str
    transTime: str
    updateTime: str | None = None
    qtyBatch: Decimal
    filledQtyBatch: Decimal = ZERO
    price: Decimal | None = None
    timeInForce: str | None = None
    # Of stop orders only.
    stopPrice: Decimal | None = None
    exchangeOrderId: Ident | None = None
    error: str | None = None


def order_fact(row: OrderRow, account_ref: str) -> OrderFact:
    created_ms = moment(row.transTime)
    kind = row.type.lower()
    if kind == "limit":
        kind = _BY_TIME_IN_FORCE.get((row.timeInForce or "").lower(), kind)
    return OrderFact(
        instrument=name_of(row.symbol, year_of(created_ms), row.exchange),
        venue_order_id=ident(row.id),
        client_order_id=row.comment or "",
        side=_SIDES[row.side.lower()],
        order_type=kind,
        quantity=number(row.qtyBatch),
        price=number(row.price) if row.price and kind != "market" else None,
        filled=number(row.filledQtyBatch),
        status=_STATUSES[row.status.lower()],
        created_at_ms=created_ms,
        updated_at_ms=moment(row.updateTime) if row.updateTime else created_ms,
        account_ref=account_ref,
    )


def stop_fact(row: OrderRow, account_ref: str) -> OrderFact:
    """A stop order that was triggered is not the end of anything: the order it became carries the comment on (§6.4).

    One whose order was refused says so by its error, whichever way it ended (§6.1). It is never filled itself: the
    fills are those of the order it became.
    """
    created_ms, status = moment(row.transTime), _STATUSES[row.status.lower()]
    triggered = status is OrderStatus.FILLED and not (row.error and not row.exchangeOrderId)
    reason = row.error or ""
    if triggered:
        became = f": order {ident(row.exchangeOrderId)}" if row.exchangeOrderId else ""
        reason = f"triggered{became}"
    kind = "stop" if row.type.lower() == "stop" else "stop_limit"
    return OrderFact(
        instrument=name_of(row.symbol, year_of(created_ms), row.exchange),
        venue_order_id=STOP + ident(row.id),
        client_order_id=row.comment or "",
        side=_SIDES[row.side.lower()],
        order_type=kind,
        quantity=number(row.qtyBatch),
        price=number(row.price) if row.price and kind != "stop" else None,
        filled=ZERO,
        status=OrderStatus.CANCELLED if status is OrderStatus.FILLED else status,
        reason=reason,
        venue_action=REPLACED if triggered else "",
        created_at_ms=created_ms,
        updated_at_ms=moment(row.updateTime) if row.updateTime else created_ms,
        account_ref=account_ref,
    )


# ---- Own trades


class TradeRow(msgspec.Struct, gc=False, kw_only=True):
    id: Ident
    orderno: Ident
    comment: str | None = None
    symbol: str
    exchange: str
    brokerSymbol: str | None = None
    board: str | None = None
    date: str
    qtyUnits: Decimal = ZERO
    qtyBatch: Decimal | None = None
    qty: Decimal | None = None  # the same under its older name
    price: Decimal
    volume: Decimal | None = None
    side: str
    commission: Decimal | None = None


def fill_fact(row: TradeRow, account_ref: str) -> FillFact:
    traded_ms, trade_id, side = moment(row.date), ident(row.id), _SIDES[row.side.lower()]
    symbol = row.symbol
    if symbol == UNNAMED and row.brokerSymbol:
        symbol = row.brokerSymbol.partition(":")[2] or symbol
    lots = row.qty if row.qtyBatch is None else row.qtyBatch
    if lots is None:
        raise ValueError("a trade of nobody knows how much")
    quantity, price = number(lots), number(row.price)
    if quantity <= 0:
        raise ValueError(f"a trade of {quantity}")
    if is_bond(row.board or "") and row.volume and row.qtyUnits:
        price = number(row.volume / row.qtyUnits)  # money for one piece, where the price is in per cent
    commission = optional(row.commission)
    return FillFact(
        instrument=name_of(symbol, year_of(traded_ms), row.exchange),
        # One number may come twice, once for each side: the account has traded with itself (§7.2).
        fill_id=f"{trade_id}:{side.value}",
        venue_order_id=ident(row.orderno),
        client_order_id=row.comment or "",
        side=side,
        quantity=quantity,
        price=price,
        fee=None if commission is None else -commission,
        fee_currency="" if commission is None else "RUB",
        trade_number=_trade_number(trade_id),
        traded_at_ms=traded_ms,
        account_ref=account_ref,
    )


def _trade_number(trade_id: str) -> int | None:
    if not trade_id.isdecimal():
        return None
    value = int(trade_id)
    return value if 0 < value < _LARGEST_TRADE else None


# ---- Holdings


class PositionRow(msgspec.Struct, gc=False, kw_only=True):
    """Of everything the quantity with all that is agreed and not yet settled: books count a trade when it is made."""

    symbol: str
    exchange: str
    avgPrice: Decimal | None = None
    qtyUnits: Decimal
    qtyTFuture: Decimal | None = None
    qtyTFutureBatch: Decimal | None = None
    unrealisedPl: Decimal | None = None
    isCurrency: bool = False


def position_fact(row: PositionRow, at_ms: int, account_ref: str) -> PositionFact | BalanceFact:
    """Rows tell no time: it is when they were heard. Papers and money are balances, futures positions."""
    units = number(row.qtyUnits if row.qtyTFuture is None else row.qtyTFuture)
    if row.isCurrency:
        return BalanceFact(
            currency=_money(row.symbol), cash=units, updated_at_ms=check_ms(at_ms), account_ref=account_ref
        )
    name = name_of(row.symbol, year_of(at_ms), row.exchange)
    if is_future(name):
        flat = not units
        return PositionFact(
            instrument=name,
            quantity=units if row.qtyTFutureBatch is None else number(row.qtyTFutureBatch),
            avg_price=None if flat else optional(row.avgPrice),
            unrealised=None if flat else optional(row.unrealisedPl),
            updated_at_ms=check_ms(at_ms),
            account_ref=account_ref,
        )
    paper = name.partition("/")[0] or name
    return BalanceFact(currency=paper, cash=units, updated_at_ms=check_ms(at_ms), account_ref=account_ref)


def _money(symbol: str) -> str:
    if not (symbol.isascii() and symbol.isprintable() and 1 <= len(symbol) <= 16):
        raise ValueError(f"no currency: {symbol[:64]!r}")
    return spelling.currency(symbol)


class SummaryRow(msgspec.Struct, gc=False):
    portfolioLiquidationValue: Decimal
    buyingPower: Decimal | None = None


def equity_fact(row: SummaryRow, at_ms: int, account_ref: str) -> EquityFact:
    """The value that the broker reckons with when it decides about margin, in roubles."""
    return EquityFact(
        currency="RUB",
        total=number(row.portfolioLiquidationValue),
        available=optional(row.buyingPower),
        updated_at_ms=check_ms(at_ms),
        account_ref=account_ref,
    )


class RiskRow(msgspec.Struct, gc=False):
    riskStatus: str | None = None


# ---- Prices


class QuoteRow(msgspec.Struct, gc=False):
    exchange: str
    last_price: Decimal | None = None
    last_price_timestamp: int | None = None  # seconds
    bid: Decimal | None = None
    ask: Decimal | None = None
    ob_ms_timestamp: int | None = None
    facevalue: Decimal | None = None


class LevelRow(msgspec.Struct, gc=False):
    price: Decimal


class BookRow(msgspec.Struct, gc=False):
    bids: list[LevelRow] = []
    asks: list[LevelRow] = []
    ms_timestamp: int | None = None


class BarRow(msgspec.Struct, gc=False):
    time: int  # seconds, when it begins
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


def _market(exchange: str) -> str:
    return spelling.MOEX if exchange == spelling.MOEX else ""


def quote_facts(row: QuoteRow, name: str, *, bond: bool, now_ms: int) -> list[MarkFact]:
    """Each price that there is. A bond's is told in money, of the face value that the quote has beside it."""
    times = number(row.facevalue) / _PER_CENT if bond and row.facevalue else Decimal(1)
    if bond and not row.facevalue:
        return []
    last_ms = now_ms if row.last_price_timestamp is None else row.last_price_timestamp * 1000
    book_ms = now_ms if row.ob_ms_timestamp is None else row.ob_ms_timestamp
    prices = (("last", row.last_price, last_ms), ("bid", row.bid, book_ms), ("ask", row.ask, book_ms))
    return [
        MarkFact(
            instrument=name,
            price=number(price) * times,
            basis=basis,
            at_ms=check_ms(at_ms),
            market=_market(row.exchange),
        )
        for basis, price, at_ms in prices
        if price
    ]


def book_facts(row: BookRow, name: str, exchange: str, now_ms: int) -> list[MarkFact]:
    at_ms = check_ms(now_ms if row.ms_timestamp is None else row.ms_timestamp)
    best = (("bid", row.bids), ("ask", row.asks))
    return [
        MarkFact(instrument=name, price=number(levels[0].price), basis=basis, at_ms=at_ms, market=_market(exchange))
        for basis, levels in best
        if levels
    ]


def bar_fact(row: BarRow, interval_s: int, name: str, exchange: str, now_ms: int) -> MarkFact:
    """A bar that is under way closes for now with the last price."""
    ends_ms = check_ms((row.time + interval_s) * 1000)
    return MarkFact(
        instrument=name, price=number(row.close), basis="last", at_ms=min(ends_ms, now_ms), market=_market(exchange)
    )


class StatusRow(msgspec.Struct, gc=False):
    """Of the instruments' subscription: later frames have only what changed (§4.5)."""

    symbol: str
    tradingStatus: int | None = None
