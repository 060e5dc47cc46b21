"""The engine's rooms on fake ports: a real ledger in a file, and a venue that says what the test wants."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import sqlalchemy as sa

from accounts.model import Account, Connection, Listener, Secret
from engine.children import Children
from engine.config import Backfill as BackfillSettings
from engine.config import Ledger as LedgerSettings
from engine.core.book import Book
from engine.core.facts import AccountFact, OrderFact, OrderStatus
from engine.core.orders import Command, Outcome
from engine.core.plans import Child, Denial, Plan
from engine.core.venue import ErrorClass, Identity, Page, Read, Reply, Request, Response, VenueError
from engine.execute import Executor
from engine.further import Further
from engine.ledger import Ledger, plans, upgrade
from engine.ledger.tables import child as child_table
from engine.ledger.tables import intent
from engine.links import NotSent
from engine.resolve import Resolver
from engine.roster import Roster
from engine.sync import Sync
from engine.venues import venues
from engine.wire.http import NoAnswer, Origin
from engine.wire.rate import Budgets
from tests.fakes import FakeClock, settle
from tests.ledger import samples

OKX = msgspec.structs.replace(venues()["okx"], rest=lambda catalogue, **_: FakeRest(catalogue))
SWAP = msgspec.structs.replace(samples.SWAP, venue_ref="SWAP|BTC-USDT-SWAP|10458")
KEYS = {field: Secret("x") for field in OKX.credential_fields}


class FakeRest:
    """Describes reads by name; what they answer is the test's matter (`FakeHttp.answers`)."""

    def __init__(self, catalogue: Any) -> None:
        self._real = venues()["okx"].rest(catalogue, ref="", options={})

    def identity(self) -> Read:
        return _read("identity")

    def fills(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return [_read("fills", since_ms)]

    def orders(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return [_read("orders", since_ms)]

    def cash(self, since_ms: int, now_ms: int) -> Sequence[Read]:
        return [_read("cash", since_ms)]

    def open_orders(self) -> Sequence[Read]:
        return [_read("open_orders")]

    def order(self, instrument: Any, client_order_id: str, venue_order_id: str) -> Read:
        return _read("order")

    def statement(self) -> Sequence[Read]:
        return [_read("statement")]

    def orders_request(self, commands: Sequence[Command]) -> Request:
        return self._real.orders_request(commands)

    def read_outcomes(self, commands: Sequence[Command], response: Response) -> tuple[Outcome, ...]:
        return self._real.read_outcomes(commands, response)


def _read(name: str, since_ms: int = 0) -> Read:
    return Read(request=Request(method="GET", path=f"{name}?{since_ms}"), read=lambda response: Page())


class FakeHttp:
    """Answers reads by their name: pages, or an error to be raised. What is not told is an empty page."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.clocks_agree, self.nobody_there = clock, True, True
        self._ahead_ms = clock.now_ms() - clock.monotonic_s() * 1000
        self.answers: dict[str, list[Page | Exception] | Page | Exception] = {}
        self.asked: list[tuple[str, str]] = []
        self.asked_since_ms: list[int] = []
        self.sent: list[tuple[str, Request]] = []
        self.before: Callable[[str, str], None] = lambda account_id, name: None

    async def know_time(self, origin: Origin) -> None:
        """It is known from the start."""

    def venue_now_ms(self, venue: str, environment: str) -> int:
        """The venue's clock is never set, whatever becomes of ours."""
        return round(self._ahead_ms + self.clock.monotonic_s() * 1000)

    def clock_within(self, origin: Origin, tolerance_ms: float) -> bool:
        return self.clocks_agree

    async def read(self, origin: Origin, read: Read, *, priority: Any) -> Page:
        return self._answer(origin, read)[0]

    async def walk(self, origin: Origin, read: Read, *, priority: Any) -> AsyncIterator[Page]:
        for page in self._answer(origin, read):
            if isinstance(page, Exception):
                raise page.with_traceback(None)
            yield page

    async def send(self, origin: Origin, request: Request, *, priority: Any = None) -> Response:
        self.sent.append((origin.account_id, request))
        if self.nobody_there:
            raise NoAnswer("nobody there", written=False)
        return Response(status=200, body=b'{"code":"0","data":[]}')

    def _answer(self, origin: Origin, read: Read) -> list[Any]:
        name, _, since_ms = read.request.path.partition("?")
        self.asked.append((origin.account_id, name))
        if int(since_ms):
            self.asked_since_ms.append(int(since_ms))
        self.before(origin.account_id, name)
        told = self.answers.get(f"{origin.account_id} {name}", self.answers.get(name, Page()))
        if isinstance(told, Exception):
            raise told.with_traceback(None)  # the same one may be raised often
        return told if isinstance(told, list) else [told]


class FakeLink:
    """A live connection that keeps what is sent; `fails` is raised instead."""

    def __init__(self, account_id: str, connection: Connection) -> None:
        self.account_id, self.connection, self.live = account_id, connection, True
        self.conversation: Any = self
        self.sent: list[tuple[str, tuple[Command, ...]]] = []
        self.fails: Exception | None = None
        self.held_back = False
        self.before_send: Callable[[tuple[Command, ...]], None] = lambda commands: None

    def held_back_within(self, seconds: float) -> bool:
        return self.held_back

    def say(self, commands: tuple[Command, ...], request_id: str, now_ms: int) -> Any:
        if isinstance(self.fails, ValueError):
            raise self.fails
        return request_id, commands

    async def send(self, frame: Any) -> None:
        self.before_send(frame[1])
        if isinstance(self.fails, NotSent):
            raise self.fails
        self.sent.append(frame)

    def view(self) -> Any:
        return SimpleNamespace(last_heard_at_ms=0)


class FakeLinks:
    def __init__(self) -> None:
        self.links: dict[str, FakeLink] = {}
        self.mute: list[str] = []

    def of_listener(self, listener_id: str, kind: str) -> FakeLink | None:
        return self.links.get(listener_id)

    def mark_mute(self, connection_key: str, why: str) -> None:
        self.mute.append(connection_key)


class World:
    """An office of OKX accounts with every room up to the executor; all of them proven and live."""

    def __init__(self, ledger: Ledger, clock: FakeClock, accounts: Sequence[str]) -> None:
        self.ledger, self.clock, self.rng = ledger, clock, random.Random(1)
        self.sync = Sync(ledger, hold_limit=1000)
        self.roster = Roster({"okx": OKX}, {}, self.sync.catalogue, lambda account_id: KEYS)
        self.links, self.http = FakeLinks(), FakeHttp(clock)
        self.running: asyncio.Task[None]
        self.denied: dict[tuple[str, int], list[Denial]] = {}
        self.stopped: dict[str, str] = {}
        self.why_stopped: Callable[[str, str], str] = lambda account_id, closes_for: self.stopped.get(account_id, "")
        self.replacing = False  # does the venue replace an order that is amended?
        self.children = Children(
            clock=clock,
            ledger=ledger,
            sync=self.sync,
            recent_ms=60_000,
            replaces=lambda account_id: self.replacing,
            key_of=lambda account_id, amend_id: amend_id,
        )
        self.executor = Executor(
            clock=clock,
            ledger=ledger,
            children=self.children,
            links=self.links,  # type: ignore[arg-type]
            http=self.http,  # type: ignore[arg-type]
            budgets=Budgets(clock, percent=100.0),
            roster=self.roster,
            send_timeout_s=5.0,
            request_expiry_s=10.0,
            rng=self.rng,
            recheck=lambda plan: self.denied,
            stopped=lambda account_id, closes_for: self.why_stopped(account_id, closes_for),
        )
        self.against: list[Denial] = []  # sending anew
        self.further = Further(
            clock=clock,
            children=self.children,
            executor=self.executor,
            roster=self.roster,
            recheck=lambda plan, child: self.against,
            fresh_marks=self._fresh_marks,
        )
        self.resolver = Resolver(
            clock=clock,
            children=self.children,
            executor=self.executor,
            http=self.http,  # type: ignore[arg-type]
            roster=self.roster,
            sync=self.sync,
            send_timeout_s=5.0,
            after=self.further.after,
        )
        members = [
            Account(account_id=a, name=a, venue="okx", site="global", environment="demo", venue_ref=f"uid-{a}")
            for a in accounts
        ]
        self.roster.fill(members, [_connection(a, kind) for a in accounts for kind in ("private", "rest")], [], [])
        self.sync.catalogue("okx", "demo").add([SWAP])
        self.sync.catalogue("okx", "demo").whole = True
        for account_id in accounts:
            self.links.links[account_id] = FakeLink(account_id, _connection(account_id, "private"))
            desk = self.sync.enter(account_id, Book(account_id, self.sync.catalogue("okx", "demo").by_name))
            desk.book.open_with([], [], clock.now_ms())
            desk.held, desk.proven = None, True
            identity = Identity(venue_ref=f"uid-{account_id}", may_trade=True, may_withdraw=False, address_bound=True)
            self.http.answers[f"{account_id} identity"] = Page(identity=identity)

    async def work(self) -> None:
        """What runs beside an execution: time-outs, and writing what changed."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.executor.run)
            group.start_soon(self.children.run)

    async def resolve(self) -> None:
        """What runs once outcomes are unknown: asking, and sending anew what provably never arrived."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.resolver.run)
            group.start_soon(self.further.run)

    async def _fresh_marks(self, plan: Plan) -> None:
        """Prices are told to be as they should be by `against`."""

    async def approved(self, accounts: Sequence[str] = (), **changes: Any) -> list[Child]:
        """A plan p1, approved and durable, with one child an account."""
        now_ms = self.clock.now_ms()
        plan = samples.plan(expires_at_ms=now_ms + 60_000, **changes)
        children = [
            samples.child(n + 1, account_id=a, quantity=Decimal(2), price=Decimal(100), planned_at_ms=now_ms)
            for n, a in enumerate(accounts or self.roster.accounts)
        ]

        def keep(connection: sa.Connection) -> None:
            plans.save_plan(connection, plan, None, now_ms)
            plans.insert_children(connection, children)

        await self.ledger.write(keep)
        self.children.adopt(plan, children)
        return children

    def sent(self, account_id: str) -> list[Command]:
        return [command for _, commands in self.links.links[account_id].sent for command in commands]

    def reply(self, account_id: str, *outcomes: Outcome, number: int = -1) -> None:
        link = self.links.links[account_id]
        self.executor.on_reply(link.connection, Reply(link.sent[number][0], outcomes))

    def seen(self, child: Child, status: OrderStatus = OrderStatus.WORKING, **changes: Any) -> OrderFact:
        """What the venue says of a child's order."""
        now_ms = self.clock.now_ms()
        fact = samples.order(
            client_order_id=child.client_order_id,
            venue_order_id=f"v{child.client_order_id[-4:]}",
            quantity=child.quantity,
            status=status,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        return msgspec.structs.replace(fact, **changes)

    def now(self, child: Child) -> Child:
        found = self.children.child(child.client_order_id)
        assert found is not None
        return found

    async def durable(self, child: Child) -> Mapping[str, Any]:
        """The child's row once everything that was posted is written."""
        await self.advance(0)
        await self.ledger.write(lambda connection: None)
        return self.row(child)

    def row(self, child: Child) -> Mapping[str, Any]:
        with self.ledger.read() as connection:
            return (
                connection.execute(sa.select(child_table).where(child_table.c.child_id == child.child_id))
                .mappings()
                .one()
            )

    def intents(self, child: Child) -> list[Mapping[str, Any]]:
        with self.ledger.read() as connection:
            return list(connection.execute(sa.select(intent).where(intent.c.child_id == child.child_id)).mappings())

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        for _ in range(3):  # the writer's thread has no clock to be moved, and what it wrote may lead to another claim
            await self.ledger.write(lambda connection: None)
            await settle()

    def hear(self, account_id: str, *facts: AccountFact) -> None:
        self.sync.hear(account_id, facts, self.clock.now_ms(), "conn")


@cache
def _empty_ledger() -> bytes:
    """A ledger file at the newest schema, made once."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.sqlite"
        upgrade(f"sqlite:///{file}")
        return file.read_bytes()


@asynccontextmanager
async def world(folder: Path, *accounts: str, ledger_settings: LedgerSettings | None = None) -> AsyncIterator[World]:
    clock, file = FakeClock(), folder / "ledger.sqlite"
    if not file.exists():
        file.write_bytes(_empty_ledger())
    ledger = Ledger.open(f"sqlite:///{file}", ledger_settings or LedgerSettings(), clock)
    try:
        yield World(ledger, clock, accounts)
    finally:
        await ledger.stop()


def settings(**changes: Any) -> BackfillSettings:
    return msgspec.structs.replace(BackfillSettings(), **changes)


def not_found() -> VenueError:
    return VenueError(ErrorClass.NOT_FOUND, "51603", "no such order")


def _connection(account_id: str, kind: str) -> Connection:
    scheme = "http" if kind == "rest" else "ws"
    return Connection(
        connection_key=f"{account_id}-{kind}",
        client_key=kind,
        listener=Listener.ACCOUNT,
        listener_id=account_id,
        venue="okx",
        environment="demo",
        kind=kind,
        url=f"{scheme}://127.0.0.1:1",
        requires_auth=True,
        keep_alive=kind != "rest",
    )
