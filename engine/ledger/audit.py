"""Does. Who did what: rows that nobody can change afterwards, and that show when somebody did."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from accounts import chain
from engine.ledger import rows
from engine.ledger.tables import audit

SEALED = ("at_ms", "by", "action", "subject", "before", "after")
"""The columns of a deed that its seal covers, in order."""

_ONE_AT_A_TIME = 0x6465656473  # "deeds": any number, the same in every process
_HEAD = sa.select(audit.c.seal).order_by(audit.c.id.desc()).limit(1)


class Deed(msgspec.Struct, frozen=True):
    id: int
    at_ms: int
    by: str
    action: str
    subject: str
    before: str
    after: str


def add(
    connection: sa.Connection, at_ms: int, by: str, action: str, subject: str, before: str = "", after: str = ""
) -> None:
    """Others who add wait until this transaction ends: on SQLite for its write lock, on PostgreSQL for one of ours."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
    content, previous = (at_ms, by, action, subject, before, after), connection.scalar(_HEAD) or chain.BEGINNING
    rows.put(connection, audit, [(*content, previous, chain.seal(previous, content))])


def newest(
    connection: sa.Connection, limit: int = 100, *, since_ms: int = 0, by: str = "", subject: str = ""
) -> list[Deed]:
    """The latest first; `by` and `subject` where they are given."""
    query = sa.select(*(audit.c[name] for name in Deed.__struct_fields__)).order_by(audit.c.id.desc()).limit(limit)
    query = query.where(audit.c.at_ms >= since_ms)
    for column, wanted in ((audit.c.by, by), (audit.c.subject, subject)):
        if wanted:
            query = query.where(column == wanted)
    return [Deed(**rows.named(row)) for row in connection.execute(query)]


def verify(connection: sa.Connection) -> chain.Chain:
    """Is every deed as it was written, and in its place? Reads them all."""
    query = sa.select(*(audit.c[name] for name in ("id", "previous", "seal", *SEALED))).order_by(audit.c.id)
    with connection.execute(query.execution_options(yield_per=1000)) as found:
        return chain.check(chain.Sealed(number, before, seal, row) for number, before, seal, *row in found)


def has_seal(connection: sa.Connection, seal: str) -> bool:
    """Does a deed carry it?"""
    return connection.scalar(sa.select(audit.c.id).where(audit.c.seal == seal)) is not None
