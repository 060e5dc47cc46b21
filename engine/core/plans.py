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
    """How a leg's quantity is found for each account.

    The manager gives Q to the first six; for the others it follows from the account itself.
    """

    EQUAL = "equal"  # Q / n
    LEVEL = "level"  # Q raises the lowest holdings to one level; selling lowers the highest
    NAV = "nav"  # Q × NAV / sum of NAVs
    AVAILABLE = "available"  # Q × free equity / sum of it
    PERCENT = "percent"  # Q × p, the weights of the plan's groups; they must sum to exactly 100
    RATIO = "ratio"  # Q × r / sum of r, the weights of the plan's groups
    UNITS = "units"  # told per account
    MONEY = "money"  # floor(M / (price × multiplier))
    NAV_PERCENT = "nav_percent"  # floor(p × NAV / (price × multiplier))
    CHANGE = "change"  # p % of the account's own position; -100 closes
    TARGET = "target"  # to p % of NAV, unless it lies within the band already
    RISK = "risk"  # floor(p × NAV / loss of one unit at the stop)


class Residual(StrEnum):
    """What becomes of the steps that flooring leaves over."""

    LARGEST_REMAINDER = "largest_remainder"
    LARGEST_FIRST = "largest_first"
    FLOOR = "floor"


class BelowMinimum(StrEnum):
    """What becomes of a share that is smaller than the venue's smallest order."""

    SKIP = "skip"
    RAISE = "raise"  # to the minimum; of a quantity that is split, the others have the less
    REJECT = "reject"  # the whole plan


class Cannot(StrEnum):
    """What becomes of the share of an account that cannot take its part."""

    DROP = "drop"
    REDUCE = "reduce"  # to what its money and its mandate allow; what is cut goes to nobody
    RESPREAD = "respread"  # over the others
    REJECT = "reject"  # the whole plan


class Offline(StrEnum):
    """What becomes of an account that is not live, or not proven, when the plan goes out."""

    SKIP = "skip"
    QUEUE = "queue"  # its order waits for it until the plan's queue deadline


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One parent order. Quantities are in the instrument's venue unit, money is in its quote currency."""

    instrument: str
    method: Method
    side: Side | None = None  # None only for `change` and `target`, where the position decides
    quantity: Decimal | None = None  # the manager's Q; for units it must equal the sum when given
    percent: Decimal | None = None  # for nav_percent, change, target and risk
    units: Mapping[str, Decimal] = {}  # for units: account_id -> quantity
    amount: Decimal | None = None  # for money: of each account
    amounts: Mapping[str, Decimal] = {}  # for money: account_id -> amount, where they differ
    band: Decimal | None = None  # for target: so many percentage points off are left alone
    stop_price: Decimal | None = None  # for risk: where the loss is taken
    order_type: OrderType = OrderType.LIMIT
    price: Decimal | None = None
    trigger_price: Decimal | None = None  # of the stop kinds
    visible_quantity: Decimal | None = None  # of an iceberg: what each account's order shows
    residual: Residual = Residual.LARGEST_REMAINDER
    reduce_only: bool = False
    groups: tuple[str, ...] = ()  # whom the leg is for, where not for all members of the plan
    accounts: tuple[str, ...] = ()

    @property
    def sizing_price(self) -> Decimal | None:
        """The price that it says itself; None: the market's."""
        return self.price if self.price is not None else self.trigger_price


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
    overridden: tuple[Denial, ...] = ()  # denials that a person set aside
    queued: tuple[Denial, ...] = ()  # what its order waits for, where the plan says that it may wait

    @property
    def takes_part(self) -> bool:
        return not self.denials and self.quantity > 0


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    taken_at_ms: int
    prices: Mapping[str, Decimal]  # reference prices by "venue|environment|instrument"
    rows: tuple[PreviewRow, ...]
    unallocated: Mapping[int, Decimal]  # leg -> quantity that no account takes


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """A denial that a person sets aside for this plan: who, why, until when."""

    code: str
    account_id: str = ""  # "": for every account
    by: str
    why: str
    at_ms: int
    expires_at_ms: int


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    by: str
    at_ms: int
    statement_hash: str  # sha256 over the plan, its legs and its preview: the allocation statement


class Amendment(msgspec.Struct, frozen=True, kw_only=True):
    """What a person changed of a plan at work: every order of it is to follow, also one that shows up later."""

    price: Decimal | None = None
    factor: Decimal | None = None  # of the approved quantity, with those before it
    by: str
    at_ms: int


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
    below_minimum: BelowMinimum = BelowMinimum.SKIP
    cannot: Cannot = Cannot.DROP
    cap_notional: Decimal | None = None  # the whole plan's, in the legs' quote currency: more is scaled down alike
    offline: Offline = Offline.SKIP
    queue_until_ms: int | None = None
    sells_first: bool = False  # buys wait for what the account's sells bring
    sells_wait_ms: int = 0  # at most so long; then they go with the cash that is there
    abort_refused_percent: Decimal | None = None  # of those sent: more refused, and what still waits is not sent
    abort_unknown: int | None = None  # likewise: more whose outcome is unknown
    abort_slippage_percent: Decimal | None = None  # of a leg's average from the preview's price, for the worse
    abort_dispersion_percent: Decimal | None = None  # of the accounts' prices round their average
    abort_after_ms: int | None = None  # since the first was sent
    abort_cancels: bool = False  # and what is at work is cancelled
    aborted: str = ""  # by which of these rules it was stopped
    amendments: tuple[Amendment, ...] = ()
    cancelled_by: str = ""  # who asked for it: what shows up later is cancelled, too
    closes_for: str = ""  # the scope of a kill switch: its orders close, and go only while that is on
    overrides: tuple[Override, ...] = ()
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
    trigger_price: Decimal | None = None
    visible_quantity: Decimal | None = None
    reduce_only: bool = False
    state: OrderState = OrderState.PLANNED
    claim_token: str = ""
    send_by_ms: int = 0  # the venue must refuse it after this instant
    venue_order_id: str = ""
    filled: Decimal = Decimal(0)
    avg_price: Decimal | None = None
    reason: str = ""
    late: bool = False
    late_settled_at_ms: int | None = None  # a person has seen to it; what it fills after that is news again
    cancel_state: CancelState = CancelState.NONE
    amendments: int = 0  # so many of its plan's were sent to it, or need not be
    planned_at_ms: int
    sent_at_ms: int | None = None
    acknowledged_at_ms: int | None = None
    filled_at_ms: int | None = None
    updated_at_ms: int
