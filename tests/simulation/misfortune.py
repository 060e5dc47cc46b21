"""Does. Everything that goes wrong in a simulation."""

from __future__ import annotations

import random
from collections.abc import Collection
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from engine.core.instruments import InstrumentKind

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

POINTS = ("before commit", "after commit", "before send", "after send", "before post", "after post")
"""Where a life may end: see `Life.point`."""


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
        "push_lost": (20, None),
        "push_overtaken": (30, None),
        "clock_jump": (0, None),
        "disk": (0, None),
        "kill_9": (0, None),
        "crash_point": (0, None),
        "restart": (0, None),
    }
    OFTEN = frozenset({"late", "crash_point"})  # they need somebody who sends just then
    RARE = frozenset({"kill_key", "liquidate", "refuse_login", "disk", "kill_9", "restart", "clock_jump"})

    def __init__(
        self, simulation: Simulation, rng: random.Random, every_s: float = 2.5, kinds: Collection[str] = KINDS.keys()
    ) -> None:
        self.sim, self.rng, self.every_s, self.kinds = simulation, rng, every_s, [k for k in self.KINDS if k in kinds]

    @classmethod
    def expected(cls) -> set[str]:
        """By the names that they are counted under."""
        points = {f"crash {point}" for point in POINTS}
        return (cls.KINDS.keys() - {"crash_point"}) | points

    async def run(self) -> None:
        rng = self.rng
        weights = [1 if kind in self.RARE else 9 if kind in self.OFTEN else 3 for kind in self.kinds]
        while True:
            await self.sim.clock.sleep(rng.expovariate(1 / self.every_s))
            (kind,) = rng.choices(self.kinds, weights)
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
                detail["by_ms"] = rng.randint(100, sim.max_read_lag_ms)
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
                held = [(n, i) for n in sim.names for i, q in sorted(sim.front.account(n).positions.items()) if q]
                if not held:
                    return
                name, instrument = rng.choice(held)
                names, detail = [name], {"instrument": instrument}
            case "funding":
                swaps = [i.name for i in sim.instruments() if i.kind is InstrumentKind.SWAP]
                if not swaps:
                    return
                detail = {"instrument": rng.choice(swaps), "rate": rng.choice(("0.0001", "-0.0002"))}
        if codes := sim.front.codes.get(kind):
            detail["code"] = detail["what"] = rng.choice(codes)
        if kind in (
            "push_lost",
            "push_overtaken",
            "market_jump",
            "torn_write",
            "clock_jump",
            "disk",
            "kill_9",
            "crash_point",
            "restart",
        ):
            self._befall_us(kind, detail)
            return
        sim.trace.note("Fault", f"{kind} {names} {detail}")
        if kind == "refuse_login":
            # The generic code halts an account until a person has seen to it, as a deleted key does.
            for name in names or sim.names:
                sim.operator.keyless.add(name)
        try:
            sim.world.trouble(kind, names, detail, now_ms)
        except KeyError:  # this venue never does that
            sim.trace.note("Fault", f"{kind} is unknown here")

    def _befall_us(self, kind: str, detail: dict[str, Any]) -> None:
        rng, sim = self.rng, self.sim
        life = sim.life
        sim.trace.note("Fault", f"{kind} {detail}")
        match kind:
            case "market_jump":
                symbol = rng.choice(sim.front.quoted).symbol
                sim.world.market.move_by(symbol, Decimal(rng.choice(("-1", "-0.3", "0.3", "1"))))
                sim.front.settle(sim.clock.true_ms())
                sim.network.happened[kind] += 1
            case "torn_write":
                sim.network.torn_until_ms = sim.clock.true_ms() + round(detail["seconds"] * 1000)
            case "push_lost":
                sim.network.lossy_until_ms = sim.clock.true_ms() + round(detail["seconds"] * 1000)
            case "push_overtaken":
                sim.network.shuffled_until_ms = sim.clock.true_ms() + round(detail["seconds"] * 1000)
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
