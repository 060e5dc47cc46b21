"""Does. Who did what: rows that nobody can change afterwards."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from engine.ledger import rows
from engine.ledger.tables import audit


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
    rows.put(connection, audit, [(at_ms, by, action, subject, before, after)])


def newest(connection: sa.Connection, limit: int = 100) -> list[Deed]:
    found = connection.execute(sa.select(audit).order_by(audit.c.id.desc()).limit(limit))
    return [Deed(**row._mapping) for row in found]
