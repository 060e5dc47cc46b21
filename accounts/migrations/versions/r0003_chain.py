"""Holds. Changes are append-only by the database's own word, and each is sealed over the one before it.

Rows that are there already are sealed as they are found.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from accounts.chain import BEGINNING, seal

revision = "r0003"
down_revision = "r0002"
branch_labels = None
depends_on = None

_CONTENT = ("at_ms", "by_whom", "why", "kind", "subject_id", "action", "before", "after")


def upgrade() -> None:
    for name in ("previous", "seal"):
        op.add_column("registry_change", sa.Column(name, sa.String(64), nullable=False, server_default=""))
    _seal_what_is_there()
    op.create_index("ix_registry_change_previous", "registry_change", ["previous"], unique=True)
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER registry_change_no_{change.lower()} BEFORE {change} ON registry_change "
                "BEGIN SELECT RAISE(ABORT, 'registry_change is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION registry_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; "
        "END $$"
    )
    op.execute(
        "CREATE TRIGGER registry_change_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON registry_change "
        "FOR EACH STATEMENT EXECUTE FUNCTION registry_append_only()"
    )


def _seal_what_is_there() -> None:
    names = ("change_id", *_CONTENT, "previous", "seal")
    table = sa.table("registry_change", *(sa.column(name) for name in names))
    connection, head = op.get_bind(), BEGINNING
    there = sa.select(*(table.c[name] for name in ("change_id", *_CONTENT))).order_by(table.c.change_id)
    for number, *content in connection.execute(there).all():
        sealed = {"previous": head, "seal": seal(head, content)}
        connection.execute(sa.update(table).where(table.c.change_id == number).values(sealed))
        head = sealed["seal"]
