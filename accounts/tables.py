"""Holds. The registry's tables as SQLModel rows, and how rows and values turn into each other.

Portable between SQLite and PostgreSQL: money and weights are texts, times are milliseconds in whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from accounts.model import (
    MANDATE_LIMITS,
    Account,
    AccountState,
    Change,
    Connection,
    Listener,
    LiveRow,
    Mandate,
    Trading,
)


class DecimalText(sa.types.TypeDecorator[Decimal]):
    """A Decimal as its digits: no database rounds it."""

    impl = sa.String(80)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


# SQLite numbers its rows only in a column of type INTEGER.
_Counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class Row(SQLModel):
    """The registry's own metadata: the ledger keeps other tables in the same database."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class AccountRow(Row, table=True):
    __tablename__ = "account"

    account_id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=100)
    venue: str = Field(max_length=32)
    site: str = Field(max_length=32)
    environment: str = Field(max_length=16)
    state: str = Field(max_length=16)
    trading: str = Field(max_length=16, sa_column_kwargs={"server_default": "active"})
    venue_ref: str = Field(max_length=64)
    version: int


class ConnectionRow(Row, table=True):
    __tablename__ = "connection"
    # One client per endpoint per listener; also what keeps a shared feed from being made twice.
    __table_args__ = (sa.UniqueConstraint("venue", "listener", "listener_id", "site", "environment", "kind"),)

    connection_key: str = Field(primary_key=True, max_length=128)
    client_key: str = Field(max_length=128, unique=True)
    listener: str = Field(max_length=16)
    listener_id: str = Field(max_length=32, index=True)
    venue: str = Field(max_length=32)
    site: str = Field(max_length=32)
    environment: str = Field(max_length=16)
    kind: str = Field(max_length=32)
    url: str = Field(max_length=500)
    requires_auth: bool
    keep_alive: bool
    channels: str = Field(sa_type=sa.Text)  # a JSON list


class ConnectionLiveRow(Row, table=True):
    """Written by the running engine only, often; so it hangs on nothing."""

    __tablename__ = "connection_live"

    connection_key: str = Field(primary_key=True, max_length=128)
    phase: str = Field(max_length=16)
    opened_at_ms: int | None = Field(default=None, sa_type=sa.BigInteger)
    last_heard_at_ms: int | None = Field(default=None, sa_type=sa.BigInteger)
    last_pong_at_ms: int | None = Field(default=None, sa_type=sa.BigInteger)
    attempts: int
    last_error: str = Field(max_length=500)
    updated_at_ms: int = Field(sa_type=sa.BigInteger)


class GroupRow(Row, table=True):
    __tablename__ = "account_group"

    group_id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=100)


class WeightRow(Row, table=True):
    __tablename__ = "account_group_weight"

    group_id: str = Field(primary_key=True, max_length=32, foreign_key="account_group.group_id")
    account_id: str = Field(primary_key=True, max_length=32, foreign_key="account.account_id")
    weight: Decimal = Field(sa_type=DecimalText)


class _Limits(Row):
    max_order_notional: Decimal | None = Field(default=None, sa_type=DecimalText)
    max_plan_notional: Decimal | None = Field(default=None, sa_type=DecimalText)
    max_day_notional: Decimal | None = Field(default=None, sa_type=DecimalText)
    max_instrument_notional: Decimal | None = Field(default=None, sa_type=DecimalText)
    max_daily_loss: Decimal | None = Field(default=None, sa_type=DecimalText)
    allowed_instruments: str = Field(sa_type=sa.Text)  # JSON lists
    do_not_trade: str = Field(sa_type=sa.Text)


class MandateRow(_Limits, table=True):
    __tablename__ = "mandate"

    account_id: str = Field(primary_key=True, max_length=32, foreign_key="account.account_id")


class GroupMandateRow(_Limits, table=True):
    """What each account of the group may do, beside its own mandate."""

    __tablename__ = "group_mandate"

    group_id: str = Field(primary_key=True, max_length=32, foreign_key="account_group.group_id")


class ModelRow(Row, table=True):
    __tablename__ = "model"

    model_id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=100)
    cash: Decimal = Field(sa_type=DecimalText)


class ModelLineRow(Row, table=True):
    __tablename__ = "model_line"

    model_id: str = Field(primary_key=True, max_length=32, foreign_key="model.model_id")
    instrument: str = Field(primary_key=True, max_length=64)
    weight: Decimal = Field(sa_type=DecimalText)
    band: Decimal = Field(sa_type=DecimalText)


class CredentialRow(Row, table=True):
    """One sealed field; without the vault's key it is noise."""

    __tablename__ = "sealed_credential"

    account_id: str = Field(primary_key=True, max_length=32, foreign_key="account.account_id")
    field: str = Field(primary_key=True, max_length=64)
    sealed: str = Field(sa_type=sa.Text)


class CanaryRow(Row, table=True):
    """At most one row: what the right vault key must be able to open."""

    __tablename__ = "vault_canary"

    canary_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sealed: str = Field(sa_type=sa.Text)


class ChangeRow(Row, table=True):
    """Rows are only ever added; the highest id tells a running engine that something changed.

    Triggers refuse UPDATE and DELETE in the database itself, and the rows are one chain (`accounts/chain.py`).
    """

    __tablename__ = "registry_change"
    __table_args__ = (sa.Index(None, "kind", "subject_id"), sa.Index(None, "previous", unique=True))

    change_id: int | None = Field(default=None, primary_key=True, sa_type=_Counter)
    at_ms: int = Field(sa_type=sa.BigInteger)
    by_whom: str = Field(max_length=100)
    why: str = Field(max_length=500)
    kind: str = Field(max_length=16)
    subject_id: str = Field(max_length=128)
    action: str = Field(max_length=32)
    before: str | None = Field(default=None, sa_type=sa.Text)
    after: str | None = Field(default=None, sa_type=sa.Text)
    previous: str = Field(max_length=64, sa_column_kwargs={"server_default": sa.text("''")})
    seal: str = Field(max_length=64, sa_column_kwargs={"server_default": sa.text("''")})


SEALED = ("at_ms", "by_whom", "why", "kind", "subject_id", "action", "before", "after")
"""The columns of a change that its seal covers, in order."""


def is_ours(name: str | None, kind: str, parents: Mapping[Any, str | None]) -> bool:
    """Alembic asks: the ledger's tables are in the same database and none of the registry's business."""
    return kind != "table" or name in Row.metadata.tables


def texts(value: tuple[str, ...]) -> str:
    """A list of texts as it stands in a column."""
    return msgspec.json.encode(value).decode()


def _texts(column: str) -> tuple[str, ...]:
    return msgspec.json.decode(column, type=tuple[str, ...])


def account_of(row: AccountRow) -> Account:
    return Account(
        account_id=row.account_id,
        name=row.name,
        venue=row.venue,
        site=row.site,
        environment=row.environment,
        state=AccountState(row.state),
        trading=Trading(row.trading),
        venue_ref=row.venue_ref,
        version=row.version,
    )


def connection_of(row: ConnectionRow) -> Connection:
    return Connection(
        connection_key=row.connection_key,
        client_key=row.client_key,
        listener=Listener(row.listener),
        listener_id=row.listener_id,
        venue=row.venue,
        site=row.site,
        environment=row.environment,
        kind=row.kind,
        url=row.url,
        requires_auth=row.requires_auth,
        keep_alive=row.keep_alive,
        channels=_texts(row.channels),
    )


def connection_row(connection: Connection) -> ConnectionRow:
    return ConnectionRow(
        connection_key=connection.connection_key,
        client_key=connection.client_key,
        listener=connection.listener.value,
        listener_id=connection.listener_id,
        venue=connection.venue,
        site=connection.site,
        environment=connection.environment,
        kind=connection.kind,
        url=connection.url,
        requires_auth=connection.requires_auth,
        keep_alive=connection.keep_alive,
        channels=texts(connection.channels),
    )


def mandate_of(row: MandateRow | GroupMandateRow) -> Mandate:
    return Mandate(
        account_id=row.account_id if isinstance(row, MandateRow) else "",
        group_id=row.group_id if isinstance(row, GroupMandateRow) else "",
        **{name: getattr(row, name) for name in MANDATE_LIMITS},
        allowed_instruments=_texts(row.allowed_instruments),
        do_not_trade=_texts(row.do_not_trade),
    )


def mandate_row(mandate: Mandate) -> MandateRow | GroupMandateRow:
    limits: dict[str, Any] = {name: getattr(mandate, name) for name in MANDATE_LIMITS}
    limits |= {
        "allowed_instruments": texts(mandate.allowed_instruments),
        "do_not_trade": texts(mandate.do_not_trade),
    }
    if mandate.group_id:
        return GroupMandateRow(group_id=mandate.group_id, **limits)
    return MandateRow(account_id=mandate.account_id, **limits)


def live_of(row: ConnectionLiveRow) -> LiveRow:
    return LiveRow(
        connection_key=row.connection_key,
        phase=row.phase,
        opened_at_ms=row.opened_at_ms,
        last_heard_at_ms=row.last_heard_at_ms,
        last_pong_at_ms=row.last_pong_at_ms,
        attempts=row.attempts,
        last_error=row.last_error,
        updated_at_ms=row.updated_at_ms,
    )


def change_of(row: ChangeRow) -> Change:
    return Change(
        change_id=row.change_id or 0,
        at_ms=row.at_ms,
        by=row.by_whom,
        why=row.why,
        kind=row.kind,
        subject_id=row.subject_id,
        action=row.action,
        before=_object(row.before),
        after=_object(row.after),
    )


def _object(column: str | None) -> dict[str, Any] | None:
    return None if column is None else msgspec.json.decode(column, type=dict[str, Any])
