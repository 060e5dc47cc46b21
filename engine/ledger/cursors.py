"""Does. Watermarks: up to where the history of one account's stream was read completely."""

from __future__ import annotations

import sqlalchemy as sa

from engine.ledger import rows
from engine.ledger.tables import cursor


def move(connection: sa.Connection, account_id: str, stream: str, watermark_ms: int, now_ms: int) -> None:
    """Move a watermark on. It never goes back: an older mark is passed over."""
    if watermark_ms > (watermark(connection, account_id, stream) or 0):
        rows.upsert(
            connection,
            cursor,
            {"account_id": account_id, "stream": stream, "watermark_ms": watermark_ms, "updated_at_ms": now_ms},
        )


def watermark(connection: sa.Connection, account_id: str, stream: str) -> int | None:
    """Where reading goes on; None when it never was read to the end."""
    return connection.scalar(
        sa.select(cursor.c.watermark_ms).where(cursor.c.account_id == account_id, cursor.c.stream == stream)
    )


def watermarks(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """All of them by (account, stream)."""
    return {(r.account_id, r.stream): r.watermark_ms for r in connection.execute(sa.select(cursor))}
