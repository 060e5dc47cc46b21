"""What nobody here ordered is counted once, for a day; what turns out to be ours is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.foreign import Counts, Foreign
from tests.engine_world import World, world
from tests.ledger import samples

pytestmark = pytest.mark.anyio
HOUR_S = 3600


def watching(w: World) -> Foreign:
    return Foreign(clock=w.clock, ledger=w.ledger, sync=w.sync, roster=w.roster, children=w.children)


async def test_an_order_and_its_fill_from_elsewhere_are_counted_once_and_forgotten_after_a_day(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        foreign, now_ms = watching(w), w.clock.now_ms()
        order = samples.order(venue_order_id="x", updated_at_ms=now_ms)
        fill = samples.fill(1, venue_order_id="x", traded_at_ms=now_ms)
        w.hear("ann", order)
        w.hear("ann", replace(order, filled=samples.Decimal(1), updated_at_ms=now_ms + 1))
        w.hear("ann", fill)
        w.hear("ann", fill)
        assert foreign.counts() == Counts(orders=1, fills=1, venue_actions=0)
        await w.advance(25 * HOUR_S)
        assert foreign.counts() == Counts(orders=0, fills=0, venue_actions=0)


async def test_our_own_orders_and_their_fills_are_not_foreign(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        foreign, now_ms = watching(w), w.clock.now_ms()
        (child,) = await w.approved()
        w.hear("ann", samples.fill(1, venue_order_id="x", traded_at_ms=now_ms))  # heard before its order
        assert foreign.counts().fills == 1
        named = samples.order(venue_order_id="x", client_order_id=child.client_order_id, updated_at_ms=now_ms)
        w.hear("ann", named)
        assert foreign.counts() == Counts(orders=0, fills=0, venue_actions=0)


async def test_what_the_venue_does_by_itself_is_an_action_and_the_owners_trigger_is_not(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        foreign, now_ms = watching(w), w.clock.now_ms()
        for number, action in enumerate(("liquidation", "tp_sl", "adl", "never heard of")):
            w.hear("ann", samples.order(venue_order_id=f"x{number}", venue_action=action, updated_at_ms=now_ms))
        assert foreign.counts() == Counts(orders=4, fills=0, venue_actions=3)
        assert {action for _, _, action in foreign.actions()} == {"liquidation", "adl", "never heard of"}


async def test_a_new_engine_knows_of_them_from_the_ledger(tmp_path: Path) -> None:
    async with world(tmp_path, "ann") as w:
        now_ms = w.clock.now_ms()
        w.hear("ann", samples.order(venue_order_id="x", venue_action="liquidation", updated_at_ms=now_ms))
        await w.ledger.write(lambda conn: None)
        foreign = watching(w)
        foreign.load()
        assert foreign.counts() == Counts(orders=1, fills=0, venue_actions=1)
