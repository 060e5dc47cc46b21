"""Does. What the control door's verbs mean in terms of the engine's rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from accounts.model import Model, Trading
from engine.align import Aligner
from engine.backfill import Backfill
from engine.children import Children
from engine.control.server import Rejected
from engine.core.deviations import Against, Deviations
from engine.core.drafts import PlanRefused, read_draft, without_feeds
from engine.core.models import Rebalance, looked_at
from engine.core.orders import CancelState
from engine.core.plans import Plan
from engine.core.runs import Run, RunKind
from engine.core.valuation import together
from engine.core.venue import Trouble
from engine.execute import Executor, NotExecuted
from engine.foreign import Foreign
from engine.kill import KillSwitch, NotLifted
from engine.ledger import Ledger, LedgerDown, LedgerFull, audit
from engine.links import Links, LinkView, Phase
from engine.plan import Planner
from engine.reconcile import Reconciler, Subject
from engine.reports.tables import ConnectionRow
from engine.roster import Roster, UnknownAccount
from engine.settle import NotSettled, Settler
from engine.sweep import NotAccepted, Sweeper
from engine.sync import Sync
from engine.worth import Worths
from scheduler.clock import Clock


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should know: how grave, about what, and what to do next."""

    level: str  # "error", "warning"
    subject: str
    what: str
    next: str


class HeldBack(msgspec.Struct, frozen=True, kw_only=True):
    """Connections that are not read because facts cannot be taken as fast as they come: now, and since the start."""

    links: int  # now
    times: int
    total_s: float
    longest_s: float  # of one connection, all its times together


_NEXT: dict[Trouble, str] = {
    Trouble.REFUSED: "see what the key may do and what is paid for at the broker; the words are the venue's own",
    Trouble.LIMIT: "wait, it is tried again by itself; when it comes often: fewer programs that use this login",
    Trouble.EXPIRY: "wait for the new token; when none comes, renew the credentials: unisono accounts edit --help",
    Trouble.NETWORK: "wait; when others have it, too, look at this machine's network and the venue's status page",
    Trouble.SILENT: "wait, it is opened anew and read back; when it stays, look at the venue's status page",
    Trouble.VENUE: "wait for the venue; look at its status page",
    Trouble.OURS: "look into the engine's log; a clock: timedatectl; else tell the developers",
}


def troubled(views: Iterable[LinkView]) -> list[Finding]:
    """Connections that are not as they should be, those of one venue with the same trouble told together."""
    alike: dict[tuple[str, str, Trouble], list[LinkView]] = {}
    for view in views:
        if view.trouble is not None and view.phase not in (Phase.IDLE, Phase.HALTED):
            row = view.connection
            alike.setdefault((row.venue, row.kind, view.trouble), []).append(view)
    return [
        Finding(
            level="warning",
            subject=several[0].connection.listener_id if len(several) == 1 else venue,
            what=_told_trouble(kind, trouble, several),
            next=_NEXT[trouble],
        )
        for (venue, kind, trouble), several in alike.items()
    ]


def _told_trouble(kind: str, trouble: Trouble, views: Sequence[LinkView]) -> str:
    many = f"{len(views)} {kind} connections" if len(views) > 1 else f"its {kind} connection"
    waits_s = [view.retry_in_s for view in views if view.retry_in_s is not None]
    after = f"; tried again in {min(waits_s):.0f} s" if waits_s else ""
    return f"{many}: {trouble.value}: {views[0].last_error}{after}"


class _Reconciling(msgspec.Struct):
    """A run under way."""

    total: int
    done: int = 0
    run: Run | None = None
    failed: str = ""


class ControlOffice:
    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        roster: Roster,
        sync: Sync,
        links: Links,
        planner: Planner,
        children: Children,
        executor: Executor,
        backfill: Backfill,
        reconciler: Reconciler,
        subjects: Callable[[Sequence[str]], list[Subject]],
        start_soon: Callable[..., None],
        kill: KillSwitch,
        sweeper: Sweeper,
        settler: Settler,
        fresh_marks: Callable[[Plan], Awaitable[None]],
        worths: Worths,
        foreign: Foreign,
        aligner: Aligner,
        vitals: Callable[[], dict[str, Any]],
        clocks: Callable[[], list[tuple[str, int]]],
        escalated: Callable[[], list[Any]],
    ) -> None:
        self._clock, self._ledger, self._roster, self._sync, self._links = clock, ledger, roster, sync, links
        self._planner, self._children, self._executor, self._backfill = planner, children, executor, backfill
        self._reconciler, self._subjects, self._start_soon, self._kill = reconciler, subjects, start_soon, kill
        self._clocks, self._worths, self._foreign, self._aligner = clocks, worths, foreign, aligner
        self._fresh_marks, self._vitals, self._escalated = fresh_marks, vitals, escalated
        self._sweeper, self._settler = sweeper, settler

    # ---- what is

    def status(self) -> Any:
        views = self._links.views()
        phases: dict[str, int] = {}
        for view in views:
            phases[view.phase] = phases.get(view.phase, 0) + 1
        desks = self._sync.desks()
        return {
            **self._vitals(),
            "accounts": len(desks),
            "proven": sum(1 for d in desks if d.proven),
            "links": phases,
            "open_gaps": len(self._backfill.open_gaps()),
            "open_orders": len(self._children.open()),
            "unknown_orders": len(self._children.unknown()),
            "foreign": self._foreign.counts(),
            "facts_taken": self._sync.facts_taken,
            "facts_known": self._sync.facts_known,
            "kill": [k.scope for k in self._kill.switches()],
            "ledger": self._ledger.health(),
            "held_back": self._held_back(),
        }

    def connections(self) -> Any:
        return [
            ConnectionRow(
                connection_key=view.connection.connection_key,
                listener_id=view.connection.listener_id,
                kind=view.connection.kind,
                phase=view.phase.value,
                last_heard_at_ms=view.last_heard_at_ms,
                last_pong_at_ms=view.last_pong_at_ms,
                attempts=view.attempts,
                last_error=view.last_error,
                trouble="" if view.trouble is None else view.trouble.value,
                retry_in_s=view.retry_in_s,
                blocked=view.blocked,
                blocked_s=round(view.blocked_s, 3),
            )
            for view in self._links.views()
        ]

    def prices(self, instrument: str) -> Any:
        return self._worths.prices(instrument)

    def positions(self, accounts: list[str]) -> Any:
        """What those of these accounts hold that are kept here."""
        return {a: self._worths.standings(a) for a in accounts if self._sync.desk(a) is not None}

    def nav(self, accounts: list[str], groups: list[str], currency: str) -> Any:
        """What accounts are worth, each by itself and together."""
        try:
            members = self._roster.members(groups, accounts) if accounts or groups else self._everybody()
        except UnknownAccount as error:
            raise Rejected(str(error), "unknown-account") from None
        worths = [w for account_id in members if (w := self._worths.of(account_id, currency)) is not None]
        return {"accounts": worths, "together": together([w.valuation for w in worths], currency)}

    def _everybody(self) -> list[str]:
        return sorted(a.account_id for a in self._roster.active())

    def _held_back(self) -> HeldBack:
        views = self._links.views()
        return HeldBack(
            links=sum(view.blocked for view in views),
            times=sum(view.blocked_times for view in views),
            total_s=round(sum(view.blocked_s for view in views), 3),
            longest_s=round(max((view.blocked_s for view in views), default=0.0), 3),
        )

    def findings(self) -> list[Finding]:
        """Standing conditions, found anew each time: nothing to forget to clear."""
        found: list[Finding] = []
        health = self._ledger.health()
        if not health.ok:
            found.append(
                Finding(
                    level="error",
                    subject="ledger",
                    what=f"the database cannot be written: {health.trouble}. No order is sent",
                    next="free the disk or unlock the database; what waits is kept and written then",
                )
            )
        held = self._held_back()
        if health.ok and (health.full or held.links):
            found.append(
                Finding(
                    level="warning",
                    subject="ledger",
                    what=f"facts come faster than the database takes them: {health.queued} of {health.limit} wait, "
                    f"{held.links} connections are held back, until now for {held.longest_s:.0f} s at the longest. "
                    "Nothing is lost: the venues keep what is not read yet",
                    next="wait; when it comes often, a faster disk, or a higher ledger.queue_limit",
                )
            )
        for account_id, why in sorted(self._roster.halted.items()):
            what = f"halted: the venue refused its credentials ({why})"
            then = (
                f"new keys: unisono accounts edit {account_id} --credentials-file FILE --why TEXT. "
                "Where the same ones are right again: "
                f"unisono accounts pause {account_id} --why TEXT, then unisono accounts resume {account_id} --why TEXT"
            )
            if account_id in self._roster.accounts and (kinds := self._roster.without_channels(account_id)):
                what = f"halted: {', '.join(kinds)} names nothing that it is to hear of, and is not dialled"
                then = f"name it: unisono accounts edit {account_id} --channels {kinds[0]}=A,B --why TEXT"
            found.append(Finding(level="error", subject=account_id, what=what, next=then))
        found += troubled(self._links.views())
        for account in self._roster.active():
            if account.trading is not Trading.ACTIVE:
                may = "may only reduce its positions" if account.trading is Trading.REDUCING else "takes no orders"
                found.append(
                    Finding(
                        level="warning",
                        subject=account.account_id,
                        what=f"{may}; why: unisono accounts show {account.account_id}",
                        next=f"unisono accounts trading {account.account_id} --to active --why TEXT",
                    )
                )
        for desk in self._sync.desks():
            if not desk.proven and desk.account_id not in self._roster.halted:
                found.append(
                    Finding(
                        level="warning",
                        subject=desk.account_id,
                        what=f"takes no orders until it is proven: {desk.why}",
                        next="wait for the backfill, or look with: unisono gaps",
                    )
                )
        for child in self._escalated():
            found.append(
                Finding(
                    level="error",
                    subject=child.account_id,
                    what=f"order {child.client_order_id} is unknown for long: {child.reason}",
                    next="look for it in the broker's own page, then: unisono orders settle "
                    f"{child.client_order_id} --as not-placed (or placed=ITS_ID_THERE) --why TEXT",
                )
            )
        for child in self._children.late():
            at_work = self._children.shown_at_work(child)
            found.append(
                Finding(
                    level="error",
                    subject=child.account_id,
                    what=f"order {child.client_order_id} was {child.state.value} and then seen at the venue, "
                    f"{child.filled} of {child.quantity} filled" + (", and is at work" if at_work else ""),
                    next=f"cancel it: unisono plan cancel {child.plan_id}"
                    if at_work
                    else "it is counted; check the account's position against the plan, then: unisono orders settle "
                    f"{child.client_order_id} --as accepted --why TEXT",
                )
            )
        found += self._acted()
        found += self._restored()
        for child in self._children.open():
            if child.cancel_state is CancelState.REFUSED:
                found.append(
                    Finding(
                        level="error",
                        subject=child.account_id,
                        what=f"order {child.client_order_id} could not be cancelled: {child.reason}",
                        next=f"cancel it again (unisono plan cancel {child.plan_id}) or in the broker's own page",
                    )
                )
        for place, apart_ms in self._clocks():
            found.append(
                Finding(
                    level="warning",
                    subject=place,
                    what=f"our clock and the venue's are {apart_ms} ms apart; no absence is proven meanwhile",
                    next="set this machine's clock: timedatectl",
                )
            )
        for kill in self._kill.switches():
            under = [k for k in self._kill.accounts() if k.scope == kill.scope]
            what = "flat, without working orders" if kill.flat else "without working orders"
            done = f"{sum(k.done for k in under)} of {len(under)} accounts shown {what}"
            found.append(
                Finding(
                    level="warning",
                    subject=f"kill {kill.scope}",
                    what=f"on since {kill.by} threw it ({kill.why}); {done}",
                    next=f"unisono kill off {kill.scope}, once its cause is settled",
                )
            )
        return found

    def _acted(self) -> list[Finding]:
        """What venues did by themselves, for a day."""
        return [
            Finding(
                level="error",
                subject=account_id,
                what=f"the venue did this by itself: {action} of {instrument}, "
                f"{seen[-1].fact.side.value} {seen[-1].fact.quantity.normalize():f} in order "
                f"{seen[-1].fact.venue_order_id}",
                next=f"unisono explain position {account_id} {instrument}; then unisono deviations",
            )
            for (account_id, instrument, action), seen in sorted(self._foreign.actions().items(), key=lambda a: a[0])
        ]

    def _restored(self) -> list[Finding]:
        found = [
            Finding(
                level="error",
                subject=orphan.account_id,
                what=f"order {orphan.client_order_id} at the venue carries an id of ours, and the ledger never sent it",
                next="look at it; then: unisono restore --accept-orphans --why TEXT",
            )
            for orphan in self._sweeper.orphans
        ]
        if why := self._sweeper.why_blocked:
            left = len(self._sweeper.unswept())
            what = f"read-only, no order is sent: {why.partition(' and is')[0]}; {left} accounts are not swept yet"
            then = "wait: it is released by itself when the venues show no order that the ledger does not know"
            found.append(Finding(level="error", subject="restore", what=what, next=then))
        for account_id, what in sorted(self._sweeper.unseen.items()):
            then = "compare with the broker's own report; then: unisono restore --accept-orphans --why TEXT"
            found.append(Finding(level="error", subject=account_id, what=what, next=then))
        return found

    async def accept_orphans(self, by: str, why: str) -> Any:
        try:
            return {"accepted": await self._sweeper.accept(by, why)}
        except (NotAccepted, LedgerDown, LedgerFull) as error:
            raise Rejected(str(error)) from None

    async def settle_order(
        self, order_id: str, word: str, venue_order_id: str, *, by: str, why: str, unasked: bool, rehearse: bool
    ) -> Any:
        try:
            return await self._settler.settle(
                order_id, word, venue_order_id, by=by, why=why, unasked=unasked, rehearse=rehearse
            )
        except NotSettled as error:
            raise Rejected(str(error)) from None
        except (LedgerDown, LedgerFull) as error:
            raise Rejected(
                f"order {order_id} is settled here, and not written down yet ({error}): it is kept, and written once "
                "the database works",
                "not-durable",
            ) from None

    # ---- plans

    async def draft_plan(self, body: dict[str, Any]) -> Any:
        feeds = {account.account_id for account in self._roster.feeds()}
        return await self._asked(self._planner.draft, lambda: (without_feeds(read_draft(body), feeds),))

    async def preview_plan(self, plan_id: str) -> Any:
        with_marks = await self._plan(plan_id)
        await self._fresh_marks(with_marks)
        return await self._asked(self._planner.preview, lambda: (plan_id,))

    async def rebalance(self, model: Any, groups: list[str], accounts: list[str], *, currency: str, by: str) -> Any:
        """How far these accounts are from the model; with a name in `by`, the basket is drafted under it, too."""
        try:
            wanted = msgspec.convert(model, Model, strict=False)
        except msgspec.ValidationError as error:
            raise Rejected(f"the model cannot be read: {error}; nothing was done") from None
        try:
            await self._fresh_marks(looked_at(wanted, tuple(groups), tuple(accounts), self._clock.now_ms()))
        except UnknownAccount as error:
            raise Rejected(f"{error}; nothing was done") from None

        async def rebalance() -> Rebalance:
            found = self._planner.rebalance(wanted, groups, accounts, currency)
            if not by:
                return found
            plan = await self._planner.propose(found, by)
            return msgspec.structs.replace(found, plan_id=plan.plan_id)

        return await self._asked(rebalance, tuple)

    async def deviations(
        self, group: str, against: str, *, hours: Decimal, band: Decimal, currency: str, by: str
    ) -> Any:
        """Who of the group is apart; with a name in `by`, the plan that brings them back is drafted under it, too."""
        if against not in set(Against):
            raise Rejected(f"{against} is nothing to measure against: {', '.join(Against)}; nothing was done")
        measure = Against(against)

        async def look() -> Deviations:
            wanted = self._aligner.instruments(group, measure, hours)
            await self._fresh_marks(looked_at(wanted, (group,), (), self._clock.now_ms()))
            found = self._aligner.look(wanted, group, measure, hours=hours, band=band, currency=currency)
            if not by:
                return found
            plan = await self._aligner.propose(found, by)
            return msgspec.structs.replace(found, plan_id=plan.plan_id)

        return await self._asked(look, tuple)

    async def override_plan(self, plan_id: str, code: str, account_id: str, *, by: str, why: str, minutes: int) -> Any:
        await self._fresh_marks(await self._plan(plan_id))

        async def override() -> Plan:
            return await self._planner.override(plan_id, code, account_id, by=by, why=why, minutes=minutes)

        plan = await self._asked(override, tuple)
        await self._record(by, "plan override", plan_id, f"{code} of {account_id or 'all'}, {minutes} min: {why}")
        return plan

    async def approve_plan(self, plan_id: str, by: str) -> Any:
        plan, _ = await self._asked(self._planner.approve, lambda: (plan_id, by))
        await self._record(by, "plan approve", plan_id, plan.approval.statement_hash)
        return plan

    async def execute_plan(self, plan_id: str, by: str) -> Any:
        await self._fresh_marks(await self._plan(plan_id))
        return await self._asked(self._executor.execute, lambda: (plan_id, by))

    async def watch_plan(self, plan_id: str) -> AsyncIterator[Any]:
        if self._children.plan(plan_id) is None:
            raise Rejected(f"plan {plan_id} is not at work here; look at it with: unisono plan show {plan_id}")
        async for progress in self._children.watch(plan_id):
            yield progress

    async def cancel_plan(self, plan_id: str, by: str) -> Any:
        asked = await self._asked(self._executor.cancel, lambda: (plan_id, by))
        if not asked:
            raise Rejected(f"nothing of plan {plan_id} is at work; nothing was cancelled")
        await self._record(by, "plan cancel", plan_id, f"{asked} orders")
        return {"asked": asked}

    async def amend_plan(self, plan_id: str, *, price: Decimal | None, factor: Decimal | None, by: str) -> Any:
        if price is None and factor is None:
            raise Rejected("an amendment needs a new price or a factor for the quantity; nothing was changed")
        if (price is not None and price <= 0) or (factor is not None and factor <= 0):
            raise Rejected("price and factor must be above zero; nothing was changed")

        plan = await self._plan(plan_id)
        await self._fresh_marks(plan)

        async def amend() -> int:
            self._planner.may_amend(plan, price, factor)
            return await self._executor.amend(plan_id, price=price, factor=factor, by=by)

        asked = await self._asked(amend, tuple)
        if not asked:
            raise Rejected(f"nothing of plan {plan_id} is at work; nothing was changed")
        await self._record(by, "plan amend", plan_id, f"price {price}, factor {factor}: {asked} orders")
        return {"asked": asked}

    async def discard_plan(self, plan_id: str, by: str) -> Any:
        return await self._asked(self._planner.discard, lambda: (plan_id, by))

    # ---- reading back, reconciling, killing

    async def backfill(self, accounts: list[str]) -> Any:
        wanted = self._members(accounts)
        for account_id in wanted:
            self._backfill.check_now(account_id)
        return {"accounts": wanted}

    async def reconcile(self, accounts: list[str], kind: str) -> AsyncIterator[Any]:
        """Progress while it runs, then what the run says. It goes on when the one who asked hangs up."""
        wanted = self._members(accounts)
        try:
            run_kind = RunKind(kind.lower())
        except ValueError:
            raise Rejected(f"{kind!r} is no kind of run: {', '.join(RunKind)}; nothing was done") from None
        job = _Reconciling(total=len(wanted))
        self._start_soon(self._reconcile, job, wanted, run_kind)
        shown = -1
        while job.run is None and not job.failed:
            if job.done != shown:
                shown = job.done
                yield {"done": job.done, "total": job.total}
            await self._clock.sleep(0.05)
        if job.run is None:
            raise Rejected(f"the reconciliation could not be kept: {job.failed}", "ledger-down")
        run = job.run
        yield {"done": job.total, "total": job.total}
        yield {
            "run_id": run.run_id,
            "verdict": run.verdict.value,
            "accounts": len(run.accounts),
            "breaks": sum(1 for b in run.breaks if not b.explained),
            "result_hash": run.result_hash,
        }

    async def _reconcile(self, job: _Reconciling, accounts: Sequence[str], kind: RunKind) -> None:
        def progress(done: int, total: int) -> None:
            job.done = done

        try:
            job.run = await self._reconciler.run(self._subjects(accounts), kind, progress)
        except (LedgerDown, LedgerFull) as error:
            job.failed = str(error)

    def _members(self, accounts: list[str]) -> list[str]:
        """Those named, or every active one."""
        if not accounts:
            return [a.account_id for a in self._roster.active()]
        try:
            return self._roster.members([], accounts)
        except UnknownAccount as error:
            raise Rejected(f"{error}; nothing was done") from None

    async def kill_on(self, scope: str, by: str, why: str, *, flat: bool = False) -> Any:
        self._check_scope(scope)
        try:
            await self._kill.on(scope, by, why, flat=flat)
        except (LedgerDown, LedgerFull) as error:
            raise Rejected(
                f"the kill switch {scope} is on and cancels, but it could not be written down ({error}): "
                "it would not survive a restart. Throw it again once the database works",
                "not-durable",
            ) from None
        return self.kill_status()

    async def kill_off(self, scope: str, by: str, why: str, *, accept: Sequence[str] = ()) -> Any:
        if scope not in {k.scope for k in self._kill.switches()}:
            raise Rejected(f"no kill switch {scope} is on; nothing was changed")
        await self._asked(self._kill.off, lambda: (scope, by, why, accept))
        return self.kill_status()

    def kill_status(self) -> Any:
        """`unproven`: by switch, who would resume without being proven, and what is missing."""
        switches = self._kill.switches()
        return {
            "switches": switches,
            "accounts": self._kill.accounts(),
            "unproven": {k.scope: self._kill.unproven(k.scope) for k in switches},
        }

    # ---- how verbs fail

    async def _asked(self, verb: Callable[..., Awaitable[Any]], arguments: Callable[[], tuple[Any, ...]]) -> Any:
        """The verb's answer; what it refuses becomes one sentence for the person who asked."""
        try:
            return await verb(*arguments())
        except PlanRefused as error:
            raise Rejected("; ".join(error.complaints), "refused") from None
        except (NotExecuted, NotLifted, UnknownAccount) as error:
            raise Rejected(str(error)) from None
        except (LedgerDown, LedgerFull) as error:
            raise Rejected(
                f"the database cannot be written: {error}. Nothing was sent; free the disk or unlock the database",
                "ledger-down",
            ) from None

    async def _plan(self, plan_id: str) -> Plan:
        plan = self._children.plan(plan_id) or await self._planner.find(plan_id)
        if plan is None:
            raise Rejected(f"there is no plan {plan_id}; nothing was done. List them with: unisono plan list")
        return plan

    async def _record(self, by: str, action: str, subject: str, after: str) -> None:
        now_ms = self._clock.now_ms()
        self._ledger.post(lambda conn: audit.add(conn, now_ms, by, action, subject, after=after))

    def _check_scope(self, scope: str) -> None:
        kind, _, name = scope.partition(":")
        known = {"all": {""}, "venue": set(self._roster.venues), "account": set(self._roster.accounts)}
        if name not in known.get(kind, set()):
            raise Rejected(
                f"{scope} is no scope of the kill switch; nothing was changed. It is all, venue:<name> or account:<id>"
            )
