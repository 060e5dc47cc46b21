"""Holds. The first tables: accounts, connections, groups, mandates, sealed credentials, changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None

_counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_amount = sa.String(80)


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("venue", sa.String(32), nullable=False),
        sa.Column("site", sa.String(32), nullable=False),
        sa.Column("environment", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("venue_ref", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_account"),
    )
    op.create_table(
        "connection",
        sa.Column("connection_key", sa.String(128), nullable=False),
        sa.Column("client_key", sa.String(128), nullable=False),
        sa.Column("listener", sa.String(16), nullable=False),
        sa.Column("listener_id", sa.String(32), nullable=False),
        sa.Column("venue", sa.String(32), nullable=False),
        sa.Column("site", sa.String(32), nullable=False),
        sa.Column("environment", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("url", sa.String(500), nullable=False),
        sa.Column("requires_auth", sa.Boolean(), nullable=False),
        sa.Column("keep_alive", sa.Boolean(), nullable=False),
        sa.Column("channels", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("connection_key", name="pk_connection"),
        sa.UniqueConstraint("client_key", name="uq_connection_client_key"),
        sa.UniqueConstraint(
            "venue",
            "listener",
            "listener_id",
            "site",
            "environment",
            "kind",
            name="uq_connection_venue_listener_listener_id_site_environment_kind",
        ),
    )
    op.create_index("ix_connection_listener_id", "connection", ["listener_id"])
    op.create_table(
        "connection_live",
        sa.Column("connection_key", sa.String(128), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_heard_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_pong_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.String(500), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connection_key", name="pk_connection_live"),
    )
    op.create_table(
        "account_group",
        sa.Column("group_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("group_id", name="pk_account_group"),
    )
    op.create_table(
        "account_group_weight",
        sa.Column("group_id", sa.String(32), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("weight", _amount, nullable=False),
        sa.PrimaryKeyConstraint("group_id", "account_id", name="pk_account_group_weight"),
        sa.ForeignKeyConstraint(["group_id"], ["account_group.group_id"], name="fk_account_group_weight_group_id"),
        sa.ForeignKeyConstraint(["account_id"], ["account.account_id"], name="fk_account_group_weight_account_id"),
    )
    op.create_table(
        "mandate",
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("max_order_notional", _amount, nullable=True),
        sa.Column("max_plan_notional", _amount, nullable=True),
        sa.Column("allowed_instruments", sa.Text(), nullable=False),
        sa.Column("do_not_trade", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_mandate"),
        sa.ForeignKeyConstraint(["account_id"], ["account.account_id"], name="fk_mandate_account_id"),
    )
    op.create_table(
        "sealed_credential",
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("field", sa.String(64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "field", name="pk_sealed_credential"),
        sa.ForeignKeyConstraint(["account_id"], ["account.account_id"], name="fk_sealed_credential_account_id"),
    )
    op.create_table(
        "vault_canary",
        sa.Column("canary_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("canary_id", name="pk_vault_canary"),
    )
    op.create_table(
        "registry_change",
        sa.Column("change_id", _counter, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by_whom", sa.String(100), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject_id", sa.String(128), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("change_id", name="pk_registry_change"),
    )
    op.create_index("ix_registry_change_kind_subject_id", "registry_change", ["kind", "subject_id"])
