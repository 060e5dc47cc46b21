"""Decides. OKX's rows -> facts. The same rows come over the stream and over REST. OKX dossier §3, §6.

The structs name only the fields that we use; every other field is skipped unread. Numbers stay texts in them because
OKX says "" for an absent one. A row that cannot be told without guessing raises one of UNREADABLE.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.core.facts import (
    BalanceFact,
    CashFact,
    EquityFact,
    FillFact,
    MarkFact,
    OrderFact,
    OrderStatus,
    PositionFact,
    Side,
)
from engine.venues.okx.errors import cancel_reason
from engine.venues.okx.numbers import moment, number, optional
from engine.venues.okx.symbols import name_of

UNREADABLE = (msgspec.MsgspecError, ValueError, LookupError, ArithmeticError, RecursionError)
"""What reading a frame can raise, and nothing else."""

_ZERO = Decimal(0)
_LARGEST_TRADE = 2**63
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_POSITION_SIDES = {"": "net", "net": "net", "long": "long", "short": "short"}
_LIQUIDITY = {"M": "maker", "T": "taker", "": ""}
_STATUSES = {
    "live": OrderStatus.WORKING,
    "partially_filled": OrderStatus.WORKING,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELLED,
    "mmp_canceled": OrderStatus.CANCELLED,
}

# ---- Orders


class OrderRow(msgspec.Struct, gc=False, kw_only=True):
    """In the order in which OKX sends them: the decoder looks for each key behind the one before it.

    `tradeId` and `fill*` are this update's fill on the stream; over REST they tell the order's last one and are not
    used.
    """

    instType: str = ""
    instId: str
    ordId: str
    clOrdId: str = ""
    px: str = ""
    sz: str
    ordType: str
    side: str
    posSide: str = ""
    tgtCcy: str = ""
    state: str
    accFillSz: str
    fillSz: str = ""
    fillPx: str = ""
    tradeId: str = ""
    fillTime: str = ""
    execType: str = ""
    fillFee: str = ""
    fillFeeCcy: str = ""
    fillPnl: str = ""
    avgPx: str = ""
    reduceOnly: str | bool = ""
    category: str = ""
    source: str = ""
    cancelSource: str = ""
    reqId: str = ""
    amendResult: str = ""
    code: str = ""
    msg: str = ""
    cTime: str
    uTime: str


# A category or source that is not the user's own sending, in our words; an unknown one keeps the venue's.
_CATEGORIES = {
    "": "",
    "normal": "",
    "twap": "forced_repayment",
    "adl": "adl",
    "full_liquidation": "liquidation",
    "partial_liquidation": "liquidation",
    "delivery": "delivery",
    "ddh": "delta_hedge",
    "auto_conversion": "conversion",
}
_SOURCES = {"": "", "6": "trigger", "7": "tp_sl", "13": "strategy", "25": "trailing_stop", "34": "chase"}


def _venue_action(category: str, source: str) -> str:
    return _CATEGORIES.get(category, category) or _SOURCES.get(source, f"source {source}")


def order_fact(row: OrderRow) -> OrderFact:
    if not row.ordId:
        raise ValueError("an order without an id")
    state = row.state
    status = _STATUSES[state]
    market = row.ordType == "market"
    amended = row.amendResult
    return OrderFact(
        instrument=name_of(row.instId),
        venue_order_id=row.ordId,
        client_order_id=row.clOrdId,
        side=_SIDES[row.side],
        order_type=row.ordType,
        quantity=number(row.sz),
        price=number(row.px) if row.px and not market else None,
        filled=_ZERO if row.accFillSz == "" and state == "live" else number(row.accFillSz),
        avg_price=None if row.avgPx in ("", "0") else number(row.avgPx),
        status=status,
        reduce_only=row.reduceOnly in ("true", True),
        position_side=_POSITION_SIDES[row.posSide],
        reason=cancel_reason(row.cancelSource) if status is OrderStatus.CANCELLED else "",
        venue_action=_venue_action(row.category, row.source) if row.source or row.category != "normal" else "",
        amend_id=row.reqId if amended else "",
        amend_failed=_amend_failed(row) if amended else "",
        quantity_in_quote=market and _in_quote(row),
        created_at_ms=moment(row.cTime),
        updated_at_ms=moment(row.uTime),
    )


def _amend_failed(row: OrderRow) -> str:
    words = f"{row.code}: {row.msg}" if row.code not in ("", "0") else ""
    if row.amendResult == "-1":
        return words or "the venue did not amend it"
    if row.amendResult == "1":
        return f"cancelled because the amendment failed{f' ({words})' if words else ''}"
    return ""


def _in_quote(row: OrderRow) -> bool:
    """Market orders of spot and margin count a buy in the quote currency unless they say otherwise (§7)."""
    if row.instType not in ("SPOT", "MARGIN"):
        return False
    return row.tgtCcy == "quote_ccy" or (row.tgtCcy == "" and row.side == "buy")


def fill_id(symbol: str, trade_id: str, order_id: str) -> str:
    """One identity for a fill, streamed or fetched. The order is part of it: two of our orders can share a trade."""
    return f"{symbol}:{trade_id}:{order_id}"


def order_fill(row: OrderRow, order: OrderFact) -> FillFact | None:
    """This update's fill, where it tells one by its own identity.

    "0" is what an order shows for a liquidation's trade whose fill row has another, negative number (§6.3): a fill
    made of it would be counted twice. Such a fill is heard from history.
    """
    if row.tradeId in ("", "0") or row.fillSz in ("", "0"):
        return None
    quantity = number(row.fillSz)
    if quantity <= _ZERO:
        return None
    return FillFact(
        instrument=order.instrument,
        fill_id=f"{row.instId}:{row.tradeId}:{row.ordId}",
        venue_order_id=row.ordId,
        client_order_id=row.clOrdId,
        side=order.side,
        position_side=order.position_side,
        quantity=quantity,
        price=number(row.fillPx),
        fee=number(row.fillFee) if row.fillFee else None,
        fee_currency=row.fillFeeCcy,
        realised=number(row.fillPnl) if row.fillPnl else None,
        liquidity=_LIQUIDITY[row.execType],
        venue_action=order.venue_action,
        trade_number=trade_number(row.tradeId),
        traded_at_ms=moment(row.fillTime),
    )


def trade_number(trade_id: str) -> int | None:
    """Ascending within one instrument; liquidations' negative numbers take no part (§9.4)."""
    if not trade_id.isdecimal() or len(trade_id) > 19:
        return None
    value = int(trade_id)
    return value if 0 < value < _LARGEST_TRADE else None


# ---- Fills of the channel and of history


class StreamFillRow(msgspec.Struct, gc=False):
    instId: str
    fillSz: str
    fillPx: str
    side: str
    ts: str
    ordId: str
    tradeId: str
    clOrdId: str = ""
    execType: str = ""
    count: str = ""


def stream_fill(row: StreamFillRow) -> FillFact | None:
    """None for a row that merges several trades under the last one's number: `orders` tells them one by one (§3.5),
    and a merged fill under a single trade's identity would displace it."""
    if row.count != "1" or row.tradeId in ("", "0"):
        return None
    return FillFact(
        instrument=name_of(row.instId),
        fill_id=fill_id(row.instId, row.tradeId, row.ordId),
        venue_order_id=row.ordId,
        client_order_id="" if row.clOrdId == "0" else row.clOrdId,
        side=_SIDES[row.side],
        quantity=number(row.fillSz),
        price=number(row.fillPx),
        liquidity=_LIQUIDITY[row.execType],
        trade_number=trade_number(row.tradeId),
        traded_at_ms=moment(row.ts),
    )


class FillRow(msgspec.Struct, gc=False):
    instId: str
    tradeId: str
    ordId: str
    billId: str
    fillSz: str
    fillPx: str
    side: str
    clOrdId: str = ""
    posSide: str = ""
    execType: str = ""
    subType: str = ""
    fee: str = ""
    feeCcy: str = ""
    fillPnl: str = ""
    fillTime: str = ""
    ts: str = ""


def _sub_types() -> dict[str, str]:
    ranges = (
        (100, 107, "liquidation"),
        (110, 111, "conversion"),
        (112, 113, "delivery"),
        (125, 128, "adl"),
        (324, 329, "move_position"),
        (376, 377, "conversion"),
    )
    return {str(n): word for first, last, word in ranges for n in range(first, last + 1)}


_FILL_ACTIONS = _sub_types()


def history_fill(row: FillRow) -> FillFact:
    if not row.ordId or not row.tradeId:
        raise ValueError("a fill without an identity")
    return FillFact(
        instrument=name_of(row.instId),
        fill_id=fill_id(row.instId, row.tradeId, row.ordId),
        venue_order_id=row.ordId,
        client_order_id=row.clOrdId,
        side=_SIDES[row.side],
        position_side=_POSITION_SIDES[row.posSide],
        quantity=number(row.fillSz),
        price=number(row.fillPx),
        fee=optional(row.fee),
        fee_currency=row.feeCcy,
        realised=optional(row.fillPnl),
        liquidity=_LIQUIDITY[row.execType],
        venue_action=_FILL_ACTIONS.get(row.subType, ""),
        trade_number=trade_number(row.tradeId),
        history_id=row.billId,
        traded_at_ms=moment(row.fillTime or row.ts),
    )


def joined(first: FillFact, second: FillFact) -> FillFact:
    """Two rows of one fill, its opening and its closing part, as the one fill they are (§6.3)."""
    quantity = first.quantity + second.quantity
    average = first.price
    if first.price != second.price:
        average = (first.price * first.quantity + second.price * second.quantity) / quantity
    return msgspec.structs.replace(
        first,
        quantity=quantity,
        price=average,
        fee=None if first.fee is None or second.fee is None else first.fee + second.fee,
        realised=None if first.realised is None or second.realised is None else first.realised + second.realised,
    )


# ---- Positions


class PositionRow(msgspec.Struct, gc=False):
    instType: str
    instId: str
    posSide: str
    pos: str
    uTime: str
    mgnMode: str = ""
    posId: str = ""
    posCcy: str = ""
    avgPx: str = ""
    upl: str = ""
    tradeId: str = ""
    liab: str = ""
    liabCcy: str = ""
    pTime: str = ""


def position_fact(row: PositionRow) -> PositionFact:
    side = _POSITION_SIDES[row.posSide]
    return PositionFact(
        instrument=name_of(row.instId),
        position_side=side,
        margin_mode=row.mgnMode,
        quantity=_signed(row, side),
        avg_price=optional(row.avgPx),
        unrealised=optional(row.upl),
        last_trade_number=trade_number(row.tradeId),
        position_id=row.posId,
        updated_at_ms=moment(row.uTime),
    )


def position_or_none(row: PositionRow) -> PositionFact | None:
    """A row of `balance_and_position`. It tells no liability, so a margin short is left to the `positions` channel."""
    return None if _is_margin_short(row) else position_fact(row)


def position_key(fact: PositionFact) -> tuple[str, str, str, str]:
    return fact.instrument, fact.position_side, fact.margin_mode, fact.position_id


def flat(known: PositionFact) -> PositionFact:
    """A position that is gone. When, nobody said: some moment after the last word of it, so that any later word of
    the venue's own still outranks this one, whatever our clock shows."""
    return msgspec.structs.replace(
        known,
        quantity=_ZERO,
        avg_price=None,
        unrealised=None,
        last_trade_number=None,
        updated_at_ms=known.updated_at_ms + 1,
    )


def _is_margin_short(row: PositionRow) -> bool:
    """A borrowed-and-sold position: `pos` counts the quote currency it brought (§3.2)."""
    margin = row.instType == "MARGIN" and bool(row.posCcy) and row.posCcy != row.instId.partition("-")[0]
    return margin and number(row.pos) != 0


def _signed(row: PositionRow, side: str) -> Decimal:
    size = number(row.pos)
    if _is_margin_short(row):
        # What is short is what was borrowed; only the liability counts it in our unit, the base currency.
        if row.liabCcy != row.instId.partition("-")[0]:
            raise ValueError(f"short margin position of {row.instId} without its liability")
        return -abs(number(row.liab))
    if side == "net" and row.instType != "MARGIN":
        return size
    return -abs(size) if side == "short" else abs(size)


# ---- Balances


class BalanceRow(msgspec.Struct, gc=False):
    """An element of the account's `details`, and of `balData` with fewer fields."""

    ccy: str
    cashBal: str
    uTime: str
    availBal: str = ""
    eq: str = ""


class AccountRow(msgspec.Struct, gc=False):
    uTime: str = ""
    totalEq: str = ""
    availEq: str = ""
    details: list[msgspec.Raw] = []


def balance_fact(row: BalanceRow) -> BalanceFact:
    if not row.ccy:
        raise ValueError("a balance without a currency")
    return BalanceFact(
        currency=row.ccy,
        cash=number(row.cashBal),
        available=optional(row.availBal),
        equity=optional(row.eq),
        updated_at_ms=moment(row.uTime),
    )


def empty(known: BalanceFact) -> BalanceFact:
    """A currency of which nothing is left; its time as with `flat`."""
    return msgspec.structs.replace(
        known, cash=_ZERO, available=_ZERO, equity=_ZERO, updated_at_ms=known.updated_at_ms + 1
    )


def equity_fact(row: AccountRow) -> EquityFact | None:
    """The account's value in USD; None where this account mode does not tell it."""
    if not row.totalEq:
        return None
    return EquityFact(
        currency="USD",
        total=number(row.totalEq),
        available=optional(row.availEq),
        updated_at_ms=moment(row.uTime),
    )


# ---- Cash movements


class BillRow(msgspec.Struct, gc=False):
    billId: str
    ccy: str
    balChg: str
    ts: str
    type: str
    bal: str = ""
    instId: str = ""
    ordId: str = ""
    tradeId: str = ""


_BILL_KINDS = {
    "1": "transfer",
    "2": "trade",
    "3": "trade",  # delivery
    "5": "liquidation",
    "7": "interest",
    "8": "funding",
    "9": "liquidation",  # auto-deleveraging
    "13": "trade",  # delta hedge
    "14": "trade",  # block trade
}
_OF_FILLS = frozenset({"trade", "liquidation"})


def cash_fact(row: BillRow) -> CashFact:
    if not row.billId or not row.ccy:
        raise ValueError("a bill without an identity")
    kind = _BILL_KINDS.get(row.type, "other")
    of_fill = kind in _OF_FILLS and row.instId and row.ordId and row.tradeId not in ("", "0")
    return CashFact(
        cash_id=row.billId,
        currency=row.ccy,
        amount=number(row.balChg),
        balance_after=optional(row.bal),
        kind=kind,
        instrument=name_of(row.instId) if row.instId else "",
        venue_order_id=row.ordId,
        fill_id=fill_id(row.instId, row.tradeId, row.ordId) if of_fill else "",
        booked_at_ms=moment(row.ts),
    )


# ---- Marks


class MarkRow(msgspec.Struct, gc=False):
    instId: str
    markPx: str
    ts: str


class TickerRow(msgspec.Struct, gc=False):
    instId: str
    ts: str
    last: str = ""
    bidPx: str = ""
    askPx: str = ""


def mark_fact(row: MarkRow) -> MarkFact:
    return MarkFact(instrument=name_of(row.instId), price=number(row.markPx), basis="mark", at_ms=moment(row.ts))


def ticker_facts(row: TickerRow) -> list[MarkFact]:
    """Each price that there is: an illiquid instrument has no bid, no ask or no last."""
    name, at_ms = name_of(row.instId), moment(row.ts)
    prices = (("last", row.last), ("bid", row.bidPx), ("ask", row.askPx))
    return [MarkFact(instrument=name, price=number(px), basis=basis, at_ms=at_ms) for basis, px in prices if px]
