"""Decides. What may follow what in the life of a child order, and what one send can end in.

The table is the definition: the docs' diagram is generated from it and an illegal step raises. Quantities are not
states: a partial fill only grows `filled`. Late is a mark on a terminal child, not a state.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from uuid import UUID, uuid5

import msgspec

from engine.core.facts import OrderStatus, Side
from engine.core.instruments import Instrument


class OrderState(StrEnum):
    PLANNED = "planned"
    SKIPPED = "skipped"
    SENDING = "sending"
    UNKNOWN = "unknown"
    WORKING = "working"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    NOT_PLACED = "not_placed"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


class OrderEvent(StrEnum):
    CLAIM = "claim"  # durable intent written; the next thing is the first byte
    SKIP = "skip"  # cancelled, expired, killed or denied before a claim
    ACK = "ack"  # the venue accepted the request
    REFUSED = "refused"  # definite refusal by the venue's code table
    NO_ANSWER = "no_answer"  # time-out, reset, 5xx, unreadable, a batch without its row
    NOT_WRITTEN = "not_written"  # provably not one byte left us and the claim is still ours
    SEEN = "seen"  # the venue shows the order at work
    FINAL_FILL = "final_fill"
    FINAL_CANCEL = "final_cancel"
    FINAL_EXPIRY = "final_expiry"
    FINAL_REJECT = "final_reject"
    NEGATIVE_PROOF = "negative_proof"  # proven that the venue never had it (RELIABILITY: negative proof)
    DECIDED_ABSENT = "decided_absent"  # a person has looked at the broker's own page: it was never placed


_S, _E = OrderState, OrderEvent
TERMINAL = frozenset({_S.SKIPPED, _S.FILLED, _S.CANCELLED, _S.EXPIRED, _S.REJECTED, _S.NOT_PLACED})

_VENUE_ENDS = {
    _E.FINAL_FILL: _S.FILLED,
    _E.FINAL_CANCEL: _S.CANCELLED,
    _E.FINAL_EXPIRY: _S.EXPIRED,
    _E.FINAL_REJECT: _S.REJECTED,
}

TRANSITIONS: dict[OrderState, dict[OrderEvent, OrderState]] = {
    _S.PLANNED: {_E.CLAIM: _S.SENDING, _E.SKIP: _S.SKIPPED},
    _S.SENDING: {
        _E.ACK: _S.WORKING,
        _E.SEEN: _S.WORKING,
        _E.REFUSED: _S.REJECTED,
        _E.NO_ANSWER: _S.UNKNOWN,
        _E.NOT_WRITTEN: _S.PLANNED,
        **_VENUE_ENDS,
    },
    _S.UNKNOWN: {
        _E.ACK: _S.WORKING,  # the answer came after all
        _E.SEEN: _S.WORKING,
        _E.REFUSED: _S.REJECTED,
        _E.NEGATIVE_PROOF: _S.NOT_PLACED,
        _E.DECIDED_ABSENT: _S.NOT_PLACED,
        _E.FINAL_FILL: _S.FILLED,
        _E.FINAL_CANCEL: _S.CANCELLED,
        _E.FINAL_REJECT: _S.REJECTED,  # one that expired was at work before: it is SEEN first
    },
    _S.WORKING: {_E.ACK: _S.WORKING, _E.SEEN: _S.WORKING, **_VENUE_ENDS},
}

EVENT_OF_STATUS = {
    OrderStatus.WORKING: _E.SEEN,
    OrderStatus.FILLED: _E.FINAL_FILL,
    OrderStatus.CANCELLED: _E.FINAL_CANCEL,
    OrderStatus.EXPIRED: _E.FINAL_EXPIRY,
    OrderStatus.REJECTED: _E.FINAL_REJECT,
}


class IllegalStep(Exception):
    """That event may not happen in that state. Nothing was changed."""


def advance(state: OrderState, event: OrderEvent) -> OrderState:
    """The state after `event`; raises IllegalStep where the table has no such step."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalStep(f"{event.value} may not happen to an order that is {state.value}") from None


class CancelState(StrEnum):
    NONE = "none"
    REQUESTED = "requested"
    SENDING = "sending"
    UNKNOWN = "unknown"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"
    POST_ONLY = "post_only"
    IOC = "ioc"
    FOK = "fok"
    STOP = "stop"  # a market order once the trigger price is reached
    STOP_LIMIT = "stop_limit"


_ORDER_NAMESPACE = UUID("6f1f6f0e-6b0f-5d0c-9f0a-756e69736f6e")


def order_uuid(plan_id: str, account_id: str, leg: int, attempt: int) -> UUID:
    """The child's identity: the same inputs give the same id, also after a restore from a backup."""
    return uuid5(_ORDER_NAMESPACE, f"{plan_id}|{account_id}|{leg}|{attempt}")


# ---- Commands: what we ask of a venue. Values; a dialect renders them.


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One new order. `expires_at_ms`: after this instant the venue must refuse it (where it can)."""

    client_order_id: str
    instrument: Instrument
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    trigger_price: Decimal | None = None  # of the stop kinds: reached from below by a buy, from above by a sell
    visible_quantity: Decimal | None = None  # of an iceberg
    reduce_only: bool = False
    margin_mode: str = "cross"  # cross, isolated, cash
    position_side: str = "net"
    expires_at_ms: int | None = None
    account_ref: str = ""  # whose it is, by the venue's name of the account, where a connection may carry several


class Amend(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a working order. `new_quantity` includes what is already filled.

    `order` and `filled` tell it as it stands: a venue that replaces it wants to hear all of it anew.
    """

    client_order_id: str
    venue_order_id: str
    instrument: Instrument
    amend_id: str
    new_quantity: Decimal | None = None
    new_price: Decimal | None = None
    expires_at_ms: int | None = None
    order: Place | None = None
    filled: Decimal = Decimal(0)
    account_ref: str = ""


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    client_order_id: str
    venue_order_id: str
    instrument: Instrument
    account_ref: str = ""


Command = Place | Amend | Cancel


# ---- Outcomes: what one send ended in. Expected, so they are values.


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The venue took the request. Not yet: in the book, cancelled, amended."""

    venue_order_id: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The venue definitely did not do it."""

    code: str
    reason: str
    again: bool = False  # not for what it was: too fast, venue busy, clock off. The same may be asked again later
    target_gone: bool = False  # of a cancel or amend: the order is not at work any more; ask what became of it


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """It may have happened. Never sent again; asked about."""

    reason: str


Outcome = Accepted | Refused | Unknown
