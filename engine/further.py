"""Does. Sends what does not go with its plan, each order by itself: what was proven never to have reached its venue (a
further attempt, with an id of its own), buys that waited for their account's sells, orders that waited for their
account to come back.

A further attempt is planned in the transaction that records the proof. Each is claimed like every order: durably,
before the first byte. What stands in its way for a while (a connection that is down, a stale price) is waited for until
the plan expires; what stands in its way for good ends it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from engine.children import Children
from engine.core.aborts import why_aborted
from engine.core.attempts import PASSING, against_another, successor, unsettled
from engine.core.plans import Child, Denial, Plan, PlanState
from engine.core.waves import by_account, held_back, waited_in_vain
from engine.execute import Executor
from engine.ledger import LedgerDown, LedgerFull
from engine.roster import Roster
from scheduler.clock import Clock

log = structlog.get_logger("further")

_SWEEP_S = 0.25
_WAIT_S = 1.0  # before the next look at one that something stands in the way of


class Further:
    def __init__(
        self,
        *,
        clock: Clock,
        children: Children,
        executor: Executor,
        roster: Roster,
        recheck: Callable[[Plan, Child], Sequence[Denial]],
        fresh_marks: Callable[[Plan], Awaitable[None]],
    ) -> None:
        """`recheck` is the last look at one child: everything that stands against sending it now."""
        self._clock, self._children, self._executor, self._roster = clock, children, executor, roster
        self._recheck, self._fresh_marks = recheck, fresh_marks
        self._look_at_s: dict[str, float] = {}

    def after(self, child: Child) -> tuple[Child | None, str]:
        """What follows a child whose absence is proven: its next attempt, or why there is none."""
        plan = self._children.plan(child.plan_id)
        if plan is None or child.account_id not in self._roster.accounts:
            return None, "its plan or account is not here any more"
        why = against_another(child, self._children.attempts(child), plan, self._recheck(plan, child))
        if why:
            return None, why
        render = self._roster.venue(child.account_id).render_order_id
        return successor(child, render, self._clock.now_ms()), ""

    async def run(self) -> None:
        """One after the other: there are few, and each takes its turn in the venue's budget."""
        while True:
            waiting = self._children.further()
            for gone in self._look_at_s.keys() - {c.client_order_id for c in waiting}:
                del self._look_at_s[gone]
            for child in self._not_held_back(waiting):
                if self._look_at_s.get(child.client_order_id, 0.0) > self._clock.monotonic_s():
                    continue
                self._look_at_s[child.client_order_id] = self._clock.monotonic_s() + _WAIT_S
                try:
                    await self._see_to(child)
                except (LedgerDown, LedgerFull) as error:
                    log.warning("attempt_waits", child=child.child_id, account=child.account_id, reason=str(error))
                except Exception:  # a mistake of ours: this one stays planned, the others go
                    log.exception("attempt_failed", child=child.child_id, account=child.account_id)
            await self._clock.sleep(_SWEEP_S)

    def _not_held_back(self, waiting: Sequence[Child]) -> list[Child]:
        """Those that wait for nothing of their own plan."""
        found, now_ms = list[Child](), self._clock.now_ms()
        siblings: dict[str, dict[str, list[Child]]] = {}
        for child in waiting:
            plan = self._children.plan(child.plan_id)
            if plan is not None and plan.sells_first and now_ms < plan.expires_at_ms:
                if plan.plan_id not in siblings:
                    siblings[plan.plan_id] = by_account(self._children.of_plan(plan.plan_id))
                if held_back(plan, child, siblings[plan.plan_id][child.account_id], now_ms):
                    continue
            found.append(child)
        return found

    async def _see_to(self, child: Child) -> None:
        if (plan := self._children.plan(child.plan_id)) is not None:
            await self._fresh_marks(plan)
        await self._executor.send_further(child.client_order_id, self._against)

    def _against(self, child: Child) -> str | None:
        """Why it must not be sent, for good; None: not just now; "" when it may."""
        plan = self._children.plan(child.plan_id)
        if plan is None or child.account_id not in self._roster.accounts:
            return "its plan or account is not here any more"
        if plan.state is not PlanState.EXECUTING:
            return f"the plan is {plan.state.value}"
        if why := unsettled(child, self._children.attempts(child)):
            return why
        if why := why_aborted(plan, self._children.of_plan(plan.plan_id), self._clock.now_ms()):
            return why
        denials = self._recheck(plan, child)
        if lasting := "; ".join(d.text for d in denials if d.code not in PASSING):
            return lasting
        if child.attempt == 1 and (vain := waited_in_vain(plan, denials, self._clock.now_ms())):
            return vain
        return None if denials else ""
