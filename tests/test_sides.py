"""Both sides of a reconciliation are told by the venue's clock: ours may be off by hours, and nothing differs by it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.breaks import Cause, Code, Comparison
from engine.core.compare import compare
from engine.core.orders import Accepted
from engine.core.tolerances import RULES
from engine.core.venue import Page
from engine.sides import Sides
from tests.engine_world import World, world
from tests.fakes import settle
from tests.ledger import samples

pytestmark = pytest.mark.anyio
HOURS_OFF = [-5, 0, 5, 40]


def sides_of(w: World) -> Sides:
    no_gaps: Any = SimpleNamespace(gap_of=lambda account_id: None)
    return Sides(
        clock=w.clock,
        ledger=w.ledger,
        sync=w.sync,
        links=w.links,  # type: ignore[arg-type]
        http=w.http,  # type: ignore[arg-type]
        roster=w.roster,
        children=w.children,
        backfill=no_gaps,
    )


async def compared(w: World) -> Comparison:
    sides = sides_of(w)
    (subject,) = sides.subjects(["ann"])
    stated = await sides.statement("ann")
    return compare(
        stated,
        await sides.ledger_side("ann", stated.since_ms),
        rules=RULES,
        venue=subject.venue,
        catalogue=subject.catalogue,
        owns_order_id=subject.owns_order_id,
        now_ms=sides.now_ms("ann"),
    )


@pytest.mark.parametrize("hours", HOURS_OFF)
@pytest.mark.parametrize(("seconds", "under_way"), [(1, True), (3600, False)])
async def test_what_has_just_changed_is_under_way_however_our_clock_is_set(
    tmp_path: Path, hours: int, seconds: int, under_way: bool
) -> None:
    async with world(tmp_path, "ann") as w:
        w.clock.shift(hours * 3_600_000)
        await w.approved()
        await w.executor.execute("p1", "mia")
        w.reply("ann", Accepted("v1"))
        writing = asyncio.create_task(w.children.run())
        await w.clock.advance(seconds)
        (found,) = (b for b in (await compared(w)).breaks if b.code is Code.ORD_ONLY_LEDGER)
        assert (found.cause is Cause.TIMING) is under_way
        writing.cancel()
        await settle()


@pytest.mark.parametrize("hours", HOURS_OFF)
async def test_a_day_is_the_venues_day(tmp_path: Path, hours: int) -> None:
    async with world(tmp_path, "ann") as w:
        w.sync.desk("ann").book.open_with([], [], w.clock.now_ms() - 100 * 3_600_000)  # type: ignore[union-attr]
        w.clock.shift(hours * 3_600_000)
        venue_now_ms = w.http.venue_now_ms("okx", "demo")
        fills = [
            samples.fill(n, traded_at_ms=venue_now_ms - ago_ms, quantity=Decimal(1))
            for n, ago_ms in enumerate((60_000, 23 * 3_600_000))
        ]
        w.http.answers["fills"] = Page(facts=tuple(fills))
        w.hear("ann", *fills)
        found = await compared(w)
        (count,) = (c for c in found.counts if c.part.value == "fills")
        assert (count.venue, count.ledger) == (2, 2)
        assert not [b for b in found.breaks if b.code.value.startswith("FILL")]
        assert w.http.asked_since_ms[-1] == venue_now_ms - 24 * 3_600_000
