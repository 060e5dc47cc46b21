"""Does. What may have been missed, and up to where history is known to be complete."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import sqlalchemy as sa

from engine import crash
from engine.core.facts import AccountFact
from engine.ledger import rows
from engine.ledger.facts import Source, other_key, row
from engine.ledger.tables import cursor, fact, gap

HISTORY = "history"  # the stream of orders, fills and cash
WHOLE_DAY = "whole day"  # the same, read once a night and held against what was recorded
_CHUNK = 500


class GapState(StrEnum):
    OPEN = "open"
    BACKFILLED = "backfilled"  # history was read and applied, the comparison is still to come
    PROVEN = "proven"
    UNPROVABLE = "unprovable"  # older than the venue's history: a break for a person


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of one account's time in which facts may have been missed."""

    gap_id: str
    account_id: str
    connection_key: str
    since_ms: int
    opened_at_ms: int
    closed_at_ms: int | None = None
    state: GapState = GapState.OPEN
    reason: str
    facts_found: int = 0
    fills_found: int = 0
    pages_read: int = 0
    proven_at_ms: int | None = None
    note: str = ""


def new_id(now_ms: int, rng: random.Random) -> str:
    """Sorts by time; unique for all practical purposes."""
    return f"g{now_ms:011x}{rng.getrandbits(32):08x}"


def save(connection: sa.Connection, one: Gap) -> None:
    """A new gap, or the new state of a known one."""
    rows.upsert(connection, gap, msgspec.to_builtins(one))


def settle(
    connection: sa.Connection, account_id: str, stream: str, watermark_ms: int, now_ms: int, closed: Gap | None
) -> None:
    """History was read to its end: the watermark moves on, and the gap that this closes is marked with it."""
    move_watermark(connection, account_id, stream, watermark_ms, now_ms)
    crash.point("backfill-watermark-moved")
    if closed is not None:
        save(connection, closed)


def unproven(connection: sa.Connection, account_id: str | None = None) -> list[Gap]:
    """Every gap that is not PROVEN, the oldest first."""
    return find(connection, account_id, states=[s for s in GapState if s is not GapState.PROVEN])


def find(
    connection: sa.Connection,
    account_id: str | None = None,
    *,
    states: Sequence[GapState] = tuple(GapState),
    limit: int = 10_000,
) -> list[Gap]:
    """Gaps in these states, the oldest first; of more than `limit` the latest ones."""
    query = sa.select(gap).where(gap.c.state.in_(states))
    if account_id is not None:
        query = query.where(gap.c.account_id == account_id)
    found = connection.execute(query.order_by(gap.c.opened_at_ms.desc(), gap.c.gap_id.desc()).limit(limit))
    return [msgspec.convert(rows.named(row), Gap) for row in found][::-1]


def move_watermark(connection: sa.Connection, account_id: str, stream: str, watermark_ms: int, now_ms: int) -> None:
    """Only complete reads may call this. A watermark never goes back: an older one is passed over."""
    known = watermark(connection, account_id, stream)
    if known is None or watermark_ms > known:
        rows.upsert(
            connection,
            cursor,
            {"account_id": account_id, "stream": stream, "watermark_ms": watermark_ms, "updated_at_ms": now_ms},
        )


def unrecorded(connection: sa.Connection, account_id: str, facts: Sequence[AccountFact]) -> list[AccountFact]:
    """Those of these facts that the ledger does not have. A fill is there with or without its fee."""
    wanted = {
        (made[1], made[2]): one
        for one in facts
        for made in (row(account_id, one, received_at_ms=0, source=Source.HISTORY, connection_key=""),)
    }
    keys = [(kind, one) for kind, key in wanted for one in {key, other_key(kind, key)}]
    for start in range(0, len(keys), _CHUNK):
        some = keys[start : start + _CHUNK]
        for kind in {kind for kind, _ in some}:
            chosen = fact.c.key.in_([key for k, key in some if k == kind])
            known = connection.scalars(
                sa.select(fact.c.key).where(fact.c.account_id == account_id, fact.c.kind == kind, chosen)
            )
            for key in known:
                wanted.pop((kind, key), None)
                wanted.pop((kind, other_key(kind, key)), None)
    return list(wanted.values())


def watermarks(connection: sa.Connection, stream: str) -> dict[str, int]:
    """By account, also of those that are paused or closed."""
    found = sa.select(cursor.c.account_id, cursor.c.watermark_ms).where(cursor.c.stream == stream)
    return {row.account_id: row.watermark_ms for row in connection.execute(found)}


def watermark(connection: sa.Connection, account_id: str, stream: str) -> int | None:
    """Up to here history is known to be complete; None when it never was read to its end."""
    return connection.scalar(
        sa.select(cursor.c.watermark_ms).where(cursor.c.account_id == account_id, cursor.c.stream == stream)
    )
