"""The kill switch: at once in memory, durable after that, and shown only by the venue's own list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from engine.core.facts import BalanceFact, EquityFact, OrderStatus, PositionFact
from engine.core.orders import OrderEvent, OrderState
from engine.core.runs import RunKind, Verdict
from engine.core.venue import Page
from engine.flatten import Flattener
from engine.kill import KillSwitch, NotLifted
from engine.ledger import LedgerDown, audit, kills
from engine.wire.http import NoAnswer
from tests.engine_world import World, world
from tests.fakes import settle
from tests.ledger import samples

pytestmark = pytest.mark.anyio

FOREIGN = samples.order(venue_order_id="v-foreign")


class FakeReconciler:
    """Says of each account what the test wants, and remembers who was asked about."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.asked = list[str]()

    async def run(self, account_ids: Sequence[str]) -> Any:
        self.asked += account_ids
        checked = [SimpleNamespace(account_id=a, verdict=self.verdicts.get(a, Verdict.CLEAN)) for a in account_ids]
        return SimpleNamespace(accounts=checked, kind=RunKind.KILL)


@asynccontextmanager
async def office(
    folder: Path, *accounts: str, reconciler: FakeReconciler | None = None
) -> AsyncIterator[tuple[World, KillSwitch]]:
    async with world(folder, *accounts) as w:
        kill = KillSwitch(
            clock=w.clock,
            ledger=w.ledger,
            sync=w.sync,
            http=w.http,  # type: ignore[arg-type]
            roster=w.roster,
            children=w.children,
            flattener=Flattener(
                clock=w.clock,
                ledger=w.ledger,
                http=w.http,  # type: ignore[arg-type]
                roster=w.roster,
                sync=w.sync,
                children=w.children,
                executor=w.executor,
                at_par=("USD", "USDT"),
                rng=w.rng,
            ),
            reconcile=(reconciler or FakeReconciler()).run,
        )
        w.why_stopped = kill.reason
        kill.load()
        w.http.nobody_there = False
        tasks = [asyncio.create_task(work) for work in (kill.run(), w.work())]
        await settle()
        yield w, kill
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def shown(kill: KillSwitch) -> dict[str, bool]:
    return {k.account_id: k.shown for k in kill.accounts()}


def cancelled(w: World, account_id: str) -> list[str]:
    """Venue order ids that cancels were sent for."""
    bodies = [msgspec.json.decode(request.body) for who, request in w.http.sent if who == account_id]
    rows: list[Any] = [row for body in bodies for row in (body if isinstance(body, list) else [body])]
    return [row["ordId"] for row in rows]


async def test_it_stops_before_the_disk_has_answered(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        await w.ledger.stop()
        with pytest.raises(LedgerDown):
            await kill.on("all", "mia", "wrong price")
        assert kill.reason("ann") == "all, by mia: wrong price"


async def test_it_cancels_whatever_the_venue_lists_and_is_shown_once_the_list_is_empty(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        w.http.answers["open_orders"] = Page(facts=(FOREIGN,))
        await kill.on("all", "mia", "wrong price")
        await w.advance(1)
        assert cancelled(w, "ann") == ["v-foreign"]
        assert shown(kill) == {"ann": False}, "sent is not done"
        w.http.answers["open_orders"] = Page()
        await w.advance(3)
        assert shown(kill) == {"ann": True}


async def test_an_order_in_an_unknown_instrument_is_cancelled_by_what_the_venue_told(tmp_path: Path) -> None:
    """Found by simulation: thrown before the venue's instruments were read, it cancelled nothing and said done."""
    async with office(tmp_path, "ann") as (w, kill):
        stranger = samples.order(venue_order_id="v-stranger", instrument="NEW/USDT:USDT")
        w.http.answers["open_orders"] = Page(facts=(stranger,))
        await kill.on("all", "mia", "wrong price")
        await w.advance(1)
        assert cancelled(w, "ann") == ["v-stranger"]
        assert [msgspec.json.decode(request.body)["instId"] for _, request in w.http.sent] == ["NEW-USDT-SWAP"]
        assert shown(kill) == {"ann": False}


async def test_one_that_cannot_be_said_to_the_venue_is_named_and_the_others_are_cancelled(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        unsayable = samples.order(venue_order_id="v-odd", instrument="ODD|NAME")
        w.http.answers["open_orders"] = Page(facts=(unsayable, FOREIGN))
        await kill.on("all", "mia", "wrong price")
        await w.advance(1)
        assert cancelled(w, "ann") == ["v-foreign"]
        (ann,) = kill.accounts()
        assert not ann.shown
        assert "ODD|NAME could not be cancelled" in ann.note


@pytest.mark.parametrize("error", [NoAnswer("reset", written=True), RuntimeError("a mistake of ours")])
async def test_an_account_that_cannot_be_asked_is_not_shown_and_holds_up_no_other(
    tmp_path: Path, error: Exception
) -> None:
    async with office(tmp_path, "ann", "bob") as (w, kill):
        w.http.answers["ann open_orders"] = error
        await kill.on("all", "mia", "wrong price")
        await w.advance(5)
        assert shown(kill) == {"ann": False, "bob": True}
        del w.http.answers["ann open_orders"]
        await w.advance(3)
        assert shown(kill) == {"ann": True, "bob": True}


async def test_who_never_answers_holds_up_no_other_and_no_later_switch(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", "bob") as (w, kill):
        asked = asyncio.Event()

        async def never(origin: Any, read: Any, *, priority: Any) -> AsyncIterator[Page]:
            if origin.account_id == "ann":
                asked.set()
                await asyncio.Event().wait()
            yield Page()

        w.http.walk = never  # type: ignore[method-assign]
        await kill.on("account:ann", "mia", "client asked")
        await w.advance(1)
        assert asked.is_set()
        await kill.on("account:bob", "mia", "client asked")
        await w.advance(1)
        assert shown(kill) == {"ann": False, "bob": True}


async def test_a_switch_thrown_again_is_shown_anew(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        await kill.on("all", "mia", "wrong price")
        await w.advance(1)
        assert shown(kill) == {"ann": True}
        await kill.on("all", "mia", "still wrong")
        assert shown(kill) == {"ann": False}


async def test_an_order_whose_outcome_is_unknown_is_not_shown_as_gone(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        (child,) = await w.approved()
        await w.executor.execute("p1", "mia")
        w.executor.on_down("ann-private", "cut")
        await kill.on("all", "mia", "wrong price")
        await w.advance(5)
        assert shown(kill) == {"ann": False}
        w.children.step(w.now(child), OrderEvent.NEGATIVE_PROOF)
        await w.advance(3)
        assert shown(kill) == {"ann": True}


@pytest.mark.parametrize(
    ("scope", "stopped"),
    [("all", {"ann", "bob"}), ("venue:okx", {"ann", "bob"}), ("account:bob", {"bob"})],
)
async def test_it_reaches_its_scope_and_nobody_else(tmp_path: Path, scope: str, stopped: set[str]) -> None:
    async with office(tmp_path, "ann", "bob") as (w, kill):
        await kill.on(scope, "mia", "wrong price")
        await w.advance(3)
        assert set(shown(kill)) == stopped == {a for a in ("ann", "bob") if kill.reason(a)}
        await kill.off(scope, "mia", "price corrected")
        assert not any(kill.reason(a) for a in ("ann", "bob"))


async def test_it_is_found_on_at_the_next_start(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        await kill.on("account:ann", "mia", "client asked", flat=True)
    async with office(tmp_path, "ann") as (w, kill):
        assert kill.reason("ann") == "account:ann, by mia: client asked"
        assert kill.switches()[0].flat
        await w.advance(20)
        await kill.off("account:ann", "mia", "client asked again")
        with w.ledger.read() as connection:
            assert kills.switched_on(connection) == []


# ---- before anything resumes


async def test_it_is_not_lifted_before_everybody_is_done_and_reconciled(tmp_path: Path) -> None:
    reconciler = FakeReconciler()
    reconciler.verdicts["bob"] = Verdict.BREAKS
    async with office(tmp_path, "ann", "bob", "cai", reconciler=reconciler) as (w, kill):
        w.http.answers["cai open_orders"] = NoAnswer("reset", written=True)
        await kill.on("all", "mia", "wrong price")
        with pytest.raises(NotLifted, match="ann: not shown without working orders"):
            await kill.off("all", "mia", "in a hurry")
        await w.advance(5)
        with pytest.raises(NotLifted) as refused:
            await kill.off("all", "mia", "price corrected", accept=["bob"])
        assert "cai: not shown" in str(refused.value)
        assert "ann" not in str(refused.value)
        assert "bob: " not in str(refused.value)
        with pytest.raises(NotLifted, match="nothing to accept of ann"):
            await kill.off("all", "mia", "price corrected", accept=["ann", "bob", "cai"])
        assert all(kill.reason(a) for a in ("ann", "bob", "cai"))
        await kill.off("all", "mia", "price corrected", accept=["bob", "cai"])
        assert not any(kill.reason(a) for a in ("ann", "bob", "cai"))
        with w.ledger.read() as connection:
            (deed, *_) = audit.newest(connection)
        assert "accepted by mia: bob (reconciled: breaks)" in deed.after


async def test_who_was_not_clean_is_compared_again(tmp_path: Path) -> None:
    reconciler = FakeReconciler()
    reconciler.verdicts["ann"] = Verdict.UNKNOWN
    async with office(tmp_path, "ann", reconciler=reconciler) as (w, kill):
        await kill.on("all", "mia", "wrong price")
        await w.advance(5)
        assert kill.unproven("all") == {"ann": "reconciled: unknown"}
        reconciler.verdicts.clear()
        await w.advance(40)
        assert kill.unproven("all") == {}
        assert reconciler.asked == ["ann", "ann"]


async def test_a_switch_inside_another_is_lifted_at_once_for_nothing_resumes(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (_, kill):
        await kill.on("account:ann", "mia", "client asked")
        await kill.on("all", "mia", "wrong price")
        await kill.off("account:ann", "mia", "client asked again")
        assert kill.reason("ann") == "all, by mia: wrong price"


# ---- to be flat


def stated(*facts: Any) -> Page:
    return Page(facts=(*facts, EquityFact(currency="USD", total=Decimal(1000), updated_at_ms=1000)))


def closing_orders(w: World) -> list[dict[str, Any]]:
    bodies = [(request.path, msgspec.json.decode(request.body)) for _, request in w.http.sent]
    return [body for path, body in bodies if path.endswith("/trade/order")]


async def test_what_is_held_is_closed_once_and_flat_is_what_the_statement_says(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        w.links.links.clear()  # without a connection, too
        w.http.answers["statement"] = stated(samples.position(-3))
        await kill.on("all", "mia", "leave", flat=True)
        await w.advance(30)
        (order,) = closing_orders(w)
        assert (order["side"], order["sz"], order["ordType"], order["reduceOnly"]) == ("buy", "3", "market", True)
        (child,) = w.children.of_account("ann")
        assert [i["kind"] for i in w.intents(child)] == ["place"], "it has its intent like every order"
        assert not kill.accounts()[0].done, "its outcome is unknown: nothing more is sent"
        w.hear("ann", w.seen(child, OrderStatus.FILLED, side=child.side, filled=Decimal(3)))
        w.http.answers["statement"] = stated()
        await w.advance(10)
        assert w.now(child).state is OrderState.FILLED
        assert kill.accounts()[0].done
        assert len(closing_orders(w)) == 1


async def test_a_statement_that_lags_behind_closes_nothing_twice(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        w.http.answers["statement"] = stated(samples.position(3))
        await kill.on("all", "mia", "leave", flat=True)
        for _ in range(50):
            if closing_orders(w):
                break
            await w.advance(0.5)
        (child,) = w.children.of_account("ann")
        w.hear("ann", w.seen(child, OrderStatus.FILLED, side=child.side, filled=Decimal(3)))
        await w.advance(2.5)  # less than it takes two statements to agree
        w.http.answers["statement"] = stated()
        await w.advance(20)
        assert len(closing_orders(w)) == 1
        assert kill.accounts()[0].done


async def test_a_rest_smaller_than_an_order_is_named_and_stays(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        w.http.answers["statement"] = stated(msgspec.structs.replace(samples.position(1), quantity=Decimal("0.4")))
        await kill.on("all", "mia", "leave", flat=True)
        await w.advance(10)
        (ann,) = kill.accounts()
        assert ann.done
        assert "0.4, less than the smallest order" in ann.note


async def test_what_cannot_be_closed_is_named_and_is_not_flat(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        odd = PositionFact(instrument="NEW/USDT:USDT", quantity=Decimal(2), updated_at_ms=1000)
        coin = BalanceFact(currency="XYZ", cash=Decimal(5), updated_at_ms=1000)
        w.http.answers["statement"] = stated(odd, coin)
        await kill.on("all", "mia", "leave", flat=True)
        await w.advance(10)
        (ann,) = kill.accounts()
        assert ann.shown
        assert not ann.done
        assert "NEW/USDT:USDT: 2 in an instrument unknown here" in ann.note
        assert "XYZ: 5" in ann.note


async def test_lifting_it_ends_the_closing(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as (w, kill):
        w.http.answers["statement"] = stated(samples.position(3))
        await kill.on("all", "mia", "leave", flat=True)
        await kill.on("all", "mia", "stay after all")
        await w.advance(30)
        assert closing_orders(w) == []
        assert kill.accounts()[0].done
