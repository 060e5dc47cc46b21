"""Does. Who acts on the office in a simulation: the operator, and the accounts' owners."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from accounts.model import Secret
from engine.control.server import Rejected
from engine.core.instruments import Instrument, InstrumentKind
from engine.core.orders import OrderState, OrderType
from engine.core.plans import PlanState
from tests.simulation.office import EVERYBODY, WEIGHTED, entries

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

_METHODS = ("equal", "percent", "units", "nav_percent", "change")
_ORDER_TYPES = (
    OrderType.MARKET,
    *[OrderType.LIMIT] * 3,
    OrderType.POST_ONLY,
    OrderType.IOC,
    OrderType.FOK,
)
_SHARES = tuple(map(Decimal, ("0.00001", "0.0001", "0.001", "0.01")))  # of what one price level of the market holds
_CENT = Decimal("0.01")
_LIFETIMES_S = (5.0, 20.0, 60.0)

Act = Callable[[], Awaitable[None]]


class Operator:
    """Plans of every kind, executed, amended, cancelled; switches, pauses, keys."""

    def __init__(self, simulation: Simulation, rng: random.Random, every_s: float = 2.0) -> None:
        self.sim, self.rng, self.every_s = simulation, rng, every_s
        self.plans: list[str] = []
        self.keyless: set[str] = set()
        self.paused: set[str] = set()
        self.switches: set[str] = set()

    async def run(self) -> None:
        acts: list[tuple[int, Act]] = [
            (50, self._plan),
            (12, self._cancel),
            (8, self._amend),
            (4, self._kill),
            (9, self._kill_off),
            (2, self._pause),
            (3, self._resume),
            (2, self._reconcile),
            (2, self._read_back),
            (4, self._new_key),
        ]
        verbs, weights = [a for _, a in acts], [w for w, _ in acts]
        while True:
            await self.sim.clock.sleep(self.rng.expovariate(1 / self.every_s))
            (verb,) = self.rng.choices(verbs, weights)
            engine = self.sim.engine
            if engine is None or not engine.ready.is_set():
                continue
            self.sim.start_in_life(verb)

    # ---- plans

    async def _plan(self) -> None:
        office, rng = self.office(), self.rng
        draft = self._draft()
        plan = await office.draft_plan(draft)
        self.sim.trace.note("Operator", f"plan {plan.plan_id} {draft['legs']}")
        await self._think()
        await office.preview_plan(plan.plan_id)
        if rng.random() < 0.05:
            await office.discard_plan(plan.plan_id, "operator")
            return
        await self._think()
        await office.approve_plan(plan.plan_id, "approver")
        self.plans.append(plan.plan_id)
        if rng.random() < 0.05:
            return  # approved and forgotten: it expires
        await self._think()
        if rng.random() < 0.1:
            self.sim.start_in_life(lambda: self._cancel_one(plan.plan_id))
        if rng.random() < 0.05:
            self.sim.start_in_life(lambda: self._execute(plan.plan_id))
        await self._execute(plan.plan_id)
        if rng.random() < 0.3:
            await self._amend_one(plan.plan_id)
        if rng.random() < 0.4:
            await self.sim.clock.sleep(rng.choice(_LIFETIMES_S) * rng.random())
            await self._cancel_one(plan.plan_id)

    async def _execute(self, plan_id: str) -> None:
        progress = await self.office().execute_plan(plan_id, "operator")
        self.sim.trace.note("Operator", f"executed {plan_id}: {progress.sent} of {progress.total}")

    def _draft(self) -> dict[str, Any]:
        rng, sim = self.rng, self.sim
        known = sim.instruments()
        legs = [self._leg(one) for one in rng.sample(known, min(len(known), rng.choice((1, 1, 1, 2, 3))))]
        draft: dict[str, Any] = {"title": "simulated", "legs": legs, "by": "planner"}
        if rng.random() < 0.2:
            draft["expires_minutes"] = rng.choice((1, 2, 5))
        if any(leg["method"] == "percent" for leg in legs):
            draft["groups"] = [WEIGHTED]
        elif rng.random() < 0.8:
            draft["groups"] = [EVERYBODY]
        else:
            draft["accounts"] = rng.sample(sim.names, rng.randint(1, len(sim.names)))
        members = draft.get("accounts") or sim.names
        for leg in legs:
            if leg["method"] == "units":
                leg["units"] = dict.fromkeys(members, leg["quantity"])
            if leg["method"] in ("units", "nav_percent", "change"):
                leg["quantity"] = None
            elif leg["method"] in ("equal", "percent"):
                leg["quantity"] = str(Decimal(leg["quantity"]) * len(members))
        return draft

    def _leg(self, instrument: Instrument) -> dict[str, Any]:
        rng, sim = self.rng, self.sim
        allowed = [t for t in _ORDER_TYPES if t in sim.venue.capabilities.order_types]
        method, order_type = rng.choice(_METHODS), rng.choice(allowed)
        side = rng.choice(("buy", "sell"))
        away = Decimal(rng.choice(("-0.0005", "0", "0.0003", "0.001", "0.004", "0.02", "0.02")))
        price = sim.mark(instrument) * (1 - away if side == "buy" else 1 + away)
        return {
            "instrument": instrument.name,
            "method": method,
            "side": None if method == "change" else side,
            "quantity": str(sim.quantity(instrument, rng.choice(_SHARES))),
            "percent": str(rng.choice((1, 2, 5)))
            if method == "nav_percent"
            else str(rng.choice((-100, -50, 50)))
            if method == "change"
            else None,
            "order_type": order_type.value,
            "price": None if order_type is OrderType.MARKET else str(_to_tick(price, instrument)),
            "reduce_only": instrument.kind is not InstrumentKind.SPOT and rng.random() < 0.1,
        }

    async def _cancel(self) -> None:
        if self.plans:
            await self._cancel_one(self.rng.choice(self.plans[-8:]))

    async def _cancel_one(self, plan_id: str) -> None:
        await self.sim.clock.sleep(self.rng.choice((0.0, 0.001, 0.01, 0.1)))
        self.sim.trace.note("Operator", f"cancel {plan_id}")
        await self.office().cancel_plan(plan_id, "operator")

    async def _amend(self) -> None:
        if at_work := self.open_plans():
            await self._amend_one(self.rng.choice(at_work))

    async def _amend_one(self, plan_id: str) -> None:
        rng = self.rng
        engine = self.sim.engine
        plan = engine.children.plan(plan_id) if engine else None
        if plan is None or plan.state is not PlanState.EXECUTING or len(plan.legs) > 1:
            return
        price = None
        if plan.legs[0].price is not None and rng.random() < 0.6:
            instrument = self.sim.instrument(plan.legs[0].instrument)
            price = plan.legs[0].price + instrument.price_tick * rng.randint(-20, 20)
        factor = Decimal(rng.choice(("0.5", "0.5", "2"))) if price is None or rng.random() < 0.3 else None
        self.sim.trace.note("Operator", f"amend {plan_id} {price} {factor}")
        await self.office().amend_plan(plan_id, price=price, factor=factor, by="operator")

    # ---- switches, pauses, keys

    async def _kill(self) -> None:
        scope = self.rng.choice(("all", f"venue:{self.sim.venue.name}", f"account:{self.rng.choice(self.sim.names)}"))
        self.switches.add(scope)
        self.sim.trace.note("Operator", f"kill {scope}")
        await self.office().kill_on(scope, "operator", "simulated")

    async def _kill_off(self) -> None:
        if self.switches:
            scope = self.rng.choice(sorted(self.switches))
            self.sim.trace.note("Operator", f"kill off {scope}")
            await self.office().kill_off(scope, "operator", "simulated")
            self.switches.discard(scope)

    async def _pause(self) -> None:
        if len(self.paused) < 2:
            name = self.rng.choice(self.sim.names)
            if name not in self.paused:
                self.paused.add(name)
                self.sim.trace.note("Operator", f"pause {name}")
                self.sim.registry.pause(name, by="operator", why="simulated")

    async def _resume(self) -> None:
        if self.paused:
            self.resume(self.rng.choice(sorted(self.paused)))

    def resume(self, name: str) -> None:
        self.paused.discard(name)
        self.sim.trace.note("Operator", f"resume {name}")
        self.sim.registry.resume(name, by="operator", why="simulated")

    async def _new_key(self) -> None:
        for name in sorted(self.keyless):
            self.give_key(name)

    def give_key(self, name: str) -> None:
        """The owner has made a new key at the venue, and the operator enters it."""
        self.keyless.discard(name)
        self.sim.trace.note("Operator", f"new key {name}")
        sim = self.sim
        before = {entry.name: entry.credentials for entry in entries(sim.venue.name, sim.front)}
        sim.front.command("new_key", [name], {}, sim.clock.true_ms())
        for entry in entries(sim.venue.name, sim.front):
            if entry.name == name or entry.credentials != before[entry.name]:  # some share a login
                self.keyless.discard(entry.name)
                sealed = sim.vault.seal(entry.name, {f: Secret(text) for f, text in entry.credentials.items()})
                sim.registry.set_credentials(entry.name, sealed, by="operator", why="simulated")

    async def _reconcile(self) -> None:
        async for _ in self.office().reconcile([], "adhoc"):
            pass

    async def _read_back(self) -> None:
        await self.office().backfill([self.rng.choice(self.sim.names)])

    # ----

    def office(self) -> Any:
        engine = self.sim.engine
        if engine is None:
            raise Rejected("no engine runs")
        return engine.office

    async def _think(self) -> None:
        await self.sim.clock.sleep(self.rng.choice((0.0, 0.05, 0.5, 3.0)))

    def open_plans(self) -> list[str]:
        engine = self.sim.engine
        if engine is None:
            return []
        at_work = OrderState.WORKING
        return [p for p in self.plans if any(c.state is at_work for c in engine.children.of_plan(p))]


class Owners:
    """What happens in the accounts without us."""

    def __init__(self, simulation: Simulation, rng: random.Random, every_s: float = 5.0) -> None:
        self.sim, self.rng, self.every_s = simulation, rng, every_s

    async def run(self) -> None:
        rng, front = self.rng, self.sim.front
        while True:
            await self.sim.clock.sleep(rng.expovariate(1 / self.every_s))
            name, now_ms = rng.choice(self.sim.names), self.sim.clock.true_ms()
            draw = rng.random()
            if draw < 0.7:
                known = self.sim.instruments()
                if not known:
                    continue
                instrument = rng.choice(known)
                price = self.sim.mark(instrument) * Decimal(rng.choice(("0.99", "0.9995", "1", "1.0005")))
                order: dict[str, object] = {
                    "instrument": instrument.name,
                    "side": rng.choice(("buy", "sell")),
                    "quantity": str(self.sim.quantity(instrument, rng.choice(_SHARES))),
                }
                if rng.random() < 0.5:
                    order |= {"type": "limit", "price": str(_to_tick(price, instrument))}
                told = front.place_elsewhere(name, order, now_ms)
                self.sim.trace.note("Owner", f"{name} {order} {dict(told)}")
            elif draw < 0.8:
                done = front.command("cancel_all", [name], {}, now_ms)
                self.sim.trace.note("Owner", f"{name} cancels everything: {done}")
            else:
                currency, amount = rng.choice(sorted(front.account(name).cash.items()))
                amount = (abs(amount) / rng.choice((100, 200))).quantize(_CENT) * rng.choice((1, 1, -1))
                front.transfer(name, currency, amount, now_ms)
                if not self.sim.venue.capabilities.cash_history:
                    self.sim.untold.add((name, currency))
                self.sim.trace.note("Owner", f"{name} transfers {amount} {currency}")
            self.sim.network.flush()


def _to_tick(price: Decimal, instrument: Instrument) -> Decimal:
    return price // instrument.price_tick * instrument.price_tick
