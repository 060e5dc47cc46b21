"""Does. One simulated office, from its first start to its settled end: engine, venue, people, misfortune, one seed."""

from __future__ import annotations

import importlib
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import msgspec

from accounts.registry import Registry
from accounts.vault import Vault
from engine import config as configuration
from engine.app import Engine, Surroundings
from engine.config import Config
from engine.control.server import Rejected
from engine.core.book import Book
from engine.core.instruments import Instrument
from engine.core.venue import Front, Venue
from engine.core.windows import Use
from engine.ledger import LedgerDown, LedgerFull
from engine.notify import Notifier
from engine.sim.faults import FaultPlan
from engine.sim.market import Market
from engine.sim.server import playable
from engine.sim.world import World
from engine.venues import venues
from tests.simulation.life import ClockHeartbeat, Died, InlineWriter, Life, inline
from tests.simulation.logged import logged
from tests.simulation.loop import VirtualClock, VirtualLoop
from tests.simulation.office import entries, furnish
from tests.simulation.office import folder as new_folder
from tests.simulation.people import Operator
from tests.simulation.trace import Trace
from tests.simulation.truth import Verdict, Witness
from tests.simulation.wire import MemoryTransport, Network

_LOOK_S = 20.0
_SETTLE_LIMIT_S = 3600.0
_QUIET_S = 75.0  # longer than any cross-check of an idle account may take to come round
_SETTINGS = """
[log]
level = "error"
[raw]
keep = false
[backfill]
crosscheck_s = 30.0
idle_crosscheck_s = 45.0
"""


class Actor(Protocol):
    """Somebody, or something, that acts on an office until it is cancelled."""

    async def run(self) -> None: ...


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What one run is about. The same course always takes the same course."""

    seed: int
    hours: float  # of trouble; less when the first actor has done what it came for
    accounts: int = 0  # 0: by the seed
    venue: str = ""  # by the seed: one of those that trade and have a front
    actors: Callable[[Simulation], Sequence[Actor]]
    settings: str = _SETTINGS
    quiet_s: float = _QUIET_S
    settle_s: float = _SETTLE_LIMIT_S
    tick_s: float = 0.1  # how often the venue looks at the time
    market_every_ms: int = 1000
    configured: Callable[[Config], Config] = lambda config: config  # for what no configuration file may say
    dialect: Callable[[Venue], Venue] = lambda venue: venue
    replay: str  # how to see this one again, but for the venue


class Report(msgspec.Struct, kw_only=True):
    """What one run came to."""

    seed: int
    venue: str
    replay: str  # the command that shows this run again
    verdict: Verdict
    happened: Counter[str]
    trace: str
    events: int
    simulated_s: float
    accounts: int
    lives: int
    gaps: int  # that were proven
    took_s: float  # of real time
    states: Counter[str]
    uses: dict[str, Use]


class Simulation:
    def __init__(self, course: Course, folder: Path, watched: str, verbose: bool) -> None:
        self.course, self.seed, self.folder = course, course.seed, folder
        self._rng = random.Random(f"simulation {self.seed}")
        self._accounts = course.accounts or self._rng.choices((2, 3, 4, 12), (4, 8, 4, 1))[0]
        self._watched, self._verbose = watched, verbose
        self.verdict = Verdict()
        self.engine: Engine | None = None
        self.life: Life | None = None
        self.disk_fails_until_ms = 0
        self.untold = set[tuple[str, str]]()
        """Account and currency of what was moved where the venue does not tell such movements."""
        self._actions: anyio.abc.TaskGroup | None = None
        self._lives = 0

    # ---- life

    async def main(self, loop: VirtualLoop) -> Report:
        self.loop, self.clock = loop, VirtualClock(loop)
        self.trace = Trace(self.clock.true_ms, verbose=self._verbose)
        self.trace.watched = self._watched
        self._build()
        began_s, began_real_s = loop.now_s, time.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_venue)
            group.start_soon(self._keep_engine)
            await self._until(self._whole, 600.0, "the office never came up")
            first, *others = self.course.actors(self)
            async with anyio.create_task_group() as trouble:
                for actor in others:
                    trouble.start_soon(actor.run)
                trouble.start_soon(self._keep_looking)
                with anyio.move_on_after(self.course.hours * 3600):
                    await first.run()
                trouble.cancel_scope.cancel()
            await self._settle()
            group.cancel_scope.cancel()
        self.witness.settle()
        anew = Counter({"sent anew": self.witness.sent_anew()})
        gaps = self.witness.ask("SELECT count(*) FROM gap WHERE state = 'proven'")[0][0]
        self.witness.close()
        self.registry.dispose()
        return Report(
            seed=self.seed,
            venue=self.venue.name,
            replay=f"{self.course.replay} --venue {self.venue.name}",
            verdict=self.verdict,
            happened=self.world.faults.happened + self.network.happened + anew,
            trace=self.trace.digest(),
            events=self.trace.events,
            simulated_s=loop.now_s - began_s,
            accounts=len(self.names),
            lives=self._lives,
            gaps=gaps,
            took_s=time.monotonic() - began_real_s,
            states=self.states,
            uses=self.front.windows.uses,
        )

    def _build(self) -> None:
        faults, seed, now_ms = FaultPlan(), self.seed, self.clock.true_ms()
        trading = [name for name in playable() if venues()[name].capabilities.trades]
        plain = venues()[self.course.venue or trading[seed % len(trading)]]
        self.front: Front = importlib.import_module(f"engine.venues.{plain.name}.front").front(
            accounts=self._accounts, seed=seed, now_ms=now_ms, faults=faults, either=self._rng
        )
        self.names = [entry.name for entry in entries(plain.name, self.front)]
        market = Market(self.front.exchange, self.front.quoted, seed, every_ms=self.course.market_every_ms)
        self.world = World(self.front, market, faults, now_ms)
        config = furnish(self.folder, plain, self.front, self.course.settings)
        self.config = self.course.configured(configuration.load(config))
        self.vault = Vault.from_file(self.folder / "vault.key")
        self.registry = Registry(self.config.database.url)
        self.witness = Witness(str(self.folder / "unisono.sqlite"), self.front, self.names, self.verdict)
        self.network = Network(
            self.world,
            self.loop,
            self.clock,
            random.Random(f"network {seed}"),
            self.trace,
            self.witness.on_send,
            plain.capabilities.idle_limit_s,
        )
        self.max_read_lag_ms = plain.capabilities.max_read_lag_ms  # what the venue does, whatever the dialect says
        self.venue = self.network.spoken.overhear(self.course.dialect(plain))
        self.operator = Operator(self, random.Random(f"operator {seed}"))

    # ---- what there is to trade

    def instruments(self) -> list[Instrument]:
        """What the engine has read of the venue's list; none while no engine runs."""
        if self.engine is None:
            return []
        listed = self.engine.sync.catalogue
        return [one for place in self.engine.roster.places() for one in listed(*place) if one.tradable]

    def instrument(self, name: str) -> Instrument:
        """Raises Rejected before the engine has read it."""
        for one in self.instruments():
            if one.name == name:
                return one
        raise Rejected(f"{name} is not listed yet")

    def mark(self, instrument: Instrument) -> Decimal:
        return self.front.exchange.marks[self.front.symbol(instrument.name)]

    def quantity(self, instrument: Instrument, share: Decimal) -> Decimal:
        """A share of what one price level of the market holds."""
        depth = next(q.depth for q in self.front.quoted if q.symbol == self.front.symbol(instrument.name))
        return max(instrument.min_quantity, depth * share // instrument.quantity_step * instrument.quantity_step)

    async def _keep_venue(self) -> None:
        while True:
            await anyio.sleep(self.course.tick_s)
            self.network.tick()

    async def _keep_engine(self) -> None:
        """Starts the engine, and starts it again, as systemd does."""
        while True:
            await self._live_once()
            await anyio.sleep(self._rng.choice((2.5, 2.5, 5.0, 40.0)))

    async def _live_once(self) -> None:
        self._lives += 1
        life = self.life = Life(self._lives)
        life.struck = lambda name: self.network.happened.update([f"crash {name}"])  # type: ignore[method-assign]
        self.trace.note("Life", f"{life.number} begins")
        try:
            with life.scope:
                engine = self.engine = self._engine(life)
                async with anyio.create_task_group() as self._actions:
                    try:
                        await engine.run()
                    finally:
                        self._actions.cancel_scope.cancel()
        except BaseException as error:
            if not life.dead or not _only_death(error):
                raise
        finally:
            self.engine, self._actions = None, None
            self.trace.note("Life", f"{life.number} ends, {'killed' if life.dead else 'stopped'}")
            life.dead = True

    def _engine(self, life: Life) -> Engine:
        rng = random.Random(f"engine {self.seed} {life.number}")

        class Disk(InlineWriter):
            """Of this life."""

        Disk.life, Disk.noted = life, self.trace.note
        Disk.rng, Disk.trouble = random.Random(f"disk {self.seed} {life.number}"), self._disk_trouble
        return Engine(
            self.config,
            venues={self.venue.name: self.venue},
            clock=self.clock,
            rng=rng,
            notifier=Notifier(""),
            surroundings=Surroundings(
                dial=self.network.dialler(life),
                transport=MemoryTransport(self.network, life),
                heartbeat=ClockHeartbeat,
                writer=Disk,
                aside=inline,
                door=_no_door,
            ),
        )

    def _disk_trouble(self) -> str:
        if self.clock.true_ms() >= self.disk_fails_until_ms:
            return ""
        self.network.happened["disk"] += 1
        return "database or disk is full"

    def start_in_life(self, act: Callable[[], Awaitable[None]]) -> None:
        """Somebody asks the engine something; when it dies, so does the question."""
        if self._actions is not None:
            self._actions.start_soon(self._asked, act)

    async def _asked(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except Rejected as rejected:
            self.trace.note("Rejected", str(rejected)[:200])
        except (LedgerDown, LedgerFull) as error:
            self.trace.note("Rejected", str(error)[:200])

    # ---- the end

    async def _keep_looking(self) -> None:
        while True:
            await anyio.sleep(_LOOK_S)
            self.witness.look()
            now_ms = self.clock.true_ms()
            for line in self.network.lines.values():
                if not line.frozen and now_ms - line.moved_ms > self.venue.capabilities.idle_limit_s * 1000 + 500:
                    self.verdict.broken.append(f"{line.name}: nothing said for {now_ms - line.moved_ms} ms")

    async def _settle(self) -> None:
        """Faults end, people go home; what is wrong after that stays wrong."""
        self.trace.note("Settling", "faults end")
        self.world.faults.clear()
        self.network.lossy_until_ms = self.network.shuffled_until_ms = 0
        self.network.torn_until_ms = self.disk_fails_until_ms = self.clock.off_ms = 0
        if self.life is not None:
            self.life.due.clear()
        await self._until(self._up, 600.0, "no engine came back")
        assert self.engine is not None
        for name in sorted(self.operator.keyless | self.engine.roster.halted.keys()):
            self.operator.give_key(name)
        for name in sorted(self.operator.paused):
            self.operator.resume(name)
        for switch in self.engine.kill.switches():
            await self.engine.office.kill_off(switch.scope, "operator", "the end", accept=["all"])
        await anyio.sleep(20.0)
        self.world.market.paused = True
        await anyio.sleep(self.course.quiet_s)
        await self._until(self._whole, self.course.settle_s, "the office did not settle")
        await self._reconcile()
        self._compare_books()
        self.states = Counter(c.state.value for p in self.operator.plans for c in self._children(p))
        self.engine.stop()
        await self._until(lambda: self.engine is None, 60.0, "the engine did not stop")

    def _children(self, plan_id: str) -> list[Any]:
        assert self.engine is not None
        return self.engine.children.of_plan(plan_id)

    def _up(self) -> bool:
        """It answers, and its disk does."""
        return self.engine is not None and self.engine.ready.is_set() and self.engine.ledger.health().ok

    def _whole(self) -> bool:
        engine = self.engine
        return (
            engine is not None
            and engine.ready.is_set()
            and len(engine.sync.desks()) == len(self.names)
            and all(desk.proven for desk in engine.sync.desks())
            and not engine.children.unknown()
            and not engine.backfill.open_gaps()
        )

    async def _until(self, done: Callable[[], bool], limit_s: float, complaint: str) -> None:
        deadline_s = self.loop.now_s + limit_s
        while not done():
            if self.loop.now_s > deadline_s:
                engine = self.engine
                why = (
                    ""
                    if engine is None
                    else "; ".join(
                        [f"{d.account_id}: {d.why}" for d in engine.sync.desks() if not d.proven]
                        + [f"unknown {c.client_order_id}: {c.reason}" for c in engine.children.unknown()]
                    )
                )
                self.verdict.broken.append(f"{complaint}: {why}")
                return
            await anyio.sleep(0.5)

    async def _reconcile(self) -> None:
        assert self.engine is not None
        told: dict[str, Any] = [said async for said in self.engine.office.reconcile([], "adhoc")][-1]
        if told.get("verdict") != "clean":
            rows = self.witness.ask(
                'SELECT account_id, code, instrument, field, venue, ledger, cause FROM "break" WHERE run_id=?',
                told.get("run_id"),
            )
            if told.get("verdict") == "breaks" and all(
                code == "CASH_AMT" and (account_id, currency) in self.untold for account_id, code, currency, *_ in rows
            ):
                return  # the owner moved it, and this venue tells nobody: that is for a person
            self.verdict.broken.append(f"the last reconciliation: {told} {rows[:5]}")

    def _compare_books(self) -> None:
        assert self.engine is not None
        for desk in self.engine.sync.desks():
            truth = self.front.account(desk.account_id)
            cash = {c: amount for c, amount in truth.cash.items() if amount}
            # Where a venue tells no movements of cash, what it states is all there is to know.
            told = desk.book.cash if self.venue.capabilities.cash_history else _stated(desk.book)
            known = {c: amount for c, amount in told.items() if amount}
            if cash != known:
                self.verdict.broken.append(f"{desk.account_id}: cash {known}, the venue has {cash}")
            held = {name: quantity for name, quantity in truth.positions.items() if quantity}
            booked = {name: quantity for (name, _), quantity in desk.book.quantities().items() if quantity}
            if held != booked:
                self.verdict.broken.append(f"{desk.account_id}: positions {booked}, the venue has {held}")
        uses = self.front.windows.uses.items()
        self.verdict.broken += [f"{use.refused} times above the limit of {rule}" for rule, use in uses if use.refused]
        self.verdict.broken += self.network.idle_closes


def _stated(book: Book) -> dict[str, Decimal]:
    return {currency: stated.cash for currency, stated in book.stated_balances.items()}


async def _no_door(office: Any, socket: str) -> None:
    """Nobody knocks: the simulation asks the office itself."""


def _only_death(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_death, error.exceptions))
    return isinstance(error, Died)


# ---- one seed


def simulate(course: Course, *, watched: str = "", verbose: bool = False) -> Report:
    """One run on a loop of its own."""
    folder = new_folder()
    simulation = Simulation(course, folder, watched, verbose)
    loops: list[VirtualLoop] = []

    def loop() -> VirtualLoop:
        loops.append(VirtualLoop())
        return loops[-1]

    async def main() -> Report:
        return await simulation.main(loops[-1])

    try:
        with logged(simulation.verdict, verbose):
            return anyio.run(main, backend_options={"loop_factory": loop})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
