from __future__ import annotations

from decimal import Decimal

import pytest

from engine.core.book import Book
from engine.core.explain import Origin, explain_position
from engine.core.facts import BalanceFact
from engine.core.plans import PlanState
from engine.ledger import Ledger, Source, books, row
from engine.ledger.plans import save_approved, save_plan
from engine.ledger.questions import moved_elsewhere, plans_of, traded_since
from engine.ledger.traces import trace
from tests.ledger.samples import SWAP, child, fill, order, plan, position

pytestmark = pytest.mark.anyio
KNOWN = {SWAP.name: SWAP}
OURS = fill(2, client_order_id=f"{0:032x}", quantity=Decimal(3))
THEIRS = fill(3, quantity=Decimal(1), venue_action="liquidation")


async def recorded(ledger: Ledger) -> None:
    """An account opened with four, then a fill of ours, told twice, and one of the venue's own."""
    book, opening = Book("ann", KNOWN.get), position(4)
    book.open_with([opening], [BalanceFact(currency="USDT", cash=Decimal(9), updated_at_ms=1000)], 1000)
    await books.keep(ledger, book)
    heard = [(opening, Source.STATEMENT, ""), (OURS, Source.STREAM, "c1"), (OURS, Source.HISTORY, "")]
    for fact, source, connection in [*heard, (THEIRS, Source.HISTORY, "")]:
        ledger.append([row("ann", fact, received_at_ms=7, source=source, connection_key=connection)])
    previewed, ours = plan(state=PlanState.PREVIEWED), child(account_id="ann")
    await ledger.write(lambda conn: save_plan(conn, previewed, None, 1))
    assert await ledger.write(lambda conn: save_approved(conn, plan(), [ours], 1))


async def test_each_fact_since_the_opening_comes_with_how_it_was_heard_and_whose_it_was(ledger: Ledger) -> None:
    await recorded(ledger)
    with ledger.read() as conn:
        found = trace(conn, "ann", KNOWN.get)
    explained = explain_position(found.whole, found.shown.quantities()[SWAP.name, "net"], SWAP, "net", found.origin)
    assert (explained.shown, explained.unexplained) == (8, 0)
    assert [(line.what, line.origin) for line in explained.lines] == [
        ("opening", Origin(source="statement", received_at_ms=7)),
        ("bought", Origin(source="stream", connection_key="c1", received_at_ms=7, plan_id="p1")),
        ("bought", Origin(source="history", received_at_ms=7, external=True)),
    ]


async def test_what_others_moved_is_told_by_whom(ledger: Ledger) -> None:
    await recorded(ledger)
    with ledger.read() as conn:
        assert moved_elsewhere(conn, ["ann", "bob"], 0) == {("ann", SWAP.name): {"liquidation": 1}}
        assert moved_elsewhere(conn, ["ann"], THEIRS.at_ms + 1) == {}
        assert plans_of(conn, [("ann", OURS), ("bob", OURS), ("ann", THEIRS)]) == {("ann", "f2"): "p1"}


async def test_the_latest_orders_and_fills_come_the_oldest_first(ledger: Ledger) -> None:
    await recorded(ledger)
    ledger.append([row("bob", order(), received_at_ms=8, source=Source.STREAM, connection_key="c")])
    await ledger.write(lambda conn: None)
    with ledger.read() as conn:
        assert traded_since(conn, 0, limit=2) == [("ann", THEIRS), ("bob", order())]
