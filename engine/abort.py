"""Does. Watches plans at work, and stops those that their own rules say to stop."""

from __future__ import annotations

import structlog

from engine.children import Children
from engine.core.aborts import has_rules, why_aborted
from engine.core.orders import OrderEvent, OrderState
from engine.core.plans import Plan
from engine.execute import Executor
from engine.ledger import Ledger, LedgerFull, audit
from scheduler.clock import Clock

log = structlog.get_logger("abort")

_SWEEP_S = 0.25


class Aborter:
    def __init__(self, *, clock: Clock, ledger: Ledger, children: Children, executor: Executor) -> None:
        self._clock, self._ledger, self._children, self._executor = clock, ledger, children, executor

    async def run(self) -> None:
        while True:
            if not self._children.fanning_out:  # looking would hold the orders up
                for plan in self._children.executing():
                    if not plan.aborted and has_rules(plan):
                        await self._look(plan)
            await self._clock.sleep(_SWEEP_S)

    async def _look(self, plan: Plan) -> None:
        try:
            why = why_aborted(plan, self._children.of_plan(plan.plan_id), self._clock.now_ms())
            if why:
                await self._abort(plan, why)
        except Exception:  # a mistake of ours: this plan goes on, and the others are looked at
            log.exception("abort_failed", plan=plan.plan_id)

    async def _abort(self, plan: Plan, why: str) -> None:
        """First in memory: whatever still waits to be sent looks there."""
        self._children.abort(plan, why)
        log.error("plan_aborted", plan=plan.plan_id, reason=why, cancels=plan.abort_cancels)
        for child in self._children.of_plan(plan.plan_id):
            if child.state is OrderState.PLANNED:
                self._children.step(child, OrderEvent.SKIP, reason=why)
        now_ms = self._clock.now_ms()
        try:
            self._ledger.post(lambda conn: audit.add(conn, now_ms, "engine", "plan abort", plan.plan_id, after=why))
        except LedgerFull:  # the plan says it, too
            log.warning("abort_not_audited", plan=plan.plan_id)
        if plan.abort_cancels:
            await self._executor.cancel(plan.plan_id)
        self._children.end_if_done(plan.plan_id)
