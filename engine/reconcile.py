"""Does. Reads both sides of every account, compares them, looks twice where they differ, and keeps the run.

An account whose venue or ledger cannot be read is UNKNOWN with the reason; the others are compared all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import anyio
import msgspec
import structlog

from engine import crash
from engine.config import Reconcile
from engine.core.breaks import Cause, Comparison, aged, survive
from engine.core.compare import compare
from engine.core.facts import BalanceFact, Fact, FillFact, OrderFact, PositionFact
from engine.core.runs import Checked, Run, RunKind, account_verdict, whole_run
from engine.core.statements import Evidence, LedgerSide, Part, Statement, line_of
from engine.core.tolerances import RULES, Rules
from engine.core.venue import Catalogue, Page, Read, Response, Rest
from scheduler.clock import Clock

log = structlog.get_logger("reconcile")

READ_LIMIT_S = 300.0  # one side of one account; slower than this is unknown
PART_LIMIT_S = 100.0  # one part of it: longer than a minute, the longest window that venues count requests in


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """An account to be compared, and what its venue's names mean."""

    account_id: str
    venue: str
    catalogue: Catalogue
    owns_order_id: Callable[[str], bool]


class Seen(msgspec.Struct, frozen=True):
    """What earlier runs say of a break that the account's last run still showed."""

    first_seen_ms: int
    runs_seen: int


class Ports(Protocol):
    """Where the sides come from and where runs go."""

    def now_ms(self, account_id: str) -> int:
        """By the clock of the account's venue."""

    async def statement(self, account_id: str) -> Statement:
        """The venue's side, now. May raise; then the account is unknown."""

    async def ledger_side(self, account_id: str, since_ms: int) -> LedgerSide:
        """Our side, now, with the fills traded since then. May raise; then the account is unknown."""

    async def seen(self, break_ids: Sequence[str]) -> Mapping[str, Seen]:
        """Those of these breaks that are known already."""

    async def save(self, run: Run) -> None:
        """Durable on return."""


Progress = Callable[[int, int], None]
"""Told (accounts done, of how many) whenever one is done."""


class Reconciler:
    """Makes runs. Several may be under way at once; they share nothing."""

    def __init__(self, ports: Ports, clock: Clock, settings: Reconcile, rules: Rules = RULES) -> None:
        self._ports, self._clock, self._settings = ports, clock, settings
        self._rules = msgspec.structs.replace(rules, in_flight_guard_ms=round(settings.in_flight_guard_s * 1000))

    async def run(
        self, subjects: Sequence[Subject], kind: RunKind, on_progress: Progress = lambda done, total: None
    ) -> Run:
        """One reconciliation over these accounts, saved. Raises only when it cannot be saved."""
        began_at_ms = self._clock.now_ms()
        crash.point("reconcile-opened")
        places = anyio.CapacityLimiter(self._settings.at_once)
        found: list[tuple[Subject, _Look, int]] = []

        async def settle(subject: Subject) -> None:
            found.append(await self._settle(subject, places))
            on_progress(len(found), len(subjects))

        async with anyio.create_task_group() as group:
            for subject in subjects:
                group.start_soon(settle, subject)
        seen = await self._ports.seen(sorted({b.break_id for _, look, _ in found for b in look.comparison.breaks}))
        run = whole_run(
            kind=kind,
            began_at_ms=began_at_ms,
            ended_at_ms=self._clock.now_ms(),
            rules=self._rules,
            accounts=[self._checked(subject, look, reads, seen) for subject, look, reads in found],
        )
        crash.point("reconcile-before-save")
        await self._ports.save(run)
        crash.point("reconcile-after-save")
        log.info("reconciled", run_id=run.run_id, verdict=run.verdict.value, accounts=len(run.accounts))
        return run

    async def _settle(self, subject: Subject, places: anyio.CapacityLimiter) -> tuple[Subject, _Look, int]:
        """What two reads agree on; one is enough where nothing differs. Nobody keeps a place while waiting."""
        async with places:
            first = await self._look(subject)
        if all(b.cause is Cause.ROUNDING for b in first.comparison.breaks):
            return subject, first, 1
        await self._clock.sleep(self._settings.in_flight_guard_s)
        async with places:
            second = await self._look(subject)
        both = survive(first.comparison, second.comparison)
        return subject, msgspec.structs.replace(second, comparison=both), 2

    async def _look(self, subject: Subject) -> _Look:
        account_id, now_ms = subject.account_id, self._ports.now_ms(subject.account_id)
        stated = await _or_unknown(
            lambda: self._ports.statement(account_id),
            lambda missing: Statement(account_id=account_id, as_of_ms=now_ms, since_ms=now_ms, missing=missing),
        )
        crash.point("reconcile-statement-read")
        booked = await _or_unknown(
            lambda: self._ports.ledger_side(account_id, stated.since_ms),
            lambda missing: LedgerSide(account_id=account_id, as_of_ms=now_ms, since_ms=now_ms, missing=missing),
        )
        comparison = compare(
            stated,
            booked,
            rules=self._rules,
            venue=subject.venue,
            catalogue=subject.catalogue,
            owns_order_id=subject.owns_order_id,
            now_ms=self._ports.now_ms(account_id),
        )
        return _Look(stated=stated, booked=booked, comparison=comparison)

    def _checked(self, subject: Subject, look: _Look, reads: int, seen: Mapping[str, Seen]) -> Checked:
        stated, booked, comparison = look.stated, look.booked, look.comparison
        with_history = tuple(
            aged(b, first_seen_ms=before.first_seen_ms, runs_seen=before.runs_seen + 1, rules=self._rules)
            if (before := seen.get(b.break_id))
            else b
            for b in comparison.breaks
        )
        comparison = msgspec.structs.replace(comparison, breaks=with_history)
        read = len(stated.missing) < len(Part)
        return Checked(
            account_id=subject.account_id,
            venue=subject.venue,
            verdict=account_verdict(comparison),
            as_of_ms=stated.as_of_ms if read else None,
            since_ms=max(stated.since_ms, booked.since_ms) if read else None,
            reads=reads,
            last_fact_at_ms=booked.last_fact_at_ms,
            missing=comparison.missing,
            counts=comparison.counts,
            breaks=comparison.breaks,
            uses=comparison.uses,
            foreign=comparison.foreign,
            gaps=booked.gaps,
            venue_evidence=stated.evidence,
            ledger_sha256=hashlib.sha256(msgspec.json.encode(booked, order="deterministic")).hexdigest(),
        )


class _Look(msgspec.Struct, frozen=True, kw_only=True):
    """One read of both sides."""

    stated: Statement
    booked: LedgerSide
    comparison: Comparison


_Side = TypeVar("_Side", Statement, LedgerSide)


async def _or_unknown(read: Callable[[], Awaitable[_Side]], unknown: Callable[[Mapping[Part, str]], _Side]) -> _Side:
    """What was read, or the same side with every part missing."""
    try:
        with anyio.fail_after(READ_LIMIT_S):
            return await read()
    except Exception as error:  # whatever it was, it is one account's trouble and must not stop the others
        log.warning("side not read", error=_reason(error))
        return unknown(dict.fromkeys(Part, _reason(error)))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "not read in time"
    return f"{type(error).__name__}: {error}"


# ---- The venue's side, read over HTTP

Walk = Callable[[Read], AsyncIterator[Page]]
"""Follows a read from page to page to its proven end; raises when a page cannot be had."""


async def read_statement(account_id: str, rest: Rest, walk: Walk, *, as_of_ms: int, since_ms: int) -> Statement:
    """The venue's statement of one account, as of now by the venue's clock. A part that cannot be read to its end is
    missing, with the reason.

    Fills come first and positions last (OKX dossier §9.2): an order that ends in between then is in the fills of the
    next look instead of being taken for lost.
    """
    desk = _Reading(walk)
    fills = await desk.read((Part.FILLS,), lambda: rest.fills(since_ms, as_of_ms))
    orders = await desk.read((Part.ORDERS,), rest.open_orders)
    state = await desk.read((Part.POSITIONS, Part.CASH), rest.statement)
    latest: dict[str, OrderFact] = {}  # a list that is read in pages may show one order twice
    for order in orders:
        if isinstance(order, OrderFact):
            known = latest.get(order.venue_order_id)
            if known is None or known.updated_at_ms <= order.updated_at_ms:
                latest[order.venue_order_id] = order
    return Statement(
        account_id=account_id,
        as_of_ms=as_of_ms,
        since_ms=since_ms,
        positions=tuple(f for f in state if isinstance(f, PositionFact)),
        balances=tuple(f for f in state if isinstance(f, BalanceFact)),
        orders=tuple(line_of(order) for order in latest.values()),
        fills=tuple(f for f in fills if isinstance(f, FillFact)),
        missing=desk.missing,
        evidence=tuple(desk.evidence),
    )


class _Reading:
    """Reads parts to their end and keeps what they were read from."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self.missing: dict[Part, str] = {}
        self.evidence: list[Evidence] = []

    async def read(self, parts: Sequence[Part], describe: Callable[[], Sequence[Read]]) -> list[Fact]:
        """The facts of all pages; nothing of a part that could not be read whole."""
        seen, facts = _Witness(), list[Fact]()
        try:
            with anyio.fail_after(PART_LIMIT_S):
                for read in describe():
                    async for page in self._walk(seen.witnessed(read)):
                        facts.extend(page.facts)
        except Exception as error:  # the other parts may still be readable
            self.missing.update(dict.fromkeys(parts, _reason(error)))
            facts = []
        self.evidence += [
            Evidence(part=part, sha256=seen.sha256.hexdigest(), pages=seen.pages, size=seen.size) for part in parts
        ]
        return facts


class _Witness:
    """Hashes the raw answers on their way to being read."""

    def __init__(self) -> None:
        self.sha256, self.pages, self.size = hashlib.sha256(), 0, 0

    def witnessed(self, read: Read) -> Read:
        def reading(response: Response) -> Page:
            page = read.read(response)
            # The hash of each page, not its bytes: where one page ends must count too.
            self.sha256.update(hashlib.sha256(response.body).digest())
            self.pages, self.size = self.pages + 1, self.size + len(response.body)
            return msgspec.structs.replace(page, next=self.witnessed(page.next)) if page.next else page

        return Read(request=read.request, read=reading)
