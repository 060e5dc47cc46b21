"""Does. What was asked of a plan as a whole reaches its orders that show up later.

An order whose outcome was unknown and that turns out to be at work, one that was seen after its absence had been
proven, one that left while an amendment was on its way: each is amended, or cancelled, like all others.
"""

from __future__ import annotations

import structlog

from engine.children import Children
from engine.core.amending import behind, not_told
from engine.core.orders import CancelState
from engine.core.plans import Plan, PlanState
from engine.execute import Executor
from engine.ledger import LedgerDown, LedgerFull
from scheduler.clock import Clock

log = structlog.get_logger("latecomers")

_SWEEP_S = 0.25
_AGAIN_S = 2.0  # before the same order is asked once more


class Latecomers:
    def __init__(self, *, clock: Clock, children: Children, executor: Executor) -> None:
        self._clock, self._children, self._executor = clock, children, executor
        self._not_before_s: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            now_s = self._clock.monotonic_s()
            self._not_before_s = {c: at_s for c, at_s in self._not_before_s.items() if at_s > now_s}
            for plan in self._children.plans():
                if plan.amendments or plan.cancelled_by:
                    await self._see_to(plan, now_s)
            await self._clock.sleep(_SWEEP_S)

    async def _see_to(self, plan: Plan, now_s: float) -> None:
        try:
            if plan.cancelled_by:
                late = [c for c in self._children.late_at_work(plan.plan_id) if c.cancel_state is CancelState.NONE]
                if late:
                    log.warning("cancelled_late", plan=plan.plan_id, orders=len(late))
                    await self._executor.cancel_orders(late)
            elif not self._executor.blocked:
                at_work = self._children.of_plan(plan.plan_id) if plan.state is PlanState.EXECUTING else []
                due = behind(plan, at_work) + not_told(plan, self._children.late_at_work(plan.plan_id))
                due = [child for child in due if child.client_order_id not in self._not_before_s]
                self._not_before_s |= {child.client_order_id: now_s + _AGAIN_S for child in due}
                if due:
                    log.info("amended_late", plan=plan.plan_id, orders=len(due))
                    await self._executor.amend_orders(plan, due)
        except (LedgerDown, LedgerFull) as error:
            log.warning("latecomers_wait", plan=plan.plan_id, error=str(error))
        except Exception:  # a mistake of ours: the other plans are seen to all the same
            log.exception("latecomers_failed", plan=plan.plan_id)
