"""Does. The one front door for facts: streamed or fetched -> book -> ledger -> subscribers.

Streamed and fetched facts are not told apart afterwards. While an account is not proven, its streamed facts are
held back; the backfill applies history first and then releases what was held, through the same door.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import structlog

from engine.core.book import Book
from engine.core.facts import AccountFact, EquityFact, Fact, FillFact, MarkFact, OrderFact
from engine.core.instruments import Instrument
from engine.core.marks import Marks
from engine.ledger import FactRow, LedgerFull, Source, row

log = structlog.get_logger("sync")

_HELD_TOGETHER = 10
_EQUITY_EVERY_MS = (
    60_000  # a venue values an account every few seconds: the book follows, the ledger keeps one a minute
)


class Sink(Protocol):
    """Where facts are appended durably (the ledger)."""

    @property
    def full(self) -> bool: ...
    def append(self, rows: list[FactRow]) -> None: ...
    def unrecorded(self, account_id: str, facts: Sequence[AccountFact]) -> Collection[AccountFact]: ...
    async def room(self) -> None: ...


class Desk:
    """One account's running state: its book, and whether what we know of it is proven."""

    __slots__ = (
        "account_id",
        "book",
        "equity_kept_ms",
        "held",
        "last_fact_ms",
        "lost",
        "proven",
        "proven_at_ms",
        "unheard",
        "why",
    )

    def __init__(self, account_id: str, book: Book) -> None:
        self.account_id = account_id
        self.book = book
        self.held: deque[tuple[Sequence[Fact], int, str]] | None = deque()  # None: facts go straight in
        self.lost = False  # a fact could not be kept: book and held facts are not whole, history must tell again
        self.proven = False
        self.proven_at_ms: int | None = None
        self.last_fact_ms: int | None = None
        self.equity_kept_ms = 0
        self.unheard: dict[str, int] = {}  # orders and fills that history told first, until the stream tells them, too
        self.why = "not read back yet"


class Catalogue:
    """Instruments of one venue and environment by our name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Instrument] = {}
        self.whole = False  # the venue's whole list was read since this engine began; until then it may be an old one

    def by_name(self, name: str) -> Instrument | None:
        return self._by_name.get(name)

    def listed(self) -> Collection[Instrument]:
        return self._by_name.values()

    def add(self, instruments: Sequence[Instrument]) -> tuple[list[Instrument], list[tuple[Instrument, Instrument]]]:
        """Takes instruments in; returns those that were not known, and the changes as (before, after)."""
        new, changes = list[Instrument](), list[tuple[Instrument, Instrument]]()
        for one in instruments:
            known = self._by_name.get(one.name)
            self._by_name[one.name] = one
            if known is None:
                new.append(one)
            elif known != one:
                changes.append((known, one))
        return new, changes

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_name.values())


Subscriber = Callable[[str, AccountFact], None]


class Sync:
    """Books of all accounts, catalogues, and the latest marks. Single-threaded: called from the event loop only."""

    def __init__(self, sink: Sink, *, hold_limit: int) -> None:
        """`hold_limit` frames of one account are held back at most, and of all accounts together ten times as many."""
        self._sink = sink
        self._hold_limit, self._held = hold_limit, 0
        self._desks: dict[str, Desk] = {}
        self._subscribers: list[Subscriber] = []
        self._catalogues: dict[tuple[str, str], Catalogue] = {}
        self.marks = Marks()
        self.facts_taken = 0
        self.facts_known = 0  # heard again: duplicates and stale ones

    # ---- who is here

    def enter(self, account_id: str, book: Book) -> Desk:
        """From now on facts of this account are kept, held back until it is proven."""
        desk = self._desks[account_id] = Desk(account_id, book)
        return desk

    def leave(self, account_id: str) -> None:
        desk = self._desks.pop(account_id, None)
        self._held -= len(desk.held or ()) if desk is not None else 0

    def desk(self, account_id: str) -> Desk | None:
        return self._desks.get(account_id)

    def desks(self) -> list[Desk]:
        return list(self._desks.values())

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    @property
    def full(self) -> bool:
        """True while the ledger cannot keep up: receive loops wait in `room` and the venue's socket fills."""
        return self._sink.full

    async def room(self) -> None:
        await self._sink.room()

    # ---- the door

    def hear(self, account_id: str, facts: Sequence[Fact], received_at_ms: int, connection_key: str) -> None:
        """Streamed facts of one account: held back while it is not proven, taken in otherwise."""
        desk = self._desks.get(account_id)
        if desk is None:
            return  # closed a moment ago; if it comes back, history tells this again
        if desk.held is None:
            self._take(desk, facts, received_at_ms, Source.STREAM, connection_key)
        elif len(desk.held) < self._hold_limit and self._held < self._hold_limit * _HELD_TOGETHER:
            desk.held.append((facts, received_at_ms, connection_key))
            self._held += 1
        else:
            desk.lost = True  # the read-back starts over: see backfill

    def fetched(
        self, account_id: str, facts: Sequence[Fact], received_at_ms: int, *, source: Source = Source.HISTORY
    ) -> list[AccountFact]:
        """Facts read from history or a statement; returns those that were news.

        A venue may tell more than it was asked for, again and again: its whole session, all fills of one order. What
        is older than the book remembers and recorded long ago is passed over, or the book would be made anew each time.
        """
        desk = self._desks.get(account_id)
        if desk is None:
            return []
        forgotten = [f for f in facts if not isinstance(f, MarkFact) and desk.book.has_forgotten(f)]
        if forgotten:
            unrecorded = self._sink.unrecorded(account_id, forgotten)
            recorded = {id(f) for f in forgotten} - {id(f) for f in unrecorded}
            self.facts_known += len(recorded)
            facts = [f for f in facts if id(f) not in recorded]
        return self._take(desk, facts, received_at_ms, source, "")

    def hold(self, account_id: str, why: str) -> None:
        """From now on the account is not proven: streamed facts are kept aside, no new orders."""
        desk = self._desks.get(account_id)
        if desk is None:
            return
        desk.proven, desk.why = False, why
        desk.unheard.clear()
        if desk.held is None:
            desk.held = deque()

    def release(self, account_id: str, at_most: int) -> bool:
        """Apply so much of what was held back, in the order of its arrival; True once facts go straight in again."""
        desk = self._desks[account_id]
        held = desk.held if desk.held is not None else deque()
        for _ in range(min(at_most, len(held))):
            facts, received_at_ms, connection_key = held.popleft()
            self._held -= 1
            self._take(desk, facts, received_at_ms, Source.STREAM, connection_key)
        if not held:
            desk.held = None
        return not held

    def _take(
        self, desk: Desk, facts: Sequence[Fact], received_at_ms: int, source: Source, connection_key: str
    ) -> list[AccountFact]:
        account_id, book = desk.account_id, desk.book
        rows: list[FactRow] = []
        news: list[AccountFact] = []
        for fact in facts:
            if isinstance(fact, MarkFact):
                continue
            if source is Source.STREAM and desk.unheard:
                desk.unheard.pop(_occasion(fact), None)
            told = book.fold(fact)
            if told is False:
                self.facts_known += 1
                continue
            if type(fact) is EquityFact:
                if received_at_ms - desk.equity_kept_ms < _EQUITY_EVERY_MS:
                    continue
                desk.equity_kept_ms = received_at_ms
            if told is None:
                # Older than the book remembers ids: the ledger's unique key decides, and the book is made anew
                # from it before the account is proven again.
                desk.lost = True
            rows.append(
                row(account_id, fact, received_at_ms=received_at_ms, source=source, connection_key=connection_key)
            )
            news.append(fact)
            if source is Source.HISTORY and desk.proven and isinstance(fact, OrderFact | FillFact):
                desk.unheard[_occasion(fact)] = received_at_ms
        if rows:
            desk.last_fact_ms = received_at_ms
            try:
                self._sink.append(rows)
            except LedgerFull:
                desk.lost = True
                log.error("facts_not_kept", account=account_id, facts=len(rows), next="read back from history")
            self.facts_taken += len(rows)
            for fact in news:
                for subscriber in self._subscribers:
                    subscriber(account_id, fact)
        return news

    # ---- what is shared by accounts

    def catalogue(self, venue: str, environment: str) -> Catalogue:
        return self._catalogues.setdefault((venue, environment), Catalogue())

    def catalogues(self) -> list[tuple[str, str, Catalogue]]:
        """Venue, environment and catalogue of each place that was asked for."""
        return [(*place, catalogue) for place, catalogue in self._catalogues.items()]


def _occasion(fact: Fact) -> str:
    """What a stream must have told something of, when history knows it."""
    if isinstance(fact, OrderFact):
        return f"order {fact.venue_order_id}"
    return f"fill {fact.fill_id}" if isinstance(fact, FillFact) else ""
