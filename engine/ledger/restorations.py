"""Does. Was this database put back from a backup, and which orders at the venues does it therefore know nothing of?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import sqlalchemy as sa

from engine.ledger import audit, gaps, rows
from engine.ledger.tables import intent, orphan, restoration

_CHUNK = 500


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """A restore that nobody has released yet: no orders are sent."""

    id: int
    restored_at_ms: int
    source: str
    by: str
    since_ms: int | None  # every order that the venues had by then is known; None: nobody can tell


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """An order with an id of our form that this ledger never claimed."""

    account_id: str
    venue_order_id: str
    client_order_id: str
    instrument: str
    found_at_ms: int


def begin(connection: sa.Connection, source: str, by: str, now_ms: int) -> None:
    """From now on the engine is read-only on this database.

    The copy was made after the newest of its watermarks, and what was claimed before it was made is in it.
    """
    known_ms = max(gaps.watermarks(connection, gaps.HISTORY).values(), default=None)
    rows.put(connection, restoration, [(now_ms, source, by, None, "", known_ms)])
    audit.add(connection, now_ms, by, "restore", source, after="read-only")


def pending(connection: sa.Connection) -> Restoration | None:
    """The newest restore that was not released, since the oldest of them; None when the database is whole."""
    columns = [restoration.c[name] for name in Restoration.__struct_fields__]
    query = sa.select(*columns).where(restoration.c.released_at_ms.is_(None)).order_by(restoration.c.id)
    found = [Restoration(**rows.named(row)) for row in connection.execute(query)]
    if not found:
        return None
    since = [one.since_ms for one in found if one.since_ms is not None]
    return msgspec.structs.replace(found[-1], since_ms=min(since) if len(since) == len(found) else None)


def release(connection: sa.Connection, by: str, now_ms: int, note: str) -> None:
    """Orders may be sent again."""
    open_ones = restoration.c.released_at_ms.is_(None)
    released = {"released_at_ms": now_ms, "released_by": by}
    if connection.execute(sa.update(restoration).where(open_ones).values(released)).rowcount:
        audit.add(connection, now_ms, by, "restore released", "", "read-only", note)


def note_orphans(connection: sa.Connection, found: Sequence[Orphan]) -> None:
    """Known ones stay as they are, also when a person has accepted them."""
    rows.put(connection, orphan, [(*msgspec.structs.astuple(o), None, "", "") for o in found], once=True)


def unaccepted(connection: sa.Connection) -> list[Orphan]:
    columns = [orphan.c[name] for name in Orphan.__struct_fields__]
    query = sa.select(*columns).where(orphan.c.accepted_at_ms.is_(None)).order_by(*orphan.primary_key)
    return [Orphan(**rows.named(row)) for row in connection.execute(query)]


def accept(connection: sa.Connection, by: str, why: str, now_ms: int) -> int:
    """Every orphan known now. Returns how many."""
    still_open = orphan.c.accepted_at_ms.is_(None)
    accepted = {"accepted_at_ms": now_ms, "accepted_by": by, "why": why}
    count = connection.execute(sa.update(orphan).where(still_open).values(accepted)).rowcount
    audit.add(connection, now_ms, by, "orphans accepted", "", after=f"{count} orders: {why}")
    return count


def claimed(connection: sa.Connection, client_order_ids: Collection[str]) -> set[str]:
    """Those of these ids that this ledger claimed before they were sent."""
    asked, found = sorted(client_order_ids), set[str]()
    for start in range(0, len(asked), _CHUNK):
        chosen = intent.c.intent_id.in_(asked[start : start + _CHUNK])
        found.update(connection.scalars(sa.select(intent.c.intent_id).where(chosen)))
    return found
