"""What was missed is read back: only complete reads count, and nothing is proven while the connection is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from engine.backfill import Backfill
from engine.config import Ledger as LedgerSettings
from engine.config import VenueSettings
from engine.core.facts import BalanceFact, CashFact, FillFact
from engine.core.venue import ErrorClass, Identity, Page, VenueError
from engine.ledger import FactRow, LedgerFull, gaps, questions, tables
from engine.wire.http import NoAnswer
from tests.engine_world import World, not_found, world
from tests.engine_world import settings as settings_of
from tests.fakes import settle
from tests.ledger import samples

pytestmark = pytest.mark.anyio

AUTH = VenueError(ErrorClass.AUTH, "50111", "the key is not valid")


class Office:
    def __init__(self, world: World, backfill: Backfill) -> None:
        self.world, self.backfill = world, backfill

    def cut(self, account_id: str) -> None:
        self.world.links.links[account_id].live = False
        self.backfill.down(account_id, f"{account_id}-private", self.world.clock.now_ms(), "cut")

    async def reconnect(self, account_id: str) -> None:
        self.world.links.links[account_id].live = True
        self.backfill.live(account_id)
        await self.rest()

    async def rest(self) -> None:
        """Let everything go on that waits for the disk only."""
        for _ in range(10):
            await self.world.advance(0)

    def proven(self, account_id: str) -> bool:
        desk = self.world.sync.desk(account_id)
        assert desk is not None
        return desk.proven

    async def gaps(self, account_id: str) -> list[str]:
        await self.rest()
        with self.world.ledger.read() as connection:
            return [gap.state.value for gap in gaps.find(connection, account_id)]

    def watermark(self, account_id: str) -> int | None:
        with self.world.ledger.read() as connection:
            return gaps.watermark(connection, account_id, gaps.HISTORY)

    def held(self, account_id: str, quantity: int) -> None:
        """The venue's statement: so much of the one instrument, nothing else."""
        fact = samples.position(quantity, updated_at_ms=self.world.clock.now_ms())
        self.world.http.answers[f"{account_id} statement"] = Page(facts=(fact,) if quantity else ())

    def fill(self, number: int) -> FillFact:
        return samples.fill(number, traded_at_ms=self.world.clock.now_ms())


def backfill_of(w: World, **changes: Any) -> Backfill:
    async def remember(account_id: str, venue_ref: str) -> None:
        raise AssertionError("every account of this world is known by its venue")

    return Backfill(
        clock=w.clock,
        ledger=w.ledger,
        sync=w.sync,
        links=w.links,  # type: ignore[arg-type]
        http=w.http,  # type: ignore[arg-type]
        roster=w.roster,
        children=w.children,
        settings=settings_of(**changes),
        rng=w.rng,
        remember=remember,
    )


@asynccontextmanager
async def office(
    folder: Path, *accounts: str, ledger_settings: LedgerSettings | None = None, **changes: Any
) -> AsyncIterator[Office]:
    """Accounts that were opened and proven once, with the backfill at work."""
    async with world(folder, *accounts, ledger_settings=ledger_settings) as w:
        backfill = backfill_of(w, **changes)
        one, task = Office(w, backfill), asyncio.create_task(backfill.run())
        await settle()
        for account_id in accounts:
            w.sync.hold(account_id, "not read back yet")
            backfill.live(account_id)
        await one.rest()
        assert all(one.proven(a) and one.watermark(a) for a in accounts)
        await w.clock.advance(60)
        yield one
        task.cancel()
        await settle()


async def test_a_gap_is_open_until_history_and_statement_prove_that_nothing_is_missing(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        before_ms = o.watermark("ann")
        o.cut("ann")
        assert not o.proven("ann")
        assert await o.gaps("ann") == ["open"]
        o.world.http.answers["fills"] = Page(facts=(o.fill(1),))
        o.held("ann", 1)
        await o.reconnect("ann")
        assert o.proven("ann")
        assert await o.gaps("ann") == ["proven"]
        after_ms = o.watermark("ann")
        assert after_ms is not None
        assert before_ms is not None
        assert after_ms > before_ms
        desk = o.world.sync.desk("ann")
        assert desk is not None
        assert desk.book.quantities() == {("BTC/USDT:USDT", "net"): Decimal(1)}


@pytest.mark.parametrize("name", ["fills", "orders", "cash", "open_orders"])
async def test_a_page_that_fails_moves_no_watermark_and_proves_nothing(tmp_path: Path, name: str) -> None:
    async with office(tmp_path, "ann") as o:
        before_ms = o.watermark("ann")
        o.cut("ann")
        o.world.http.answers[name] = [Page(facts=()), NoAnswer("reset", written=True)]
        await o.reconnect("ann")
        await o.world.advance(20)
        assert o.watermark("ann") == before_ms
        assert not o.proven("ann")
        assert await o.gaps("ann") == ["open"]
        del o.world.http.answers[name]
        await o.world.advance(40)
        assert o.proven("ann")
        assert await o.gaps("ann") == ["proven"]


async def test_what_was_streamed_meanwhile_is_applied_after_history(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        told: list[Any] = []
        o.world.sync.subscribe(lambda account_id, fact: told.append(fact))
        o.cut("ann")
        missed, streamed = o.fill(1), o.fill(2)
        o.world.hear("ann", streamed)
        assert told == []
        o.world.http.answers["fills"] = Page(facts=(missed,))
        o.held("ann", 2)
        await o.reconnect("ann")
        assert [fact for fact in told if isinstance(fact, FillFact)] == [missed, streamed]
        assert o.proven("ann")


async def test_a_book_that_differs_from_the_statement_is_not_proven(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        o.cut("ann")
        o.held("ann", 7)
        await o.reconnect("ann")
        await o.world.advance(10)
        assert not o.proven("ann")
        desk = o.world.sync.desk("ann")
        assert desk is not None
        assert "book 0, venue 7" in desk.why


async def test_nothing_is_proven_while_the_connection_is_down(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        o.cut("ann")
        o.backfill.check_now("ann")
        await o.world.advance(5)
        assert not o.proven("ann"), "a person asked for it, and still"
        assert await o.gaps("ann") == ["open"]


@pytest.mark.parametrize("name", ["fills", "open_orders", "statement"])
async def test_a_loss_while_history_is_read_leaves_the_gap_open(tmp_path: Path, name: str) -> None:
    async with office(tmp_path, "ann") as o:
        o.cut("ann")

        def lost_again(account_id: str, read: str) -> None:
            if read == name and o.world.links.links["ann"].live:
                o.cut("ann")

        o.world.http.before = lost_again
        await o.reconnect("ann")
        await o.world.advance(5)
        assert not o.proven("ann")
        assert await o.gaps("ann") == ["open"]
        o.world.http.before = lambda account_id, read: None
        await o.reconnect("ann")
        await o.world.advance(20)
        assert o.proven("ann")
        assert await o.gaps("ann") == ["proven"], "one gap, however often it was lost within"


@pytest.mark.parametrize("error", [AUTH, RuntimeError("a mistake of ours"), NoAnswer("reset", written=True)])
async def test_the_trouble_of_one_account_holds_up_no_other(tmp_path: Path, error: Exception) -> None:
    async with office(tmp_path, "ann", "bob") as o:
        o.world.http.answers["ann fills"] = error
        for account_id in ("ann", "bob"):
            o.cut(account_id)
            await o.reconnect(account_id)
        await o.world.advance(3)
        assert (o.proven("ann"), o.proven("bob")) == (False, True)
        assert ("ann" in o.world.roster.halted) == (error is AUTH)


@pytest.mark.parametrize(
    "identity",
    [
        Identity(venue_ref="uid-of-another", may_trade=True, may_withdraw=False, address_bound=True),
        Identity(venue_ref="uid-ann", may_trade=True, may_withdraw=True, address_bound=True),
    ],
    ids=["swapped", "may withdraw"],
)
async def test_a_key_that_is_not_what_it_should_be_halts_its_account(tmp_path: Path, identity: Identity) -> None:
    async with office(tmp_path, "ann") as o:
        o.cut("ann")
        o.world.http.answers["ann identity"] = Page(identity=identity)
        await o.reconnect("ann")
        await o.world.advance(3)
        assert "ann" in o.world.roster.halted
        assert not o.proven("ann")


async def test_a_pause_goes_on_with_the_gap_that_was_open(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        o.cut("ann")
        await o.world.advance(0)
        o.backfill.forget("ann")
        o.backfill.was_away("ann")
        assert await o.gaps("ann") == ["open"]
        await o.reconnect("ann")
        assert await o.gaps("ann") == ["proven"]


async def test_facts_that_the_ledger_could_not_take_are_read_back(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        append = o.world.ledger.append

        def full(rows: list[FactRow]) -> None:
            raise LedgerFull("full")

        o.world.ledger.append = full  # type: ignore[method-assign, assignment]
        fill = o.fill(1)
        o.world.hear("ann", fill)
        o.world.ledger.append = append  # type: ignore[method-assign]
        o.world.http.answers["fills"] = Page(facts=(fill,))
        o.held("ann", 1)
        assert await o.backfill.crosscheck() == 1
        await o.rest()
        assert o.proven("ann")
        with o.world.ledger.read() as connection:
            assert [row.fill.fill_id for row in questions.fills(connection, "ann")] == [fill.fill_id]


async def test_a_history_longer_than_the_ledgers_queue_is_taken_in_bit_by_bit(tmp_path: Path) -> None:
    limit = 1000
    async with office(tmp_path, "ann", ledger_settings=LedgerSettings(queue_limit=limit)) as o:
        o.cut("ann")
        fills = [o.fill(number) for number in range(2 * limit)]
        o.world.http.answers["fills"] = Page(facts=tuple(fills))
        o.held("ann", len(fills))
        await o.reconnect("ann")
        for _ in range(500):
            if o.proven("ann"):
                break
            await o.world.advance(0)
        assert o.proven("ann")
        with o.world.ledger.read() as connection:
            assert connection.scalar(sa.select(sa.func.count()).where(tables.fact.c.kind == "fill")) == len(fills)


async def test_a_stream_that_kept_silent_is_found_and_its_connection_replaced(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", idle_crosscheck_s=30.0) as o:
        old = samples.fill(1, traded_at_ms=o.world.clock.now_ms() - 20_000)
        o.world.http.answers["fills"] = Page(facts=(old,))
        o.held("ann", 1)
        await o.backfill.crosscheck()  # each account's turn is drawn
        await o.world.clock.advance(31)
        assert await o.backfill.crosscheck() == 1
        await o.world.advance(3)
        assert o.world.links.mute == ["ann-private"]


async def test_an_account_with_an_order_at_work_is_looked_after_each_minute_however_idle_it_was(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", crosscheck_s=60.0, idle_crosscheck_s=1e6) as o:
        assert await turns(o) == 0
        (child,) = await o.world.approved(["ann"])
        await o.world.executor.execute("p1", "eve")
        o.world.hear("ann", resting := o.world.seen(child))
        o.world.http.answers["open_orders"] = Page(facts=(resting,))
        assert [await turns(o) > 0 for _ in range(3)] == [True, True, True]


async def turns(o: Office) -> int:
    """How often its account was cross-checked within a minute, by a look each five seconds."""
    started = 0
    for _ in range(12):
        started += await o.backfill.crosscheck()
        await o.rest()
        await o.world.clock.advance(5)
    return started


@pytest.mark.parametrize("tells", [True, False])
async def test_a_stream_that_tells_soon_after_history_is_not_mute_and_one_that_never_does_is(
    tmp_path: Path, tells: bool
) -> None:
    async with office(tmp_path, "ann") as o:
        fresh = o.fill(1)
        o.world.http.answers["fills"] = Page(facts=(fresh,))
        o.held("ann", 1)
        o.backfill.check_now("ann")
        await o.rest()
        assert o.world.links.mute == [], "the stream may be on its way"
        if tells:
            o.world.hear("ann", fresh)
        await o.world.clock.advance(6)
        await o.backfill.crosscheck()
        assert o.world.links.mute == ([] if tells else ["ann-private"])


async def test_a_connection_that_we_hold_back_ourselves_is_not_called_mute_before_it_had_time(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        link = o.world.links.links["ann"]
        link.held_back = True
        o.world.http.answers["fills"] = Page(facts=(samples.fill(1, traded_at_ms=o.world.clock.now_ms() - 20_000),))
        o.held("ann", 1)
        o.backfill.check_now("ann")
        await o.rest()
        await o.world.clock.advance(600)
        await o.backfill.crosscheck()
        link.held_back = False
        await o.backfill.crosscheck()
        assert o.world.links.mute == [], "what it has to tell may still lie in its socket"
        await o.world.clock.advance(6)
        await o.backfill.crosscheck()
        assert o.world.links.mute == ["ann-private"]


async def test_what_is_older_than_the_venue_keeps_is_said_to_be_unprovable(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        o.cut("ann")
        months_s = o.world.roster.venue("ann").capabilities.fills_history_ms / 1000 + 60
        await o.world.clock.advance(months_s)
        await o.reconnect("ann")
        await o.world.advance(5)
        assert await o.gaps("ann") == ["unprovable"]
        assert o.proven("ann"), "what can be known is known: it may trade, and a person is told of the hole"


async def test_an_order_that_the_reads_do_not_show_yet_is_not_taken_for_ended(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        now_ms = o.world.clock.now_ms()
        resting = samples.order(venue_order_id="v1", created_at_ms=now_ms, updated_at_ms=now_ms)
        o.world.hear("ann", resting)
        o.world.http.answers["order"] = not_found()
        desk = o.world.sync.desk("ann")
        assert desk is not None
        o.cut("ann")
        await o.reconnect("ann")
        assert not o.proven("ann"), "the venue's reads may stand behind its stream for so long"
        assert [order.venue_order_id for order in desk.book.open_orders()] == ["v1"]
        await o.world.advance(10)
        assert o.proven("ann")
        assert desk.book.open_orders() == [], "what no read shows long after has ended"


async def test_the_watermark_is_a_time_of_the_venue_however_our_clock_is_set(tmp_path: Path) -> None:
    """Found by simulation: with our clock an hour ahead the next read began after what it was to find."""
    async with office(tmp_path, "ann") as o:
        o.world.clock.shift(3_600_000)
        o.cut("ann")
        await o.reconnect("ann")
        watermark_ms = o.watermark("ann")
        assert watermark_ms is not None
        assert watermark_ms <= o.world.http.venue_now_ms("okx", "demo")


async def test_a_pause_while_history_is_read_ends_the_reading(tmp_path: Path) -> None:
    """Found by simulation: the desk was gone when its held facts were to be released."""
    async with office(tmp_path, "ann") as o:
        watermark_ms = o.watermark("ann")

        def pause(account_id: str, name: str) -> None:
            if name == "fills":
                o.backfill.forget("ann")
                o.world.sync.leave("ann")

        o.cut("ann")
        o.world.http.before = pause
        o.world.http.answers["fills"] = Page(facts=(o.fill(1),))
        await o.reconnect("ann")
        assert o.watermark("ann") == watermark_ms
        assert await o.gaps("ann") == ["open"]


def of_cash(cash: str, at_ms: int) -> BalanceFact:
    return BalanceFact(currency="USDT", cash=Decimal(cash), updated_at_ms=at_ms)


async def test_cash_is_conserved_like_positions(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        now_ms = o.world.clock.now_ms()
        o.world.http.answers["ann statement"] = Page(facts=(of_cash("100", now_ms),))
        o.cut("ann")
        await o.reconnect("ann")
        await o.world.clock.advance(8)
        await o.rest()
        desk = o.world.sync.desk("ann")
        assert desk is not None
        assert (desk.proven, desk.why) == (
            False,
            "the book differs from the venue's statement: USDT: book 0, venue 100",
        )
        told = CashFact(cash_id="c1", currency="USDT", amount=Decimal(100), kind="transfer", booked_at_ms=now_ms)
        o.world.http.answers["cash"] = Page(facts=(told,))
        await o.world.clock.advance(3)
        await o.rest()
        assert o.proven("ann")


async def test_cash_that_the_venue_books_late_is_read_again_before_it_counts(tmp_path: Path) -> None:
    async with office(tmp_path, "ann") as o:
        now_ms = o.world.clock.now_ms()
        o.world.http.answers["ann statement"] = Page(facts=(of_cash("100", now_ms),))
        o.cut("ann")
        await o.reconnect("ann")
        told = CashFact(cash_id="c1", currency="USDT", amount=Decimal(100), kind="transfer", booked_at_ms=now_ms)
        o.world.http.answers["cash"] = Page(facts=(told,))
        await o.world.clock.advance(2)
        await o.rest()
        assert o.proven("ann"), "at the second look"


def night(o: Office, *facts: FillFact) -> None:
    """History shows these only to who asks for the whole day."""

    def answer(account_id: str, name: str) -> None:
        whole_day = o.world.clock.now_ms() - o.world.http.asked_since_ms[-1] > 2 * 3_600_000
        o.world.http.answers["fills"] = Page(facts=facts if whole_day else ())

    o.world.http.before = answer


async def test_the_whole_day_is_read_once_a_night_and_held_against_the_ledger(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", idle_crosscheck_s=1e9, night_hour=3) as o:
        lost = o.fill(1)
        o.held("ann", 0)
        await o.world.clock.advance(3600)
        assert await o.backfill.crosscheck() == 0
        night(o, lost)
        await o.world.clock.advance(3 * 3600)  # an hour after it began: everybody's turn has come
        assert await o.backfill.crosscheck() == 1
        o.held("ann", 1)
        for _ in range(6):
            await o.world.clock.advance(8)
            await o.rest()
        with o.world.ledger.read() as connection:
            assert [f.fill.fill_id for f in questions.fills(connection, "ann")] == [lost.fill_id]
            assert gaps.watermark(connection, "ann", gaps.WHOLE_DAY)
        assert o.proven("ann")
        await o.world.clock.advance(3600)
        assert await o.backfill.crosscheck() == 0, "once a night"


async def test_a_day_that_is_recorded_in_full_changes_nothing(tmp_path: Path) -> None:
    async with office(tmp_path, "ann", idle_crosscheck_s=1e9, night_hour=3) as o:
        known = o.fill(1)
        o.held("ann", 1)
        o.world.hear("ann", known)
        night(o, known)
        await o.world.clock.advance(4 * 3600)
        assert await o.backfill.crosscheck() == 1
        await o.rest()
        assert o.proven("ann")
        assert o.world.links.mute == []
        with o.world.ledger.read() as connection:
            assert gaps.watermark(connection, "ann", gaps.WHOLE_DAY)


@pytest.mark.parametrize(("of_venue_s", "asked_before_s"), [(0.0, 300), (60.0, 60), (900.0, 900)])
async def test_history_is_read_from_an_overlap_that_may_be_the_venues_own(
    tmp_path: Path, of_venue_s: float, asked_before_s: int
) -> None:
    async with office(tmp_path, "ann") as o:
        o.world.roster._settings = {"okx": VenueSettings(overlap_s=of_venue_s)}
        watermark_ms = o.watermark("ann")
        o.world.http.asked_since_ms.clear()
        o.cut("ann")
        await o.reconnect("ann")
        assert watermark_ms is not None
        assert watermark_ms - max(o.world.http.asked_since_ms) == 1000 * asked_before_s
