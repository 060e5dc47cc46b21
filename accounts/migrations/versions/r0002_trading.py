"""Holds. What an account's orders may do, more limits in a mandate, mandates of groups, and model portfolios."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None

_amount = sa.String(80)


def upgrade() -> None:
    op.add_column("account", sa.Column("trading", sa.String(16), nullable=False, server_default="active"))
    for name in ("max_day_notional", "max_instrument_notional", "max_daily_loss"):
        op.add_column("mandate", sa.Column(name, _amount, nullable=True))
    op.create_table(
        "group_mandate",
        sa.Column("max_order_notional", _amount, nullable=True),
        sa.Column("max_plan_notional", _amount, nullable=True),
        sa.Column("max_day_notional", _amount, nullable=True),
        sa.Column("max_instrument_notional", _amount, nullable=True),
        sa.Column("max_daily_loss", _amount, nullable=True),
        sa.Column("allowed_instruments", sa.Text(), nullable=False),
        sa.Column("do_not_trade", sa.Text(), nullable=False),
        sa.Column("group_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("group_id", name="pk_group_mandate"),
        sa.ForeignKeyConstraint(["group_id"], ["account_group.group_id"], name="fk_group_mandate_group_id"),
    )
    op.create_table(
        "model",
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("cash", _amount, nullable=False),
        sa.PrimaryKeyConstraint("model_id", name="pk_model"),
    )
    op.create_table(
        "model_line",
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("instrument", sa.String(64), nullable=False),
        sa.Column("weight", _amount, nullable=False),
        sa.Column("band", _amount, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "instrument", name="pk_model_line"),
        sa.ForeignKeyConstraint(["model_id"], ["model.model_id"], name="fk_model_line_model_id"),
    )
