"""Does. One measurement each: the engine and its floor by turns against the same venue, in milliseconds or micros."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx

from bench.figures import Samples
from bench.world import Bare, Door, Running, drop, open_many, order_frames, running
from engine.config import Config

Tell = Callable[[], None]
"""Called after each step, for the progress bar."""

_BEAT_PINGS_S = 12.0  # a ping within so long of a beat is that beat's; those of the silence watch come later
ENGINE, FLOOR = "key", "bare"  # whose connections, by their keys at the venue


def _ms(from_ns: int, to_ns: int) -> float:
    return (to_ns - from_ns) / 1e6


# ---- P1, P2


class FanOut:
    """Milliseconds from the approved plan's execution to the last and the first frame at the venue."""

    def __init__(self) -> None:
        self.last, self.first = Samples(), Samples()
        self.returned, self.preview, self.approve = Samples(), Samples(), Samples()
        self.commits = 0  # durable commits between the start of the execution and the first frame


async def fan_out(door: Door, office: Running, floor: Bare, runs: int, tell: Tell, rate: int = 0) -> FanOut:
    found, count = FanOut(), len(office.accounts)
    frames = order_frames(count)
    for _ in range(runs):
        plan_id, preview_ms, approve_ms = await office.approved()
        async with _load(door, ENGINE, rate):
            await door("reset")
            began_ns = time.monotonic_ns()
            await office.engine.executor.execute(plan_id, "bench")
            returned_ns = time.monotonic_ns()
            seen = await door.until("arrivals", count)
        found.last.engine.append(_ms(began_ns, seen["last_ns"]))
        found.first.engine.append(_ms(began_ns, seen["first_ns"]))
        found.returned.engine.append(_ms(began_ns, returned_ns))
        found.preview.engine.append(preview_ms)
        found.approve.engine.append(approve_ms)
        await _settled(door, office, plan_id)
        async with _load(door, FLOOR, rate):
            await door("reset")
            began_ns = time.monotonic_ns()
            await floor.send_all(frames)
            returned_ns = time.monotonic_ns()
            seen = await door.until("arrivals", count)
        found.last.floor.append(_ms(began_ns, seen["last_ns"]))
        found.first.floor.append(_ms(began_ns, seen["first_ns"]))
        found.returned.floor.append(_ms(began_ns, returned_ns))
        await door("end_orders")
        tell()
    return found


class _load:
    """Pushes arrive at this rate while the block runs."""

    def __init__(self, door: Door, whose: str, rate: int) -> None:
        self._door, self._whose, self._rate = door, whose, rate

    async def __aenter__(self) -> None:
        if self._rate:
            await self._door("push", whose=self._whose, rate=self._rate)
            await anyio.sleep(1.0)

    async def __aexit__(self, *_: object) -> None:
        if self._rate:
            await self._door("push", whose=self._whose, rate=0)
            await anyio.sleep(0.2)


async def _settled(door: Door, office: Running, plan_id: str) -> None:
    """The venue cancels what is at work, and the plan ends."""
    await door("end_orders")
    await office.ended(plan_id)


async def commits_before_first_frame(door: Door, office: Running) -> int:
    """Durable commits from the start of an execution until its first frame is handed to the network.

    Not timed: the loop is watched turn by turn.
    """
    plan_id, _, _ = await office.approved()
    ledger, executor = office.engine.ledger, office.engine.executor
    await office.written()
    before = ledger.commits
    execution = asyncio.ensure_future(executor.execute(plan_id, "bench"))
    while office.engine.children.progress(plan_id).sent == 0 and not execution.done():
        await asyncio.sleep(0)
    commits = ledger.commits - before
    await execution
    await door.until("arrivals", len(office.accounts))
    await _settled(door, office, plan_id)
    return commits


# ---- P3


async def ingest(
    door: Door, office: Running, floor: Bare, runs: int, tell: Tell, messages: int, fills: bool = False
) -> Samples:
    """Microseconds a message: pushed by the venue as fast as they are taken, until the last one is folded, durable
    and told to subscribers; and, by turns, until the last one is received and decoded."""
    found = Samples()
    wanted = messages * (2 if fills else 1)  # an order and its fill
    told = 0

    def subscriber(account_id: str, fact: object) -> None:
        nonlocal told
        told += 1

    office.engine.sync.subscribe(subscriber)
    for _ in range(runs):
        told = 0
        began_ns = (await door("burst", whose=ENGINE, count=messages, fills=fills))["at_ns"]
        with anyio.fail_after(60):
            while told < wanted:
                await anyio.sleep(0.002)
        await office.written()
        found.engine.append((time.monotonic_ns() - began_ns) / 1e3 / messages)
        floor.pushes = 0
        began_ns = (await door("burst", whose=FLOOR, count=messages, fills=fills))["at_ns"]
        with anyio.fail_after(60):
            while floor.pushes < messages:
                await anyio.sleep(0.002)
        found.floor.append((floor.last_ns - began_ns) / 1e3 / messages)
        tell()
    office.engine.sync._subscribers.remove(subscriber)
    return found


# ---- P4, P9


async def reconnect(door: Door, office: Running, doors: dict[str, str], runs: int, tell: Tell) -> Samples:
    """Milliseconds from the cut of every link until the last of them has logged in and subscribed again."""
    found = Samples()
    for _ in range(runs):
        await door("reset")
        cut = await door("cut", whose=ENGINE)
        seen = await _all_subscribed(door, len(office.accounts))
        found.engine.append(_ms(cut["at_ns"], seen))
        await office.links_live()
        await office.proven(lambda done: None)
        await office.written()
        found.floor.append(await bare_open(door, doors, len(office.accounts)))
        tell()
    return found


async def bare_open(door: Door, doors: dict[str, str], count: int) -> float:
    """Milliseconds to connect, log in and subscribe so many bare clients."""
    await door("reset")
    began_ns = time.monotonic_ns()
    clients = await open_many(doors["ws_private"], count)
    seen = await _all_subscribed(door, count)
    drop(clients)
    await anyio.sleep(0.5)
    return _ms(began_ns, seen)


async def _all_subscribed(door: Door, count: int) -> int:
    """When the last of four subscriptions of so many clients arrived."""
    return int((await door.until("subscriptions", 4 * count, 120.0))["last_ns"])


async def starts(door: Door, config: Config, doors: dict[str, str], runs: int, count: int, tell: Tell) -> Samples:
    """Milliseconds from an engine's making until all its links have logged in and subscribed."""
    found = Samples()
    for _ in range(runs):
        await door("reset")
        began_ns = time.monotonic_ns()
        async with running(config):
            seen = await _all_subscribed(door, count)
            found.engine.append(_ms(began_ns, seen))
        found.floor.append(await bare_open(door, doors, count))
        tell()
    return found


# ---- P6


class Lateness:
    def __init__(self) -> None:
        self.late = Samples()  # milliseconds, one for each ping
        self.longest_silence_s = 0.0


async def pings(door: Door, office: Running, floor: Bare, beats: int, rate: int, tell: Tell) -> Lateness:
    """How late pings of quiet links reach the venue while the other half of the links takes `rate` messages a second.

    Lateness counts from the pulse's due time; the bare client's from its own.
    """
    found, beat_s = Lateness(), office.engine._config.pulse.beat_s
    due_s = office.engine.heartbeat._due_s["pulse"]
    while due_s < time.monotonic() + 2:
        due_s += beat_s
    await anyio.sleep(due_s - 2 - time.monotonic())
    await door("push", whose=ENGINE, rate=rate, share=0.5)
    await door("reset")
    for _ in range(beats):
        await anyio.sleep(due_s + _BEAT_PINGS_S - time.monotonic())
        seen = await door("pings", whose=ENGINE)
        late_ms = [at_ns / 1e6 - due_s * 1e3 for at_ns in seen["at_ns"]]
        arrived = [late for late in late_ms if 0 <= late < _BEAT_PINGS_S * 1e3]
        found.late.engine += arrived or [_BEAT_PINGS_S * 1e3]
        due_s += beat_s
        tell()
    seen = await door("pings", whose=ENGINE)
    found.longest_silence_s = sorted(seen["silence_ns"])[-1] / 1e9
    await door("push", whose=ENGINE, rate=0)
    await door("push", whose=FLOOR, rate=rate, share=0.5)
    await anyio.sleep(1)
    for _ in range(max(4, beats)):
        await door("reset")
        due_s = time.monotonic() + 1.0
        await anyio.sleep(1.0)
        for number, ws in enumerate(floor.clients[len(floor.clients) // 2 :]):
            await ws.send("ping")
            if number % 32 == 31:
                await asyncio.sleep(0)
        await anyio.sleep(1.0)
        seen = await door("pings", whose=FLOOR)
        found.late.floor += [at_ns / 1e6 - due_s * 1e3 for at_ns in seen["at_ns"]]
        tell()
    await door("push", whose=FLOOR, rate=0)
    return found


# ---- P8


async def reconcile(office: Running, doors: dict[str, str], at_once: int, runs: int, tell: Tell) -> Samples:
    """Milliseconds of a reconciliation over all accounts, and of the same reads by a plain HTTP client."""
    found = Samples()
    for _ in range(runs):
        began_s = time.perf_counter()
        last: Any = None
        async for told in office.engine.office.reconcile([], "adhoc"):
            last = told
        found.engine.append((time.perf_counter() - began_s) * 1e3)
        assert last["verdict"] == "clean", last
        began_s = time.perf_counter()
        await _plain_reads(doors, len(office.accounts), at_once)
        found.floor.append((time.perf_counter() - began_s) * 1e3)
        tell()
    return found


async def _plain_reads(doors: dict[str, str], accounts: int, at_once: int) -> None:
    paths = ("trade/fills", "trade/orders-pending", "account/positions", "account/balance")
    asked = iter(range(accounts))
    async with httpx.AsyncClient(base_url=doors["rest"], trust_env=False) as client:

        async def reader() -> None:
            for _ in asked:
                for path in paths:
                    (await client.get(f"/api/v5/{path}")).json()

        await asyncio.gather(*(reader() for _ in range(at_once)))


async def warm(office: Running, door: Door, runs: int = 2) -> None:
    """The first fan-outs of a process are not like the others."""
    for _ in range(runs):
        plan_id, _, _ = await office.approved()
        await office.engine.executor.execute(plan_id, "bench")
        await _settled(door, office, plan_id)
    await office.engine.set_garbage_aside()  # as it does every ten minutes
