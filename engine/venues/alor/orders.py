"""Decides. Our commands in ALOR's words, and its answers as outcomes; the same over `/cws` and HTTP.

ALOR dossier §3.5, §3.6, §3.8, §5.4. One request holds one command. What differs between the two ways is where the
action stands (an opcode, a verb and a path) and what makes a request unique (a guid, X-REQID).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.facts import Side
from engine.core.orders import Accepted, Amend, Cancel, Command, OrderType, Outcome, Place, Refused, Unknown
from engine.core.venue import ErrorClass
from engine.venues.alor.errors import meaning, reason
from engine.venues.alor.numbers import whole
from engine.venues.alor.rows import STOP
from engine.venues.alor.symbols import ref_of, split_account

Body = dict[str, Any]

_LONGEST_COMMENT = 100
_KINDS = {OrderType.MARKET: "market", OrderType.STOP: "stop", OrderType.STOP_LIMIT: "stopLimit"}  # all others: limit
_TIMES_IN_FORCE = {
    OrderType.POST_ONLY: "bookorcancel",
    OrderType.IOC: "immediateorcancel",
    OrderType.FOK: "fillorkill",
}
_PASCAL = {
    "oneday": "OneDay",
    "immediateorcancel": "ImmediateOrCancel",
    "fillorkill": "FillOrKill",
    "goodtillcancelled": "GoodTillCancelled",
    "bookorcancel": "BookOrCancel",
    "moreorequal": "MoreOrEqual",
    "lessorequal": "LessOrEqual",
}
_AGAIN = frozenset({ErrorClass.RATE, ErrorClass.TOKEN})  # not done, and not for what was asked


class Wording(msgspec.Struct, frozen=True):
    """How orders are worded where ALOR leaves a choice, from the venue's options."""

    older: bool
    check_duplicates: bool
    allow_margin: bool
    time_in_force: str
    stop_limit: str
    amend_to_total: bool
    iceberg_variance: int
    protecting_s: int

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Wording:
        return cls(
            older=options["order_shape"] == "older",
            check_duplicates=options["check_duplicates"] == "true",
            allow_margin=options["allow_margin"] == "true",
            time_in_force=options["time_in_force"],
            stop_limit=options["stop_limit_opcode"],
            amend_to_total=options["amend_quantity"] == "total",
            iceberg_variance=int(options["iceberg_variance"]),
            protecting_s=int(options["protecting_seconds"]),
        )


class Said(msgspec.Struct, frozen=True):
    """A command in words: `action` create, update or delete; `kind` of order; `order_id` of the latter two."""

    action: str
    kind: str
    order_id: str
    body: Body

    def opcode(self, wording: Wording) -> str:
        return f"{self.action}:{wording.stop_limit if self.kind == 'stopLimit' else self.kind}"


def said(command: Command, account_ref: str, wording: Wording) -> Said:
    """Raises ValueError for a command that cannot be said without changing its meaning; nothing may be sent then."""
    portfolio = split_account(account_ref)[1]
    match command:
        case Place():
            return Said("create", _kind(command.order_type), "", _order(command, portfolio, wording))
        case Amend():
            return _amended(command, portfolio, wording)
        case Cancel():
            order_id = command.venue_order_id
            if not order_id:
                raise ValueError("an order is cancelled by the broker's number, which is not known yet")
            kind = "stop" if order_id.startswith(STOP) else "limit"
            exchange = ref_of(command.instrument.venue_ref).exchange
            body: Body = {"exchange": exchange, "user": {"portfolio": portfolio}}
            return Said("delete", kind, order_id.removeprefix(STOP), body)


def _kind(order_type: OrderType) -> str:
    return _KINDS.get(order_type, "limit")


def _order(place: Place, portfolio: str, wording: Wording) -> Body:
    _check(place)
    kind, instrument = _kind(place.order_type), ref_of(place.instrument.venue_ref)
    body: Body = {
        "side": place.side.value,
        "quantity": whole(place.quantity, place.instrument.name),
        "instrument": {"symbol": instrument.symbol, "exchange": instrument.exchange},
        "comment": place.client_order_id,
        "user": {"portfolio": portfolio},
    }
    if wording.older:
        body["board"] = instrument.board
    else:
        body["instrument"]["instrumentGroup"] = instrument.board
    if kind in ("limit", "stopLimit"):
        body["price"] = place.price
        body["timeInForce"] = _worded(_time_in_force(place, wording), wording)
        if place.visible_quantity is not None:
            body["icebergFixed"] = whole(place.visible_quantity, "what an iceberg shows")
            if wording.iceberg_variance and place.instrument.unit == "contract":  # on that market only (§3.5)
                body["icebergVariance"] = wording.iceberg_variance
    if kind in ("stop", "stopLimit"):
        body["condition"] = _worded("moreorequal" if place.side is Side.BUY else "lessorequal", wording)
        body["triggerPrice"] = place.trigger_price
        body["stopEndUnixTime"] = 0
        body["activate"] = True
        if wording.protecting_s:
            body["protectingSeconds"] = wording.protecting_s
    if wording.allow_margin:
        body["allowMargin"] = True
    return body


def _check(place: Place) -> None:
    kind, stop = _kind(place.order_type), place.order_type in (OrderType.STOP, OrderType.STOP_LIMIT)
    if (kind in ("limit", "stopLimit")) is (place.price is None):
        raise ValueError(f"a {place.order_type.value} order {'needs a' if place.price is None else 'takes no'} price")
    if stop is (place.trigger_price is None):
        raise ValueError(f"a {place.order_type.value} order {'needs a' if stop else 'takes no'} trigger price")
    if place.reduce_only:
        raise ValueError("ALOR knows no order that may only reduce a position")
    if place.position_side != "net":
        raise ValueError("ALOR knows no long and short positions side by side")
    if place.visible_quantity is not None and (
        kind not in ("limit", "stopLimit") or _TIMES_IN_FORCE.get(place.order_type)
    ):
        raise ValueError(f"a {place.order_type.value} order is no iceberg")
    if place.visible_quantity is not None and place.visible_quantity > place.quantity:
        raise ValueError("an iceberg shows a part of its quantity, not more")
    comment = place.client_order_id
    if not (comment.isascii() and comment.isprintable() and 1 <= len(comment) <= _LONGEST_COMMENT):
        raise ValueError(f"a comment has 1 to {_LONGEST_COMMENT} plain characters, not {comment!r}")


def _time_in_force(place: Place, wording: Wording) -> str:
    """`goodtillcancelled` is for futures only (§3.5): everything else lasts for the day."""
    fixed = _TIMES_IN_FORCE.get(place.order_type)
    if fixed is not None:
        return fixed
    return wording.time_in_force if place.instrument.unit == "contract" else "oneday"


def _worded(word: str, wording: Wording) -> str:
    return _PASCAL[word] if wording.older else word


def _amended(amend: Amend, portfolio: str, wording: Wording) -> Said:
    """All of the order anew (§3.6): what replaces it knows nothing of the one before, not even its comment."""
    order, order_id = amend.order, amend.venue_order_id
    if order is None or not order_id:
        raise ValueError("an order that is replaced must be known as it stands, with the broker's number")
    stop = order_id.startswith(STOP)
    if not stop and order.order_type in (OrderType.MARKET, OrderType.STOP):
        raise ValueError("a market order that has left is not changed any more")
    total = order.quantity if amend.new_quantity is None else amend.new_quantity
    # Whether it counts what the old order got is unconfirmed (§10.18): that it does not is likelier.
    quantity = total if wording.amend_to_total else total - amend.filled
    if total <= amend.filled:
        raise ValueError(f"{amend.filled} are filled already: an order is not made smaller than that, it is cancelled")
    kind = OrderType.LIMIT if not stop and order.order_type is OrderType.STOP_LIMIT else order.order_type
    changed = msgspec.structs.replace(
        order,
        order_type=kind,
        client_order_id=amend.client_order_id,
        quantity=quantity,
        price=order.price if amend.new_price is None else amend.new_price,
        trigger_price=order.trigger_price if stop else None,
        visible_quantity=None if order.visible_quantity is None else min(order.visible_quantity, quantity),
    )
    body = _order(changed, portfolio, wording)
    if _kind(kind) == "limit":
        del body["timeInForce"]  # an update of a limit order has none (§3.6)
        body.pop("icebergVariance", None)
    return Said("update", _kind(kind), order_id.removeprefix(STOP), body)


# ---- Answers


def outcome(command: Command, status: int, words: str, order_number: str, code: str = "") -> Outcome:
    """What became of a command. Whatever the answer does not say plainly is Unknown."""
    if 200 <= status < 300:
        return _accepted(command, order_number)
    error_class, sentence = meaning(status, f"{code} {words}")
    told = reason(sentence, words)
    if error_class is ErrorClass.UNKNOWN_OUTCOME:
        return Unknown(f"{status}: {told}")
    gone = error_class in (ErrorClass.TARGET_GONE, ErrorClass.NOT_FOUND) and not isinstance(command, Place)
    return Refused(code or str(status), told, again=error_class in _AGAIN, target_gone=gone)


def _accepted(command: Command, order_number: str) -> Outcome:
    if isinstance(command, Cancel):
        return Accepted(command.venue_order_id)
    if not order_number:
        return Unknown("accepted, but without an order number")
    return Accepted((STOP if _is_stop(command) else "") + order_number)


def _is_stop(command: Place | Amend) -> bool:
    if isinstance(command, Amend):
        return command.venue_order_id.startswith(STOP)
    return command.order_type in (OrderType.STOP, OrderType.STOP_LIMIT)


_encode = msgspec.json.Encoder(decimal_format="number").encode


def encode(body: Body) -> bytes:
    """Decimals go out as numbers, digit by digit."""
    return _encode(body)
