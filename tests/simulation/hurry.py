"""Does. An operator in a hurry: many orders of one account, plans for everybody, all connections lost, all stopped."""

from __future__ import annotations

import random
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.core.instruments import Instrument
from tests.simulation.office import EVERYBODY

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

_ACCOUNTS, _PLANS = 5, 90


class Hurry:
    """What makes budgets short, each as often as the others, `every_s` apart."""

    def __init__(self, simulation: Simulation, rng: random.Random, every_s: float) -> None:
        self.sim, self.rng, self.every_s = simulation, rng, every_s
        self._plans: list[str] = []

    async def run(self) -> None:
        acts = (self._many_orders, self._everybody, self._everything_lost, self._all_stopped, self._amend, self._look)
        number = 0
        while True:
            await self.sim.clock.sleep(self.rng.expovariate(1 / self.every_s))
            if not self.sim.instruments():
                continue
            self.sim.trace.note("Hurry", acts[number % len(acts)].__name__)
            self.sim.start_in_life(acts[number % len(acts)])
            number += 1

    async def _everybody(self) -> None:
        members = len(self.sim.names)
        legs = [self._leg(i, members, 1) for i in self.rng.sample(self.sim.instruments(), 2)]
        await self._execute(await self._approved({"groups": [EVERYBODY]}, legs))

    async def _many_orders(self) -> None:
        """So many orders of a few accounts in one instrument that no window holds them, and then all cancelled."""
        some = self.rng.sample(self.sim.names, min(_ACCOUNTS, len(self.sim.names)))
        instrument = self.rng.choice(self.sim.instruments())
        plans = [
            await self._approved({"accounts": some}, [self._leg(instrument, len(some), number)])
            for number in range(1, _PLANS + 1)
        ]
        for plan_id in plans:
            self.sim.start_in_life(partial(self._execute, plan_id))
        await self.sim.clock.sleep(10.0)
        for plan_id in plans:
            self.sim.start_in_life(partial(self.sim.operator.office().cancel_plan, plan_id, "operator"))

    async def _everything_lost(self) -> None:
        sim = self.sim
        sim.world.trouble("cut", None, {"seconds": self.rng.choice((1, 20))}, sim.clock.true_ms())
        sim.network.flush()

    async def _all_stopped(self) -> None:
        await self.sim.operator.office().kill_on("all", "operator", "simulated")
        await self.sim.clock.sleep(60.0)
        await self.sim.operator.office().kill_off("all", "operator", "simulated", accept=["all"])

    async def _amend(self) -> None:
        if self._plans:
            await self.sim.operator.office().amend_plan(
                self._plans[-1], price=None, factor=Decimal("0.5"), by="operator"
            )

    async def _look(self) -> None:
        async for _ in self.sim.operator.office().reconcile([], "adhoc"):
            pass

    async def _approved(self, for_whom: dict[str, Any], legs: list[dict[str, Any]]) -> str:
        office = self.sim.operator.office()
        plan = await office.draft_plan({"title": "simulated", "legs": legs, "by": "planner", **for_whom})
        await office.preview_plan(plan.plan_id)
        await office.approve_plan(plan.plan_id, "approver")
        self._plans.append(plan.plan_id)
        return str(plan.plan_id)

    async def _execute(self, plan_id: str) -> None:
        progress = await self.sim.operator.office().execute_plan(plan_id, "operator")
        self.sim.trace.note("Hurry", f"executed {plan_id}: {progress.sent} of {progress.total}")

    def _leg(self, instrument: Instrument, members: int, times: int) -> dict[str, Any]:
        """It rests, far from the market."""
        sim, rng = self.sim, self.rng
        price = sim.mark(instrument) * Decimal(rng.randint(930, 980)) / 1000
        quantity = sim.quantity(instrument, Decimal("0.00001")) * (1 + times)
        return {
            "instrument": instrument.name,
            "method": "equal",
            "side": "buy",
            "quantity": str(quantity * members),
            "order_type": "limit",
            "price": str(price // instrument.price_tick * instrument.price_tick),
        }
