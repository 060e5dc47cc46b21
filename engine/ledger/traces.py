"""Does. One account's facts out of the ledger, all of them since its opening, each with how it came to us."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from engine.core.book import Book
from engine.core.explain import Origin
from engine.core.facts import FillFact
from engine.core.instruments import Instrument
from engine.ledger import books, facts
from engine.ledger.questions import plans_of
from engine.ledger.tables import fact

_MOVES = ("fill", "cash")


class Trace(msgspec.Struct, frozen=True):
    shown: Book  # as the engine has it
    whole: Book  # folded anew from the same opening; it has forgotten nothing
    origins: dict[tuple[str, str], Origin]  # by kind and key, of what moves anything or was stated

    def origin(self, kind: str, key: str) -> Origin:
        return self.origins.get((kind, key), Origin())


def trace(connection: sa.Connection, account_id: str, lookup: Callable[[str], Instrument | None]) -> Trace:
    shown = books.load(connection, account_id, lookup)
    whole, origins, fills = Book(account_id, shown.instrument), dict[tuple[str, str], Origin](), list[FillFact]()
    opening = shown.opening
    if opening is not None:
        whole.open_with(opening.positions, opening.balances, opening.at_ms)
    columns = (fact.c.kind, fact.c.source, fact.c.connection_key, fact.c.received_at_ms, fact.c.body)
    told = sa.select(*columns).where(fact.c.account_id == account_id)
    moves = told.where(fact.c.kind.in_(_MOVES))
    stated = told.where(fact.c.key.in_(_stated(shown)), fact.c.kind.in_(("position", "balance")))
    for query in (stated, moves):
        for kind, source, connection_key, received_at_ms, body in connection.execute(query.order_by(fact.c.id)):
            one = facts.read(body)
            origins.setdefault(
                (kind, one.key), Origin(source=source, connection_key=connection_key, received_at_ms=received_at_ms)
            )
            if kind in _MOVES:
                whole.fold(one)
            if isinstance(one, FillFact):
                fills.append(one)
    plans = plans_of(connection, [(account_id, fill) for fill in fills])
    for fill in fills:
        plan_id = plans.get((account_id, fill.fill_id))
        origins["fill", fill.key] = msgspec.structs.replace(
            origins["fill", fill.key], plan_id=plan_id or "", external=plan_id is None
        )
    return Trace(shown, whole, origins)


def _stated(book: Book) -> list[str]:
    """The keys of the opening's rows."""
    opening = book.opening
    if opening is None:
        return []
    return [p.key for p in opening.positions] + [b.key for b in opening.balances]
