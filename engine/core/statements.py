"""Holds. The two sides that a reconciliation compares for one account: the venue's statement and our ledger.

Both have the same parts in the same units. A part that could not be read is named in `missing` with its reason and
is then unknown: it is never taken for empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

import msgspec

from engine.core.facts import BalanceFact, FillFact, OrderFact, PositionFact, Side
from engine.core.orders import OrderState


class Part(StrEnum):
    """What is compared, each part for itself."""

    POSITIONS = "positions"
    CASH = "cash"
    ORDERS = "orders"
    FILLS = "fills"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of one side was read from. `sha256` is over the raw bytes of its answers, in their order."""

    part: Part
    sha256: str
    pages: int
    size: int  # bytes


class OrderLine(msgspec.Struct, frozen=True, kw_only=True):
    """An order as one side knows it. Quantities are in the instrument's venue unit."""

    instrument: str
    client_order_id: str
    venue_order_id: str
    side: Side
    quantity: Decimal
    price: Decimal | None
    filled: Decimal
    state: OrderState
    changed_at_ms: int
    plan_id: str = ""
    child_id: str = ""


class OpenGap(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time in which facts may be missing and that is not proven yet."""

    gap_id: str
    from_ms: int
    to_ms: int | None  # None: it lasts
    state: str  # open, backfilled, unprovable
    reason: str = ""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """V: what the venue states. Parts are complete, so what is absent is zero; ended orders only where asked for."""

    account_id: str
    as_of_ms: int  # taken before the first read: everything older is contained
    since_ms: int  # fills traded from here on are contained
    positions: tuple[PositionFact, ...] = ()
    balances: tuple[BalanceFact, ...] = ()
    orders: tuple[OrderLine, ...] = ()
    fills: tuple[FillFact, ...] = ()
    missing: Mapping[Part, str] = {}
    evidence: tuple[Evidence, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.missing


class LedgerSide(msgspec.Struct, frozen=True, kw_only=True):
    """L: what our ledger holds. `orders` are those that may be at work, and those that ended since `since_ms`."""

    account_id: str
    as_of_ms: int
    since_ms: int  # fills traded from here on are contained; later than asked for where our records begin later
    positions: tuple[PositionFact, ...] = ()
    balances: tuple[BalanceFact, ...] = ()
    orders: tuple[OrderLine, ...] = ()
    fills: tuple[FillFact, ...] = ()
    gaps: tuple[OpenGap, ...] = ()
    stale: str = ""  # why nothing new may be reaching us: link down, mute, halted; "" when it is
    last_fact_at_ms: int | None = None
    missing: Mapping[Part, str] = {}


def line_of(order: OrderFact) -> OrderLine:
    """The venue's order in the form in which both sides are compared."""
    return OrderLine(
        instrument=order.instrument,
        client_order_id=order.client_order_id,
        venue_order_id=order.venue_order_id,
        side=order.side,
        quantity=order.quantity,
        price=order.price,
        filled=order.filled,
        state=OrderState(order.status.value),
        changed_at_ms=order.updated_at_ms,
    )
