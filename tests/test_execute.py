"""The fan-out: nothing leaves without its durable claim, nothing leaves twice, one failure stays one failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.facts import OrderStatus
from engine.core.orders import Accepted, Amend, CancelState, OrderEvent, OrderState, Refused, Unknown
from engine.core.plans import Denial, PlanState
from engine.execute import NotExecuted
from engine.ledger import LedgerDown
from engine.links import NotSent
from tests.engine_world import SWAP, World, world
from tests.fakes import settle

pytestmark = pytest.mark.anyio
S = OrderState


async def test_no_order_leaves_without_a_committed_claim_of_its_own_token(tmp_path: Path) -> None:
    async with world(tmp_path, "ann", "bob", "cyd") as w:
        children = await w.approved()
        seen = []

        def check(commands: Any) -> None:
            (child,) = (c for c in children if c.client_order_id == commands[0].client_order_id)
            row, (claim,) = w.row(child), w.intents(child)
            assert row["state"] == "sending"
            assert row["claim_token"] == claim["claim_token"] == w.now(child).claim_token != ""
            assert commands[0].expires_at_ms == row["send_by_ms"]
            seen.append(child)

        for link in w.links.links.values():
            link.before_send = check
        await w.executor.execute("p1", "mia")
        assert len(seen) == 3


async def test_when_the_claim_cannot_be_written_nothing_leaves_and_the_plan_stays_approved(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        await w.ledger.stop()
        with pytest.raises(LedgerDown):
            await w.executor.execute("p1", "mia")
        assert w.sent("ann") == []
        assert w.now(child).state is S.PLANNED
        plan = w.children.plan("p1")
        assert plan is not None
        assert plan.state is PlanState.APPROVED


async def test_a_claim_whose_commit_seemed_to_fail_is_asked_about_and_not_sent_again(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        write = w.ledger.write

        async def committed_and_unknown(job: Callable[[sa.Connection], Any], **how: Any) -> Any:
            await write(job, **how)
            raise LedgerDown("the disk", may_be_written=True)

        w.ledger.write = committed_and_unknown  # type: ignore[method-assign, assignment]
        with pytest.raises(LedgerDown):
            await w.executor.execute("p1", "mia")
        w.ledger.write = write  # type: ignore[method-assign]
        with pytest.raises(NotExecuted):
            await w.executor.execute("p1", "mia")
        assert w.sent("ann") == []
        assert w.now(child).state is S.UNKNOWN, "and so the resolver proves that it is not there"


OUTCOMES = {
    "accepted": S.WORKING,
    "refused": S.REJECTED,
    "unknown": S.UNKNOWN,
    "silent": S.UNKNOWN,
    "down before": S.SKIPPED,
    "no byte left": S.SKIPPED,
    "cut within": S.UNKNOWN,
    "not sayable": S.SKIPPED,
    "denied": S.SKIPPED,
    "killed": S.SKIPPED,
}


@settings(max_examples=25)
@given(ends=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=6))
async def test_what_becomes_of_one_order_touches_no_other(
    ends: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"acc{n}" for n in range(len(ends))]
    async with world(tmp_path_factory.mktemp("w"), *names) as w:
        children = await w.approved()
        for name, end in zip(names, ends, strict=True):
            link = w.links.links[name]
            link.live = end != "down before"
            link.fails = {
                "no byte left": NotSent("closed", written=False),
                "cut within": NotSent("cut", written=True),
                "not sayable": ValueError("hedged"),
            }.get(end)
            if end == "denied":
                w.denied[name, 0] = [Denial("account_not_live", {}, "it is down")]
            if end == "killed":
                w.stopped[name] = "all, by mia: wrong"
        await _run(w)
        await w.executor.execute("p1", "mia")
        for name, end in zip(names, ends, strict=True):
            answers = {"accepted": Accepted("v1"), "refused": Refused("51008", "no money"), "unknown": Unknown("5xx")}
            if end in answers:
                w.reply(name, answers[end])
        await w.advance(6)
        assert [w.now(c).state for c in children] == [OUTCOMES[end] for end in ends]
        for child, end in zip(children, ends, strict=True):
            assert (await w.durable(child))["state"] == OUTCOMES[end].value
            assert len(w.sent(child.account_id)) == (end in ("accepted", "refused", "unknown", "silent"))
        await _stop(w)


async def test_an_unknown_order_is_never_sent_again_whatever_happens(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        await _run(w)
        await w.executor.execute("p1", "mia")
        w.executor.on_down("ann-private", "cut")
        assert w.now(child).state is S.UNKNOWN
        for _ in range(3):
            with pytest.raises(NotExecuted):
                await w.executor.execute("p1", "mia")
            await w.advance(60)
        assert len(w.sent("ann")) == 1
        await _stop(w)


async def test_an_answer_after_its_time_is_still_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        await _run(w)
        await w.executor.execute("p1", "mia")
        await w.advance(6)
        assert w.now(child).state is S.UNKNOWN
        w.reply("ann", Accepted("v1"))
        assert w.now(child).state is S.WORKING
        await _stop(w)


async def test_the_stream_may_be_faster_than_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        await w.executor.execute("p1", "mia")
        w.hear("ann", w.seen(child, OrderStatus.FILLED, filled=child.quantity))
        w.reply("ann", Accepted("v1"))
        assert w.now(child).state is S.FILLED
        assert w.now(child).filled == child.quantity


@pytest.mark.parametrize("stop", ["killed", "stopping"])
async def test_a_switch_thrown_while_the_claim_is_written_lets_nothing_out(tmp_path: Path, stop: str) -> None:
    async with world(tmp_path, "ann", "bob") as w:
        children = await w.approved()
        write = w.ledger.write

        async def thrown_meanwhile(job: Callable[[sa.Connection], Any], **how: Any) -> Any:
            written = await write(job, **how)
            if stop == "killed":
                w.stopped |= {"ann": "all, by mia: wrong", "bob": "all, by mia: wrong"}
            else:
                w.executor.blocked = "the engine is stopping"
            return written

        w.ledger.write = thrown_meanwhile  # type: ignore[method-assign, assignment]
        await w.executor.execute("p1", "mia")
        assert [w.sent(a) for a in ("ann", "bob")] == [[], []]
        assert {w.now(c).state for c in children} == {S.SKIPPED}


async def test_a_plan_cancelled_while_its_claim_is_written_is_not_sent(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        write = w.ledger.write

        async def cancelled_meanwhile(job: Callable[[sa.Connection], Any], **how: Any) -> Any:
            w.ledger.write = write  # type: ignore[method-assign]
            written = await write(job, **how)
            await w.executor.cancel("p1")
            return written

        w.ledger.write = cancelled_meanwhile  # type: ignore[method-assign, assignment]
        await _run(w)
        await w.executor.execute("p1", "mia")
        assert w.sent("ann") == []
        assert (await w.durable(child))["state"] == "skipped"
        await _stop(w)


async def test_who_stays_behind_may_be_cancelled_while_the_claim_is_written(tmp_path: Path) -> None:
    """Found by simulation: the second skip was an illegal step, and saying so raised."""
    async with world(tmp_path, "ann", "bob") as w:
        children = await w.approved()
        w.denied[("ann", 0)] = (Denial("halted", text="halted"),)
        write = w.ledger.write

        async def cancelled_meanwhile(job: Callable[[sa.Connection], Any], **how: Any) -> Any:
            w.ledger.write = write  # type: ignore[method-assign]
            cancelling = asyncio.create_task(w.executor.cancel("p1"))
            written = await write(job, **how)
            await cancelling
            return written

        w.ledger.write = cancelled_meanwhile  # type: ignore[method-assign, assignment]
        await w.executor.execute("p1", "mia")
        assert [w.sent(a) for a in ("ann", "bob")] == [[], []]
        assert {w.now(c).state for c in children} == {S.SKIPPED}


async def test_a_step_that_may_not_be_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        w.children.step(child, OrderEvent.ACK)
        assert w.now(child) == child


async def test_an_expired_plan_is_not_sent_and_ends(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        await w.approved()
        await w.clock.advance(61)
        with pytest.raises(NotExecuted, match="expired"):
            await w.executor.execute("p1", "mia")
        assert w.sent("ann") == []
        plan = w.children.plan("p1")
        assert plan is not None
        assert plan.state is PlanState.EXPIRED


async def test_a_cancel_of_an_order_that_is_unknown_stays_requested(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        await _run(w)
        await w.executor.execute("p1", "mia")
        await w.advance(6)
        await w.executor.cancel("p1")
        w.hear("ann", w.seen(child))
        await w.advance(0)
        assert len(w.sent("ann")) == 1, "the resolver sees to it"
        assert (w.now(child).state, w.now(child).cancel_state) == (S.WORKING, CancelState.REQUESTED)
        await _stop(w)


async def test_an_amendment_is_durable_before_it_leaves(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        (child,) = await w.approved()
        await w.executor.execute("p1", "mia")
        w.reply("ann", Accepted("v1"))
        kinds: list[str] = []
        w.links.links["ann"].before_send = lambda commands: kinds.extend(i["kind"] for i in w.intents(child))
        assert await w.executor.amend("p1", price=None, factor=child.quantity / 4) == 1
        assert "amend" in kinds
        assert isinstance(w.sent("ann")[-1], Amend)


async def test_after_a_crash_what_was_on_its_way_is_unknown_and_what_was_not_is_skipped(tmp_path: Path) -> None:
    async with world(tmp_path, "ann", "bob") as w:
        w.denied["bob", 0] = [Denial("account_not_live", {}, "it is down")]
        children = await w.approved()
        await w.executor.execute("p1", "mia")
    async with world(tmp_path, "ann", "bob") as again:
        assert await again.children.recover() == 1
        assert [again.now(c).state for c in children] == [S.UNKNOWN, S.SKIPPED]
        assert again.sent("ann") == again.sent("bob") == []


async def test_what_went_out_lately_is_known_after_a_restart_and_what_was_refused_did_not_go_out(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "ann", "bob") as w:
        await w.approved()
        await _run(w)
        await w.executor.execute("p1", "mia")
        w.reply("bob", Refused("51008", "no money"))
        await w.advance(1)
        assert [len(w.children.recent(a, SWAP.name)) for a in ("ann", "bob")] == [1, 0]
        await _stop(w)
    async with world(tmp_path, "ann", "bob") as again:
        await again.children.recover()
        assert [len(again.children.recent(a, SWAP.name)) for a in ("ann", "bob")] == [1, 0]


async def _run(w: World) -> None:
    w.running = asyncio.create_task(w.work())
    await settle()


async def _stop(w: World) -> None:
    w.running.cancel()
    await settle()
