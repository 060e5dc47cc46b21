"""Does. Closes what accounts hold, where a kill switch asks for it: market orders, each with its intent and its claim.

Orders go out only on what two complete statements agree on that were read further apart than the venue's reads lag
behind, with no order of ours open meanwhile: a statement that does not show the last closing yet must not close twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal

import msgspec
import sqlalchemy as sa
import structlog

from engine.children import Children
from engine.core.closing import Close, as_stated, closing
from engine.core.drafts import new_plan_id
from engine.core.facts import EquityFact, Fact
from engine.core.instruments import InstrumentKind
from engine.core.orders import OrderState, OrderType, order_uuid
from engine.core.plans import Child, Leg, Method, Plan, PlanState
from engine.core.venue import Priority
from engine.execute import Executor, NotExecuted
from engine.ledger import Ledger
from engine.ledger import plans as store
from engine.ledger.kills import Kill
from engine.roster import Roster
from engine.sync import Sync
from engine.wire.http import Http
from scheduler.clock import Clock

log = structlog.get_logger("flatten")

_GOOD_FOR_MS = 60_000  # claimed at once, or never
_APART_S = 1.0  # two statements at least
_PAUSE_S = (5.0, 10.0, 30.0, 60.0)  # after orders that came to nothing


class _Known(msgspec.Struct):
    """What the last looks at one account told."""

    read_s: float = 0.0  # when the first of the statements that agree was asked for
    stated: frozenset[object] | None = None
    not_before_s: float = 0.0
    in_vain: int = 0
    last_plan: str = ""


class Look(msgspec.Struct, frozen=True):
    """Is the account flat by its venue's word, and what is left to say."""

    flat: bool
    note: str = ""


class Flattener:
    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        http: Http,
        roster: Roster,
        sync: Sync,
        children: Children,
        executor: Executor,
        at_par: Sequence[str],
        rng: random.Random,
    ) -> None:
        self._clock, self._ledger, self._http, self._roster, self._sync = clock, ledger, http, roster, sync
        self._children, self._executor, self._at_par, self._rng = children, executor, at_par, rng
        self._known: dict[str, _Known] = {}

    def forget(self) -> None:
        """A switch was thrown: what was stated before says nothing of now."""
        self._known.clear()

    async def look(self, account_id: str, kill: Kill) -> Look:
        """Read the statement; close what it shows. To be asked only where no order is at work. Raises as reads do."""
        known = self._known.setdefault(account_id, _Known())
        asked_s, stated = self._clock.monotonic_s(), await self._statement(account_id)
        found = closing(
            stated,
            self._roster.catalogue(account_id),
            self._money(account_id, stated),
            self._roster.venue(account_id).capabilities.order_types,
        )
        note = "; ".join((*found.cannot, *(f"stays: {stub}" for stub in found.stubs)))
        holdings = as_stated(stated)
        if known.stated != holdings:
            known.stated, known.read_s = holdings, asked_s
        agreed = asked_s - known.read_s >= self._apart_s(account_id)
        if not found.orders:
            return Look(flat=found.flat and agreed, note=note if agreed else note or "stated flat; read once more")
        told = f"{len(found.orders)} holdings to be closed"
        if not self._catalogue_whole(account_id):
            return Look(False, f"{told}, once the venue's instruments are read")
        if agreed and asked_s >= known.not_before_s:
            known.stated = None  # what comes next is compared with nothing from before
            told = await self._close(account_id, found.orders, kill, known)
        elif why := self._came_to_nothing(known):
            told = f"{told}; the last order: {why}"
        return Look(False, "; ".join(filter(None, (told, note))))

    async def _statement(self, account_id: str) -> list[Fact]:
        origin, found = self._roster.origin(account_id), list[Fact]()
        for read in self._roster.rest(account_id).statement():
            async for page in self._http.walk(origin, read, priority=Priority.RISK):
                found.extend(page.facts)
        self._sync.fetched(account_id, found, self._clock.now_ms())
        return found

    def _money(self, account_id: str, stated: Sequence[Fact]) -> set[str]:
        """What counts as money: what the office counts one to one, and what the venue values the account in."""
        desk = self._sync.desk(account_id)
        equity = [f.currency for f in stated if isinstance(f, EquityFact)]
        if not equity and desk is not None and desk.book.equity is not None:
            equity = [desk.book.equity.currency]
        return {*self._at_par, *equity}

    def _apart_s(self, account_id: str) -> float:
        return max(_APART_S, self._roster.venue(account_id).capabilities.max_read_lag_ms / 1000)

    def _catalogue_whole(self, account_id: str) -> bool:
        account = self._roster.account(account_id)
        return self._sync.catalogue(account.venue, account.environment).whole

    async def _close(self, account_id: str, orders: Sequence[Close], kill: Kill, known: _Known) -> str:
        """One plan a round, approved by the throw of the switch itself."""
        plan, children = self._plan(account_id, orders, kill)
        now_ms = self._clock.now_ms()

        def keep(connection: sa.Connection) -> None:
            store.save_plan(connection, plan, None, now_ms)
            store.insert_children(connection, children)

        known.in_vain = known.in_vain + 1 if self._came_to_nothing(known) else 0
        known.not_before_s = self._clock.monotonic_s() + _PAUSE_S[min(known.in_vain, len(_PAUSE_S) - 1)]
        await self._ledger.write(keep, first=True)
        self._children.adopt(plan, children)
        known.last_plan = plan.plan_id
        try:
            await self._executor.execute(plan.plan_id, kill.by)
        except NotExecuted as error:
            return str(error)
        log.warning("closing", account=account_id, plan=plan.plan_id, orders=len(children))
        return f"plan {plan.plan_id} closes {len(children)} holdings"

    def _came_to_nothing(self, known: _Known) -> str:
        """Why nothing of the last round was filled; "" where something was, or none was sent."""
        children = self._children.of_plan(known.last_plan) if known.last_plan else []
        if not children or any(child.filled for child in children):
            return ""
        return next((c.reason for c in children if c.state.terminal and c.reason), "")

    def _plan(self, account_id: str, orders: Sequence[Close], kill: Kill) -> tuple[Plan, list[Child]]:
        now_ms, venue = self._clock.now_ms(), self._roster.venue(account_id)
        plan = Plan(
            plan_id=new_plan_id(now_ms, self._rng),
            title=f"kill {kill.scope} --flat: {account_id}",
            accounts=(account_id,),
            legs=tuple(
                Leg(
                    instrument=order.instrument.name,
                    method=Method.UNITS,
                    side=order.side,
                    units={account_id: order.quantity},
                    order_type=OrderType.MARKET,
                )
                for order in orders
            ),
            state=PlanState.APPROVED,
            created_at_ms=now_ms,
            created_by=kill.by,
            expires_at_ms=now_ms + _GOOD_FOR_MS,
            max_drift_percent=Decimal(100),  # never looked at: there was no preview
            rotation_seed=0,
            closes_for=kill.scope,
            note=f"the kill switch {kill.scope} asks to be flat: {kill.why}",
        )
        children = list[Child]()
        for number, order in enumerate(orders):
            identity = order_uuid(plan.plan_id, account_id, number, 1)
            children.append(
                Child(
                    child_id=identity.hex,
                    plan_id=plan.plan_id,
                    account_id=account_id,
                    leg=number,
                    client_order_id=venue.render_order_id(identity.int),
                    instrument=order.instrument.name,
                    side=order.side,
                    order_type=OrderType.MARKET,
                    quantity=order.quantity,
                    reduce_only=venue.capabilities.reduce_only and order.instrument.kind is not InstrumentKind.SPOT,
                    state=OrderState.PLANNED,
                    planned_at_ms=now_ms,
                    updated_at_ms=now_ms,
                )
            )
        return plan, children
