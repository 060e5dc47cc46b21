"""Does. The two sides of a reconciliation as the running engine has them: the venue asked, our books read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

from engine.backfill import Backfill
from engine.children import Children
from engine.core.facts import BalanceFact, OrderFact, PositionFact
from engine.core.orders import OrderState
from engine.core.plans import Child
from engine.core.runs import Run
from engine.core.statements import LedgerSide, OpenGap, OrderLine, Statement, line_of
from engine.core.venue import Page, Priority, Read
from engine.ledger import Ledger, gaps, questions, runs
from engine.links import Links
from engine.reconcile import Seen, Subject, read_statement
from engine.roster import Roster
from engine.sync import Sync
from engine.wire.http import Http, Origin
from scheduler.clock import Clock

_LOOK_BACK_MS = 24 * 3600 * 1000  # fills of the last day are compared, orders that ended in it are known


class Sides:
    """Implements `engine.reconcile.Ports`."""

    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        sync: Sync,
        links: Links,
        http: Http,
        roster: Roster,
        children: Children,
        backfill: Backfill,
    ) -> None:
        self._clock, self._ledger, self._sync, self._links = clock, ledger, sync, links
        self._http, self._roster, self._children, self._backfill = http, roster, children, backfill

    def subjects(self, account_ids: Sequence[str]) -> list[Subject]:
        return [
            Subject(
                account_id=account_id,
                venue=self._roster.account(account_id).venue,
                catalogue=self._roster.catalogue(account_id),
                owns_order_id=self._roster.venue(account_id).owns_order_id,
            )
            for account_id in account_ids
        ]

    def now_ms(self, account_id: str) -> int:
        """By the venue's clock: its fills and orders bear its times, and ours may be off by hours."""
        account = self._roster.account(account_id)
        return self._http.venue_now_ms(account.venue, account.environment)

    async def statement(self, account_id: str) -> Statement:
        origin = self._roster.origin(account_id)
        await self._http.know_time(origin)
        return await read_statement(
            account_id,
            self._roster.rest(account_id),
            partial(self._walk, origin),
            as_of_ms=self.now_ms(account_id),
            since_ms=self._since_ms(account_id),
        )

    async def ledger_side(self, account_id: str, since_ms: int) -> LedgerSide:
        desk = self._sync.desk(account_id)
        if desk is None:
            raise LookupError("the account has no book in the running engine")
        await self._ledger.write(_nothing)  # what was heard before now is in
        book = desk.book
        with self._ledger.read() as conn:
            fills = [row.fill for row in questions.fills(conn, account_id, since_ms=since_ms, limit=None)]
        gap = self._backfill.gap_of(account_id)
        return LedgerSide(
            account_id=account_id,
            as_of_ms=self.now_ms(account_id),
            since_ms=since_ms,
            positions=tuple(
                PositionFact(
                    instrument=position.instrument,
                    position_side=position.position_side,
                    quantity=position.quantity,
                    avg_price=position.avg_price,
                    updated_at_ms=position.changed_at_ms,
                )
                for position in book.positions()
                if position.quantity
            ),
            balances=tuple(
                BalanceFact(currency=currency, cash=amount, updated_at_ms=book.cash_changed_ms.get(currency, 0))
                for currency, amount in book.cash.items()
            ),
            orders=tuple(self._orders(account_id, book.orders(), since_ms)),
            fills=tuple(fills),
            gaps=() if gap is None else (_open_gap(gap),),
            stale=self._stale(account_id),
            last_fact_at_ms=desk.last_fact_ms,
        )

    async def seen(self, break_ids: Sequence[str]) -> Mapping[str, Seen]:
        with self._ledger.read() as conn:
            return {i: Seen(s.first_seen_ms, s.runs_seen) for i, s in runs.seen(conn, break_ids).items()}

    async def save(self, run: Run) -> None:
        await self._ledger.write(lambda conn: runs.save(conn, run))

    def _since_ms(self, account_id: str) -> int:
        """Fills of the last day, or since our records of the account begin."""
        desk = self._sync.desk(account_id)
        opened_ms = desk.book.opened_at_ms if desk is not None else None
        return max(self.now_ms(account_id) - _LOOK_BACK_MS, opened_ms or 0)

    def _orders(self, account_id: str, known: Sequence[OrderFact], since_ms: int) -> list[OrderLine]:
        """Our children as we believe them to be, and the account's other orders as the venue told them."""
        children = {c.client_order_id: c for c in self._children.of_account(account_id)}
        mine = {c.venue_order_id for c in children.values() if c.venue_order_id}
        ahead_ms = self.now_ms(account_id) - self._clock.now_ms()  # a child bears the time of our own clock
        lines = [_line_of_child(c, ahead_ms) for c in children.values() if _compared(c, since_ms - ahead_ms)]
        lines += [
            line_of(order)
            for order in known
            if order.client_order_id not in children
            and not (order.client_order_id == "" and order.venue_order_id in mine)
            and (not order.status.terminal or order.updated_at_ms >= since_ms)
        ]
        return lines

    def _stale(self, account_id: str) -> str:
        if why := self._roster.halted.get(account_id):
            return f"halted: {why}"
        link = self._links.of_listener(account_id, self._roster.fact_kind(account_id))
        if link is None or not link.live:
            return "its connection is " + ("closed" if link is None else link.phase.value)
        desk = self._sync.desk(account_id)
        return "" if desk is not None and desk.proven else "its record is not proven"

    async def _walk(self, origin: Origin, read: Read) -> AsyncIterator[Page]:
        async for page in self._http.walk(origin, read, priority=Priority.STATEMENT):
            yield page


def _nothing(conn: object) -> None:
    return None


def _compared(child: Child, since_ms: int) -> bool:
    if child.state in (OrderState.PLANNED, OrderState.SKIPPED, OrderState.NOT_PLACED, OrderState.REJECTED):
        return False
    return child.state in (OrderState.SENDING, OrderState.UNKNOWN, OrderState.WORKING) or (
        child.updated_at_ms >= since_ms
    )


def _open_gap(gap: gaps.Gap) -> OpenGap:
    return OpenGap(
        gap_id=str(gap.gap_id), from_ms=gap.since_ms, to_ms=gap.closed_at_ms, state=gap.state.value, reason=gap.reason
    )


def _line_of_child(child: Child, ahead_ms: int) -> OrderLine:
    return OrderLine(
        instrument=child.instrument,
        client_order_id=child.client_order_id,
        venue_order_id=child.venue_order_id,
        side=child.side,
        quantity=child.quantity,
        price=child.price,
        filled=child.filled,
        state=child.state,
        changed_at_ms=child.updated_at_ms + ahead_ms,
        plan_id=child.plan_id,
        child_id=child.child_id,
    )
