"""Holds. A database that was put back knows up to when it is sure of every order.

Revision ID: ledger_0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0003"
down_revision = "ledger_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("restoration", sa.Column("since_ms", sa.BigInteger(), nullable=True))
