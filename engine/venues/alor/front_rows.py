"""Decides. How the ALOR front writes its rows, in each of the three formats (ALOR dossier §4.5, §5.3)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.core.matching import Exchange
from engine.venues.alor.front_rules import Listing
from engine.venues.alor.front_state import ZERO, Customer, Holding, Order, Stop, Trade
from engine.venues.alor.front_trading import Trading

Row = dict[str, Any]

_encode = msgspec.json.Encoder(decimal_format="number").encode


def encode(value: Any) -> bytes:
    return _encode(value)


def num(value: Decimal) -> Decimal:
    """A number without an exponent and without needless zeros."""
    return Decimal(format(value.normalize(), "f"))


def iso(at_ms: int) -> str:
    """Seven digits behind the second (§5.6)."""
    seconds, ms = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}0000Z"


def end_of_day(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, tz=UTC):%Y-%m-%d}T23:59:59.9990000Z"


def _head(listing: Listing) -> Row:
    return {"symbol": listing.symbol, "board": listing.board, "brokerSymbol": f"MOEX:{listing.symbol}"}


def order_row(customer: Customer, order: Order, existing: bool) -> Row:
    lot, listing = order.listing.lot, order.listing
    iceberg = None
    if order.visible is not None:
        iceberg = {
            "creationFixedQuantity": num(order.visible),
            "creationVarianceQuantity": order.variance,
            "visibleQuantity": num(order.visible * lot),
            "visibleQuantityBatch": num(order.visible),
            "visibleFilledQuantity": num(order.filled * lot),
            "visibleFilledQuantityBatch": num(order.filled),
        }
    return {
        "id": order.order_id,
        **_head(listing),
        "portfolio": customer.portfolio,
        "exchange": customer.exchange,
        "comment": order.comment,
        "type": order.kind,
        "side": order.side.value,
        "status": order.status,
        "transTime": iso(order.created_ms),
        "updateTime": iso(order.updated_ms),
        "endTime": end_of_day(order.created_ms),
        "qtyUnits": num(order.quantity * lot),
        "qtyBatch": num(order.quantity),
        "qty": num(order.quantity),
        "filledQtyUnits": num(order.filled * lot),
        "filledQtyBatch": num(order.filled),
        "filled": num(order.filled),
        "price": num(order.price) if order.price is not None else 0,
        "existing": existing,
        "timeInForce": order.tif,
        "iceberg": iceberg,
        "volume": None if order.price is None else num(listing.value(order.quantity, order.price)),
    }


def stop_row(customer: Customer, stop: Stop, existing: bool) -> Row:
    lot = stop.listing.lot
    ends = "2060-12-31T23:59:59.0000000Z" if stop.ends_ms is None else iso(stop.ends_ms)
    return {
        "id": stop.stop_id,
        "exchangeOrderId": stop.became or None,
        **_head(stop.listing),
        "portfolio": customer.portfolio,
        "exchange": customer.exchange,
        "comment": stop.comment,
        "type": stop.kind,
        "side": stop.side.value,
        "condition": stop.condition,
        "status": stop.status,
        "transTime": iso(stop.created_ms),
        "updateTime": None if stop.updated_ms == stop.created_ms else iso(stop.updated_ms),
        "endTime": ends,
        "error": stop.error,
        "qtyUnits": num(stop.quantity * lot),
        "qtyBatch": num(stop.quantity),
        "qty": num(stop.quantity),
        "filledQtyUnits": 0,
        "filledQtyBatch": 0,
        "filled": 0,
        "stopPrice": num(stop.trigger),
        "price": num(stop.price) if stop.price is not None else 0,
        "avg_price": 0,
        "existing": existing,
        "timeInForce": stop.tif,
        "iceberg": None,
        "volume": None,
        "protectingSeconds": stop.protecting_ms // 1000,
    }


def trade_row(customer: Customer, trade: Trade, existing: bool) -> Row:
    """Whose it is the subscription or the address says."""
    listing = trade.listing
    return {
        "id": trade.trade_id,
        "orderno": trade.order_id,
        "comment": trade.comment,
        "symbol": listing.symbol,
        "brokerSymbol": f"MOEX:{listing.symbol}",
        "exchange": customer.exchange,
        "date": iso(trade.at_ms),
        "board": listing.board,
        "qtyUnits": num(trade.quantity * listing.lot),
        "qtyBatch": num(trade.quantity),
        "qty": num(trade.quantity),
        "price": num(trade.price),
        "accruedInt": 0,
        "side": trade.side.value,
        "existing": existing,
        "commission": None if trade.commission is None else num(trade.commission),
        "repoSpecificFields": None,
        "volume": num(listing.value(trade.quantity, trade.price)),
    }


def position_row(customer: Customer, holding: Holding, mark: Decimal, existing: bool, *, pair_rows: bool) -> Row:
    listing = holding.listing
    if listing.kind == "pair" and not pair_rows:
        return money_row(customer, listing.base, holding.quantity, existing)
    units, lots = holding.quantity, holding.quantity / listing.lot
    gain = units * listing.worth * (mark - holding.avg)
    return {
        "symbol": listing.symbol,
        "brokerSymbol": f"MOEX:{listing.symbol}",
        "portfolio": customer.portfolio,
        "exchange": customer.exchange,
        "avgPrice": num(holding.avg.quantize(Decimal("1e-6"))),
        "qtyUnits": num(units),
        "openUnits": num(holding.opened),
        "lotSize": num(listing.lot),
        "shortName": listing.short,
        **{f"qtyT{t}": num(units) for t in ("0", "1", "2", "Future")},
        **{f"qtyT{t}Batch": num(lots) for t in ("0", "1", "2", "Future")},
        "qtyBatch": num(lots),
        "openQtyBatch": num(holding.opened / listing.lot),
        "qty": num(lots),
        "open": num(holding.opened / listing.lot),
        "volume": num((units * listing.worth * holding.avg).quantize(Decimal("0.01"))),
        "currentVolume": num((units * listing.worth * mark).quantize(Decimal("0.01"))),
        "dailyUnrealisedPl": num(gain.quantize(Decimal("0.01"))),
        "unrealisedPl": num(gain.quantize(Decimal("0.01"))),
        "isCurrency": False,
        "existing": existing,
    }


def money_row(customer: Customer, currency: str, amount: Decimal, existing: bool) -> Row:
    every = ("qtyUnits", "openUnits", "qtyT0", "qtyT1", "qtyT2", "qtyTFuture")
    batches = ("qtyT0Batch", "qtyT1Batch", "qtyT2Batch", "qtyTFutureBatch", "qtyBatch", "openQtyBatch", "qty", "open")
    return {
        "symbol": currency,
        "brokerSymbol": f"MOEX:{currency}",
        "portfolio": customer.portfolio,
        "exchange": customer.exchange,
        "avgPrice": 1,
        "lotSize": 1,
        "shortName": currency,
        **dict.fromkeys((*every, *batches), num(amount)),
        "volume": num(amount),
        "currentVolume": num(amount),
        "dailyUnrealisedPl": 0,
        "unrealisedPl": 0,
        "isCurrency": True,
        "existing": existing,
    }


def summary_row(customer: Customer, trading: Trading) -> Row:
    total, free = trading.evaluation(customer), trading.available(customer)
    power = num(free.quantize(Decimal("0.01")))
    worth = num(total.quantize(Decimal("0.01")))
    return {
        "buyingPowerAtMorning": power,
        "buyingPower": power,
        "profit": 0,
        "profitRate": 0,
        "portfolioEvaluation": worth,
        "portfolioLiquidationValue": worth,
        "initialMargin": 0,
        "correctedMargin": 0,
        "riskBeforeForcePositionClosing": worth,
        "commission": 0,
        "buyingPowerByCurrency": [{"currency": "RUB", "buyingPower": power}],
    }


def risk_row(customer: Customer, trading: Trading, now_ms: int) -> Row:
    worth = num(trading.evaluation(customer).quantize(Decimal("0.01")))
    free = trading.available(customer)
    return {
        "portfolio": customer.portfolio,
        "exchange": customer.exchange,
        "portfolioEvaluation": worth,
        "portfolioLiquidationValue": worth,
        "initialMargin": 0,
        "minimalMargin": 0,
        "correctedMargin": 0,
        "riskCoverageRatioOne": num(free.quantize(Decimal("0.01"))),
        "riskCoverageRatioTwo": worth,
        "riskCategoryId": 2,
        "clientType": "StandardRisk",
        "hasForbiddenPositions": False,
        "hasNegativeQuantity": False,
        "riskStatus": "Ok" if free >= 0 else "Demand" if worth >= 0 else "ToClose",
        "calculationTime": iso(now_ms),
    }


def forts_risk_row(customer: Customer, trading: Trading) -> Row:
    free = num(trading.available(customer).quantize(Decimal("0.01")))
    return {"portfolio": customer.portfolio, "moneyFree": free, "moneyBlocked": 0, "fee": 0, "varMargin": 0}


def quote_row(listing: Listing, exchange: Exchange, now_ms: int) -> Row:
    book = exchange.books[listing.symbol]
    bid, ask = book.at_best(Side.BUY), book.at_best(Side.SELL)
    last = book.last if book.last is not None else exchange.marks[listing.symbol]
    return {
        "symbol": listing.symbol,
        "exchange": "MOEX",
        "description": listing.short,
        "prev_close_price": num(listing.start),
        "last_price": num(last),
        "last_price_timestamp": now_ms // 1000,
        "high_price": num(last),
        "low_price": num(last),
        "open_price": num(listing.start),
        "accruedInt": 0,
        "volume": 0,
        "open_interest": None,
        "ask": num(ask[0]) if ask else 0,
        "bid": num(bid[0]) if bid else 0,
        "ask_vol": num(ask[1]) if ask else 0,
        "bid_vol": num(bid[1]) if bid else 0,
        "ob_ms_timestamp": now_ms,
        "yield": None,
        "lotsize": num(listing.lot),
        "lotvalue": num(listing.value(Decimal(1), last)),
        "facevalue": num(listing.face),
        "type": listing.kind,
        "total_bid_vol": 0,
        "total_ask_vol": 0,
        "change": 0,
        "change_percent": 0,
    }


def book_row(listing: Listing, exchange: Exchange, depth: int, now_ms: int, existing: bool) -> Row:
    sides: dict[str, list[Row]] = {}
    for name, side in (("bids", Side.BUY), ("asks", Side.SELL)):
        levels: dict[Decimal, Decimal] = {}
        for resting in exchange.books[listing.symbol].resting(side):
            if resting.price not in levels and len(levels) == depth:
                break
            levels[resting.price] = levels.get(resting.price, ZERO) + resting.remaining
        sides[name] = [{"price": num(price), "volume": num(volume)} for price, volume in levels.items()]
    return {
        "snapshot": existing,
        **sides,
        "timestamp": now_ms // 1000,
        "ms_timestamp": now_ms,
        "existing": existing,
    }


def security_row(listing: Listing) -> Row:
    step_worth = listing.step * listing.worth
    return {
        "symbol": listing.symbol,
        "shortname": listing.short,
        "description": listing.short,
        "exchange": "MOEX",
        "market": listing.market,
        "type": listing.kind,
        "lotsize": num(listing.lot),
        "facevalue": num(listing.face),
        "cfiCode": "FXXXXX" if listing.future else "ESXXXX",
        "cancellation": f"{listing.ends}T00:00:00.0000000Z",
        "minstep": num(listing.step),
        "pricestep": num(step_worth),
        "currency": "RUB",
        "board": listing.board,
        "primary_board": listing.board,
        "tradingStatus": 17,
        "tradingStatusInfo": "normal trading",
        "priceMultiplier": 1,
    }


# ---- Formats. Slim has short names and leaves some fields out; Heavy is Simple without legacy ones (§4.3, §4.5).

_COMMON = {
    "symbol": "sym",
    "brokerSymbol": "tic",
    "exchange": "ex",
    "existing": "h",
    "portfolio": "p",
    "comment": "cmt",
}
_ORDER_SLIM = {
    **_COMMON, "board": "bd", "id": "id", "type": "t", "side": "s", "status": "st", "transTime": "tt",
    "updateTime": "ut", "endTime": "et", "qtyUnits": "q", "qtyBatch": "qb", "filledQtyUnits": "fq",
    "filledQtyBatch": "fqb", "price": "px", "timeInForce": "tf", "iceberg": "i", "volume": "v",
}  # fmt: skip
_SLIM: Mapping[str, Mapping[str, str]] = {
    "orders": _ORDER_SLIM,
    "stoporders": {
        **_ORDER_SLIM, "exchangeOrderId": "eid", "condition": "cnd", "stopPrice": "pxs", "avg_price": "pxavg",
        "error": "err", "protectingSeconds": "psec",
    },
    "trades": {
        **_COMMON, "board": "b", "id": "id", "orderno": "eid", "date": "d", "qtyUnits": "q", "qtyBatch": "qb",
        "price": "px", "volume": "v", "accruedInt": "ai", "side": "s", "commission": "cms", "repoSpecificFields": "r",
    },
    "positions": {
        **_COMMON, "shortName": "n", "lotSize": "lot", "avgPrice": "pxavg", "volume": "v", "currentVolume": "cv",
        "qtyUnits": "q", "openUnits": "o", "qtyT0": "q0", "qtyT1": "q1", "qtyT2": "q2", "qtyTFuture": "qf",
        "dailyUnrealisedPl": "upd", "unrealisedPl": "up", "isCurrency": "cur",
    },
    "summaries": {
        "buyingPowerAtMorning": "bpm", "buyingPower": "bp", "profit": "p", "profitRate": "pr",
        "portfolioEvaluation": "pe", "portfolioLiquidationValue": "plv", "initialMargin": "im",
        "correctedMargin": "mgc", "riskBeforeForcePositionClosing": "r", "commission": "cms",
        "buyingPowerByCurrency": "bpv2",
    },
    "risks": {
        "portfolio": "p", "exchange": "ex", "portfolioEvaluation": "pe", "portfolioLiquidationValue": "plv",
        "initialMargin": "mgi", "minimalMargin": "mgmn", "correctedMargin": "mgc", "riskCoverageRatioOne": "r1",
        "riskCoverageRatioTwo": "r2", "riskCategoryId": "rid", "clientType": "ct", "hasForbiddenPositions": "fpos",
        "hasNegativeQuantity": "nq", "riskStatus": "rst", "calculationTime": "t",
    },
    "quotes": {
        "symbol": "sym", "exchange": "ex", "description": "desc", "last_price_timestamp": "tst", "last_price": "c",
        "open_price": "o", "high_price": "h", "low_price": "l", "volume": "v", "ask": "ask", "bid": "bid",
        "ask_vol": "av", "bid_vol": "bv", "lotsize": "lot", "lotvalue": "lotv", "facevalue": "fv", "type": "t",
    },
    "orderbook": {"bids": "b", "asks": "a", "ms_timestamp": "t", "existing": "h"},
    "bars": {"time": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"},
    "instruments": {"symbol": "sym", "exchange": "ex", "board": "bd", "tradingStatus": "st"},
}  # fmt: skip
_LEGACY = {
    "orders": ("qty", "filled"),
    "stoporders": ("qty", "filled"),
    "positions": ("qty", "open", "qtyBatch"),
    "orderbook": ("snapshot", "timestamp"),
}
_HEAVY = {"orderno": "orderNo", "avg_price": "avgPrice", "ms_timestamp": "msTimestamp"}


def formatted(kind: str, row: Row, form: str) -> Row:
    if form == "slim":
        slim = {short: row[name] for name, short in _SLIM[kind].items() if name in row}
        if kind == "orderbook":
            for side in ("b", "a"):
                slim[side] = [{"p": level["price"], "v": level["volume"]} for level in slim[side]]
        if kind in ("orders", "stoporders"):
            slim["tic"] = row["brokerSymbol"]
        return slim
    if form == "heavy":
        legacy = _LEGACY.get(kind, ())
        return {_HEAVY.get(name, name): value for name, value in row.items() if name not in legacy}
    return row


_IDS = ("id", "orderno", "exchangeOrderId", "orderNumber")


def unsettled(row: Row, chance: random.Random, *, shuffled: bool, numeric_ids: bool) -> Row:
    """As the server may write it on another day: keys in any order, ids as numbers (§9.26)."""
    if numeric_ids:
        row = {k: int(v) if k in _IDS and isinstance(v, str) and v.isdecimal() else v for k, v in row.items()}
    if shuffled:
        keys = list(row)
        chance.shuffle(keys)
        row = {key: row[key] for key in keys}
    return row
