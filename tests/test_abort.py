"""A plan that its own rules stop: nothing more is sent, the working is cancelled where asked, and the plan says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.abort import Aborter
from engine.core.orders import Cancel, CancelState, OrderState, Place, Refused
from engine.core.plans import PlanState
from engine.ledger import audit, plans
from tests.engine_world import World, world

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def office(folder: Path, *accounts: str) -> AsyncIterator[World]:
    async with world(folder, *accounts) as w:
        aborter = Aborter(clock=w.clock, ledger=w.ledger, children=w.children, executor=w.executor)
        tasks = [asyncio.create_task(work) for work in (aborter.run(), w.work(), w.further.run())]
        yield w
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("cancels", [False, True])
async def test_unknown_outcomes_above_the_limit_stop_the_plan(tmp_path: Path, cancels: bool) -> None:
    async with office(tmp_path, "ann", "bob", "cai") as w:
        ann, bob, cai = await w.approved(abort_unknown=0, abort_cancels=cancels)
        w.against = []
        await w.executor.execute("p1", "mia")
        w.hear("cai", w.seen(cai))
        w.reply("bob", Refused("51000", "no"))
        await w.advance(0.5)
        assert w.now(cai).cancel_state is CancelState.NONE
        w.executor.on_down("ann-private", "cut")
        await w.advance(1)
        why = "aborted: the outcome of 1 orders is unknown, more than 0"
        plan = w.children.plan("p1")
        assert plan is not None
        assert (plan.state, plan.aborted) == (PlanState.EXECUTING, why), "its orders are still to be followed"
        assert isinstance(w.sent("cai")[-1], Cancel if cancels else Place)
        assert (w.now(ann).cancel_state is CancelState.REQUESTED) is cancels, "once it shows up"
        assert w.now(bob).state is OrderState.REJECTED
        await w.durable(ann)
        with w.ledger.read() as connection:
            kept = plans.load_plan(connection, "p1")
            (deed, *_) = audit.newest(connection)
        assert kept is not None
        assert kept.aborted == why
        assert (deed.by, deed.action, deed.after) == ("engine", "plan abort", why)


async def test_what_waits_is_not_sent_and_the_plan_ends_aborted(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        ann, bob = await w.approved(abort_after_ms=1000, abort_cancels=True)
        await w.executor.execute("p1", "mia")
        await w.advance(0.5)
        w.hear("bob", w.seen(bob, status=w.seen(bob).status.FILLED, filled=bob.quantity))
        w.hear("ann", w.seen(ann))
        await w.advance(1)
        assert isinstance(w.sent("ann")[-1], Cancel)
        w.hear("ann", w.seen(ann, status=w.seen(ann).status.CANCELLED))
        await w.advance(1)
        plan = w.children.plan("p1")
        assert plan is not None
        assert plan.state is PlanState.ABORTED
        assert plan.aborted == "aborted: 1 orders have not ended 1 s after the first was sent"


async def test_orders_that_have_not_left_yet_stay_here(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob") as w:
        ann, bob = await w.approved(abort_unknown=0)

        def stop(commands: object) -> None:
            plan = w.children.plan("p1")
            assert plan is not None
            w.children.abort(plan, "aborted: by what another account's order came to")

        w.links.links["ann"].before_send = stop
        await w.executor.execute("p1", "mia")
        assert len(w.sent("ann")) == 1
        assert w.sent("bob") == []
        assert w.now(ann).state is OrderState.SENDING
        assert w.now(bob).state is OrderState.SKIPPED
        assert "by what another account" in w.now(bob).reason
