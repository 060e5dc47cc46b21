"""Decides. What a reconciliation report says, in its order: the same rows for the terminal and for the page."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from engine.core.breaks import Break, Cause, Code, ForeignOrder, Missing, Severity
from engine.core.limits import plain
from engine.core.runs import Age, Checked, Run, Verdict, age_of
from engine.core.statements import OpenGap, Part


class PartRow(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one part was compared over all accounts."""

    part: Part
    compared: int  # accounts
    not_compared: int
    venue: int  # lines
    ledger: int
    agree: int
    pages: int


class CodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """Open breaks of one code and severity by age."""

    code: Code
    severity: Severity
    by_age: tuple[int, ...]  # in the order of Age

    @property
    def total(self) -> int:
        return sum(self.by_age)


class AgeRow(msgspec.Struct, frozen=True, kw_only=True):
    """Open breaks of one age by severity."""

    age: Age
    by_severity: tuple[int, ...]  # in the order of Severity

    @property
    def total(self) -> int:
        return sum(self.by_severity)


class ToleranceRow(msgspec.Struct, frozen=True, kw_only=True):
    """How often one tolerance was used, and what it adds up to."""

    field: str
    unit: str
    allowed: str
    uses: int
    total: Decimal  # of the differences without their signs


class MissingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why parts of an account could not be compared."""

    account_id: str
    leg: str
    parts: tuple[Part, ...]
    reason: str


class GapRow(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str
    gap: OpenGap


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    accounts: tuple[Checked, ...]  # the worst first
    by_verdict: dict[Verdict, int]
    parts: tuple[PartRow, ...]
    missing: tuple[MissingRow, ...]
    open: tuple[Break, ...]
    codes: tuple[CodeRow, ...]
    ages: tuple[AgeRow, ...]
    critical: tuple[Break, ...]
    explained: tuple[Break, ...]
    tolerances: tuple[ToleranceRow, ...]
    foreign: tuple[ForeignOrder, ...]
    gaps: tuple[GapRow, ...]

    @property
    def compared(self) -> int:
        """Accounts of which every part could be compared."""
        return sum(not a.missing for a in self.run.accounts)


def summarise(run: Run) -> Summary:
    """The rows of a run's report."""
    every = sorted(run.breaks, key=lambda b: (b.severity.rank, b.code, b.account_id, b.instrument, b.key, b.field))
    open_breaks = tuple(b for b in every if not b.explained)
    aged = {Age.TO_60_MIN, Age.OVER_1_H}
    return Summary(
        run=run,
        accounts=tuple(sorted(run.accounts, key=lambda a: (-a.verdict.rank, -_open(a), a.account_id))),
        by_verdict={v: sum(a.verdict is v for a in run.accounts) for v in Verdict},
        parts=tuple(_part(run, part) for part in Part),
        missing=tuple(row for a in run.accounts for row in _missing(a.account_id, a.missing)),
        open=open_breaks,
        codes=_codes(open_breaks),
        ages=tuple(_age(open_breaks, age) for age in Age),
        critical=tuple(b for b in open_breaks if b.severity is Severity.CRITICAL or age_of(b) in aged),
        explained=tuple(b for b in every if b.explained),
        tolerances=_tolerances(run),
        foreign=tuple(f for a in run.accounts for f in a.foreign),
        gaps=tuple(GapRow(account_id=a.account_id, gap=g) for a in run.accounts for g in a.gaps),
    )


def _open(account: Checked) -> int:
    return sum(not b.explained for b in account.breaks)


def _part(run: Run, part: Part) -> PartRow:
    counts = [c for a in run.accounts for c in a.counts if c.part is part]
    return PartRow(
        part=part,
        compared=len(counts),
        not_compared=len(run.accounts) - len(counts),
        venue=sum(c.venue for c in counts),
        ledger=sum(c.ledger for c in counts),
        agree=sum(c.agree for c in counts),
        pages=sum(e.pages for a in run.accounts for e in a.venue_evidence if e.part is part),
    )


def _missing(account_id: str, missing: tuple[Missing, ...]) -> list[MissingRow]:
    by_reason: dict[tuple[str, str], list[Part]] = {}
    for m in missing:
        by_reason.setdefault((m.leg, m.reason), []).append(m.part)
    return [
        MissingRow(account_id=account_id, leg=leg, parts=tuple(parts), reason=reason)
        for (leg, reason), parts in by_reason.items()
    ]


def _codes(breaks: tuple[Break, ...]) -> tuple[CodeRow, ...]:
    ages, cells = list(Age), dict[tuple[Code, Severity], list[int]]()
    for b in breaks:
        cells.setdefault((b.code, b.severity), [0] * len(ages))[ages.index(age_of(b))] += 1
    rows = [CodeRow(code=code, severity=severity, by_age=tuple(n)) for (code, severity), n in cells.items()]
    return tuple(sorted(rows, key=lambda r: (r.severity.rank, -r.total, r.code)))


def _age(breaks: tuple[Break, ...], age: Age) -> AgeRow:
    severities = [b.severity for b in breaks if age_of(b) is age]
    return AgeRow(age=age, by_severity=tuple(severities.count(severity) for severity in Severity))


def _tolerances(run: Run) -> tuple[ToleranceRow, ...]:
    sums: dict[tuple[str, str, str], tuple[int, Decimal]] = {}
    for use in (u for a in run.accounts for u in a.uses):
        allowed = f"{plain(use.allowed * 100)} %" if use.relative else plain(use.allowed)
        uses, total = sums.get((use.field, use.unit, allowed), (0, Decimal(0)))
        sums[use.field, use.unit, allowed] = (uses + 1, total + abs(use.difference))
    dust: dict[str, tuple[int, Decimal]] = {}
    for b in run.breaks:
        if b.cause is Cause.ROUNDING and b.difference is not None:
            uses, total = dust.get(b.instrument, (0, Decimal(0)))
            dust[b.instrument] = (uses + 1, total + abs(b.difference))
    rows = [
        ToleranceRow(field=field, unit=unit, allowed=allowed, uses=uses, total=total)
        for (field, unit, allowed), (uses, total) in sorted(sums.items())
    ]
    rows += [
        ToleranceRow(field="quantity", unit=name, allowed="< 1 step", uses=uses, total=total)
        for name, (uses, total) in sorted(dust.items())
    ]
    return tuple(rows)


# ---- How values are spelt

_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?")
_THOUSANDS = re.compile(r"(?<=[0-9])(?=(?:[0-9]{3})+$)")


def when(at_ms: int | None) -> str:
    """An instant for people, in UTC; a dash where there is none."""
    return "—" if at_ms is None else f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def lasting(milliseconds: int | None) -> str:
    """A duration in its two largest units."""
    if milliseconds is None:
        return "—"
    seconds = max(0, milliseconds) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def figure(value: Decimal | str | int | None) -> str:
    """A number with its thousands set apart by thin spaces; other text stays as it is."""
    if value is None:
        return "—"
    text = plain(value) if isinstance(value, Decimal) else str(value)
    sign, digits = ("−", text[1:]) if text.startswith("-") else ("", text)
    if not _NUMBER.fullmatch(digits):
        return text
    whole, point, rest = digits.partition(".")
    return sign + _THOUSANDS.sub("\u202f", whole) + point + rest


def signed(value: Decimal | None) -> str:
    """A difference: its sign is always there."""
    if value is None:
        return ""
    return ("+" if value > 0 else "") + figure(value)


def money(value: Decimal | None, currency: str) -> str:
    """An amount rounded for reading."""
    if value is None:
        return ""
    rounded = value.quantize(Decimal("0.01")) if abs(value) >= 1 else value
    return f"{figure(rounded)} {currency}"
