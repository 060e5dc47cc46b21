"""Decides. How far the accounts of a group have come apart, and the one plan that brings them back in line.

Apart from what: from the group's own middle (`median`: of each instrument the median weight of its accounts, in per
cent of net asset value, with a band), or from the sum of plans (`plans`: what orders of ours would have left, had
nobody else traded). Whether an order is allowed is the preview's matter; what can never be one is said here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from statistics import median

import msgspec

from accounts.model import Model, ModelLine
from engine.core.drafts import Draft
from engine.core.limits import plain
from engine.core.models import Drift, Line, Subject, Why, drifts, ordered

_ZERO, _HUNDRED = Decimal(0), Decimal(100)


class Against(StrEnum):
    """What accounts are measured against."""

    MEDIAN = "median"
    PLANS = "plans"


class Deviation(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument in one account. `quantity` is signed: what to buy (above zero) or sell to be in line."""

    account_id: str
    instrument: str
    held: Decimal
    weight: Decimal | None  # in per cent of its net asset value; None: cannot be told
    wanted: Decimal | None  # by median: the weight that it ought to have; by plans: the quantity
    moved: Mapping[str, Decimal] = {}  # by plans: who moved it, by how much
    quantity: Decimal = _ZERO
    why: Why | None = None  # why it gets no order, or stays apart after it
    detail: str = ""

    @property
    def apart(self) -> bool:
        """Something is to be done, or ought to be and cannot."""
        return bool(self.quantity) or self.why not in (None, Why.WITHIN_BAND)


class Deviations(msgspec.Struct, frozen=True, kw_only=True):
    group_id: str
    against: Against
    currency: str
    rows: tuple[Deviation, ...]
    plan_id: str = ""  # of the draft that was proposed


def middle(group_id: str, subjects: Sequence[Subject], instruments: Iterable[str], band: Decimal) -> Model:
    """The group's own middle as a model portfolio. Of an even number it is the mean of the two in the middle."""
    lines = list[ModelLine]()
    for name in sorted(set(instruments)):
        weights = [w for s in subjects if (w := _weight(s, name)) is not None]
        if weights:
            lines.append(ModelLine(instrument=name, weight=median(weights), band=band))
    cash = _HUNDRED - sum((line.weight for line in lines), _ZERO)
    return Model(model_id=group_id, name=f"the middle of {group_id}", cash=cash, lines=tuple(lines))


def from_median(
    group_id: str, subjects: Sequence[Subject], instruments: Iterable[str], band: Decimal, currency: str
) -> Deviations:
    model = middle(group_id, subjects, instruments, band)
    rows = tuple(_of_drift(drift, one) for one in subjects for drift in drifts(model, one))
    return Deviations(group_id=group_id, against=Against.MEDIAN, currency=currency, rows=rows)


def from_plans(
    group_id: str,
    subjects: Sequence[Subject],
    moved: Mapping[tuple[str, str], Mapping[str, Decimal]],
    currency: str,
) -> Deviations:
    """`moved`: by account and instrument, what fills that are not ours moved, by whom."""
    of_account = {s.account_id: s for s in subjects}
    rows = tuple(
        _moved_back(of_account[account_id], name, by_whom)
        for (account_id, name), by_whom in sorted(moved.items())
        if account_id in of_account and sum(by_whom.values(), _ZERO)
    )
    return Deviations(group_id=group_id, against=Against.PLANS, currency=currency, rows=rows)


def proposal(found: Deviations, by: str) -> Draft | None:
    """One plan with all the orders, sells first; None where there is nothing to do."""
    orders = ((row.account_id, row.instrument, row.quantity) for row in found.rows if row.quantity)
    return ordered(f"Brings {found.group_id} back in line", orders, by)


def _weight(subject: Subject, name: str) -> Decimal | None:
    there = subject.lines.get(name)
    if subject.nav is None or subject.nav <= 0 or there is None or there.unit_value <= 0:
        return None
    return there.held * there.unit_value * _HUNDRED / subject.nav


def _of_drift(drift: Drift, subject: Subject) -> Deviation:
    there = subject.lines.get(drift.instrument, Line())
    return Deviation(
        account_id=drift.account_id,
        instrument=drift.instrument,
        held=there.held,
        weight=drift.weight,
        wanted=drift.target,
        quantity=drift.quantity,
        why=drift.why,
        detail=drift.detail,
    )


def _moved_back(subject: Subject, name: str, by_whom: Mapping[str, Decimal]) -> Deviation:
    """What others did, undone: in whole steps, and of what is owned outright no more than there is."""
    there = subject.lines.get(name, Line(against=Why.NOT_LISTED))
    back = -sum(by_whom.values(), _ZERO)
    size = abs(back)
    if back < 0 and there.pays:
        size = min(size, max(there.held, _ZERO))
    whole = size - size % there.step
    why, detail = there.against, there.detail
    if why is None and whole < max(there.minimum, there.step):
        why, detail = Why.BELOW_MINIMUM, f"{plain(size)} is below the minimum {plain(max(there.minimum, there.step))}"
    elif why is None and whole != abs(back):
        why, detail = Why.STEP, f"{plain(abs(back) - whole)} stay apart"
    orderable = why in (None, Why.STEP)
    return Deviation(
        account_id=subject.account_id,
        instrument=name,
        held=there.held,
        weight=_weight(subject, name),
        wanted=there.held + back,
        moved=dict(by_whom),
        quantity=(whole if back > 0 else -whole) if orderable else _ZERO,
        why=why,
        detail=detail,
    )
