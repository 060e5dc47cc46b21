"""What is listed is kept from run to run, and what changes of it is an event."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
import sqlalchemy as sa

from engine.ledger import Ledger
from engine.ledger import instruments as listings
from engine.ledger.tables import instrument
from tests.ledger import samples

pytestmark = pytest.mark.anyio

PLACE = ("okx", "demo")
COARSER = msgspec.structs.replace(samples.SWAP, price_tick=Decimal("0.5"))


async def test_what_was_listed_is_known_again(ledger: Ledger) -> None:
    await ledger.write(lambda conn: listings.save(conn, PLACE, [samples.SWAP], [], 1))
    with ledger.read() as conn:
        assert listings.load(conn) == {PLACE: [samples.SWAP]}
        assert listings.changes(conn) == []


async def test_a_change_replaces_what_was_known_and_is_kept_with_its_time(ledger: Ledger) -> None:
    await ledger.write(lambda conn: listings.save(conn, PLACE, [samples.SWAP], [], 1))
    await ledger.write(lambda conn: listings.save(conn, PLACE, [], [(samples.SWAP, COARSER)], 2))
    with ledger.read() as conn:
        assert listings.load(conn) == {PLACE: [COARSER]}
        (change,) = listings.changes(conn)
    assert (change.at_ms, change.before, change.after) == (2, samples.SWAP, COARSER)
    assert change.told == f"price_tick {samples.SWAP.price_tick} → 0.5"


async def test_the_same_name_at_another_place_is_another_instrument(ledger: Ledger) -> None:
    await ledger.write(lambda conn: listings.save(conn, PLACE, [samples.SWAP], [], 1))
    await ledger.write(lambda conn: listings.save(conn, ("okx", "prod"), [COARSER], [], 1))
    with ledger.read() as conn:
        assert listings.load(conn) == {PLACE: [samples.SWAP], ("okx", "prod"): [COARSER]}


async def test_a_row_that_this_version_cannot_read_is_left_out(ledger: Ledger) -> None:
    await ledger.write(lambda conn: listings.save(conn, PLACE, [samples.SWAP], [], 1))
    await ledger.write(lambda conn: conn.execute(sa.update(instrument).values(body='{"name": "half"}')))
    with ledger.read() as conn:
        assert listings.load(conn) == {}
