"""Holds. An order that turned up late is settled by a person, and that is remembered.

Revision ID: ledger_0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0009"
down_revision = "ledger_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("child", sa.Column("late_settled_at_ms", sa.BigInteger(), nullable=True))
