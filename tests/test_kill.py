"""The kill switch: at once in memory, durable after that, and shown only by the venue's own list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.venue import Page
from engine.kill import KillSwitch
from engine.ledger import LedgerDown, kills
from engine.wire.http import NoAnswer
from tests.engine_world import World, world
from tests.fakes import settle
from tests.ledger import samples

pytestmark = pytest.mark.anyio

FOREIGN = samples.order(venue_order_id="v-foreign")


@asynccontextmanager
async def office(folder: Path, *accounts: str) -> AsyncIterator[tuple[World, KillSwitch]]:
    async with world(folder, *accounts) as w:
        kill = KillSwitch(
            clock=w.clock,
            ledger=w.ledger,
            sync=w.sync,
            http=w.http,  # type: ignore[arg-type]
            roster=w.roster,
            children=w.children,
        )
        kill.load()
        w.http.nobody_there = False
        task = asyncio.create_task(kill.run())
        await settle()
        yield w, kill
        task.cancel()
        await settle()


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


async def test_an_order_in_an_unknown_instrument_is_not_shown_as_gone(tmp_path: Path) -> None:
    """Found by simulation: thrown before the venue's instruments were read, it cancelled nothing and said done."""
    async with office(tmp_path, "ann") as (w, kill):
        stranger = samples.order(venue_order_id="v-stranger", instrument="NEW/USDT:USDT")
        w.http.answers["open_orders"] = Page(facts=(stranger,))
        await kill.on("all", "mia", "wrong price")
        await w.advance(1)
        assert cancelled(w, "ann") == []
        assert shown(kill) == {"ann": False}


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
        w.children.proven_absent(child.client_order_id)
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
        await kill.on("account:ann", "mia", "client asked")
    async with office(tmp_path, "ann") as (w, kill):
        assert kill.reason("ann") == "account:ann, by mia: client asked"
        await kill.off("account:ann", "mia", "client asked again")
        with w.ledger.read() as connection:
            assert kills.switched_on(connection) == []
