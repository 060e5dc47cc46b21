"""Decides. The closed list of differences, how grave each is, why it may be, and what two reads of one make of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum

import msgspec

from engine.core.statements import OrderLine, Part
from engine.core.tolerances import Rules


class Severity(StrEnum):
    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    NOTE = "note"  # listed and summed, no break

    @property
    def rank(self) -> int:
        """0 is the gravest."""
        return _GRAVEST_FIRST.index(self)


_GRAVEST_FIRST = list(Severity)


class Code(StrEnum):
    """The closed list: every difference has one of these codes."""

    severity: Severity
    sentence: str

    def __new__(cls, name: str, severity: Severity, sentence: str) -> Code:
        code = str.__new__(cls, name)
        code._value_ = name
        code.severity, code.sentence = severity, sentence
        return code

    @property
    def part(self) -> Part | None:
        """The part of a statement that it is found in; None where it is not of one part."""
        prefix = self.value.partition("_")[0]
        return {"POS": Part.POSITIONS, "CASH": Part.CASH, "ORD": Part.ORDERS, "FILL": Part.FILLS}.get(prefix)

    POS_QTY = "POS_QTY", Severity.MAJOR, "The position's quantity differs."
    POS_SIDE = "POS_SIDE", Severity.CRITICAL, "One side holds the position long, the other short."
    POS_ONLY_VENUE = "POS_ONLY_VENUE", Severity.MAJOR, "The venue states a position that the ledger does not have."
    POS_ONLY_LEDGER = "POS_ONLY_LEDGER", Severity.MAJOR, "The ledger holds a position that the venue does not state."
    POS_AVGPX = "POS_AVGPX", Severity.MINOR, "Quantities agree, average prices do not."
    POS_DUST = "POS_DUST", Severity.NOTE, "Positions differ by less than one step of quantity."
    CASH_AMT = "CASH_AMT", Severity.MAJOR, "The amount of cash differs."
    CASH_UNSETTLED = "CASH_UNSETTLED", Severity.NOTE, "Cash that is due but not settled yet."
    ORD_ONLY_VENUE = "ORD_ONLY_VENUE", Severity.MAJOR, "The venue works an order that the ledger does not know."
    ORD_ONLY_LEDGER = "ORD_ONLY_LEDGER", Severity.MAJOR, "The ledger has an order at work that the venue does not list."
    ORD_STATE = "ORD_STATE", Severity.MAJOR, "Both sides know the order and tell different things of it."
    ORD_UNKNOWN = "ORD_UNKNOWN", Severity.MAJOR, "Nobody knows what became of an order that was sent."
    FILL_MISSING = "FILL_MISSING", Severity.MAJOR, "The venue reports a fill that the ledger lacks."
    FILL_EXTRA = "FILL_EXTRA", Severity.CRITICAL, "The ledger has a fill that the venue does not report."
    FILL_DUP = "FILL_DUP", Severity.MINOR, "One fill was booked twice."
    FILL_FIELD = "FILL_FIELD", Severity.MAJOR, "The same fill is told differently."
    FEE_FUNDING = "FEE_FUNDING", Severity.MINOR, "A fee or funding payment differs."
    XFER = "XFER", Severity.MAJOR, "A deposit or withdrawal that a person must confirm."
    CORP_ACT = "CORP_ACT", Severity.MAJOR, "A corporate action changed the position."
    VENUE_ACTION = "VENUE_ACTION", Severity.CRITICAL, "The venue itself acted: liquidation, deleveraging, delivery."
    PLAN_SHORT = "PLAN_SHORT", Severity.MINOR, "Less was executed than planned."
    PLAN_OVER = "PLAN_OVER", Severity.MAJOR, "More was executed than planned."
    PLAN_LATE = "PLAN_LATE", Severity.MINOR, "The plan was executed after its time."
    PLAN_SKIPPED = "PLAN_SKIPPED", Severity.MINOR, "An account did not take part in its plan."
    MAP = "MAP", Severity.CRITICAL, "An instrument has no name of ours, so it cannot be compared."
    PRICE_SRC = "PRICE_SRC", Severity.MINOR, "A price for valuing is missing or from another source."
    GAP = "GAP", Severity.MAJOR, "A gap in what was heard is not proven yet."
    STALE = "STALE", Severity.MAJOR, "One side is too old to be compared with the other."
    ROUND = "ROUND", Severity.NOTE, "Within the venue's published rounding."
    DUP_KEY = "DUP_KEY", Severity.MAJOR, "One side lists the same key twice with different contents."


class Cause(StrEnum):
    """Why it may be: a second field, found where the evidence allows."""

    TIMING = "timing"  # under way, or seen by one read only: explained until it lasts
    GAP = "gap"
    FOREIGN_TRADE = "foreign trade"  # not placed by us
    VENUE_ACTION = "venue action"
    BOOKING_BUG = "booking bug"
    DUPLICATE = "duplicate"
    ROUNDING = "rounding"
    MAPPING = "mapping"
    FEE_RULE = "fee rule"
    CORPORATE_ACTION = "corporate action"
    TRANSFER = "transfer"
    CLOCK = "clock"
    UNKNOWN = "unknown"


EXPLAINED = frozenset({Cause.TIMING, Cause.ROUNDING})


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. It keeps `break_id` in every run that finds it; `difference` is venue less ledger."""

    break_id: str
    account_id: str
    code: Code
    severity: Severity
    cause: Cause
    instrument: str = ""  # or the currency, for cash
    key: str = ""  # the order's, fill's or gap's id, a position's side
    field: str
    venue: str | None  # None: not there
    ledger: str | None
    target: str | None = None
    difference: Decimal | None = None
    unit: str = ""
    value: Decimal | None = None  # the difference in money, where a price was at hand
    value_currency: str = ""
    external: bool = False  # placed elsewhere: the client order id is not one of ours
    changed_at_ms: int | None = None
    plan_id: str = ""
    child_id: str = ""
    order_id: str = ""
    fill_id: str = ""
    gap_id: str = ""
    first_seen_ms: int
    last_seen_ms: int
    runs_seen: int = 1

    @property
    def explained(self) -> bool:
        """Under way or rounding: listed, but it does not turn the verdict."""
        return self.cause in EXPLAINED


class ToleranceUse(msgspec.Struct, frozen=True, kw_only=True):
    """A difference that was let pass, and by which row."""

    account_id: str
    instrument: str
    key: str
    field: str
    venue: Decimal
    ledger: Decimal
    allowed: Decimal
    relative: bool
    unit: str

    @property
    def difference(self) -> Decimal:
        return self.venue - self.ledger


class ForeignOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that we did not place: at work at the venue, or ended within the time compared."""

    account_id: str
    order: OrderLine
    in_ledger: bool


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one part was compared."""

    part: Part
    venue: int
    ledger: int
    agree: int


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A part that could not be compared, and why."""

    leg: str  # V or L
    part: Part
    reason: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What one comparison of one account found."""

    breaks: tuple[Break, ...]
    uses: tuple[ToleranceUse, ...] = ()
    foreign: tuple[ForeignOrder, ...] = ()
    counts: tuple[Count, ...] = ()
    missing: tuple[Missing, ...] = ()


def break_id(account_id: str, code: Code, instrument: str, field: str, key: str) -> str:
    """The same difference has the same id in every run, whatever its amount."""
    told = "\x1f".join((account_id, code.value, instrument, field, key))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


_DIRECT = frozenset({Code.GAP, Code.STALE, Code.MAP})
"""Not differences between two reads, so that one look is enough."""


def survive(first: Comparison, second: Comparison) -> Comparison:
    """What two reads agree on. A difference that only one of them shows is taken for timing, and still listed."""
    earlier = {b.break_id for b in first.breaks}
    unread = {m.part for m in second.missing}
    kept = [b if b.break_id in earlier or b.code in _DIRECT or b.explained else _as_timing(b) for b in second.breaks]
    # The second read failed in this part: what the first one showed is neither confirmed nor gone.
    kept += [_as_timing(b) for b in first.breaks if b.code not in _DIRECT and b.code.part in unread]
    return msgspec.structs.replace(second, breaks=in_order(kept))


def aged(found: Break, *, first_seen_ms: int, runs_seen: int, rules: Rules) -> Break:
    """The break with its history: what stays under way for too long is a break after all."""
    lasts = found.cause is Cause.TIMING and found.last_seen_ms - first_seen_ms >= rules.settle_ms
    return msgspec.structs.replace(
        found,
        first_seen_ms=first_seen_ms,
        runs_seen=runs_seen,
        cause=Cause.UNKNOWN if lasts else found.cause,
    )


def _as_timing(found: Break) -> Break:
    return msgspec.structs.replace(found, cause=Cause.TIMING)


def in_order(breaks: Iterable[Break]) -> tuple[Break, ...]:
    """The gravest first, then by code, instrument, key and field: always the same."""
    return tuple(sorted(breaks, key=lambda b: (b.severity.rank, b.code.value, b.instrument, b.key, b.field)))
