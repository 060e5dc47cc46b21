"""Holds. How many of its plan's amendments a child was sent.

Revision ID: ledger_0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0010"
down_revision = "ledger_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("child", sa.Column("amendments", sa.Integer(), nullable=False, server_default="0"))
