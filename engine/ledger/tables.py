"""Holds. The engine's tables, portable between SQLite and PostgreSQL.

Money and quantity are text (never float), instants are milliseconds since 1970 in UTC, structured values are JSON
text. `fact`, `child_event` and `audit` are append-only: triggers refuse UPDATE and DELETE on them in the database
itself (see the first migration).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import sqlalchemy as sa


class DecimalText(sa.TypeDecorator[Decimal]):
    """A Decimal kept as its own digits."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Any) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Any) -> Decimal | None:
        return None if value is None else Decimal(value)


metadata = sa.MetaData()

_OPEN = sa.text("state IN ('planned', 'sending', 'unknown', 'working')")

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers only INTEGER keys by itself


def _text(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, **options)


def _ms(name: str, *, nullable: bool = False, **options: Any) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, **options)


fact = sa.Table(
    "fact",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    _text("account_id"),
    _text("kind"),  # order, fill, position, balance, equity, cash
    _text("key"),  # the venue's identity of it: see facts.row
    _text("instrument"),  # "" where there is none
    _ms("at_ms"),
    _ms("received_at_ms"),
    _text("source"),  # stream, history, statement, own
    _text("connection_key"),
    _text("body"),
    sa.UniqueConstraint("account_id", "kind", "key", name="fact_once"),
    sa.Index("fact_of_account", "account_id", "id"),
    sa.Index("fact_by_time", "account_id", "kind", "at_ms"),
)

checkpoint = sa.Table(
    "checkpoint",
    metadata,
    _text("account_id", primary_key=True),
    sa.Column("fact_id", sa.BigInteger, nullable=False),  # the book in `body` holds every fact up to here
    _text("body"),
)

plan = sa.Table(
    "plan",
    metadata,
    _text("plan_id", primary_key=True),
    _text("state"),
    _text("title"),
    _ms("created_at_ms"),
    _text("created_by"),
    _ms("expires_at_ms"),
    _ms("updated_at_ms"),
    _text("body"),
)

child = sa.Table(
    "child",
    metadata,
    _text("child_id", primary_key=True),
    sa.Column("plan_id", sa.Text, sa.ForeignKey("plan.plan_id"), nullable=False),
    _text("account_id"),
    sa.Column("leg", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    _text("client_order_id"),
    _text("instrument"),
    _text("side"),
    _text("order_type"),
    sa.Column("quantity", DecimalText, nullable=False),
    sa.Column("price", DecimalText),
    sa.Column("trigger_price", DecimalText),
    sa.Column("visible_quantity", DecimalText),
    sa.Column("reduce_only", sa.Boolean, nullable=False),
    _text("state"),
    _text("claim_token"),
    _ms("send_by_ms"),
    _text("venue_order_id"),
    sa.Column("filled", DecimalText, nullable=False),
    sa.Column("avg_price", DecimalText),
    _text("reason"),
    sa.Column("late", sa.Boolean, nullable=False),
    _ms("late_settled_at_ms", nullable=True),
    _text("cancel_state"),
    sa.Column("amendments", sa.Integer, nullable=False, server_default="0"),
    _ms("planned_at_ms"),
    _ms("sent_at_ms", nullable=True),
    _ms("acknowledged_at_ms", nullable=True),
    _ms("filled_at_ms", nullable=True),
    _ms("updated_at_ms"),
    sa.UniqueConstraint("client_order_id", name="child_client_order_id"),
    sa.Index("child_of_plan", "plan_id"),
    sa.Index("child_of_account", "account_id"),  # without the state: a claim changes a thousand at once
    # At most one attempt of a child may be open. It costs a claim of a thousand some three milliseconds.
    sa.Index(
        "child_open_once", "plan_id", "account_id", "leg", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN
    ),
)

intent = sa.Table(
    "intent",
    metadata,
    _text("intent_id", primary_key=True),  # the client order id, or the id of the amendment or cancel
    _text("child_id"),
    _text("account_id"),
    _text("kind"),  # place, amend, cancel
    _text("claim_token"),
    _ms("claimed_at_ms"),
    _ms("send_by_ms"),
    _text("body"),
)

child_event = sa.Table(
    "child_event",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    _text("child_id"),
    _ms("at_ms"),
    _text("event"),
    _text("from_state"),
    _text("to_state"),
    _text("detail"),
    sa.Index("child_event_of_child", "child_id"),
)

cursor = sa.Table(
    "cursor",
    metadata,
    _text("account_id", primary_key=True),
    _text("stream", primary_key=True),
    _ms("watermark_ms"),
    _ms("updated_at_ms"),
)

gap = sa.Table(
    "gap",
    metadata,
    _text("gap_id", primary_key=True),
    _text("account_id"),
    _text("connection_key"),
    _ms("since_ms"),
    _ms("opened_at_ms"),
    _ms("closed_at_ms", nullable=True),
    _text("state"),
    _text("reason"),
    sa.Column("facts_found", sa.Integer, nullable=False),
    sa.Column("fills_found", sa.Integer, nullable=False),
    sa.Column("pages_read", sa.Integer, nullable=False),
    _ms("proven_at_ms", nullable=True),
    _text("note"),
    sa.Index("gap_of_account", "account_id", "state"),
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    _text("connection_key"),
    _text("account_id"),
    _ms("received_at_ms"),
    _text("reason"),
    sa.Column("frame", sa.LargeBinary, nullable=False),
)

kill = sa.Table(
    "kill",
    metadata,
    _text("scope", primary_key=True),  # all, venue:<name>, account:<id>
    sa.Column("on", sa.Boolean, nullable=False),
    _text("by"),
    _text("why"),
    _ms("at_ms"),
    sa.Column("flat", sa.Boolean, nullable=False, server_default=sa.false()),
)

run = sa.Table(
    "run",
    metadata,
    _text("run_id", primary_key=True),
    _text("kind"),
    _text("verdict"),
    _ms("began_at_ms"),
    _ms("ended_at_ms"),
    _text("result_hash"),
    _text("body"),  # the whole run, byte for byte as it was hashed
    sa.Index("run_by_time", "began_at_ms"),
)

run_account = sa.Table(
    "run_account",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("run.run_id"), primary_key=True),
    _text("account_id", primary_key=True),
    _text("verdict"),
    _ms("began_at_ms"),
    sa.Index("run_account_latest", "account_id", "began_at_ms"),
)

break_ = sa.Table(
    "break",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("run.run_id"), primary_key=True),
    _text("break_id", primary_key=True),  # stays the same over runs
    _text("account_id"),
    _text("code"),
    _text("severity"),
    _text("cause"),
    _text("instrument"),
    _text("field"),
    sa.Column("venue", sa.Text),
    sa.Column("ledger", sa.Text),
    sa.Column("difference", DecimalText),
    _ms("first_seen_ms"),
    _ms("last_seen_ms"),
    sa.Column("runs_seen", sa.Integer, nullable=False),
    sa.Index("break_by_id", "break_id"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    _ms("at_ms"),
    _text("by"),
    _text("action"),
    _text("subject"),
    _text("before"),
    _text("after"),
    sa.Column("previous", sa.Text, nullable=False, server_default=""),
    sa.Column("seal", sa.Text, nullable=False, server_default=""),  # over all but the id: see accounts/chain.py
    sa.Index("audit_follows", "previous", unique=True),  # nothing is put in between
)

restoration = sa.Table(
    "restoration",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    _ms("restored_at_ms"),
    _text("source"),
    _text("by"),
    _ms("released_at_ms", nullable=True),  # until then the engine sends no orders
    _text("released_by"),
    _ms("since_ms", nullable=True),  # the venues' time up to which the copy knows every order; NULL: not told
)

orphan = sa.Table(
    "orphan",
    metadata,
    _text("account_id", primary_key=True),
    _text("venue_order_id", primary_key=True),
    _text("client_order_id"),
    _text("instrument"),
    _ms("found_at_ms"),
    _ms("accepted_at_ms", nullable=True),
    _text("accepted_by"),
    _text("why"),
)

instrument = sa.Table(
    "instrument",
    metadata,
    _text("venue", primary_key=True),
    _text("environment", primary_key=True),
    _text("name", primary_key=True),
    _ms("changed_at_ms"),
    _text("body"),
)

instrument_change = sa.Table(
    "instrument_change",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    _text("venue"),
    _text("environment"),
    _text("name"),
    _ms("at_ms"),
    _text("before"),
    _text("after"),
    sa.Index("instrument_change_by_time", "at_ms"),
)
