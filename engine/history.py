"""Does. Reads what a venue knows of one account: its history and its statement, each read to its proven end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import msgspec

from engine import crash
from engine.core.facts import AccountFact, Fact, OrderFact, OrderStatus
from engine.core.venue import ErrorClass, Priority, Read, VenueError
from engine.roster import Roster
from engine.sync import Desk
from engine.wire.http import Http


class NotProven(Exception):
    """History was read, and what it says does not agree with the venue's statement."""


class Reading(msgspec.Struct):
    """What one reading found."""

    facts: list[AccountFact] = msgspec.field(default_factory=list)
    pages: int = 0


class History:
    def __init__(self, *, http: Http, roster: Roster) -> None:
        self._http, self._roster = http, roster

    async def since(self, desk: Desk, since_ms: int) -> Reading:
        """Every read to its proven end; raises when one of them failed, and then nothing counts as read.

        Every order that the book has at work is among the facts.
        """
        account_id, now_ms = desk.account_id, self.now_ms(desk.account_id)
        rest = self._roster.rest(account_id)
        open_before = {o.venue_order_id: o for o in desk.book.open_orders()}
        oldest_ms = min((o.created_at_ms for o in open_before.values()), default=since_ms)
        reading = Reading()
        # Open orders last: one that ends between two reads is then found missing, and asked for by itself.
        await self._walk(account_id, rest.fills(since_ms, now_ms), reading)
        await self._walk(account_id, rest.orders(min(since_ms, oldest_ms), now_ms), reading)
        await self._walk(account_id, rest.cash(since_ms, now_ms), reading)
        await self._walk(account_id, rest.open_orders(), reading)
        told = {f.venue_order_id for f in reading.facts if isinstance(f, OrderFact)}
        for order in open_before.values():
            if order.venue_order_id not in told:
                reading.facts.append(await self._one(account_id, order))
        return reading

    async def moved_since(self, account_id: str, since_ms: int) -> Reading:
        """What moves positions and cash."""
        rest, now_ms, reading = self._roster.rest(account_id), self.now_ms(account_id), Reading()
        await self._walk(account_id, rest.fills(since_ms, now_ms), reading)
        await self._walk(account_id, rest.cash(since_ms, now_ms), reading)
        return reading

    async def ended_since(self, account_id: str, since_ms: int) -> Reading:
        """What moves positions and cash, and the orders that ended."""
        reading = await self.moved_since(account_id, since_ms)
        rest = self._roster.rest(account_id)
        await self._walk(account_id, rest.orders(since_ms, self.now_ms(account_id)), reading)
        return reading

    async def statement(self, account_id: str) -> list[Fact]:
        origin, facts = self._roster.origin(account_id), list[Fact]()
        for read in self._roster.rest(account_id).statement():
            async for page in self._http.walk(origin, read, priority=Priority.STATEMENT):
                facts.extend(page.facts)
        return facts

    def now_ms(self, account_id: str) -> int:
        """The venue's time: watermarks and windows are told in it, for ours may be set meanwhile."""
        account = self._roster.account(account_id)
        return self._http.venue_now_ms(account.venue, account.environment)

    async def _walk(self, account_id: str, reads: Iterable[Read], reading: Reading) -> None:
        origin = self._roster.origin(account_id)
        for read in reads:
            async for page in self._http.walk(origin, read, priority=Priority.HISTORY):
                crash.point("backfill-between-pages")
                reading.pages += 1
                reading.facts.extend(cast("list[AccountFact]", page.facts))

    async def _one(self, account_id: str, order: OrderFact) -> AccountFact:
        """An order we thought at work that no list shows: the venue's word on it alone decides."""
        instrument = self._roster.catalogue(account_id).by_name(order.instrument)
        if instrument is None:
            raise NotProven(f"order {order.venue_order_id} is in {order.instrument}, which the venue does not list")
        read = self._roster.rest(account_id).order(instrument, order.client_order_id, order.venue_order_id)
        try:
            origin = self._roster.origin(account_id)
            facts = [f async for page in self._http.walk(origin, read, priority=Priority.HISTORY) for f in page.facts]
        except VenueError as error:
            if error.error_class is not ErrorClass.NOT_FOUND:
                raise
            lag_ms = self._roster.venue(account_id).capabilities.max_read_lag_ms
            if self.now_ms(account_id) - order.updated_at_ms <= lag_ms:
                raise NotProven(f"order {order.venue_order_id} is too new for the venue's reads to show it") from None
            # Not open, not in history, not known by its id: an unfilled order that ended longer ago than the
            # venue keeps such orders.
            return msgspec.structs.replace(
                order,
                status=OrderStatus.CANCELLED,
                reason="unexplained: the venue no longer knows it",
                updated_at_ms=self.now_ms(account_id),
            )
        return cast("AccountFact", facts[0])
