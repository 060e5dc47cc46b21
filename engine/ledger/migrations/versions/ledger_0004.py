"""Holds. At most one attempt of a child order may be open, by the database's own word.

Revision ID: ledger_0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0004"
down_revision = "ledger_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    still_open = sa.text("state IN ('planned', 'sending', 'unknown', 'working')")
    op.create_index(
        "child_open_once",
        "child",
        ["plan_id", "account_id", "leg"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
