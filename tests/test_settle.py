"""A person's word settles an order whose fate is unknown, unless the venue knows better or may still come to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.core.facts import OrderFact, OrderStatus, Side
from engine.core.orders import Cancel, CancelState, OrderState, Place
from engine.core.plans import Child, PlanState
from engine.core.venue import Page
from engine.ledger import audit, questions
from engine.settle import NotSettled, Settled, Settler
from engine.wire.http import NoAnswer
from tests.engine_world import World, not_found, world
from tests.fakes import settle as until_quiet

pytestmark = pytest.mark.anyio
S = OrderState
QUARANTINE_S = 30


@asynccontextmanager
async def unknown(folder: Path) -> AsyncIterator[tuple[World, Child, Settler]]:
    """One order that was sent and never answered; its venue cannot prove absence, for its clock and ours differ."""
    async with world(folder, "ann") as w:
        (child,) = await w.approved()
        await w.executor.execute("p1", "mia")
        w.http.answers["order"], w.http.clocks_agree = not_found(), False
        tasks = [asyncio.create_task(w.work()), asyncio.create_task(w.resolve())]
        w.executor.on_down("ann-private", "cut")
        yield w, child, Settler(clock=w.clock, children=w.children, roster=w.roster, asked=w.resolver)
        assert sum(isinstance(m, Place) for m in w.sent("ann")) == 1, "settling places nothing"
        for task in tasks:
            task.cancel()
        await until_quiet()


async def say(settler: Settler, child: Child, word: str, venue_order_id: str = "", **how: Any) -> Settled:
    options = {"by": "leo", "why": "looked", "unasked": False, "rehearse": False} | how
    return await settler.settle(child.client_order_id, word, venue_order_id, **options)


def audited(w: World) -> list[tuple[str, str, str]]:
    with w.ledger.read() as connection:
        return [(d.by, d.before, d.after) for d in audit.newest(connection) if d.action == "order settled"]


async def test_one_that_a_person_saw_nowhere_was_not_placed(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        said = await say(settler, child, "not-placed")
        assert (said.was, said.now) == ("unknown, 0 of 2 filled", "not_placed, 0 of 2 filled")
        assert w.now(child).state is S.NOT_PLACED
        assert (await w.durable(child))["state"] == "not_placed"
        assert audited(w) == [("leo", "unknown", "not-placed: looked")]
        plan = w.children.plan("p1")
        assert plan is not None
        assert plan.state is PlanState.DONE_WITH_SHORTFALL, "and no further attempt"


async def test_a_rehearsal_changes_nothing(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        said = await say(settler, child, "not-placed", rehearse=True)
        assert said.rehearsed
        assert w.now(child).state is S.UNKNOWN
        assert audited(w) == []


async def test_nothing_is_settled_while_it_may_still_show(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(5)
        for word, venue_order_id in (("not-placed", ""), ("placed", "v9")):
            with pytest.raises(NotSettled, match=r"may still show at the venue for \d+ s"):
                await say(settler, child, word, venue_order_id)
        assert w.now(child).state is S.UNKNOWN


@pytest.mark.parametrize("where", ["order", "open_orders"])
async def test_what_the_venue_shows_counts_more_than_a_word(tmp_path: Path, where: str) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        w.http.answers[where] = Page(facts=(w.seen(child),))
        with pytest.raises(NotSettled, match=r"the venue shows order .* working"):
            await say(settler, child, "not-placed")
        assert w.now(child).state is S.WORKING
        with pytest.raises(NotSettled, match="its fate is known"):
            await say(settler, child, "not-placed")


async def test_a_venue_that_cannot_be_asked_is_no_evidence_unless_that_is_known(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        w.http.answers["open_orders"] = NoAnswer("reset", written=True)
        with pytest.raises(NotSettled, match=r"could not be asked .*--unasked"):
            await say(settler, child, "not-placed")
        assert w.now(child).state is S.UNKNOWN
        await say(settler, child, "not-placed", unasked=True)
        assert w.now(child).state is S.NOT_PLACED


async def test_what_moved_on_while_the_venue_was_asked_is_left_alone(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        heard: list[int] = []

        def hear(account_id: str, name: str) -> None:
            if name == "fills" and not heard:
                heard.append(1)
                w.hear("ann", w.seen(child))

        w.http.before = hear
        with pytest.raises(NotSettled, match="moved on"):
            await say(settler, child, "not-placed")
        assert w.now(child).state is S.WORKING


async def test_what_shows_after_the_word_is_late_and_is_settled_once_more(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        await say(settler, child, "not-placed")
        filled = w.seen(child, OrderStatus.FILLED, filled=child.quantity)
        w.hear("ann", filled)
        assert (w.now(child).state, w.now(child).late) == (S.NOT_PLACED, True)
        assert w.children.late() == [w.now(child)]
        with pytest.raises(NotSettled, match="--as accepted"):
            await say(settler, child, "not-placed")
        said = await say(settler, child, "accepted")
        assert said.now == "not_placed, late and settled, 2 of 2 filled"
        assert w.children.late() == []
        assert (await w.durable(child))["late_settled_at_ms"] is not None
        assert audited(w)[0] == ("leo", "not_placed, late", "accepted: looked")
        w.hear("ann", replace(filled, updated_at_ms=filled.updated_at_ms + 1))
        assert w.children.late() == [], "told once more is no news"
        with pytest.raises(NotSettled, match="settled already"):
            await say(settler, child, "accepted")


async def test_a_late_one_that_fills_on_is_news_again(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        await say(settler, child, "not-placed")
        w.hear("ann", w.seen(child, OrderStatus.CANCELLED, filled=Decimal(1)))
        await say(settler, child, "accepted")
        w.hear("ann", w.seen(child, OrderStatus.FILLED, filled=Decimal(2), updated_at_ms=w.clock.now_ms() + 5))
        assert [c.filled for c in w.children.late()] == [2]


async def test_a_late_one_at_work_is_cancelled_with_its_plan_and_only_then_settled(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        await say(settler, child, "not-placed")
        w.hear("ann", w.seen(child))
        with pytest.raises(NotSettled, match=r"at work at the venue.*plan cancel p1"):
            await say(settler, child, "accepted")
        assert await w.executor.cancel("p1") == 1
        (cancel,) = [m for m in w.sent("ann") if isinstance(m, Cancel)]
        assert cancel.venue_order_id == w.now(child).venue_order_id
        w.hear("ann", w.seen(child, OrderStatus.CANCELLED, updated_at_ms=w.clock.now_ms() + 1))
        assert w.now(child).cancel_state is CancelState.CONFIRMED
        assert await w.executor.cancel("p1") == 0, "nothing is at work any more"
        await say(settler, child, "accepted")
        assert w.children.late() == []


def nameless(w: World, child: Child, **changes: Any) -> OrderFact:
    """An order of the same making that does not carry our id."""
    return w.seen(child, client_order_id="", venue_order_id="v9", **changes)


async def test_an_order_at_the_venue_without_our_id_is_adopted(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        w.http.answers["order"] = Page(facts=(nameless(w, child, filled=Decimal(1)),))
        await say(settler, child, "placed", "v9")
        assert (w.now(child).state, w.now(child).filled, w.now(child).venue_order_id) == (S.WORKING, 1, "v9")
        assert audited(w) == [("leo", "unknown", "placed as v9: looked")]
        later = w.clock.now_ms() + 5
        w.hear("ann", nameless(w, child, status=OrderStatus.FILLED, filled=Decimal(2), updated_at_ms=later))
        assert (w.now(child).state, w.now(child).filled) == (S.FILLED, 2)
        await w.durable(child)
        with w.ledger.read() as connection:
            assert [(o.child_id, o.external) for o in questions.orders(connection)] == [(child.child_id, False)]


async def test_what_was_adopted_is_ours_also_after_a_restart(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        order = nameless(w, child)
        w.http.answers["order"] = Page(facts=(order,))
        await say(settler, child, "placed", "v9")
        await w.durable(child)
    async with world(tmp_path, "ann") as w:
        await w.children.recover()
        w.hear("ann", replace(order, status=OrderStatus.CANCELLED, updated_at_ms=order.updated_at_ms + 1))
        assert w.now(child).state is S.CANCELLED


NOT_IT: dict[str, tuple[dict[str, Any], str]] = {
    "another's id": ({"client_order_id": "theirs"}, "carries the id theirs"),
    "the other side": ({"side": Side.SELL}, "it is to sell"),
    "another quantity": ({"quantity": Decimal(3)}, "it is for 3, not for 2"),
    "too old": ({"created_at_ms": 1}, "made before ours was sent"),
}


@pytest.mark.parametrize("kind", NOT_IT)
async def test_an_order_that_cannot_be_ours_is_not_adopted(tmp_path: Path, kind: str) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        changes, said = NOT_IT[kind]
        w.http.answers["order"] = Page(facts=(replace(nameless(w, child), **changes),))
        with pytest.raises(NotSettled, match=said):
            await say(settler, child, "placed", "v9")
        assert (w.now(child).state, w.now(child).venue_order_id) == (S.UNKNOWN, "")


async def test_an_order_that_the_venue_does_not_know_is_not_adopted(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (w, child, settler):
        await w.advance(QUARANTINE_S)
        with pytest.raises(NotSettled, match="knows no order v9"):
            await say(settler, child, "placed", "v9")


async def test_what_is_not_there_or_cannot_be_said_is_refused(tmp_path: Path) -> None:
    async with unknown(tmp_path) as (_, child, settler):
        with pytest.raises(NotSettled, match="cannot be said"):
            await say(settler, child, "lost")
        with pytest.raises(NotSettled, match="did not turn up late"):
            await say(settler, child, "accepted")
        with pytest.raises(NotSettled, match="no order nobody"):
            await settler.settle("nobody", "not-placed", "", by="leo", why="x", unasked=False, rehearse=False)
