"""Does. A book out of the ledger: its checkpoint, and every fact after it.

A checkpoint holds exactly the facts up to its number. Therefore the snapshot is taken where facts are folded and
appended (the event loop), the job that stores it closes its group, and replaying what came later counts nothing
twice: not even what is older than the book's horizon.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from engine.core.book import Book
from engine.core.instruments import Instrument
from engine.ledger import facts, rows
from engine.ledger.ledger import Ledger
from engine.ledger.tables import checkpoint, fact


def load(connection: sa.Connection, account_id: str, lookup: Callable[[str], Instrument | None]) -> Book:
    """The account's book as far as it is durable. An account nobody recorded has an empty one."""
    kept = connection.execute(sa.select(checkpoint).where(checkpoint.c.account_id == account_id)).one_or_none()
    book = Book(account_id, lookup) if kept is None else Book.restore(kept.body, lookup)
    later = (
        sa.select(fact.c.id, fact.c.kind, fact.c.key, fact.c.body)
        .where(fact.c.account_id == account_id, fact.c.id > (0 if kept is None else kept.fact_id))
        .order_by(fact.c.id)
    )
    for number, kind, key, body in connection.execute(later):
        one = facts.read(body)
        if book.has_forgotten(one) and _told_before(connection, account_id, number, facts.other_key(kind, key)):
            continue  # the fee of a fill that was counted long ago: whether to count it, too, nobody can say any more
        book.fold(one, unseen=True)
    return book


def _told_before(connection: sa.Connection, account_id: str, number: int, key: str) -> bool:
    before = sa.select(fact.c.id).where(
        fact.c.account_id == account_id, fact.c.kind == "fill", fact.c.key == key, fact.c.id < number
    )
    return connection.scalar(before) is not None


def post(ledger: Ledger, book: Book) -> None:
    """Queue a checkpoint of the book as it is now. Every fact it holds must have been appended, and no other."""
    ledger.post(_saving(book), closes_group=True)


async def keep(ledger: Ledger, book: Book) -> None:
    """`post`, and durable on return."""
    await ledger.write(_saving(book), closes_group=True)


def _saving(book: Book) -> Callable[[sa.Connection], None]:
    account_id, body = book.account_id, book.snapshot().decode()

    def save(connection: sa.Connection) -> None:
        last = connection.scalar(sa.select(sa.func.max(fact.c.id)).where(fact.c.account_id == account_id))
        rows.upsert(connection, checkpoint, {"account_id": account_id, "fact_id": last or 0, "body": body})

    return save
