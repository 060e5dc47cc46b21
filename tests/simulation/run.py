"""Does. One simulated office, from its first start to its settled end: engine, venue, people, misfortune, one seed."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import structlog

from accounts.model import Group, Weight
from accounts.registry import Registry
from accounts.vault import Vault
from engine import config as configuration
from engine.app import Engine, Surroundings
from engine.cli import demo_office
from engine.control.server import Rejected
from engine.ledger import LedgerDown, LedgerFull
from engine.notify import Notifier
from engine.sim.faults import FaultPlan
from engine.sim.market import Market
from engine.sim.world import World
from engine.venues import venues
from engine.venues.okx.front import OkxFront
from engine.venues.okx.front import front as make_front
from engine.venues.okx.front_rules import Rules
from tests.simulation.life import ClockHeartbeat, Died, InlineWriter, Life, inline
from tests.simulation.loop import VirtualClock, VirtualLoop
from tests.simulation.people import Misfortune, Operator, Owners
from tests.simulation.trace import Trace
from tests.simulation.truth import Verdict, Witness
from tests.simulation.wire import MemoryTransport, Network

_TICK_S = 0.1
_MARKET_MS = 1000
_LOOK_S = 20.0
_SETTLE_LIMIT_S = 3600.0
_QUIET_S = 240.0  # longer than any cross-check of an idle account may take to come round
_CHANNELS = {"public": ("mark-price:BTC/USDT:USDT", "instruments:SWAP")}
# What a person is told in trouble; "cancel_impossible": before the venue's instruments are read, and tried again.
_EXPECTED_ERRORS = frozenset(
    {
        "ledger_down",
        "halted",
        "credentials_refused",
        "order_unknown",
        "late",
        "no_progress",
        "cancel_impossible",
        "not_written",
    }
)


class Report(msgspec.Struct, kw_only=True):
    """What one seed came to."""

    seed: int
    verdict: Verdict
    happened: Counter[str]
    trace: str
    events: int
    simulated_s: float
    accounts: int
    lives: int
    states: Counter[str]
    latest: list[str]


class Simulation:
    def __init__(self, seed: int, *, hours: float, accounts: int, folder: Path, watched: str, verbose: bool) -> None:
        self.seed, self.hours, self.folder = seed, hours, folder
        self._rng = random.Random(f"simulation {seed}")
        self._accounts = accounts or self._rng.randint(3, 12)
        self._watched, self._verbose = watched, verbose
        self.verdict = Verdict()
        self.engine: Engine | None = None
        self.life: Life | None = None
        self.disk_fails_until_ms = 0
        self._over = False
        self._actions: anyio.abc.TaskGroup | None = None
        self._lives = 0

    # ---- life

    async def main(self, loop: VirtualLoop) -> Report:
        self.loop, self.clock = loop, VirtualClock(loop)
        self.trace = Trace(self.clock.true_ms, verbose=self._verbose)
        self.trace.watched = self._watched
        self._build()
        began_s = loop.now_s
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_venue)
            group.start_soon(self._keep_engine)
            await self._until(self._whole, 600.0, "the office never came up")
            async with anyio.create_task_group() as trouble:
                trouble.start_soon(self.operator.run)
                trouble.start_soon(self.owners.run)
                trouble.start_soon(self.misfortune.run)
                trouble.start_soon(self._keep_looking)
                await anyio.sleep(self.hours * 3600)
                trouble.cancel_scope.cancel()
            await self._settle()
            group.cancel_scope.cancel()
        self.witness.settle()
        anew = Counter({"sent anew": self.witness.sent_anew()})
        self.witness.close()
        self.registry.dispose()
        return Report(
            seed=self.seed,
            verdict=self.verdict,
            happened=self.world.faults.happened + self.network.happened + anew,
            trace=self.trace.digest(),
            events=self.trace.events,
            simulated_s=loop.now_s - began_s,
            accounts=len(self.names),
            lives=self._lives,
            states=self.states,
            latest=list(self.trace.latest),
        )

    def _build(self) -> None:
        faults, rng = FaultPlan(), self._rng
        rules = Rules(
            acknowledge=rng.choice(("mixed", "before", "after")),
            post_only_live_first=rng.random() < 0.5,
            market_final_zero_fill=rng.random() < 0.5,
            split_reversals=rng.random() < 0.5,
            snapshot_rows=rng.choice((3, 20)),
        )
        self.front: OkxFront = make_front(
            accounts=self._accounts, seed=self.seed, now_ms=self.clock.true_ms(), faults=faults, rules=rules
        )
        market = Market(self.front.exchange, self.front.quoted, self.seed, every_ms=_MARKET_MS)
        self.world = World(self.front, market, faults, self.clock.true_ms())  # type: ignore[arg-type]  # as the server: narrower fields
        self.network = Network(self.world, self.loop, self.clock, random.Random(f"network {self.seed}"), self.trace)
        doors = {
            "rest": "http://127.0.0.1:1",
            **{name: f"ws://127.0.0.1:1{path}" for name, path in self.front.paths.items()},
            "accounts": [dict(account) for account in self.front.accounts()],
        }
        self.names = [account["name"] for account in self.front.accounts()]
        more = "[backfill]\nidle_crosscheck_s = 120.0\n[raw]\nkeep = false\n"  # no threads here
        file = demo_office.register(self.folder, {"okx": doors}, {"okx": _CHANNELS}, more=more)
        self.config = configuration.load(file)
        self.vault = Vault.from_file(self.folder / "vault.key")
        self.registry = Registry(self.config.database.url)
        self.registry.add_group(
            Group(group_id="weighted", name="weighted", weights=_weights(self.names)), by="simulation", why="set up"
        )
        self.witness = Witness(str(self.folder / "unisono.sqlite"), self.front, self.verdict)
        self.network.on_send = self.witness.on_send
        self.operator = Operator(self, random.Random(f"operator {self.seed}"))
        self.owners = Owners(self, random.Random(f"owners {self.seed}"))
        self.misfortune = Misfortune(self, random.Random(f"misfortune {self.seed}"))

    async def _keep_venue(self) -> None:
        while True:
            await anyio.sleep(_TICK_S)
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
            venues=venues(),
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
                if not line.frozen and now_ms - line.moved_ms > 30_500:
                    self.verdict.broken.append(f"{line.name}: nothing said for {now_ms - line.moved_ms} ms")

    async def _settle(self) -> None:
        """Faults end, people go home; what is wrong after that stays wrong."""
        self.trace.note("Settling", "faults end")
        self.world.faults.clear()
        self.network.torn_until_ms = self.disk_fails_until_ms = self.clock.off_ms = 0
        if self.life is not None:
            self.life.due.clear()
        await self._until(self._up, 600.0, "no engine came back")
        assert self.engine is not None
        for name in sorted(self.operator.keyless):
            self.operator.give_key(name)
        for name in sorted(self.operator.paused):
            self.operator.resume(name)
        for switch in self.engine.kill.switches():
            await self.engine.office.kill_off(switch.scope, "operator", "the end")
        await anyio.sleep(60.0)
        self.world.market.paused = True
        await anyio.sleep(_QUIET_S)
        await self._until(self._whole, _SETTLE_LIMIT_S, "the office did not settle")
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
            self.verdict.broken.append(f"the last reconciliation: {told} {rows[:5]}")

    def _compare_books(self) -> None:
        assert self.engine is not None
        for desk in self.engine.sync.desks():
            customer = self.front.trading.customers[desk.account_id]
            cash = {c: held.amount for c, held in customer.cash.items() if held.amount}
            folded = {c: amount for c, amount in desk.book.cash.items() if amount}
            if cash != folded:
                self.verdict.broken.append(f"{desk.account_id}: cash {folded}, the venue has {cash}")
            held: dict[str, Decimal] = {}
            for (symbol, _), position in customer.positions.items():
                held[symbol] = held.get(symbol, Decimal(0)) + position.quantity
            for (name, _), quantity in desk.book.quantities().items():
                symbol = self.front.symbol(name)
                if not self.front.trading.listings[symbol].spot and held.pop(symbol, Decimal(0)) != quantity:
                    self.verdict.broken.append(f"{desk.account_id}: position {name} {quantity} is not the venue's")
            if left := {s: q for s, q in held.items() if q}:
                self.verdict.broken.append(f"{desk.account_id}: the book lacks positions {left}")
        self.verdict.broken += [f"a limit was exceeded: {x}" for x in self.network.exceeded]
        self.verdict.broken += [f"closed for silence: {x}" for x in self.network.idle_closes]


async def _no_door(office: Any, socket: str) -> None:
    """Nobody knocks: the simulation asks the office itself."""


def _only_death(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_death, error.exceptions))
    return isinstance(error, Died)


def _weights(names: list[str]) -> tuple[Weight, ...]:
    """They sum to exactly 100."""
    share = Decimal(100) // len(names)
    weights = [share] * len(names)
    weights[0] += 100 - sum(weights)
    return tuple(Weight(name, weight) for name, weight in zip(names, weights, strict=True))


def _expected(event: Mapping[str, Any]) -> bool:
    if event["event"] == "step_not_taken":
        # Cancelled while the claim was being written: the claim goes first, and the executor takes it back.
        return (event["was"], event["step"]) == ("planned", "skip")
    return event["event"] in _EXPECTED_ERRORS


# ---- one seed


def simulate(seed: int, *, hours: float, accounts: int = 0, watched: str = "", verbose: bool = False) -> Report:
    """Run one seed on a loop of its own."""
    memory = Path("/dev/shm")  # noqa: S108  a disk that costs nothing
    folder = Path(tempfile.mkdtemp(prefix="unisono-simulation-", dir=memory if memory.is_dir() else None))
    simulation = Simulation(seed, hours=hours, accounts=accounts, folder=folder, watched=watched, verbose=verbose)
    loops: list[VirtualLoop] = []

    def loop() -> VirtualLoop:
        loops.append(VirtualLoop())
        return loops[-1]

    async def main() -> Report:
        return await simulation.main(loops[-1])

    try:
        with _logged(simulation.verdict, verbose):
            return anyio.run(main, backend_options={"loop_factory": loop})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _logged(verdict: Verdict, verbose: bool) -> Iterator[None]:
    """A mistake of ours that the engine survived and logged is one all the same."""
    before = structlog.get_config()

    def keep(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if verbose and method in ("warning", "error"):
            print("   log", {k: v for k, v in event.items() if k != "exc_info"})
        if event.get("exc_info"):
            import traceback

            trouble = event["exc_info"]
            told = traceback.format_exc() if trouble is True else "".join(traceback.format_exception(trouble))
            if "Died" not in told:
                verdict.broken.append(f"logged: {event.get('event')} {told[-1500:]}")
        elif method == "error" and not _expected(event):
            verdict.broken.append(f"logged: {dict(event)}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(30), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)
