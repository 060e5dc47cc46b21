"""Does. Whoever acts on the office in a simulation: the operator, the accounts' owners, and misfortune."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from accounts.model import Secret
from engine.control.server import Rejected
from engine.core.orders import OrderState
from engine.core.plans import PlanState
from engine.venues.okx.front_rules import LISTINGS, Listing
from engine.venues.okx.symbols import name_of

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

_METHODS = ("equal", "percent", "units", "nav_percent", "change")
_ORDER_TYPES = ("market", "limit", "limit", "limit", "post_only", "ioc", "fok")
_LIFETIMES_S = (5.0, 20.0, 60.0)

POINTS = ("before commit", "after commit", "before send", "after send", "before post", "after post")
"""Where a life may end: see `Life.point`."""

Act = Callable[[], Awaitable[None]]


class Operator:
    """Plans of every kind, executed, amended, cancelled; switches, pauses, keys."""

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self.sim, self.rng = simulation, rng
        self.plans: list[str] = []
        self.keyless: set[str] = set()
        self.paused: set[str] = set()
        self.switches: set[str] = set()

    async def run(self) -> None:
        acts: list[tuple[int, Act]] = [
            (50, self._plan),
            (12, self._cancel),
            (8, self._amend),
            (2, self._kill),
            (3, self._kill_off),
            (2, self._pause),
            (3, self._resume),
            (2, self._reconcile),
            (2, self._read_back),
            (4, self._new_key),
        ]
        verbs, weights = [a for _, a in acts], [w for w, _ in acts]
        while True:
            await self.sim.clock.sleep(self.rng.expovariate(1 / 4.0))
            (verb,) = self.rng.choices(verbs, weights)
            engine = self.sim.engine
            if engine is None or not engine.ready.is_set():
                continue
            self.sim.start_in_life(verb)

    # ---- plans

    async def _plan(self) -> None:
        office, rng = self._office(), self.rng
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
        progress = await self._office().execute_plan(plan_id, "operator")
        self.sim.trace.note("Operator", f"executed {plan_id}: {progress.sent} of {progress.total}")

    def _draft(self) -> dict[str, Any]:
        rng, sim = self.rng, self.sim
        legs = [self._leg(listing) for listing in rng.sample(LISTINGS, rng.choice((1, 1, 1, 2, 3)))]
        draft: dict[str, Any] = {"title": "simulated", "legs": legs, "by": "planner"}
        if rng.random() < 0.2:
            draft["expires_minutes"] = rng.choice((1, 2, 5))
        if any(leg["method"] == "percent" for leg in legs):
            draft["groups"] = ["weighted"]
        elif rng.random() < 0.8:
            draft["groups"] = ["everybody"]
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

    def _leg(self, listing: Listing) -> dict[str, Any]:
        rng = self.rng
        method, order_type = rng.choice(_METHODS), rng.choice(_ORDER_TYPES)
        side = rng.choice(("buy", "sell"))
        lots = rng.choice((1, 3, 10, 40)) if not listing.spot else rng.choice((1000, 30_000))
        lots = max(lots, int(listing.smallest / listing.lot))
        mark = self.sim.front.exchange.marks[listing.inst_id]
        away = Decimal(rng.choice(("-0.0005", "0", "0.0003", "0.001", "0.004", "0.02", "0.02")))
        price = mark * (1 - away if side == "buy" else 1 + away) // listing.tick * listing.tick
        return {
            "instrument": name_of(listing.inst_id),
            "method": method,
            "side": None if method == "change" else side,
            "quantity": str(listing.lot * lots),
            "percent": str(rng.choice((1, 2, 5)))
            if method == "nav_percent"
            else str(rng.choice((-100, -50, 50)))
            if method == "change"
            else None,
            "order_type": order_type,
            "price": None if order_type == "market" else str(price),
            "reduce_only": not listing.spot and rng.random() < 0.1,
        }

    async def _cancel(self) -> None:
        if self.plans:
            await self._cancel_one(self.rng.choice(self.plans[-8:]))

    async def _cancel_one(self, plan_id: str) -> None:
        await self.sim.clock.sleep(self.rng.choice((0.0, 0.001, 0.01, 0.1)))
        self.sim.trace.note("Operator", f"cancel {plan_id}")
        await self._office().cancel_plan(plan_id, "operator")

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
            listing = next(x for x in LISTINGS if name_of(x.inst_id) == plan.legs[0].instrument)
            price = plan.legs[0].price + listing.tick * rng.randint(-20, 20)
        factor = Decimal(rng.choice(("0.5", "0.5", "2"))) if price is None or rng.random() < 0.3 else None
        self.sim.trace.note("Operator", f"amend {plan_id} {price} {factor}")
        await self._office().amend_plan(plan_id, price=price, factor=factor, by="operator")

    # ---- switches, pauses, keys

    async def _kill(self) -> None:
        scope = self.rng.choice(("all", "venue:okx", f"account:{self.rng.choice(self.sim.names)}"))
        self.switches.add(scope)
        self.sim.trace.note("Operator", f"kill {scope}")
        await self._office().kill_on(scope, "operator", "simulated")

    async def _kill_off(self) -> None:
        if self.switches:
            scope = self.rng.choice(sorted(self.switches))
            self.sim.trace.note("Operator", f"kill off {scope}")
            await self._office().kill_off(scope, "operator", "simulated")
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
        customer = self.sim.front.trading.customers[name]
        customer.api_key += "+"
        self.sim.front._by_key[customer.api_key] = customer
        fields = {"api_key": customer.api_key, "secret": customer.secret, "passphrase": customer.passphrase}
        sealed = self.sim.vault.seal(name, {field: Secret(value) for field, value in fields.items()})
        self.sim.registry.set_credentials(name, sealed, by="operator", why="simulated")

    async def _reconcile(self) -> None:
        async for _ in self._office().reconcile([], "adhoc"):
            pass

    async def _read_back(self) -> None:
        await self._office().backfill([self.rng.choice(self.sim.names)])

    # ----

    def _office(self) -> Any:
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

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self.sim, self.rng = simulation, rng

    async def run(self) -> None:
        rng, front = self.rng, self.sim.front
        while True:
            await self.sim.clock.sleep(rng.expovariate(1 / 15.0))
            name, now_ms = rng.choice(self.sim.names), self.sim.clock.true_ms()
            draw = rng.random()
            if draw < 0.7:
                listing = rng.choice(LISTINGS)
                mark = front.exchange.marks[listing.inst_id]
                quantity = max(listing.smallest, listing.lot * rng.choice((1, 5, 20)))
                price = mark * Decimal(rng.choice(("0.99", "0.9995", "1", "1.0005"))) // listing.tick * listing.tick
                order: dict[str, object] = {
                    "instrument": listing.inst_id,
                    "side": rng.choice(("buy", "sell")),
                    "quantity": str(quantity),
                }
                if rng.random() < 0.5:
                    order |= {"type": "limit", "price": str(price)}
                told = front.place_elsewhere(name, order, now_ms)
                self.sim.trace.note("Owner", f"{name} {order} {told.get('sCode')}")
            elif draw < 0.8:
                done = front.trading.cancel_everything(front.trading.customers[name], "", "1", now_ms)
                front.settle(now_ms)
                self.sim.trace.note("Owner", f"{name} cancels everything: {done}")
            else:
                currency, amount = rng.choice((("USDT", 1000), ("USDT", -500), ("BTC", Decimal("0.1"))))
                front.transfer(name, currency, Decimal(amount), now_ms)
                self.sim.trace.note("Owner", f"{name} transfers {amount} {currency}")
            self.sim.network.flush()


class Misfortune:
    """Everything that goes wrong."""

    # kind -> (seconds at most, times at most)
    KINDS: ClassVar[dict[str, tuple[float, int | None]]] = {
        "cut": (60, None),
        "silence": (120, None),
        "half_open": (90, None),
        "delay": (30, None),
        "slow": (30, None),
        "garbage": (10, 30),
        "refuse_connect": (20, None),
        "refuse": (10, None),
        "refuse_login": (10, 2),
        "duplicate": (60, None),
        "drop_ack": (20, None),
        "drop_request": (20, None),
        "late": (20, None),
        "html_502": (20, None),
        "rate_429": (10, 5),
        "read_lag": (60, None),
        "amend_fails": (60, None),
        "notice": (0, None),
        "kill_key": (0, None),
        "liquidate": (0, None),
        "funding": (0, None),
        "market_jump": (0, None),
        "torn_write": (20, None),
        "clock_jump": (0, None),
        "disk": (0, None),
        "kill_9": (0, None),
        "crash_point": (0, None),
        "restart": (0, None),
    }
    RARE = frozenset({"kill_key", "liquidate", "refuse_login", "disk", "kill_9", "restart", "clock_jump"})

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self.sim, self.rng = simulation, rng

    @classmethod
    def expected(cls) -> set[str]:
        """By the names that they are counted under."""
        points = {f"crash {point}" for point in POINTS}
        return (cls.KINDS.keys() - {"crash_point"}) | points

    async def run(self) -> None:
        rng = self.rng
        kinds = list(self.KINDS)
        weights = [1 if kind in self.RARE else 9 if kind == "late" else 3 for kind in kinds]
        while True:
            await self.sim.clock.sleep(rng.expovariate(1 / 6.0))
            (kind,) = rng.choices(kinds, weights)
            self._befall(kind)
            self.sim.network.flush()

    def _befall(self, kind: str) -> None:
        rng, sim, now_ms = self.rng, self.sim, self.sim.clock.true_ms()
        names = None if rng.random() < 0.2 else rng.sample(sim.names, rng.randint(1, max(1, len(sim.names) // 2)))
        longest_s, most = self.KINDS[kind]
        detail: dict[str, Any] = {"seconds": round(longest_s * rng.random(), 3)}
        if most is not None:
            detail["times"] = rng.randint(1, most)
        match kind:
            case "delay" | "slow":
                detail["by_ms"] = rng.choice((50, 500, 3000, 9000, 15_000))
            case "late":  # mostly after the time-out and before the order's expiry
                detail["by_ms"] = rng.choice((500, 4000, 7000, 9000, 9500, 15_000))
            case "read_lag":
                detail["by_ms"] = rng.randint(100, 4500)
            case "drop_ack" | "drop_request":
                detail["what"] = rng.choice(("", "50004"))
            case "refuse_connect":
                names = None
            case "notice":
                detail = {"seconds": rng.choice((5, 30, 60))}
            case "kill_key":
                names = [n for n in [rng.choice(sim.names)] if n not in sim.operator.keyless]
                if not names or len(sim.operator.keyless) > 1:
                    return
                sim.operator.keyless.add(names[0])
            case "liquidate":
                held = [
                    (customer.name, key[0])
                    for customer in sim.front.trading.customers.values()
                    for key, position in customer.positions.items()
                    if position.quantity
                ]
                if not held:
                    return
                name, symbol = rng.choice(held)
                names, detail = [name], {"instrument": symbol}
            case "funding":
                detail = {"instrument": "BTC-USDT-SWAP", "rate": rng.choice(("0.0001", "-0.0002"))}
            case "refuse_login":
                detail["code"] = rng.choice(("60009", "63999", "50001"))
        if kind in ("market_jump", "torn_write", "clock_jump", "disk", "kill_9", "crash_point", "restart"):
            self._befall_us(kind, detail)
            return
        sim.trace.note("Fault", f"{kind} {names} {detail}")
        if kind == "refuse_login":
            # The generic code halts an account until a person has seen to it, as a deleted key does.
            for name in names or sim.names:
                sim.operator.keyless.add(name)
        if kind in ("delay", "slow"):
            until_ms = now_ms + round(detail["seconds"] * 1000) + detail["by_ms"] + 30_000
            for name in names or ["", *sim.names]:
                known_ms = sim.network.late_until_ms.get(name, 0)
                sim.network.late_until_ms[name] = max(until_ms, known_ms)
        sim.world.trouble(kind, names, detail, now_ms)

    def _befall_us(self, kind: str, detail: dict[str, Any]) -> None:
        rng, sim = self.rng, self.sim
        life = sim.life
        sim.trace.note("Fault", f"{kind} {detail}")
        match kind:
            case "market_jump":
                symbol = rng.choice(LISTINGS).inst_id
                sim.world.market.move_by(symbol, Decimal(rng.choice(("-1", "-0.3", "0.3", "1"))))
                sim.front.settle(sim.clock.true_ms())
                sim.network.happened[kind] += 1
            case "torn_write":
                sim.network.torn_until_ms = sim.clock.true_ms() + round(detail["seconds"] * 1000)
            case "clock_jump":
                sim.clock.off_ms = rng.choice((0, 0, -900, 3_000, -3_000, 60_000, -60_000, 900_000, -900_000))
                sim.network.happened[kind] += 1
            case "disk":
                sim.disk_fails_until_ms = sim.clock.true_ms() + rng.choice((500, 5_000, 30_000))
            case "kill_9" if life is not None:
                sim.network.happened[kind] += 1
                life.die()
            case "crash_point" if life is not None:
                point = rng.choice(POINTS)
                life.due = {point: rng.choice((1, 1, 2, 5, 20))}
            case "restart" if sim.engine is not None and sim.engine.ready.is_set():
                sim.network.happened[kind] += 1
                sim.engine.stop()
            case _:
                pass
