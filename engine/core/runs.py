"""Decides. What a reconciliation run says as a whole: its verdict, its hash, and what changed since another run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

import msgspec

from engine.core.breaks import Break, Code, Comparison, Count, ForeignOrder, Missing, ToleranceUse
from engine.core.statements import Evidence, OpenGap
from engine.core.tolerances import Rules

SCHEMA: Final = "unisono.reconciliation/1"


class RunKind(StrEnum):
    START = "start"  # after a start or a reconnect: gates the account
    LIVE = "live"
    CLOSE = "close"
    ADHOC = "adhoc"
    PLAN = "plan"  # after a plan
    KILL = "kill"  # before what a kill switch stopped may go on


class Verdict(StrEnum):
    CLEAN = "clean"
    BREAKS = "breaks"
    UNKNOWN = "unknown"  # worse than breaks: something could not be compared

    @property
    def rank(self) -> int:
        return _WORST_LAST.index(self)


_WORST_LAST = list(Verdict)


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One account in a run: what was compared, what could not be, and what was found."""

    account_id: str
    venue: str
    verdict: Verdict
    as_of_ms: int | None  # None: the venue told nothing
    since_ms: int | None
    reads: int
    last_fact_at_ms: int | None = None
    missing: tuple[Missing, ...] = ()
    counts: tuple[Count, ...] = ()
    breaks: tuple[Break, ...] = ()
    uses: tuple[ToleranceUse, ...] = ()
    foreign: tuple[ForeignOrder, ...] = ()
    gaps: tuple[OpenGap, ...] = ()
    venue_evidence: tuple[Evidence, ...] = ()
    ledger_sha256: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One reconciliation, whole.

    `result_hash` covers what was compared and found, not the run's id, its end or the history of its breaks: the same
    inputs give the same hash. `seal` covers the whole document (with the seal itself left empty).
    """

    run_schema: Literal["unisono.reconciliation/1"] = msgspec.field(default=SCHEMA, name="schema")
    run_id: str
    kind: RunKind
    verdict: Verdict
    began_at_ms: int
    ended_at_ms: int
    rules: Rules
    accounts: tuple[Checked, ...]
    result_hash: str
    seal: str = ""

    @property
    def breaks(self) -> Iterator[Break]:
        return (b for account in self.accounts for b in account.breaks)


def account_verdict(comparison: Comparison) -> Verdict:
    """Unknown as soon as anything could not be compared; rounding and what is under way do not turn it."""
    if comparison.missing or any(b.code is Code.MAP for b in comparison.breaks):
        return Verdict.UNKNOWN
    return Verdict.BREAKS if any(not b.explained for b in comparison.breaks) else Verdict.CLEAN


def whole_run(*, kind: RunKind, began_at_ms: int, ended_at_ms: int, rules: Rules, accounts: Iterable[Checked]) -> Run:
    """The run over these accounts. Nothing compared is not clean: without an account the verdict is UNKNOWN."""
    ordered = tuple(sorted(accounts, key=lambda a: a.account_id))
    verdict = max((a.verdict for a in ordered), key=lambda v: v.rank, default=Verdict.UNKNOWN)
    hashed = result_hash(kind, began_at_ms, rules, ordered)
    began = datetime.fromtimestamp(began_at_ms / 1000, UTC)
    run = Run(
        run_id=f"{began:%Y%m%d-%H%M%S}-{began_at_ms % 1000:03d}-{hashed[:6]}",
        kind=kind,
        verdict=verdict,
        began_at_ms=began_at_ms,
        ended_at_ms=ended_at_ms,
        rules=rules,
        accounts=ordered,
        result_hash=hashed,
    )
    return msgspec.structs.replace(run, seal=_seal(run))


def result_hash(kind: RunKind, began_at_ms: int, rules: Rules, accounts: tuple[Checked, ...]) -> str:
    """sha256 over what was compared, by which rules, and what was found."""
    found = tuple(
        msgspec.structs.replace(
            a, breaks=tuple(msgspec.structs.replace(b, first_seen_ms=0, last_seen_ms=0, runs_seen=0) for b in a.breaks)
        )
        for a in accounts
    )
    return hashlib.sha256(msgspec.json.encode((kind, began_at_ms, rules, found), order="deterministic")).hexdigest()


def _seal(run: Run) -> str:
    return hashlib.sha256(to_json(msgspec.structs.replace(run, seal=""))).hexdigest()


def complaints(document: bytes) -> tuple[str, ...]:
    """What is wrong with a kept run; nothing, if it still is byte for byte what was saved."""
    try:
        run = from_json(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return (f"it cannot be read any more: {error}",)
    worst = max((a.verdict for a in run.accounts), key=lambda v: v.rank, default=Verdict.UNKNOWN)
    checks = {
        "its bytes are not those that were written": document == to_json(run),
        "its seal does not fit: something in it was changed": run.seal == _seal(run),
        "its result hash does not fit what was found": run.result_hash
        == result_hash(run.kind, run.began_at_ms, run.rules, run.accounts),
        "its verdict is not the worst of its accounts": run.verdict is worst,
    }
    return tuple(sentence for sentence, holds in checks.items() if not holds)


def to_json(run: Run) -> bytes:
    """The run as one JSON document of the versioned schema; the same run gives the same bytes."""
    return msgspec.json.encode(run, order="deterministic")


def from_json(document: bytes) -> Run:
    """Reads `to_json` back. Raises msgspec.ValidationError for anything else."""
    return msgspec.json.decode(document, type=Run)


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What another run found differently."""

    before: str  # run ids
    after: str
    new: tuple[Break, ...]
    gone: tuple[Break, ...]  # not found any more, in accounts that the later run could compare
    changed: tuple[tuple[Break, Break], ...]  # the same break with other values
    same: tuple[Break, ...]
    unproven: tuple[Break, ...]  # not found again, but the later run could not compare that part


def difference(before: Run, after: Run) -> Changes:
    """Breaks by id in two runs. A break whose part is unknown in the later run is not gone, only unproven."""
    old, new = ({b.break_id: b for b in run.breaks} for run in (before, after))
    readable = {a.account_id: {m.part for m in a.missing} for a in after.accounts}
    gone, unproven = list[Break](), list[Break]()
    for b in old.values():
        if b.break_id in new:
            continue
        unread = readable.get(b.account_id)
        known = unread is not None and b.code.part not in unread if b.code.part else unread is not None
        (gone if known else unproven).append(b)
    both = [(old[i], new[i]) for i in new if i in old]
    return Changes(
        before=before.run_id,
        after=after.run_id,
        new=tuple(b for i, b in new.items() if i not in old),
        gone=tuple(gone),
        changed=tuple((a, b) for a, b in both if (a.venue, a.ledger) != (b.venue, b.ledger)),
        same=tuple(b for a, b in both if (a.venue, a.ledger) == (b.venue, b.ledger)),
        unproven=tuple(unproven),
    )


class Age(StrEnum):
    """How long a break has been seen."""

    UNDER_1_MIN = "< 1 min"
    TO_15_MIN = "1–15 min"
    TO_60_MIN = "15–60 min"
    OVER_1_H = "> 1 h"


def age_of(b: Break) -> Age:
    minutes = (b.last_seen_ms - b.first_seen_ms) / 60_000
    if minutes < 1:
        return Age.UNDER_1_MIN
    if minutes < 15:
        return Age.TO_15_MIN
    return Age.TO_60_MIN if minutes < 60 else Age.OVER_1_H
