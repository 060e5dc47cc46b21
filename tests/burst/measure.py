"""Does. One burst: an engine on a slow disk, fills at ten times what it can take, people who plan and cancel."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import anyio
import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from bench.world import Door, Running, configure_log, door_of, office, running, venue_process
from engine.app import Surroundings
from engine.core.orders import OrderState
from engine.ledger import Writer, reader, tables
from engine.ledger.writer import Entry, Outcome

WHOSE = "key"
_TIMES = 10
_LOOK_S = 0.02
_DRAIN_LIMIT_S = 300.0
_SETTLE_LIMIT_S = 90.0


class Figures(msgspec.Struct, kw_only=True):
    """What one burst came to. Seconds, unless their names say otherwise."""

    accounts: int
    queue_limit: int
    fold_rate: float = 0.0  # fills a second that become durable
    offered_rate: float = 0.0
    offered: int = 0
    taken_within: float = 0.0
    queue_peak: int = 0
    held_peak: int = 0  # connections held back at the same time
    held_times: int = 0
    held_longest: float = 0.0  # one connection, all its times together
    grown_mb: float = 0.0  # the engine's memory
    silence_longest: float = 0.0  # the longest that the venue heard nothing from a connection
    loop_late: float = 0.0
    connections_lost: int = 0
    gaps: int = 0
    lost: int = 0  # fills of the truth that the ledger has not
    invented: int = 0  # the other way round
    approve: float = 0.0
    orders_out: float = 0.0  # from the execution's start to the last order at the venue
    cancels_out: float = 0.0
    unsettled: int = 0  # orders that did not come to the truth
    told: list[str] = []  # what the doctor says meanwhile

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        kept = {
            "no fill is lost or invented": self.lost == self.invented == 0,
            "the queue stays within its limit": self.queue_peak <= self.queue_limit,
            "connections are held back, and it is told": self.held_times > 0 < self.held_longest and bool(self.told),
            "no connection is lost, and none is called silent or mute": self.connections_lost == self.gaps == 0,
            "no venue hears nothing for 28 s": self.silence_longest <= 28.0,
            "a plan is approved and sent within seconds": max(self.approve, self.orders_out) <= 5.0,
            "cancels leave within a second": self.cancels_out <= 1.0,
            "every order comes to the venue's truth": self.unsettled == 0,
        }
        return [promise for promise, is_kept in kept.items() if not is_kept]


def slow_writer(commit_s: float) -> type[Writer]:
    class SlowDisk(Writer):
        """Each commit takes so long."""

        def _transact(self, group: Sequence[Entry]) -> list[Outcome]:
            time.sleep(commit_s)
            return super()._transact(group)

    return SlowDisk


class Burst:
    def __init__(self, door: Door, one: Running, figures: Figures) -> None:
        self._door, self._one, self.figures = door, one, figures
        self._instrument = 0

    # ---- fills

    async def rate(self, count: int) -> float:
        """Fills a second that become durable when there are always more."""
        before, began_s = self._one.engine.sync.facts_taken, time.monotonic()
        await self._door("offer", whose=WHOSE, rate=1e6, seconds=count / 1e6)
        await self._all_durable(before + 2 * count)
        return count / (time.monotonic() - began_s)

    async def _all_durable(self, facts: int) -> None:
        """An order and a fill of each frame are folded, and nothing waits for the disk."""
        with anyio.fail_after(_DRAIN_LIMIT_S):
            while self._one.engine.sync.facts_taken < facts:  # noqa: ASYNC110  it is the disk that is waited for
                await anyio.sleep(_LOOK_S)
        await self._one.written()

    async def _watch(self) -> None:
        """The worst of everything, looked at fifty times a second."""
        engine, figures = self._one.engine, self.figures
        before_mb = _memory_mb()
        while True:
            due_s = time.monotonic() + _LOOK_S
            await anyio.sleep(_LOOK_S)
            figures.loop_late = max(figures.loop_late, time.monotonic() - due_s)
            figures.queue_peak = max(figures.queue_peak, engine.ledger.health().queued)
            figures.held_peak = max(figures.held_peak, sum(view.blocked for view in engine.links.views()))
            figures.grown_mb = max(figures.grown_mb, _memory_mb() - before_mb)

    # ---- people

    async def planned(self) -> str:
        """A plan over all accounts, approved, each time in another instrument."""
        self._instrument += 1
        desk = self._one.engine.office
        leg = {
            "instrument": f"B{self._instrument:02}/USDT:USDT", "method": "equal", "side": "buy", "order_type": "limit",
            "quantity": str(self.figures.accounts * 2), "price": "2490",
        }  # fmt: skip
        plan = await desk.draft_plan({"title": "burst", "groups": ["everybody"], "legs": [leg], "by": "planner"})
        plan = await desk.preview_plan(plan.plan_id)
        assert plan.preview.unallocated[0] == Decimal(0), plan.preview.rows[0].denials
        began_s = time.monotonic()
        await desk.approve_plan(plan.plan_id, "approver")
        self.figures.approve = time.monotonic() - began_s
        return str(plan.plan_id)

    async def sent(self, plan_id: str) -> None:
        await self._door("reset")
        began_ns = time.monotonic_ns()
        await self._one.engine.office.execute_plan(plan_id, "operator")
        seen = await self._door.until("arrivals", self.figures.accounts)
        self.figures.orders_out = (seen["last_ns"] - began_ns) / 1e9

    async def cancelled(self, plan_id: str) -> None:
        began_ns = time.monotonic_ns()
        async with anyio.create_task_group() as group:
            group.start_soon(self._one.engine.executor.cancel, plan_id)
            seen = await self._door.until("cancels", self.figures.accounts)
            self.figures.cancels_out = (seen["last_ns"] - began_ns) / 1e9

    # ---- the burst

    async def run(self, seconds: float) -> None:
        figures, engine, door = self.figures, self._one.engine, self._door
        early = await self.planned()
        await self.sent(early)
        assert not await self._unsettled(early, OrderState.WORKING)
        gaps, before, began_s = self._gap_rows(), engine.sync.facts_taken, time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            await door("offer", whose=WHOSE, rate=_TIMES * figures.fold_rate, seconds=seconds)
            await anyio.sleep(seconds / 2)
            late = await self.planned()
            await self.sent(late)
            told = await door.until("offering_ended", 1)
            figures.offered, figures.offered_rate = told["offered"], told["offered"] / told["seconds"]
            figures.told = [f"{f.subject}: {f.what}" for f in engine.office.findings()]
            await self.cancelled(early)
            await self._all_durable(before + 2 * figures.offered)
            figures.taken_within = time.monotonic() - began_s
            figures.silence_longest = max((await door("pings", whose=WHOSE))["silence_ns"]) / 1e9
            figures.unsettled = await self._unsettled(early, OrderState.CANCELLED)
            figures.unsettled += await self._unsettled(late, OrderState.WORKING)
            group.cancel_scope.cancel()
        held = engine.office.status()["held_back"]
        figures.held_times, figures.held_longest = held.times, held.longest_s
        clients = (await door("clients", whose=WHOSE))["count"]
        figures.connections_lost = figures.accounts - clients + sum(view.attempts for view in engine.links.views())
        await self._one.written()
        figures.gaps = self._gap_rows() - gaps

    async def _unsettled(self, plan_id: str, state: OrderState) -> int:
        """How many of the plan's orders are not in this state, though they had time."""

        def others() -> int:
            return sum(child.state is not state for child in self._one.engine.children.of_plan(plan_id))

        with anyio.move_on_after(_SETTLE_LIMIT_S):
            while others():  # noqa: ASYNC110  real time
                await anyio.sleep(_LOOK_S)
        return others()

    def _gap_rows(self) -> int:
        with self._one.engine.ledger.read() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(tables.gap)) or 0)

    async def compare(self, url: str) -> None:
        """The ledger against the venue's truth, fill by fill."""
        truth = {(key, number) for key, numbers in (await self._door("trades")).items() for number in numbers}
        first = min(number for _, number in truth)  # those before were for the rate
        keys = {a.account_id: a.venue_ref for a in self._one.engine.roster.accounts.values()}
        with reader(url) as connection:
            wanted = sa.select(tables.fact.c.account_id, tables.fact.c.key).where(tables.fact.c.kind == "fill")
            rows = [(keys[account_id], int(key.split(":")[1])) for account_id, key in connection.execute(wanted)]
        found = {row for row in rows if row[1] >= first}
        self.figures.lost, self.figures.invented = len(truth - found), len(found - truth)


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def burst(*, accounts: int, seconds: float, commit_s: float, probe: int, queue_limit: int = 50_000) -> Figures:
    """A venue, an engine and one burst between them. `probe` fills tell beforehand how fast they are taken."""
    configure_log()
    with venue_process("tests.burst.venue") as doors, office(doors, accounts) as config:
        config = replace(config, ledger=replace(config.ledger, queue_limit=queue_limit))
        figures = Figures(accounts=accounts, queue_limit=queue_limit)
        async with door_of(doors) as door, running(config, Surroundings(writer=slow_writer(commit_s))) as one:
            await one.links_live()
            await one.proven(lambda done: None)
            it = Burst(door, one, figures)
            figures.fold_rate = await it.rate(probe)
            await it.run(seconds)
            await it.compare(config.database.url)
    return figures
