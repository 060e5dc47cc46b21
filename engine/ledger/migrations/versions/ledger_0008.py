"""Holds. A kill switch may ask its accounts to be flat.

Revision ID: ledger_0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0008"
down_revision = "ledger_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("kill", sa.Column("flat", sa.Boolean(), nullable=False, server_default=sa.false()))
