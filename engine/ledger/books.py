"""Does. A book out of the ledger: its checkpoint, and every fact after it.

A checkpoint holds exactly the facts up to its number. Therefore the snapshot is taken where facts are folded and
appended (the event loop), the job that stores it closes its group, and replaying what came later counts nothing
twice: not even what is older than the book's horizon.

A checkpoint of another form counts as none: every fact is folded anew, on what the account was opened with. That is
in the checkpoint or, where an earlier form only told of when, found among the statements' rows.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from engine.core.book import Book, Opening
from engine.core.facts import BalanceFact, PositionFact
from engine.core.instruments import Instrument
from engine.ledger import facts, rows
from engine.ledger.ledger import Ledger
from engine.ledger.tables import checkpoint, fact


class UnreadableBook(ValueError):
    """A checkpoint that cannot be read, and the facts do not tell what the account was opened with."""

    def __init__(self, account_id: str, why: object) -> None:
        super().__init__(
            f"The book of {account_id} cannot be made: its checkpoint was written by another version ({why}). Start "
            "the version that wrote it, or bring back a backup: unisono restore FILE."
        )


class _Contained(msgspec.Struct):
    trade_number: int | None
    at_ms: int


class _Remains(msgspec.Struct):
    """What every form of a checkpoint tells of the opening; the rows themselves since the second."""

    opened_at_ms: int
    position_openings: list[tuple[str, str, _Contained]]
    cash_openings: dict[str, int]
    opening: Opening | None = None


def load(connection: sa.Connection, account_id: str, lookup: Callable[[str], Instrument | None]) -> Book:
    """The account's book as far as it is durable. An account nobody recorded has an empty one.

    Raises UnreadableBook.
    """
    kept = connection.execute(sa.select(checkpoint).where(checkpoint.c.account_id == account_id)).one_or_none()
    book, since = Book(account_id, lookup), 0
    if kept is not None:
        try:
            book, since = Book.restore(kept.body, lookup), kept.fact_id
        except msgspec.MsgspecError as error:
            if (opening := _opening(connection, account_id, kept.body, error)) is not None:
                book.open_with(opening.positions, opening.balances, opening.at_ms)
    later = (
        sa.select(fact.c.id, fact.c.kind, fact.c.key, fact.c.body)
        .where(fact.c.account_id == account_id, fact.c.id > since)
        .order_by(fact.c.id)
    )
    for number, kind, key, body in connection.execute(later):
        one = facts.read(body)
        if book.has_forgotten(one) and _told_before(connection, account_id, number, facts.other_key(kind, key)):
            continue  # the fee of a fill that was counted long ago: whether to count it, too, nobody can say any more
        book.fold(one, unseen=True)
    return book


def _opening(connection: sa.Connection, account_id: str, body: str, why: Exception) -> Opening | None:
    """Out of a checkpoint that is not to be restored; None: the account was not opened yet."""
    try:
        remains = msgspec.json.decode(body, type=_Remains)
    except msgspec.MsgspecError:
        raise UnreadableBook(account_id, why) from None
    if remains.opening is not None or remains.opened_at_ms < 0:
        return remains.opening
    rows_of = sa.select(fact.c.body).where(fact.c.account_id == account_id)
    wanted = {*remains.cash_openings.values(), *(o.at_ms for _, _, o in remains.position_openings)}
    stated = rows_of.where(fact.c.kind.in_(("position", "balance")), fact.c.at_ms.in_(wanted))
    told = [facts.read(text) for text in connection.scalars(stated)]
    positions = [
        [
            f
            for f in told
            if isinstance(f, PositionFact)
            and (f.instrument, f.position_side) == (name, side)
            and (f.last_trade_number, f.updated_at_ms) == (opened.trade_number, opened.at_ms)
        ]
        for name, side, opened in remains.position_openings
    ]
    balances = [
        [f for f in told if isinstance(f, BalanceFact) and (f.currency, f.updated_at_ms) == (currency, at_ms)]
        for currency, at_ms in remains.cash_openings.items()
    ]
    if {*map(len, positions), *map(len, balances)} - {1}:  # a guess would be a wrong position for ever
        raise UnreadableBook(account_id, why)
    return Opening(
        at_ms=remains.opened_at_ms,
        positions=tuple(found for (found,) in positions),
        balances=tuple(found for (found,) in balances),
    )


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
