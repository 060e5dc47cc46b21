from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from engine.core.plans import Child
from engine.ledger import SchemaTooNew, rows, tables, upgrade
from engine.ledger.engines import reading, writing
from engine.ledger.upgrade import VERSION_TABLE

HEAD = "ledger_0010"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    opened = writing(url, busy_timeout_s=1.0)
    yield opened
    with opened.begin() as connection:  # the next test has the same database
        connection.exec_driver_sql("DROP TABLE IF EXISTS account")
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '{HEAD}'")  # noqa: S608


def test_migrations_and_models_agree(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_tables_of_others_in_the_same_database_are_left_alone(url: str, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE account (name TEXT)")
        connection.exec_driver_sql("INSERT INTO account VALUES ('mine')")
    upgrade(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM account").scalar() == "mine"


def test_a_newer_schema_is_refused_and_not_touched(url: str, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = 'ledger_9999'")  # noqa: S608
    with pytest.raises(SchemaTooNew, match="ledger_9999"):
        upgrade(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar() == "ledger_9999"  # noqa: S608


APPEND_ONLY = {
    tables.fact: ("a", "order", "k", "", 1, 1, "stream", "c", "{}"),
    tables.child_event: ("c", 1, "claim", "planned", "sending", ""),
    tables.audit: (1, "me", "kill", "all", "off", "on", "", "seal"),
}


@pytest.mark.parametrize("table", APPEND_ONLY, ids=lambda t: t.name)
@pytest.mark.parametrize("change", ["UPDATE {} SET id = 7", "DELETE FROM {}"])
def test_what_was_recorded_cannot_be_changed(engine: sa.Engine, table: sa.Table, change: str) -> None:
    with engine.begin() as connection:
        rows.put(connection, table, [APPEND_ONLY[table]])
    with engine.connect() as connection, pytest.raises(sa.exc.IntegrityError, match="append-only"):
        connection.exec_driver_sql(change.format(table.name))
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(table.c.id != 7)) == 1


def test_a_reader_can_change_nothing(url: str) -> None:
    engine = reading(url, busy_timeout_s=1.0)
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="read"):
        connection.execute(sa.insert(tables.checkpoint).values(account_id="a", fact_id=1, body=""))
    engine.dispose()


def test_a_child_is_a_row_of_its_own_fields_in_their_order() -> None:
    assert rows.columns(tables.child) == Child.__struct_fields__


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_databases_that_cannot_keep_a_ledger_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)sqlite"):
        writing(url, busy_timeout_s=1.0)
