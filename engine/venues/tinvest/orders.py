"""Decides. Our commands as T-Invest's requests, and its answers as outcomes. T-Invest dossier §4.3, §4.4, §5, §6.2.

The client order id is the idempotency key. What an answer does not say plainly of an order is unknown; a key that was
seen before is that, too, unless the answer shows the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from engine.core.orders import Accepted, Amend, Cancel, Command, OrderType, Outcome, Place, Refused, Unknown
from engine.core.venue import ErrorClass, Request, Response
from engine.venues.tinvest.errors import DUPLICATE, Status, trouble
from engine.venues.tinvest.names import ref_of
from engine.venues.tinvest.numbers import UNREADABLE, Enum, key_of, parts, word
from engine.venues.tinvest.rows import STOP_PREFIX

CONTRACT = "tinkoff.public.invest.api.contract.v1"
ORDER_TYPES = frozenset(
    {OrderType.MARKET, OrderType.LIMIT, OrderType.IOC, OrderType.FOK, OrderType.STOP, OrderType.STOP_LIMIT}
)
_IN_FORCE = {
    OrderType.IOC: "TIME_IN_FORCE_FILL_AND_KILL",
    OrderType.FOK: "TIME_IN_FORCE_FILL_OR_KILL",
}
_STOPS = {OrderType.STOP: "STOP_ORDER_TYPE_STOP_LOSS", OrderType.STOP_LIMIT: "STOP_ORDER_TYPE_STOP_LIMIT"}
_encode = msgspec.json.encode


def path(service: str, method: str) -> str:
    return f"/{CONTRACT}.{service}/{method}"


def asked(service: str, method: str, rule: str, body: Mapping[str, object]) -> Request:
    """Every method is posted, with a body even where it is empty (§4.1)."""
    return Request(method="POST", path=path(service, method), body=_encode(body), rules=(rule, "all"))


def request_for(commands: Sequence[Command], ref: str, options: Mapping[str, str]) -> Request:
    """ValueError for what cannot be said without changing its meaning: nothing was sent then."""
    if len(commands) != 1:
        raise ValueError("T-Invest takes one order at a time")
    command = commands[0]
    margin = options.get("confirm_margin") == "yes"
    match command:
        case Place(order_type=OrderType.STOP | OrderType.STOP_LIMIT):
            return asked("StopOrdersService", "PostStopOrder", "stop-orders", _stop(command, ref, margin))
        case Place():
            later = options.get("placing") == "async"
            return asked(
                "OrdersService",
                "PostOrderAsync" if later else "PostOrder",
                "post-order-async" if later else "post-order",
                _place(command, ref, margin),
            )
        case Amend():
            if options.get("replacing") != "on":
                raise ValueError("a replacement is a new order, which nobody would follow: cancel, and plan anew")
            return asked("OrdersService", "ReplaceOrder", "orders", _replace(command, ref, margin))
        case Cancel():
            return _cancel(command, ref)


def _lots(quantity: Decimal) -> str:
    if quantity <= 0 or quantity != int(quantity):
        raise ValueError(f"{quantity} is no number of lots")
    return str(int(quantity))


def _check(place: Place) -> None:
    if place.order_type not in ORDER_TYPES:
        raise ValueError(f"T-Invest has no {place.order_type.value} orders")
    if place.visible_quantity is not None:
        raise ValueError("T-Invest has no orders that show a part of themselves")
    if place.reduce_only or place.position_side != "net":
        raise ValueError("T-Invest's orders only buy and sell: nothing more can be asked of them")
    unpriced = place.order_type in (OrderType.MARKET, OrderType.STOP)
    if unpriced != (place.price is None):
        raise ValueError(f"a {place.order_type.value} order {'takes no' if unpriced else 'needs a'} price")
    if (place.order_type in _STOPS) != (place.trigger_price is not None):
        raise ValueError(f"a {place.order_type.value} order and its trigger price do not fit")
    if place.order_type in place.instrument.refuses:
        raise ValueError(f"the exchange takes no {place.order_type.value} orders in {place.instrument.name}")


def _place(place: Place, ref: str, margin: bool) -> dict[str, object]:
    _check(place)
    body: dict[str, object] = {
        "accountId": ref,
        "instrumentId": ref_of(place.instrument).uid,
        "quantity": _lots(place.quantity),
        "direction": f"ORDER_DIRECTION_{place.side.name}",
        "orderType": "ORDER_TYPE_MARKET" if place.order_type is OrderType.MARKET else "ORDER_TYPE_LIMIT",
        "orderId": key_of(place.client_order_id),
        "confirmMarginTrade": margin,
    }
    if place.price is not None:
        body["price"] = parts(place.price)
        body["timeInForce"] = _IN_FORCE.get(place.order_type, "TIME_IN_FORCE_DAY")
    return body


def _stop(place: Place, ref: str, margin: bool) -> dict[str, object]:
    _check(place)
    assert place.trigger_price is not None, "checked"
    body: dict[str, object] = {
        "accountId": ref,
        "instrumentId": ref_of(place.instrument).uid,
        "quantity": _lots(place.quantity),
        "stopPrice": parts(place.trigger_price),
        "direction": f"STOP_ORDER_DIRECTION_{place.side.name}",
        "expirationType": "STOP_ORDER_EXPIRATION_TYPE_GOOD_TILL_CANCEL",
        "stopOrderType": _STOPS[place.order_type],
        "exchangeOrderType": "EXCHANGE_ORDER_TYPE_MARKET" if place.price is None else "EXCHANGE_ORDER_TYPE_LIMIT",
        "orderId": key_of(place.client_order_id),
        "confirmMarginTrade": margin,
    }
    if place.price is not None:
        body["price"] = parts(place.price)
    return body


def _replace(amend: Amend, ref: str, margin: bool) -> dict[str, object]:
    """The old order is cancelled and a new one takes what is left of it, so all of it is said anew."""
    if amend.venue_order_id.startswith(STOP_PREFIX):
        raise ValueError("a stop order is not amended: cancel it and place another")
    order = amend.order
    quantity, price = amend.new_quantity, amend.new_price
    if order is not None:
        quantity = order.quantity if quantity is None else quantity
        price = order.price if price is None else price
    if quantity is None or price is None:
        raise ValueError("a replacement needs a quantity and a price")
    return {
        "accountId": ref,
        **_which(amend.venue_order_id, amend.client_order_id),
        "idempotencyKey": key_of(amend.amend_id),
        "quantity": _lots(quantity - amend.filled),
        "price": parts(price),
        "confirmMarginTrade": margin,
    }


def _which(venue_order_id: str, client_order_id: str) -> dict[str, object]:
    """By the exchange's number where there is one (§5.1)."""
    if venue_order_id and "-" not in venue_order_id:
        return {"orderId": venue_order_id, "orderIdType": "ORDER_ID_TYPE_EXCHANGE"}
    if not client_order_id:
        raise ValueError("an order is named by one of its ids")
    return {"orderId": key_of(client_order_id), "orderIdType": "ORDER_ID_TYPE_REQUEST"}


def _cancel(cancel: Cancel, ref: str) -> Request:
    if cancel.venue_order_id.startswith(STOP_PREFIX):
        body = {"accountId": ref, "stopOrderId": cancel.venue_order_id.removeprefix(STOP_PREFIX)}
        return asked("StopOrdersService", "CancelStopOrder", "stop-orders", body)
    which = _which(cancel.venue_order_id, cancel.client_order_id)
    return asked("OrdersService", "CancelOrder", "cancel", {"accountId": ref, **which})


def lookup(venue_order_id: str, client_order_id: str, ref: str) -> Request:
    which = _which(venue_order_id, client_order_id)
    return asked("OrdersService", "GetOrderState", "orders", {"accountId": ref, **which})


# ---- Answers


class _Posted(msgspec.Struct, gc=False, rename="camel"):
    order_id: str | None = None
    stop_order_id: str | None = None
    order_request_id: str | None = None
    execution_report_status: Enum = None
    message: str | None = None
    time: str | None = None


_posted = msgspec.json.Decoder(_Posted).decode
_status = msgspec.json.Decoder(Status).decode


def outcome(command: Command, response: Response) -> Outcome:
    """The status goes first: behind a 5xx the order may have been executed, whatever the body says (§6.2)."""
    status = response.status
    if status >= 500 or status == 408:
        return Unknown(f"HTTP {status}")
    if status != 200:
        try:
            error = _status(response.body)
        except UNREADABLE:
            error = Status()  # a page for people
        return _refusal(command, error, status)
    try:
        posted = _posted(response.body)
    except UNREADABLE:
        return Unknown("HTTP 200 with an answer that cannot be read")
    return _accepted(command, posted)


def _accepted(command: Command, posted: _Posted) -> Outcome:
    if isinstance(command, Cancel):
        return Accepted(command.venue_order_id) if posted.time else Unknown("an answer without a time")
    key = key_of(command.client_order_id if isinstance(command, Place) else command.amend_id)
    if posted.order_request_id and posted.order_request_id.lower() != key:
        return Unknown(f"the answer is about {posted.order_request_id[:64]}, not about this order")
    if posted.stop_order_id:
        return Accepted(STOP_PREFIX + posted.stop_order_id)
    if word(posted.execution_report_status, "EXECUTION_REPORT_STATUS_") == "rejected":
        gone = isinstance(command, Amend)
        return Refused("rejected", (posted.message or "").strip()[:300] or "no reason given", target_gone=gone)
    # Told to be placed later, it has no number of the exchange yet: the key stands for it.
    order_id = posted.order_id or posted.order_request_id
    return Accepted(order_id) if order_id else Unknown("accepted, but without an order id")


def _refusal(command: Command, error: Status, status: int) -> Outcome:
    found = trouble(error, status)
    if found.code == DUPLICATE and not isinstance(command, Cancel):
        return Unknown(f"{found.code}: this key was used before: look the order up")
    match found.error_class:
        case ErrorClass.UNKNOWN_OUTCOME | ErrorClass.RETRYABLE_READ:
            return Unknown(f"{found.code}: {found.reason}")
        case ErrorClass.RATE:
            return Refused(found.code, found.reason, again=True)
        case ErrorClass.AUTH:
            return Refused(found.code, found.reason)
        case ErrorClass.NOT_FOUND | ErrorClass.TARGET_GONE:
            return Refused(found.code, found.reason, target_gone=not isinstance(command, Place))
        case _:
            # A replacement may fail after the old order was cancelled: then there is none (§5.3).
            return Refused(found.code, found.reason, target_gone=isinstance(command, Amend))
