"""Orders that do not go with their plan: buys wait for sells, and a queued order for its account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.core.facts import OrderStatus, Side
from engine.core.limits import Code
from engine.core.orders import OrderState, Place, Refused
from engine.core.plans import Child, Denial, Offline, PlanState
from engine.ledger import plans
from tests.engine_world import World, world
from tests.fakes import settle
from tests.ledger import samples

pytestmark = pytest.mark.anyio
S = OrderState
WAIT_MS = 20_000
DOWN = Denial(Code.ACCOUNT_NOT_LIVE.value, text="its connection is down")


@asynccontextmanager
async def office(folder: Path, *accounts: str) -> AsyncIterator[World]:
    async with world(folder, *accounts) as w:
        tasks = [asyncio.create_task(w.work()), asyncio.create_task(w.resolve())]
        yield w
        for task in tasks:
            task.cancel()
        await settle()


async def approved(w: World, sides: dict[str, str], **choices: Any) -> dict[str, Child]:
    """A plan p1 with an order for each side that an account has: "sb" is a sell (leg 0) and a buy (leg 1)."""
    now_ms = w.clock.now_ms()
    one = samples.plan(expires_at_ms=now_ms + 60_000, **choices)
    made = {
        account_id + letter: samples.child(
            10 * number + leg + 1,
            account_id=account_id,
            leg=leg,
            side=Side.SELL if letter == "s" else Side.BUY,
            quantity=Decimal(2),
            planned_at_ms=now_ms,
        )
        for number, (account_id, letters) in enumerate(sides.items())
        for leg, letter in enumerate(letters)
    }
    await w.ledger.write(
        lambda conn: (plans.save_plan(conn, one, None, now_ms), plans.insert_children(conn, made.values()))
    )
    w.children.adopt(one, list(made.values()))
    return made


async def later(w: World, seconds: float) -> None:
    """Time goes on; and the ledger's thread, which no clock moves, gets to its commits."""
    await w.advance(seconds)
    for _ in range(5):
        await w.advance(0.01)


def placed(w: World, account_id: str) -> list[Side]:
    return [command.side for command in w.sent(account_id) if isinstance(command, Place)]


def ends(w: World, account_id: str, child: Child, status: OrderStatus = OrderStatus.FILLED) -> None:
    filled = child.quantity if status is OrderStatus.FILLED else Decimal(0)
    w.hear(account_id, w.seen(child, status, side=child.side, filled=filled))


async def test_an_accounts_buys_go_when_its_own_sells_are_done(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob", "cat") as w:
        made = await approved(w, {"ann": "sb", "bob": "sb", "cat": "b"}, sells_first=True, sells_wait_ms=WAIT_MS)
        await w.executor.execute("p1", "mia")
        assert [placed(w, a) for a in ("ann", "bob", "cat")] == [[Side.SELL], [Side.SELL], [Side.BUY]]
        assert w.now(made["annb"]).state is S.PLANNED
        ends(w, "ann", made["anns"])
        await later(w, 1)
        assert [placed(w, a) for a in ("ann", "bob")] == [[Side.SELL, Side.BUY], [Side.SELL]]
        assert [i["kind"] for i in w.intents(made["annb"])] == ["place"], "durably claimed before it went"


@pytest.mark.parametrize("status", [OrderStatus.CANCELLED, OrderStatus.REJECTED])
async def test_a_sell_that_came_to_nothing_lets_the_buy_go_too(tmp_path: Path, status: OrderStatus) -> None:
    async with office(tmp_path, "ann") as w:
        made = await approved(w, {"ann": "sb"}, sells_first=True, sells_wait_ms=WAIT_MS)
        await w.executor.execute("p1", "mia")
        ends(w, "ann", made["anns"], status)
        await later(w, 1)
        assert placed(w, "ann") == [Side.SELL, Side.BUY]


async def test_buys_wait_no_longer_than_the_plan_grants(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        made = await approved(w, {"ann": "sb"}, sells_first=True, sells_wait_ms=WAIT_MS)
        await w.executor.execute("p1", "mia")
        w.hear("ann", w.seen(made["anns"], side=Side.SELL))
        await later(w, WAIT_MS / 1000 - 1)
        assert placed(w, "ann") == [Side.SELL]
        await later(w, 2)
        assert placed(w, "ann") == [Side.SELL, Side.BUY]


async def test_a_plan_whose_buys_wait_is_at_work_and_can_be_cancelled(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        made = await approved(w, {"ann": "sb"}, sells_first=True, sells_wait_ms=WAIT_MS)
        progress = await w.executor.execute("p1", "mia")
        assert (progress.state, progress.settled) == (PlanState.EXECUTING, False)
        await w.executor.cancel("p1")
        ends(w, "ann", made["anns"], OrderStatus.CANCELLED)
        await later(w, 2)
        assert placed(w, "ann") == [Side.SELL]
        assert w.now(made["annb"]).state is S.SKIPPED


async def test_a_buy_whose_time_is_over_is_not_sent_after_its_sell(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        made = await approved(w, {"ann": "sb"}, sells_first=True, sells_wait_ms=WAIT_MS)
        await w.executor.execute("p1", "mia")
        w.against = [Denial(Code.PLAN_EXPIRED.value, text="its time is over")]
        ends(w, "ann", made["anns"])
        await later(w, 2)
        assert placed(w, "ann") == [Side.SELL]
        assert (w.now(made["annb"]).state, w.now(made["annb"]).reason) == (S.SKIPPED, "its time is over")


async def test_an_order_waits_for_its_account_where_the_manager_chose_so(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        until_ms = w.clock.now_ms() + 30_000
        made = await approved(w, {"ann": "b", "bob": "b"}, offline=Offline.QUEUE, queue_until_ms=until_ms)
        w.denied, w.against = {("bob", 0): [DOWN]}, [DOWN]
        await w.executor.execute("p1", "mia")
        await later(w, 5)
        assert (placed(w, "ann"), placed(w, "bob"), w.now(made["bobb"]).state) == ([Side.BUY], [], S.PLANNED)
        w.against = []
        await later(w, 2)
        assert placed(w, "bob") == [Side.BUY]


async def test_an_account_that_does_not_come_back_in_time_gets_nothing(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        until_ms = w.clock.now_ms() + 30_000
        made = await approved(w, {"ann": "b"}, offline=Offline.QUEUE, queue_until_ms=until_ms)
        w.denied, w.against = {("ann", 0): [DOWN]}, [DOWN]
        await w.executor.execute("p1", "mia")
        await later(w, 32)
        skipped = w.now(made["annb"])
        assert (skipped.state, placed(w, "ann")) == (S.SKIPPED, [])
        assert "it might wait until" in skipped.reason
        w.against = []
        await later(w, 5)
        assert placed(w, "ann") == []


async def test_an_account_that_is_offline_is_skipped_where_nobody_chose_to_wait(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        made = await approved(w, {"ann": "b"})
        w.denied = {("ann", 0): [DOWN]}
        await w.executor.execute("p1", "mia")
        assert w.now(made["annb"]).state is S.SKIPPED


async def test_what_waited_when_the_engine_stopped_is_not_sent_by_the_next(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as w:
        made = await approved(w, {"ann": "sb"}, sells_first=True, sells_wait_ms=WAIT_MS)
        await w.executor.execute("p1", "mia")
        w.children.read_back("p1")
        await later(w, 1)
        assert w.now(made["annb"]).state is S.SKIPPED


@pytest.mark.parametrize(("limit", "goes"), [("49", False), ("50", True)])
async def test_when_too_many_were_refused_nothing_more_is_sent(tmp_path: Path, limit: str, goes: bool) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        choices = {"sells_first": True, "sells_wait_ms": WAIT_MS, "abort_refused_percent": Decimal(limit)}
        made = await approved(w, {"ann": "sb", "bob": "s"}, **choices)
        await w.executor.execute("p1", "mia")
        w.reply("bob", Refused("51000", "no"))
        ends(w, "ann", made["anns"])
        await later(w, 1)
        assert (placed(w, "ann") == [Side.SELL, Side.BUY]) is goes
        assert goes or w.now(made["annb"]).reason == "aborted: 1 of 2 orders were refused, more than 49 %"
