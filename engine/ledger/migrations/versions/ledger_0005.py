"""Holds. Stops and icebergs: a child order's trigger price, and what it shows of its quantity.

Revision ID: ledger_0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0005"
down_revision = "ledger_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("trigger_price", "visible_quantity"):
        op.add_column("child", sa.Column(name, sa.Text(), nullable=True))
