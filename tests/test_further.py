"""What provably never arrived is sent anew: once more, with an id of its own, and only while that is still wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from engine.core.limits import Code
from engine.core.orders import Accepted, CancelState, OrderState, Place
from engine.core.plans import Child, Denial, PlanState
from engine.core.venue import Page
from engine.ledger import plans, restorations
from engine.ledger.restorations import Orphan
from engine.ledger.tables import child as child_table
from tests.engine_world import World, not_found, world
from tests.fakes import settle

pytestmark = pytest.mark.anyio
S = OrderState
PROVEN_S = 40  # in which an absence is proven, and more


@asynccontextmanager
async def unanswered(folder: Path, attempts: int = 2) -> AsyncIterator[tuple[World, Child]]:
    """An order that was sent and never reached the venue."""
    async with world(folder, "ann") as w:
        (child,) = await w.approved(attempts=attempts)
        await w.executor.execute("p1", "mia")
        w.http.answers["order"] = not_found()
        tasks = [asyncio.create_task(w.work()), asyncio.create_task(w.resolve())]
        w.executor.on_down("ann-private", "cut")
        yield w, child
        for task in tasks:
            task.cancel()
        await settle()


def attempts(w: World) -> list[Child]:
    return w.children.of_plan("p1")


def placed(w: World) -> list[str]:
    return [m.client_order_id for m in w.sent("ann") if isinstance(m, Place)]


async def stored(w: World) -> list[tuple[int, str]]:
    await w.advance(0)
    with w.ledger.read() as connection:
        rows = connection.execute(sa.select(child_table.c.attempt, child_table.c.state).order_by(child_table.c.attempt))
        return [(row[0], row[1]) for row in rows]


async def test_a_further_attempt_is_sent_under_an_id_of_its_own(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, child):
        await w.advance(PROVEN_S)
        first, second = attempts(w)
        assert (first.state, second.attempt) == (S.NOT_PLACED, 2)
        assert second.state in (S.SENDING, S.UNKNOWN), "nobody answers that one either"
        assert placed(w) == [child.client_order_id, second.client_order_id]
        assert second.client_order_id != child.client_order_id
        assert "sent anew as attempt 2" in first.reason
        assert (second.quantity, second.price, second.side) == (child.quantity, child.price, child.side)
        assert [i["kind"] for i in w.intents(second)] == ["place"]


async def test_there_are_no_more_attempts_than_the_plan_allows(tmp_path: Path) -> None:
    async with unanswered(tmp_path, attempts=3) as (w, _):
        for _ in range(6):
            await w.advance(PROVEN_S)
            w.executor.on_down("ann-private", "cut")
        assert [c.state for c in attempts(w)] == [S.NOT_PLACED] * 3
        assert len(set(placed(w))) == len(placed(w)) == 3
        plan = w.children.plan("p1")
        assert plan is not None
        assert plan.state is PlanState.DONE_WITH_SHORTFALL


async def test_a_plan_of_one_attempt_never_sends_anew(tmp_path: Path) -> None:
    async with unanswered(tmp_path, attempts=1) as (w, child):
        await w.advance(PROVEN_S)
        assert [c.state for c in attempts(w)] == [S.NOT_PLACED]
        assert placed(w) == [child.client_order_id]


@pytest.mark.parametrize("code", [Code.PLAN_EXPIRED, Code.KILL_SWITCH, Code.ACCOUNT_PAUSED, Code.PRICE_COLLAR])
async def test_what_stands_against_it_for_good_ends_it(tmp_path: Path, code: Code) -> None:
    async with unanswered(tmp_path) as (w, _):
        w.against = [Denial(code.value, text="no more")]
        await w.advance(PROVEN_S)
        (only,) = attempts(w)
        assert (only.state, only.reason) == (S.NOT_PLACED, "proven: the venue never had it; not sent anew: no more")


async def test_what_stands_in_its_way_for_a_while_is_waited_for(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, _):
        w.against = [Denial(Code.ACCOUNT_NOT_LIVE.value, text="down")]
        await w.advance(PROVEN_S)
        assert [c.state for c in attempts(w)] == [S.NOT_PLACED, S.PLANNED]
        assert await stored(w) == [(1, "not_placed"), (2, "planned")]
        w.against = []
        await w.advance(2)
        assert len(placed(w)) == 2


async def test_what_comes_up_while_it_waits_ends_it(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, _):
        w.against = [Denial(Code.STALE_PRICE.value, text="stale")]
        await w.advance(PROVEN_S)
        w.against = [Denial(Code.PLAN_EXPIRED.value, text="expired")]
        await w.advance(2)
        assert attempts(w)[1].state is S.SKIPPED
        assert len(placed(w)) == 1


async def test_nothing_is_sent_anew_of_what_was_to_be_cancelled(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, child):
        await w.executor.cancel("p1")
        assert (await w.durable(child))["cancel_state"] == CancelState.REQUESTED.value
        await w.advance(PROVEN_S)
        assert [c.state for c in attempts(w)] == [S.NOT_PLACED]


async def test_one_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, _):
        w.against = [Denial(Code.ACCOUNT_NOT_LIVE.value, text="down")]
        await w.advance(PROVEN_S)
        await w.executor.cancel("p1")
        w.against = []
        await w.advance(PROVEN_S)
        assert [c.state for c in attempts(w)] == [S.NOT_PLACED, S.SKIPPED]
        assert len(placed(w)) == 1


async def test_a_late_first_attempt_keeps_the_second_at_home(tmp_path: Path) -> None:
    """Also by the ledger's own word, should what is in memory not know."""
    async with unanswered(tmp_path) as (w, child):
        w.against = [Denial(Code.ACCOUNT_NOT_LIVE.value, text="down")]
        await w.advance(PROVEN_S)
        w.hear("ann", w.seen(child))
        await w.advance(0)
        assert w.now(child).late
        second = attempts(w)[1]
        claimed = second_claimed(second)
        assert not await w.ledger.write(lambda connection: plans.claim_attempt(connection, claimed, 1))
        w.against = []
        await w.advance(2)
        assert (w.now(second).state, w.now(second).reason) == (
            S.SKIPPED,
            "attempt 1 turned up late: a person decides",
        )
        assert len(placed(w)) == 1


async def test_an_id_that_the_venue_was_seen_to_have_is_not_sent_again(tmp_path: Path) -> None:
    """A database that was put back makes the same ids once more."""
    async with unanswered(tmp_path) as (w, _):
        w.against = [Denial(Code.ACCOUNT_NOT_LIVE.value, text="down")]
        await w.advance(PROVEN_S)
        second = attempts(w)[1]
        orphan = Orphan(
            account_id="ann",
            venue_order_id="v9",
            client_order_id=second.client_order_id,
            instrument=second.instrument,
            found_at_ms=1,
        )
        await w.ledger.write(lambda connection: restorations.note_orphans(connection, [orphan]))
        w.against = []
        await w.advance(2)
        assert w.now(second).state is S.SKIPPED
        assert len(placed(w)) == 1


async def test_a_claim_of_which_nobody_knows_whether_it_was_kept_is_asked_about(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, _):
        w.against = [Denial(Code.ACCOUNT_NOT_LIVE.value, text="down")]
        await w.advance(PROVEN_S)
        second = attempts(w)[1]
        claimed = second_claimed(second)
        assert await w.ledger.write(lambda connection: plans.claim_attempt(connection, claimed, 1))
        w.against = []
        await w.advance(2)
        assert w.now(second).state is S.UNKNOWN
        assert len(placed(w)) == 1


async def test_one_that_was_planned_when_the_engine_stopped_goes_after_the_restart(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, _):
        w.against = [Denial(Code.ACCOUNT_NOT_LIVE.value, text="down")]
        await w.advance(PROVEN_S)
        second = attempts(w)[1]
    async with world(tmp_path, "ann") as w:
        await w.children.recover()
        assert w.now(second).state is S.PLANNED
        tasks = [asyncio.create_task(w.work()), asyncio.create_task(w.resolve())]
        await w.advance(2)
        assert placed(w) == [second.client_order_id]
        assert (await w.durable(second))["state"] == "sending"
        for task in tasks:
            task.cancel()
        await settle()


async def test_a_proof_that_was_not_written_is_found_again_and_plans_the_same_attempt(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, child):
        follows, why = w.further.after(w.now(child))
        assert why == ""
        await w.advance(PROVEN_S)
        assert follows is not None
        assert attempts(w)[1].client_order_id == follows.client_order_id


async def test_a_plan_whose_order_arrived_at_the_second_attempt_is_done(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, _):
        while len(placed(w)) < 2:
            await w.advance(1)
        second = attempts(w)[1]
        w.http.answers["order"] = Page(facts=(w.seen(second),))
        w.reply("ann", Accepted("v2"))
        progress = w.children.progress("p1")
        assert (progress.total, progress.working, progress.skipped, progress.settled) == (1, 1, 0, True)
        assert progress.quantity == second.quantity


async def test_the_database_itself_keeps_two_attempts_from_being_open(tmp_path: Path) -> None:
    async with unanswered(tmp_path) as (w, child):
        follows, _ = w.further.after(w.now(child))
        assert follows is not None
        with pytest.raises(sa.exc.IntegrityError):
            await w.ledger.write(lambda connection: plans.insert_children(connection, [follows]))


def second_claimed(second: Child) -> Child:
    return msgspec.structs.replace(second, state=S.SENDING, claim_token="another", send_by_ms=10**13)
