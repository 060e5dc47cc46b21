"""Does. The whole engine on virtual time against the real front: how long a dead or a mute line goes unseen."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import msgspec
import structlog

from engine.core.instruments import Instrument, InstrumentKind
from engine.links import Link
from tests.simulation.loop import VirtualClock, VirtualLoop
from tests.simulation.run import Course, Simulation
from tests.simulation.trace import Trace

_LOOK_S = 0.05
_SHARE = Decimal("0.01")  # of a price level's depth
_SETTINGS = '[log]\nlevel = "error"\n[raw]\nkeep = false\n'  # when history is cross-checked: as everywhere
_LIMIT_S = 120.0  # not seen by then: told as this long
_PHASES_S = 75.0  # the pulse's beat and a quiet link's pings come round within it


class Found(msgspec.Struct, kw_only=True):
    """Seconds, one figure a line that fell silent."""

    half_open: list[float] = []  # from the last frame that was heard to the loss being known
    mute: list[float] = []  # from the push that did not come to the connection being replaced
    happened: dict[str, int] = {}


class Office(Simulation):
    """The simulated office, less its people and its misfortune: each account's line falls silent, each in its turn."""

    def __init__(self, seed: int, accounts: int, folder: Path) -> None:
        course = Course(seed=seed, hours=0, accounts=accounts, actors=lambda _: [], settings=_SETTINGS, replay="")
        super().__init__(course, folder, watched="", verbose=False)
        self._phases = random.Random(f"silence {seed}")
        self.found = Found()

    async def measure(self, loop: VirtualLoop) -> Found:
        self.loop, self.clock = loop, VirtualClock(loop)
        self.trace = Trace(self.clock.true_ms, verbose=False)
        self._build()
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_venue)
            group.start_soon(self._keep_engine)
            await self._up_and_whole()
            await self._each(self._go_half_open)
            await self._up_and_whole()
            await self._place_orders()
            await self._each(self._go_mute)
            group.cancel_scope.cancel()
        self.witness.close()
        self.registry.dispose()
        self.found.happened = dict(self.world.faults.happened)
        return self.found

    async def _up_and_whole(self) -> None:
        await self._until(self._whole, 900.0, "the office did not come up")
        assert not self.verdict.broken, self.verdict.broken

    async def _each(self, fall_silent: Any) -> None:
        async with anyio.create_task_group() as group:
            for number, name in enumerate(self.names):
                group.start_soon(fall_silent, number, name)
        self.world.faults.clear()

    async def _seen(self, what: Callable[[], bool]) -> None:
        deadline_s = self.loop.now_s + _LIMIT_S
        while not what() and self.loop.now_s < deadline_s:  # noqa: ASYNC110  virtual time: looking costs little
            await anyio.sleep(_LOOK_S)

    def _link(self, name: str) -> Link:
        assert self.engine is not None
        link = self.engine.links.of_listener(name, "private")
        assert link is not None
        return link

    # ---- half-open: nothing goes through any more, in either direction

    async def _go_half_open(self, number: int, name: str) -> None:
        link = self._link(name)
        await anyio.sleep(self._phases.uniform(0, _PHASES_S))
        if number % 2:  # the worst moment: right after something was heard
            heard_ms = link.view().last_heard_at_ms
            await self._seen(lambda: link.view().last_heard_at_ms != heard_ms)
        self.world.trouble("half_open", [name], {"seconds": _LIMIT_S}, self.clock.true_ms())
        self.network.flush()
        await self._seen(lambda: not link.live)
        heard_ms = link.view().last_heard_at_ms
        assert heard_ms is not None
        self.found.half_open.append((self.clock.true_ms() - heard_ms) / 1000)

    # ---- mute: pongs come, pushes do not

    async def _place_orders(self) -> None:
        """One order of each account that stays at work: such accounts are looked after every minute."""
        assert self.engine is not None
        one = self._traded()
        price = self.mark(one) * Decimal("0.97") // one.price_tick * one.price_tick
        leg = {"instrument": one.name, "method": "equal", "side": "buy", "order_type": "limit", "price": str(price)}
        leg |= {"quantity": str(self.quantity(one, _SHARE) * len(self.names))}
        office = self.engine.office
        plan = await office.draft_plan({"title": "silence", "accounts": self.names, "legs": [leg], "by": "planner"})
        await office.preview_plan(plan.plan_id)
        await office.approve_plan(plan.plan_id, "approver")
        await office.execute_plan(plan.plan_id, "operator")
        await self._until(lambda: len(self._working()) == len(self.names), 60.0, "not every order is at work")

    def _traded(self) -> Instrument:
        return next(one for one in self.instruments() if one.kind is not InstrumentKind.SPOT)

    def _working(self) -> list[Any]:
        assert self.engine is not None
        return [child for child in self.engine.children.open() if child.state == "working"]

    async def _go_mute(self, number: int, name: str) -> None:
        assert self.engine is not None
        await anyio.sleep(self._phases.uniform(0, _PHASES_S))
        self.world.trouble("silence", [name], {"seconds": 2 * _LIMIT_S}, self.clock.true_ms())
        one = self._traded()
        order = {"instrument": one.name, "side": "buy", "quantity": str(self.quantity(one, _SHARE))}
        self.front.place_elsewhere(name, order, self.clock.true_ms())
        self.network.flush()
        began_s, link = self.loop.now_s, self._link(name)
        await self._seen(lambda: not link.live)
        self.found.mute.append(self.loop.now_s - began_s)


def measure(seed: int, accounts: int) -> Found:
    """One seed, on a loop of its own."""
    folder = Path(tempfile.mkdtemp(prefix="unisono-silence-"))
    office, loops = Office(seed, accounts, folder), [VirtualLoop()]

    async def main() -> Found:
        return await office.measure(loops[0])

    before = structlog.get_config()
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    try:
        return anyio.run(main, backend_options={"loop_factory": lambda: loops[0]})
    finally:
        structlog.configure(**before)
        shutil.rmtree(folder, ignore_errors=True)


def _drop(logger: Any, method: str, event: Any) -> Any:
    raise structlog.DropEvent
