"""Does. The kill switch: stops sends at once, cancels what is at work, and says so only when it is shown.

Scopes: "all", "venue:<name>", "account:<id>". The switch is a row in the ledger, so it survives a restart. Where asked,
what is held is closed, too (`engine/flatten.py`). Whoever is done is reconciled, and nothing resumes before that was
clean, or a person took it as it is, by name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
import msgspec
import structlog

from accounts.model import AccountState
from engine import crash
from engine.children import Children
from engine.core.facts import OrderFact
from engine.core.instruments import Instrument, unlisted
from engine.core.orders import Cancel, CancelState, Command, OrderState
from engine.core.runs import Run, Verdict
from engine.core.venue import Priority, Rest, VenueError
from engine.flatten import Flattener
from engine.ledger import Ledger, LedgerDown, LedgerFull, kills
from engine.roster import Roster
from engine.sync import Sync
from engine.wire.http import Http, NoAnswer, Origin
from scheduler.clock import Clock

log = structlog.get_logger("kill")
replace = msgspec.structs.replace

_SWEEP_S = 0.1
_AGAIN_S = 2.0
_RECONCILE_AGAIN_S = 30.0
_AT_ONCE = 16
ALL = "all"


class KillAccount(msgspec.Struct, frozen=True):
    """One account under a kill switch: `shown` when the venue itself listed no working order since it was thrown."""

    account_id: str
    scope: str
    shown: bool
    working: int
    note: str = ""
    flat: bool | None = None  # by the venue's statement; None: it was not asked to be
    reconciled: str = ""  # the verdict since it was done; "": not yet

    @property
    def done(self) -> bool:
        return self.shown and self.flat is not False


class NotLifted(Exception):
    """Not everybody who would resume is proven. Nothing was changed."""


class KillSwitch:
    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        sync: Sync,
        http: Http,
        roster: Roster,
        children: Children,
        flattener: Flattener,
        reconcile: Callable[[Sequence[str]], Awaitable[Run]],
    ) -> None:
        self._clock, self._ledger, self._sync = clock, ledger, sync
        self._http, self._roster, self._children = http, roster, children
        self._flattener, self._reconcile = flattener, reconcile
        self._on: dict[str, kills.Kill] = {}
        self._accounts: dict[str, KillAccount] = {}
        self._asking: set[str] = set()
        self._look_again_s = self._reconcile_s = 0.0
        self._reconciling = False

    def load(self) -> None:
        with self._ledger.read() as conn:
            self._on = {k.scope: k for k in kills.switched_on(conn)}

    # ---- what is stopped

    def scope_of(self, account_id: str) -> str:
        """The scope that stops this account, or ""."""
        return next(iter(self._scopes_of(account_id)), "")

    def _scopes_of(self, account_id: str) -> list[str]:
        if not self._on:
            return []
        venue = self._roster.account(account_id).venue
        return [s for s in (ALL, f"venue:{venue}", f"account:{account_id}") if s in self._on]

    def reason(self, account_id: str, closes_for: str = "") -> str:
        """Which switch stops this account, who threw it and why; "" when none does. On the hot path of a fan-out.

        `closes_for`: asked of orders that this very switch closes what is held with.
        """
        if closes_for:
            kill = self._on.get(closes_for)
            return "" if kill is not None and kill.flat else f"the kill switch {closes_for} asks for it no more"
        if not self._on:
            return ""
        kill = self._on.get(self.scope_of(account_id))
        return "" if kill is None else f"{kill.scope}, by {kill.by}: {kill.why}"

    def _to_be_flat(self, account_id: str) -> kills.Kill | None:
        return next((self._on[s] for s in self._scopes_of(account_id) if self._on[s].flat), None)

    def switches(self) -> list[kills.Kill]:
        return list(self._on.values())

    def accounts(self) -> list[KillAccount]:
        """Every account under a switch, paused ones too: they may have left orders at work."""
        return [
            self._accounts.get(a.account_id) or KillAccount(a.account_id, scope, False, 0, "not asked yet")
            for a in self._roster.accounts.values()
            if a.state is not AccountState.CLOSED
            and self._roster.venues[a.venue].capabilities.trades
            and (scope := self.scope_of(a.account_id))
        ]

    # ---- throwing and lifting

    async def on(self, scope: str, by: str, why: str, *, flat: bool = False) -> None:
        """From this instant on nothing new is sent in the scope; cancelling begins at once."""
        kill = kills.Kill(scope=scope, by=by, why=why, at_ms=self._clock.now_ms(), flat=flat)
        self._on[scope] = kill  # first in memory: a slow disk must not let one more order out
        self._accounts.clear()  # what was shown before says nothing of now
        self._flattener.forget()
        self._look_again_s = self._clock.monotonic_s()
        log.warning("kill_on", scope=scope, by=by, why=why, flat=flat)
        for child in self._children.open():  # what proves absent is not sent anew, also once the switch is off
            if child.state is not OrderState.WORKING and self.scope_of(child.account_id):
                self._children.change(replace(child, cancel_state=CancelState.REQUESTED), event="cancel_requested")
        await self._children.flush()
        crash.point("kill-before-record")
        await self._ledger.write(lambda conn: kills.switch_on(conn, kill), first=True)
        crash.point("kill-after-record")

    async def off(self, scope: str, by: str, why: str, accept: Collection[str] = ()) -> None:
        """Lifts it where everybody who would resume is done and reconciled clean, or is accepted by name ("all": each).

        Raises NotLifted.
        """
        left = self.unproven(scope)
        if strangers := sorted(set(accept) - set(left) - {ALL}):
            raise NotLifted(f"there is nothing to accept of {', '.join(strangers)}; nothing was changed")
        if refused := [f"{a}: {why_not}" for a, why_not in left.items() if not {a, ALL} & set(accept)]:
            raise NotLifted(
                f"{scope} stays on: {'; '.join(refused)}. Wait, settle it, or take it as it is: --accept ACCOUNT"
            )
        taken = "".join(f"; accepted by {by}: {a} ({why_not})" for a, why_not in left.items())
        now_ms = self._clock.now_ms()
        await self._ledger.write(lambda conn: kills.switch_off(conn, scope, by, why + taken, now_ms))
        crash.point("kill-lifted")
        self._on.pop(scope, None)
        for account_id in [a for a, k in self._accounts.items() if k.scope == scope]:
            del self._accounts[account_id]
        log.warning("kill_off", scope=scope, by=by, why=why, accepted=sorted(left))

    def unproven(self, scope: str) -> dict[str, str]:
        """Who would resume if this switch were lifted and is not proven to be in order, and what is missing."""
        found = dict[str, str]()
        for one in self.accounts():
            if self._scopes_of(one.account_id) != [scope]:
                continue  # another switch still stops it
            if self._roster.account(one.account_id).state is not AccountState.ACTIVE:
                continue  # it is paused: nothing of it resumes
            if not one.done:
                what = "not shown without working orders" if not one.shown else "not shown flat"
                found[one.account_id] = f"{what} ({one.note or 'asking'})"
            elif one.reconciled != Verdict.CLEAN.value:
                found[one.account_id] = f"reconciled: {one.reconciled}" if one.reconciled else "not reconciled yet"
        return found

    # ---- while one is on

    async def run(self) -> None:
        """Cancel and look again until the venue shows no working order anywhere in scope; then reconcile."""
        room = anyio.CapacityLimiter(_AT_ONCE)
        async with anyio.create_task_group() as group:
            while True:
                now_s = self._clock.monotonic_s()
                if now_s >= self._look_again_s:
                    self._look_again_s = now_s + _AGAIN_S
                    for account in self.accounts():  # who is slow to answer holds up nobody
                        if (not account.done or self._at_work(account)) and account.account_id not in self._asking:
                            self._asking.add(account.account_id)
                            group.start_soon(self._clear, account.account_id, self._on[account.scope], room)
                if self._on and not self._reconciling and (due := self._to_be_reconciled(now_s)):
                    self._reconciling = True
                    group.start_soon(self._compare, due)
                await self._clock.sleep(_SWEEP_S)

    async def _clear(self, account_id: str, kill: kills.Kill, room: anyio.CapacityLimiter) -> None:
        flat = None if self._to_be_flat(account_id) is None else False
        try:
            async with room:
                unknown = self._unknown(account_id)  # now as well: one that reaches the venue after its list was made
                working, note = await self._cancel_all(account_id)
                unknown = max(unknown, self._unknown(account_id))
                if unknown:
                    note = "; ".join(filter(None, (note, f"{unknown} orders whose outcome is unknown")))
                clear = KillAccount(account_id, kill.scope, not working and not unknown, working + unknown, note, flat)
                if clear.shown and flat is False:
                    clear = await self._flatten(clear)
        except Exception as error:  # also a mistake of ours: it must not keep the others from being cleared
            if not isinstance(error, VenueError | NoAnswer):
                log.exception("kill_failed", account=account_id)
            clear = KillAccount(account_id, kill.scope, False, 0, f"the venue could not be asked: {error}", flat)
        finally:
            self._asking.discard(account_id)
        if self._on.get(self.scope_of(account_id)) is kill:  # still this one: not lifted and thrown again meanwhile
            self._accounts[account_id] = clear

    async def _flatten(self, clear: KillAccount) -> KillAccount:
        kill = self._to_be_flat(clear.account_id)
        if kill is None:  # lifted meanwhile
            return replace(clear, flat=None)
        if self._roster.account(clear.account_id).state is not AccountState.ACTIVE:
            return replace(clear, note="it is paused and takes no orders: close what it holds in the broker's own page")
        try:
            look = await self._flattener.look(clear.account_id, kill)
        except (VenueError, NoAnswer, LedgerDown, LedgerFull) as error:
            return replace(clear, note=f"no working orders; what it holds could not be closed: {error}")
        return replace(clear, flat=look.flat, note=look.note)

    def _at_work(self, account: KillAccount) -> bool:
        """An order placed elsewhere after the account was shown clear."""
        desk = self._sync.desk(account.account_id)
        return desk is not None and bool(desk.book.open_orders())

    def _unknown(self, account_id: str) -> int:
        return sum(1 for c in self._children.open(account_id) if c.state is not OrderState.WORKING)

    async def _cancel_all(self, account_id: str) -> tuple[int, str]:
        """Cancel every order the venue lists, ours or not, over HTTP: it works without a connection too.

        Returns how many it listed, also those that cannot be named to it: who has not gone is not shown as gone.
        Stop orders are in the list like all others. What closes for a switch that is on is left to end by itself.
        """
        origin, rest = self._roster.origin(account_id), self._roster.rest(account_id)
        listed = dict[str, OrderFact]()
        for read in rest.open_orders():
            async for page in self._http.walk(origin, read, priority=Priority.RISK):
                self._sync.fetched(account_id, page.facts, self._clock.now_ms())
                listed.update({f.venue_order_id: f for f in page.facts if isinstance(f, OrderFact)})
        by_instrument, closes, notes = dict[str, list[Command]](), 0, list[str]()
        for fact in listed.values():
            if self._closes(account_id, fact):
                closes += 1
                continue
            try:
                instrument = self._instrument(account_id, fact)
            except (ValueError, LookupError) as error:
                notes.append(_uncancelled(account_id, fact.instrument, str(error)))
                continue
            command = Cancel(
                client_order_id="",
                venue_order_id=fact.venue_order_id,
                instrument=instrument,
                account_ref=self._roster.ref(account_id),
            )
            by_instrument.setdefault(instrument.name, []).append(command)
        if closes:
            notes.append(f"{closes} orders close what is held")
        batch = self._roster.venue(account_id).capabilities.max_batch
        for name, commands in by_instrument.items():
            for start in range(0, len(commands), batch):
                if why := await self._cancel(origin, rest, commands[start : start + batch]):
                    notes.append(_uncancelled(account_id, name, why))
        if listed and not notes:
            notes.append("cancelled, and not yet shown as gone")
        return len(listed), "; ".join(notes)

    async def _cancel(self, origin: Origin, rest: Rest, commands: Sequence[Command]) -> str:
        """Why it cannot be said to the venue; "" when it was sent. What the venue answers, its next list tells."""
        try:
            request = rest.orders_request(commands)
        except (ValueError, LookupError) as error:  # an instrument that is not listed tells too little
            return str(error) or type(error).__name__
        crash.point("kill-before-cancel")
        await self._http.send(origin, request, priority=Priority.RISK)
        crash.point("kill-after-cancel")
        return ""

    def _instrument(self, account_id: str, fact: OrderFact) -> Instrument:
        """The order's, also where the venue's list of instruments does not have it, or was not read yet."""
        known = self._roster.catalogue(account_id).by_name(fact.instrument)
        if known is not None:
            return known
        venue = self._roster.venue(account_id)
        return unlisted(fact.instrument, venue.name, venue.unlisted_ref(fact.instrument))

    def _closes(self, account_id: str, fact: OrderFact) -> bool:
        child = self._children.child(fact.client_order_id) if fact.client_order_id else None
        plan = self._children.plan(child.plan_id) if child is not None and child.account_id == account_id else None
        return plan is not None and bool(plan.closes_for) and not self.reason(account_id, plan.closes_for)

    # ---- before anything resumes

    def _to_be_reconciled(self, now_s: float) -> list[str]:
        """Who is done and was not compared since; whoever was not clean is compared again from time to time."""
        done = [k for k in self.accounts() if k.done and k.reconciled != Verdict.CLEAN.value]
        active = [k for k in done if self._roster.account(k.account_id).state is AccountState.ACTIVE]
        again = now_s >= self._reconcile_s
        return [k.account_id for k in active if not k.reconciled or again]

    async def _compare(self, account_ids: Sequence[str]) -> None:
        before = {a: self._accounts.get(a) for a in account_ids}
        try:
            run = await self._reconcile(account_ids)
        except (LedgerDown, LedgerFull) as error:
            log.warning("kill_not_reconciled", error=str(error))
        except Exception:  # a mistake of ours: nothing resumes, and the switch goes on cancelling
            log.exception("kill_not_reconciled")
        else:
            for checked in run.accounts:
                account_id = checked.account_id
                known = self._accounts.get(account_id)
                if known is not None and known is before[account_id]:  # nothing was at work meanwhile
                    self._accounts[account_id] = replace(known, reconciled=checked.verdict.value)
        finally:
            self._reconcile_s = self._clock.monotonic_s() + _RECONCILE_AGAIN_S
            self._reconciling = False


def _uncancelled(account_id: str, instrument: str, why: str) -> str:
    log.error("cancel_impossible", account=account_id, instrument=instrument, why=why)
    return f"an order in {instrument} could not be cancelled ({why}): in the broker's own page"
