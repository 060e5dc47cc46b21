"""Decides. Rows as T-Invest's server writes them: camelCase, 64-bit integers as texts, defaults as the rules say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

from engine.core.matching import Exchange
from engine.venues.tinvest.front_rules import Listing, Rules
from engine.venues.tinvest.front_state import PARTIAL, REJECTED, ZERO, Customer, Execution, Operation, Order, Stop, View

Row = dict[str, Any]
_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
_NANO = 1_000_000_000


def quotation(value: Decimal) -> Row:
    whole = int(value)
    return {"units": str(whole), "nano": int((value - whole) * _NANO)}


def money(value: Decimal, currency: str = "rub") -> Row:
    return {"currency": currency, **quotation(value)}


def stamp(at_ms: int, digits: int = 6) -> str:
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    fraction = f"{at_ms % 1000:03d}".ljust(digits, "0")[:digits]
    return f"{at:%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}Z"


def http_date(at_ms: int) -> str:
    return format_datetime(datetime.fromtimestamp(at_ms // 1000, UTC), usegmt=True)


def whole(value: Decimal) -> str:
    return str(int(value))


def names_of(listing: Listing) -> Row:
    return {"instrumentUid": listing.uid, "ticker": listing.ticker, "classCode": listing.class_code}


def snake(value: Any) -> Any:
    """In the contracts' own spelling, for json-proto."""
    if isinstance(value, dict):
        return {_HUMP.sub(lambda m: "_" + m[1].lower(), name): snake(inner) for name, inner in value.items()}
    return [snake(inner) for inner in value] if isinstance(value, list) else value


def sparing(value: Any, rules: Rules) -> Any:
    """Defaults left out, or written as null, where the rules say so."""
    if rules.defaults == "emit":
        return value
    if isinstance(value, list):
        return [sparing(inner, rules) for inner in value]
    if not isinstance(value, dict):
        return value
    kept: Row = {}
    for name, inner in value.items():
        empty = (
            inner in ("", 0, "0", False) or inner == [] or (isinstance(inner, str) and inner.endswith("_UNSPECIFIED"))
        )
        if empty and rules.defaults == "drop":
            continue
        kept[name] = None if empty and inner in ([], "") else sparing(inner, rules)
    return kept


# ---- Orders


def order_event(
    customer: Customer, order: Order, latest: tuple[Execution, ...], rules: Rules, *, internal: bool
) -> Row:
    """`orderState`. The first one has an id of the venue's own."""
    listing = order.listing
    told = {"new": latest, "all": order.executions, "none": ()}[rules.trades]
    row: Row = {
        "orderId": order.internal_id if internal else str(order.number),
        "orderRequestId": order.stream_key,
        "tradeOrderId": order.internal_id,
        "clientCode": "770000000001",
        "createdAt": stamp(order.created_ms),
        "executionReportStatus": f"EXECUTION_REPORT_STATUS_{order.state}",
        "ticker": listing.ticker,
        "classCode": listing.class_code,
        "lotSize": listing.lot,
        "direction": f"ORDER_DIRECTION_{order.side.name}",
        "timeInForce": f"TIME_IN_FORCE_{order.in_force}",
        "orderType": f"ORDER_TYPE_{order.kind}",
        "accountId": customer.account_id,
        "initialOrderPrice": money(listing.value(order.lots, order.price), "RUB"),
        "orderPrice": money(order.price, "RUB"),
        "amount": money(listing.value(order.lots, order.price), "RUB"),
        "executedOrderPrice": money(order.average, "RUB"),
        "currency": "RUB",
        "lotsRequested": whole(order.lots),
        "lotsExecuted": whole(order.executed),
        "lotsLeft": whole(order.left),
        "lotsCancelled": whole(ZERO if order.open else order.lots - order.executed),
        "marker": f"MARKER_{order.marker}",
        "trades": [trade_row(order, e) for e in told],
        "exchange": "MOEX",
        "instrumentUid": listing.uid,
    }
    if order.completed_ms is not None:
        row["completionTime"] = stamp(order.completed_ms)
    if order.cause:
        row["statusInfo"] = f"CAUSE_{order.cause}"
    return row


def trade_row(order: Order, execution: Execution) -> Row:
    return {
        "dateTime": stamp(execution.at_ms),
        "price": quotation(execution.price),
        "quantity": whole(execution.lots * order.listing.lot),
        "tradeId": str(execution.trade_id),
    }


def trades_event(customer: Customer, order: Order, latest: tuple[Execution, ...], now_ms: int) -> Row:
    return {
        "orderId": str(order.number),
        "createdAt": stamp(now_ms),
        "direction": f"ORDER_DIRECTION_{order.side.name}",
        "figi": order.listing.figi,
        "trades": [trade_row(order, e) for e in latest],
        "accountId": customer.account_id,
        "instrumentUid": order.listing.uid,
    }


def order_row(order: Order, now_ms: int, rules: Rules) -> Row:
    """OrderState. Until the exchange has given its number, the venue's own id stands in its place."""
    listing = order.listing
    numbered = order.state != REJECTED and (now_ms >= order.created_ms + rules.number_lag_ms or not order.open)
    # A part that was cancelled is CANCELLED here, whatever the stream calls it.
    state = "CANCELLED" if order.state == PARTIAL and not order.open else order.state
    return {
        "orderId": str(order.number) if numbered else order.internal_id,
        "executionReportStatus": f"EXECUTION_REPORT_STATUS_{state}",
        "lotsRequested": whole(order.lots),
        "lotsExecuted": whole(order.executed),
        "initialOrderPrice": money(listing.value(order.lots, order.price)),
        "executedOrderPrice": money(listing.value(order.executed, order.average).quantize(Decimal("1e-9"))),
        "totalOrderAmount": money(listing.value(order.lots, order.price)),
        "averagePositionPrice": money(order.average),
        "initialCommission": money(ZERO),
        "executedCommission": money(order.commission),
        "figi": listing.figi,
        "direction": f"ORDER_DIRECTION_{order.side.name}",
        "initialSecurityPrice": money(order.price),
        "stages": [
            {
                "price": money(e.price),
                "quantity": whole(e.lots),
                "tradeId": str(e.trade_id),
                "executionTime": stamp(e.at_ms),
            }
            for e in order.executions
        ],
        "serviceCommission": money(ZERO),
        "currency": "rub",
        "orderType": f"ORDER_TYPE_{order.kind}",
        "orderDate": stamp(order.created_ms),
        "instrumentUid": listing.uid,
        "orderRequestId": order.request_id,
        "ticker": listing.ticker,
        "classCode": listing.class_code,
    }


def posted_row(order: Order, tracking: str, now_ms: int) -> Row:
    listing = order.listing
    return {
        "orderId": order.internal_id if order.state == REJECTED else str(order.number),
        "executionReportStatus": f"EXECUTION_REPORT_STATUS_{order.state}",
        "lotsRequested": whole(order.lots),
        "lotsExecuted": whole(order.executed),
        "initialOrderPrice": money(listing.value(order.lots, order.price)),
        "executedOrderPrice": money(order.average),
        "totalOrderAmount": money(listing.value(order.lots, order.price)),
        "initialCommission": money(ZERO),
        "executedCommission": money(order.commission),
        "figi": listing.figi,
        "direction": f"ORDER_DIRECTION_{order.side.name}",
        "initialSecurityPrice": money(order.price),
        "orderType": f"ORDER_TYPE_{order.kind}",
        "message": order.message,
        "instrumentUid": listing.uid,
        "ticker": listing.ticker,
        "classCode": listing.class_code,
        "orderRequestId": order.request_id,
        "responseMetadata": {"trackingId": tracking, "serverTime": stamp(now_ms)},
    }


def stop_row(stop: Stop) -> Row:
    row: Row = {
        "stopOrderId": stop.stop_id,
        "lotsRequested": whole(stop.lots),
        "figi": stop.listing.figi,
        "direction": f"STOP_ORDER_DIRECTION_{stop.side.name}",
        "currency": "rub",
        "orderType": f"STOP_ORDER_TYPE_{stop.kind}",
        "createDate": stamp(stop.created_ms),
        "price": money(stop.price),
        "stopPrice": money(stop.stop_price),
        **names_of(stop.listing),
        "status": f"STOP_ORDER_STATUS_{stop.state}",
        "exchangeOrderType": "EXCHANGE_ORDER_TYPE_LIMIT" if stop.price else "EXCHANGE_ORDER_TYPE_MARKET",
    }
    if stop.activated_ms is not None:
        row["activationDateTime"] = stamp(stop.activated_ms)
    if stop.made:
        row["exchangeOrderId"] = str(stop.made)
    return row


def stop_event(customer: Customer, stop: Stop) -> Row:
    return {
        "stopOrderId": stop.stop_id,
        "accountId": customer.account_id,
        "createdAt": stamp(stop.created_ms),
        "direction": f"ORDER_DIRECTION_{stop.side.name}",
        "price": money(stop.price, "RUB"),
        "stopPrice": money(stop.stop_price, "RUB"),
        "orderType": f"ORDER_TYPE_{'LIMIT' if stop.price else 'MARKET'}",
        **names_of(stop.listing),
        "status": f"STOP_ORDER_STATUS_{stop.state}",
    }


# ---- Holdings


def security_row(listing: Listing, view: View) -> Row:
    total = view.pieces.get(listing.base, ZERO)
    blocked = view.blocked_pieces.get(listing.base, ZERO)
    return {
        "figi": listing.figi,
        "blocked": whole(blocked),
        "balance": whole(total - blocked),
        "positionUid": f"p-{listing.uid}",
        **names_of(listing),
        "exchangeBlocked": False,
        "instrumentType": listing.kind,
    }


def future_row(listing: Listing, view: View) -> Row:
    held = view.futures.get(listing.ticker)
    return {
        "figi": listing.figi,
        "blocked": "0",
        "balance": whole(held.lots if held else ZERO),
        "positionUid": f"p-{listing.uid}",
        **names_of(listing),
    }


def position_event(
    customer: Customer,
    view: View,
    currencies: tuple[str, ...],
    listings: list[Listing],
    at_ms: int,
    rules: Rules,
) -> Row:
    futures = [future_row(x, view) for x in listings if x.future]
    if not rules.zero_rows:
        futures = [row for row in futures if row["balance"] != "0"]
    return {
        "accountId": customer.account_id,
        "money": [
            {
                "availableValue": money(view.cash.get(c, ZERO) - view.blocked_cash.get(c, ZERO), c.lower()),
                "blockedValue": money(view.blocked_cash.get(c, ZERO), c.lower()),
            }
            for c in currencies
        ],
        "securities": [security_row(x, view) for x in listings if not x.future],
        "futures": futures,
        "options": [],
        "date": stamp(at_ms),
    }


def positions_row(customer: Customer, view: View, listings: list[Listing]) -> Row:
    return {
        "money": [
            money(amount - view.blocked_cash.get(c, ZERO), c.lower()) for c, amount in view.cash.items() if amount
        ],
        "blocked": [money(amount, c.lower()) for c, amount in view.blocked_cash.items() if amount],
        "securities": [
            security_row(x, view) for x in listings if not x.future and x.kind != "currency" and view.pieces.get(x.base)
        ],
        "futures": [future_row(x, view) for x in listings if x.future and _lots(view, x)],
        "options": [],
        "limitsLoadingInProgress": False,
        "accountId": customer.account_id,
    }


def _lots(view: View, listing: Listing) -> Decimal:
    held = view.futures.get(listing.ticker)
    return held.lots if held else ZERO


def portfolio_row(customer: Customer, view: View, listings: list[Listing], exchange: Exchange) -> Row:
    total, positions = sum((a for c, a in view.cash.items() if c == "RUB"), ZERO), list[Row]()
    for x in listings:
        mark = exchange.marks[x.ticker]
        if x.future:
            pieces = _lots(view, x)
            held = view.futures.get(x.ticker)
            average = held.average if held else ZERO
            total += x.value(pieces, mark - average)
        else:
            pieces = (view.cash if x.kind == "currency" else view.pieces).get(x.base, ZERO)
            average = mark
            total += pieces * mark * x.worth
        if pieces:
            positions.append(
                {
                    "figi": x.figi,
                    "instrumentType": x.kind,
                    "quantity": quotation(pieces),
                    "averagePositionPrice": money(average.quantize(Decimal("1e-9"))),
                    "averagePositionPricePt": quotation(average.quantize(Decimal("1e-9"))),
                    "currentPrice": money(mark),
                    "blocked": False,
                    "positionUid": f"p-{x.uid}",
                    **names_of(x),
                }
            )
    return {
        "totalAmountPortfolio": money(total.quantize(Decimal("0.01"))),
        "expectedYield": quotation(ZERO),
        "positions": positions,
        "accountId": customer.account_id,
        "virtualPositions": [],
    }


# ---- Operations


def operation_row(customer: Customer, operation: Operation, rules: Rules, now_ms: int) -> Row:
    """Ids may change when a row is looked at another day, or just later (§7.1)."""
    listing, order = operation.listing, operation.order and customer.orders[operation.order.number]
    shifts = 0 if rules.stable_operation_ids else (now_ms - operation.at_ms) // 60_000
    row: Row = {
        "cursor": str(operation.at_ms * 1_000_000 + int(operation.op_id)),
        "brokerAccountId": customer.account_id,
        "id": f"{operation.op_id}-{shifts}",
        "parentOperationId": f"{operation.parent}-{shifts}" if operation.parent else "",
        "name": operation.kind.lower(),
        "date": stamp(operation.at_ms),
        "type": f"OPERATION_TYPE_{operation.kind}",
        "description": "",
        "state": "OPERATION_STATE_EXECUTED",
        "payment": money(operation.payment, operation.currency),
        "accruedInt": money(operation.accrued),
        "childOperations": [],
    }
    if listing is not None:
        row |= {**names_of(listing), "figi": listing.figi, "instrumentType": listing.kind}
    if operation.pieces:
        row |= {"quantity": whole(operation.pieces), "quantityDone": whole(operation.pieces)}
    if order is not None:
        x = order.listing
        row |= {
            "price": money(order.average),
            "commission": money(-order.commission),
            "quantity": whole(order.lots * x.lot),
            "quantityRest": whole((order.lots - order.executed) * x.lot),
            "quantityDone": whole(order.executed * x.lot),
            "tradesInfo": {
                "trades": [
                    {
                        "num": str(e.num),
                        "date": stamp(e.at_ms),
                        "quantity": whole(e.lots * x.lot),
                        "price": money(e.price),
                    }
                    for e in order.executions
                ]
            },
        }
        if not order.open and order.executed < order.lots:
            row["cancelDateTime"] = stamp(order.completed_ms or 0)
    return row


_TOLD = (
    "brokerAccountId", "id", "parentOperationId", "name", "date", "type", "state", "instrumentUid", "figi",
    "instrumentType", "ticker", "classCode", "payment",
)  # fmt: skip


def operation_event(customer: Customer, operation: Operation, rules: Rules, now_ms: int) -> Row:
    """On the stream it has neither trades nor price nor quantity."""
    row = operation_row(customer, operation, rules, now_ms)
    return {name: row[name] for name in _TOLD if name in row}


def listing_row(listing: Listing) -> Row:
    row: Row = {
        "figi": listing.figi,
        "ticker": listing.ticker,
        "classCode": listing.class_code,
        "lot": listing.lot,
        "currency": "rub",
        "name": listing.ticker,
        "exchange": "MOEX",
        "tradingStatus": "SECURITY_TRADING_STATUS_NORMAL_TRADING",
        "minPriceIncrement": quotation(listing.tick),
        "apiTradeAvailableFlag": True,
        "buyAvailableFlag": True,
        "sellAvailableFlag": True,
        "uid": listing.uid,
        "positionUid": f"p-{listing.uid}",
        "first1minCandleDate": "2018-03-07T18:33:00Z",
    }
    if listing.kind == "bond":
        row["nominal"] = money(listing.nominal)
        row["aciValue"] = money(listing.accrued)
    if listing.future:
        row["minPriceIncrementAmount"] = quotation(listing.tick * listing.worth)
        row["expirationDate"] = listing.expires
    return row
