"""Does. What is measured: the venue's process, an office with a real engine, and bare clients as the floor."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from accounts.model import Secret
from engine.app import Engine, Surroundings
from engine.cli import logs
from engine.cli.demo_office import register
from engine.config import Config, Log, load
from engine.notify import Notifier
from engine.venues import venues
from engine.venues.okx.sign import login
from scheduler.clock import SystemClock

CHANNELS = ("orders", "positions", "balance_and_position", "account")

# The venue's limits are off, and with them waits that are there on purpose: what is measured is work.
SETTINGS = """level = "error"
[pulse]
stable_s = 0.1
first_retry_s = 0.02
[backfill]
crosscheck_s = 1e6
idle_crosscheck_s = 1e6
[venues.okx]
budget_percent = 1000000
"""


def configure_log() -> None:
    """Errors only, on standard error."""
    logs.configure(Log(level="error", form="text"))


class Door:
    """The venue's process, told what to do."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws

    async def __call__(self, verb: str, **arguments: Any) -> dict[str, Any]:
        await self._ws.send(json.dumps({"do": verb, **arguments}))
        answer: dict[str, Any] = json.loads(await self._ws.recv())
        return answer

    async def until(self, verb: str, count: int, limit_s: float = 60.0) -> dict[str, Any]:
        """Ask until so many are counted."""
        with anyio.fail_after(limit_s):
            while (answer := await self(verb))["count"] < count:
                await anyio.sleep(0.02)
        return answer


@contextmanager
def venue_process(module: str = "bench.venue") -> Iterator[dict[str, str]]:
    """The doors of a venue that ends with this block."""
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


@asynccontextmanager
async def door_of(doors: dict[str, str]) -> AsyncIterator[Door]:
    async with connect(doors["bench"], compression=None, ping_interval=None, max_size=None, proxy=None) as ws:
        yield Door(ws)


# ---- The engine


@contextmanager
def office(doors: dict[str, str], accounts: int) -> Iterator[Config]:
    """A new registry of so many accounts at the venue, on this machine's own disk."""
    told = [
        {"name": f"a{number:05}", "api_key": f"key{number:05}", "secret": "s" * 32, "passphrase": "p" * 16}
        for number in range(accounts)
    ]
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        path = register(Path(folder), {"okx": {**doors, "accounts": told}}, {"okx": {}}, more=SETTINGS)
        yield load(path)


class Running:
    """A real engine in this process, and what the bench asks of it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.accounts = sorted(engine.roster.accounts)
        self._instrument = 0

    async def links_live(self, limit_s: float = 120.0) -> None:
        with anyio.fail_after(limit_s):
            while sum(1 for a in self.accounts if (k := self.engine.links.of_listener(a, "private")) and k.live) < len(
                self.accounts
            ):
                await anyio.sleep(0.005)

    async def proven(self, tell: Callable[[int], None], limit_s: float = 600.0) -> None:
        with anyio.fail_after(limit_s):
            while (done := sum(1 for d in self.engine.sync.desks() if d.proven)) < len(self.accounts):
                tell(done)
                await anyio.sleep(0.2)
        tell(len(self.accounts))

    async def written(self) -> None:
        """Everything that was told before is durable."""
        await self.engine.ledger.write(lambda connection: None)

    async def approved(self) -> tuple[str, float, float]:
        """A plan over all accounts, approved; milliseconds of its preview and its approval. Each in another instrument,
        so that none is a duplicate of the one before."""
        self._instrument = (self._instrument + 1) % 60
        leg = {
            "instrument": f"B{self._instrument:02}/USDT:USDT", "method": "equal", "side": "buy", "order_type": "limit",
            "quantity": str(len(self.accounts) * 2), "price": "2490",
        }  # fmt: skip
        desk = self.engine.office
        plan = await desk.draft_plan({"title": "bench", "groups": ["everybody"], "legs": [leg], "by": "planner"})
        await desk.preview_plan(plan.plan_id)  # asks for fresh prices, which is not what is measured
        began_s = time.perf_counter()
        plan = await desk.preview_plan(plan.plan_id)
        previewed_s = time.perf_counter()
        denied = [row.denials[0].text for row in plan.preview.rows if row.denials]
        assert not denied, f"{len(denied)} accounts denied: {denied[0]}"
        assert plan.preview.unallocated[0] == Decimal(0)
        plan = await desk.approve_plan(plan.plan_id, "approver")
        approved_s = time.perf_counter()
        await self.written()
        return plan.plan_id, (previewed_s - began_s) * 1e3, (approved_s - previewed_s) * 1e3

    async def ended(self, plan_id: str, limit_s: float = 60.0) -> None:
        """Every child of the plan has ended and that is written."""
        with anyio.fail_after(limit_s):
            while not self.engine.children.plan(plan_id).state.ended:  # type: ignore[union-attr]
                await anyio.sleep(0.02)
        await self.written()


@asynccontextmanager
async def running(config: Config, surroundings: Surroundings | None = None) -> AsyncIterator[Running]:
    """The engine, from its making to its orderly end."""
    engine = Engine(
        config,
        venues=venues(),
        clock=SystemClock(),
        rng=random.Random(1),
        notifier=Notifier(""),
        surroundings=surroundings,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        await engine.ready.wait()
        try:
            yield Running(engine)
        finally:
            engine.stop()


# ---- The floor


class _Order(msgspec.Struct, gc=False):
    """What a client of one venue at least has to know of an order update, typed."""

    instId: str
    ordId: str
    clOrdId: str
    side: str
    px: Decimal
    sz: Decimal
    state: str
    accFillSz: Decimal
    cTime: str
    uTime: str


class _Push(msgspec.Struct, gc=False):
    arg: dict[str, str]
    data: list[_Order]


decode_push = msgspec.json.Decoder(_Push).decode
_KEYS = {"api_key": Secret("bare"), "secret": Secret("s" * 32), "passphrase": Secret("p" * 16)}


async def opened(url: str) -> ClientConnection:
    """One bare connection: opened, logged in, subscribed."""
    ws = await connect(url, compression=None, ping_interval=None, proxy=None, max_queue=64, open_timeout=60)
    await ws.send(login(_KEYS, time.time_ns() // 1_000_000))
    await ws.recv(decode=False)
    for number, channel in enumerate(CHANNELS):
        await ws.send(f'{{"id":"s{number}","op":"subscribe","args":[{{"channel":"{channel}"}}]}}')
    for _ in CHANNELS:
        await ws.recv(decode=False)
    return ws


class Bare:
    """Plain connections, and a task each that receives and decodes what comes."""

    def __init__(self, clients: list[ClientConnection]) -> None:
        self.clients = clients
        self.pushes = 0
        self.last_ns = 0

    async def listen(self, ws: ClientConnection) -> None:
        while True:
            frame = await ws.recv(decode=False)
            if frame.startswith(b'{"arg"'):
                decode_push(frame)
                self.pushes += 1
                self.last_ns = time.monotonic_ns()

    async def send_all(self, frames: list[str]) -> None:
        """The plain loop, with a yield now and then: uvloop writes when the loop turns."""
        for number, (ws, frame) in enumerate(zip(self.clients, frames, strict=True)):
            await ws.send(frame)
            if number % 32 == 31:
                await asyncio.sleep(0)


def order_frames(count: int) -> list[str]:
    return [
        f'{{"id":"r{number}","op":"order","args":[{{"clOrdId":"{number:032x}","tdMode":"cross","side":"buy",'
        f'"ordType":"limit","sz":"2","px":"2490","instIdCode":2}}],"expTime":"1767225610000"}}'
        for number in range(count)
    ]


async def open_many(url: str, count: int) -> list[ClientConnection]:
    """All at once, a task each."""
    return await asyncio.gather(*(opened(url) for _ in range(count)))


def drop(clients: list[ClientConnection]) -> None:
    for ws in clients:
        ws.transport.abort()


@asynccontextmanager
async def bare(doors: dict[str, str], count: int) -> AsyncIterator[Bare]:
    """So many bare connections until the block ends."""
    clients = Bare(await open_many(doors["ws_private"], count))
    async with anyio.create_task_group() as group:
        for ws in clients.clients:
            group.start_soon(clients.listen, ws)
        try:
            yield clients
        finally:
            group.cancel_scope.cancel()
            drop(clients.clients)
