"""Does. Frames that nobody could read, kept with the reason; the newest ones only."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from engine.ledger.tables import quarantine

KEPT = 10_000
FRAME_LIMIT = 64 * 1024


class Quarantined(msgspec.Struct, frozen=True):
    id: int
    connection_key: str
    account_id: str
    received_at_ms: int
    reason: str
    frame: bytes  # its first 64 KiB


def put(
    connection: sa.Connection,
    connection_key: str,
    account_id: str,
    received_at_ms: int,
    reason: str,
    frame: bytes,
    *,
    kept: int = KEPT,
) -> None:
    """Keep a frame, and of all frames the newest `kept`."""
    added = connection.execute(
        sa.insert(quarantine).values(
            connection_key=connection_key,
            account_id=account_id,
            received_at_ms=received_at_ms,
            reason=reason,
            frame=frame[:FRAME_LIMIT],
        )
    ).inserted_primary_key
    assert added is not None
    connection.execute(sa.delete(quarantine).where(quarantine.c.id <= added[0] - kept))


def newest(connection: sa.Connection, limit: int = 100) -> list[Quarantined]:
    found = connection.execute(sa.select(quarantine).order_by(quarantine.c.id.desc()).limit(limit))
    return [Quarantined(**row._mapping) for row in found]


def count(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(quarantine)) or 0
