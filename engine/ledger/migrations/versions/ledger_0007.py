"""Holds. Deeds in the audit are one chain: each is sealed over the one before it.

Rows that are there already are sealed as they are found; the guards against changes are off just for that.

Revision ID: ledger_0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from accounts.chain import BEGINNING, seal

revision = "ledger_0007"
down_revision = "ledger_0006"
branch_labels = None
depends_on = None

_CONTENT = ("at_ms", "by", "action", "subject", "before", "after")


def upgrade() -> None:
    for name in ("previous", "seal"):
        op.add_column("audit", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_no_update")
        _seal_what_is_there()
        op.execute(
            "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit "
            "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
        )
    else:
        op.execute("ALTER TABLE audit DISABLE TRIGGER audit_append_only")
        _seal_what_is_there()
        op.execute("ALTER TABLE audit ENABLE TRIGGER audit_append_only")
    op.create_index("audit_follows", "audit", ["previous"], unique=True)


def _seal_what_is_there() -> None:
    table = sa.table("audit", *(sa.column(name) for name in ("id", *_CONTENT, "previous", "seal")))
    connection, head = op.get_bind(), BEGINNING
    there = sa.select(*(table.c[name] for name in ("id", *_CONTENT))).order_by(table.c.id)
    for number, *content in connection.execute(there).all():
        sealed = {"previous": head, "seal": seal(head, content)}
        connection.execute(sa.update(table).where(table.c.id == number).values(sealed))
        head = sealed["seal"]
