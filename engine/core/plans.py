"""Holds. A manager's plan: legs, preview, approval, and the child orders that carry it out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

import msgspec

from engine.core.facts import Side
from engine.core.orders import CancelState, OrderState, OrderType


class PlanState(StrEnum):
    DRAFT = "draft"
    PREVIEWED = "previewed"
    APPROVED = "approved"
    EXECUTING = "executing"
    DONE = "done"
    DONE_WITH_SHORTFALL = "done_with_shortfall"
    ABORTED = "aborted"
    EXPIRED = "expired"
    DISCARDED = "discarded"

    @property
    def ended(self) -> bool:
        return self in _ENDED


_P = PlanState
_ENDED = frozenset({_P.DONE, _P.DONE_WITH_SHORTFALL, _P.ABORTED, _P.EXPIRED, _P.DISCARDED})

PLAN_STEPS: dict[PlanState, frozenset[PlanState]] = {
    _P.DRAFT: frozenset({_P.PREVIEWED, _P.EXPIRED, _P.DISCARDED}),
    _P.PREVIEWED: frozenset({_P.PREVIEWED, _P.APPROVED, _P.EXPIRED, _P.DISCARDED}),
    _P.APPROVED: frozenset({_P.EXECUTING, _P.EXPIRED, _P.DISCARDED}),
    _P.EXECUTING: frozenset({_P.DONE, _P.DONE_WITH_SHORTFALL, _P.ABORTED}),
}


class Method(StrEnum):
    """How a leg's quantity is found for each account."""

    EQUAL = "equal"  # Q / n
    PERCENT = "percent"  # Q × p_i, the weights of the plan's groups; they must sum to exactly 100
    UNITS = "units"  # told per account
    NAV_PERCENT = "nav_percent"  # floor(p × NAV / (price × multiplier))
    CHANGE = "change"  # p % of the account's own position; -100 closes


class Residual(StrEnum):
    """What becomes of the steps that flooring leaves over."""

    LARGEST_REMAINDER = "largest_remainder"
    LARGEST_FIRST = "largest_first"
    FLOOR = "floor"


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One parent order. Quantities are in the instrument's venue unit."""

    instrument: str
    method: Method
    side: Side | None = None  # None only for `change`, whose sign and position decide
    quantity: Decimal | None = None  # the manager's Q: for equal, percent; for units it must equal the sum when given
    percent: Decimal | None = None  # for nav_percent and change
    units: Mapping[str, Decimal] = {}  # for units: account_id -> quantity
    order_type: OrderType = OrderType.LIMIT
    price: Decimal | None = None
    residual: Residual = Residual.LARGEST_REMAINDER
    reduce_only: bool = False


class Denial(msgspec.Struct, frozen=True):
    """Why an account does not take part: a code of the closed list, and its numbers."""

    code: str
    numbers: Mapping[str, str] = {}
    text: str = ""


class PreviewRow(msgspec.Struct, frozen=True, kw_only=True):
    """One account's part of one leg. `quantity` is in the venue unit; money is in the instrument's quote currency."""

    account_id: str
    leg: int
    venue: str
    instrument: str
    side: Side
    quantity: Decimal
    unit: str
    base_quantity: Decimal
    price: Decimal  # the price it was sized with
    notional: Decimal
    fee_estimate: Decimal
    raw_share: Decimal
    residual: Decimal  # raw_share - quantity
    held_before: Decimal
    held_after: Decimal
    nav: Decimal | None = None
    available: Decimal | None = None
    cash_after: Decimal | None = None  # estimate: available less margin or cost and fee
    weight_after: Decimal | None = None  # position value after / NAV, in per cent
    reduce_only: bool = False
    denials: tuple[Denial, ...] = ()

    @property
    def takes_part(self) -> bool:
        return not self.denials and self.quantity > 0


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    taken_at_ms: int
    prices: Mapping[str, Decimal]  # reference prices by "venue|environment|instrument"
    rows: tuple[PreviewRow, ...]
    unallocated: Mapping[int, Decimal]  # leg -> quantity that no account takes


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    by: str
    at_ms: int
    statement_hash: str  # sha256 over the plan, its legs and its preview: the allocation statement


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    plan_id: str
    title: str
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()  # named one by one; the members are groups and accounts together
    legs: tuple[Leg, ...]
    state: PlanState = PlanState.DRAFT
    created_at_ms: int
    created_by: str
    expires_at_ms: int
    max_drift_percent: Decimal  # the price may have moved by so much since the preview, no more
    rotation_seed: int  # shuffles the order of accounts in the fan-out; recorded
    attempts: int = 1  # so often an order is sent at most: anew only when the one before provably never arrived
    preview: Preview | None = None
    approval: Approval | None = None
    note: str = ""  # why it ended, where that is not plain


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One account's share of one leg: the unit that is sent. A replacement is a new attempt, a new Child."""

    child_id: str  # 32 hex digits: order_uuid(plan, account, leg, attempt)
    plan_id: str
    account_id: str
    leg: int
    attempt: int = 1
    client_order_id: str  # child_id in the venue's alphabet
    instrument: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    reduce_only: bool = False
    state: OrderState = OrderState.PLANNED
    claim_token: str = ""
    send_by_ms: int = 0  # the venue must refuse it after this instant
    venue_order_id: str = ""
    filled: Decimal = Decimal(0)
    avg_price: Decimal | None = None
    reason: str = ""
    late: bool = False
    cancel_state: CancelState = CancelState.NONE
    planned_at_ms: int
    sent_at_ms: int | None = None
    acknowledged_at_ms: int | None = None
    filled_at_ms: int | None = None
    updated_at_ms: int
