"""The schema is made by migrations only, they agree with the models, and a newer one is not touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from accounts.database import VERSION_TABLE
from accounts.registry import DatabaseDown, Registry, RegistryError, SchemaMissing, SchemaTooNew
from accounts.tables import Row, is_ours
from accounts.vault import Vault
from tests.accounts.world import WHO, add


@pytest.fixture
def connection(registry: Registry, database_url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(database_url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_models_and_migrations_say_the_same(connection: sa.Connection) -> None:
    options = {
        "version_table": VERSION_TABLE,
        "compare_type": True,
        "compare_server_default": True,
        "include_name": is_ours,  # the ledger lives in the same database
    }
    assert compare_metadata(MigrationContext.configure(connection, opts=options), Row.metadata) == []
    assert len(sa.inspect(connection).get_unique_constraints("connection")) == 2


def test_upgrading_again_changes_nothing_and_keeps_the_rows(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    registry.upgrade()
    registry.check()
    assert [a.account_id for a in registry.accounts()] == ["a001"]


def test_a_newer_schema_is_refused_and_left_alone(registry: Registry, connection: sa.Connection) -> None:
    version = sa.table(VERSION_TABLE, sa.column("version_num"))
    ours = connection.scalar(sa.select(version))
    connection.execute(sa.update(version).values(version_num="r9999"))
    connection.commit()
    for refused in (registry.upgrade, registry.check):
        with pytest.raises(SchemaTooNew, match="r9999"):
            refused()
    assert connection.scalar(sa.select(version)) == "r9999"
    connection.execute(sa.update(version).values(version_num=ours))
    connection.commit()
    registry.check()


def test_a_missing_database_is_not_made_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "absent.sqlite"
    with Registry(f"sqlite:///{path}") as registry, pytest.raises(SchemaMissing, match="unisono init"):
        registry.check()
    assert not path.exists()


def test_a_database_without_tables_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    path.touch()
    with Registry(f"sqlite:///{path}") as registry, pytest.raises(SchemaMissing, match="holds no registry"):
        registry.check()


def test_a_new_sqlite_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with Registry(f"sqlite:///{path}") as registry:
        registry.upgrade()
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes
    assert set(modes.values()) == {0o600}


def test_sqlite_is_set_to_lose_nothing(tmp_path: Path) -> None:
    with Registry(f"sqlite:///{tmp_path / 'r.sqlite'}") as registry:
        registry.upgrade()
        with registry.together() as recorded:
            pragma = {
                name: recorded.session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_a_locked_database_is_said_and_nothing_is_changed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'r.sqlite'}"
    with Registry(url) as registry, Registry(url, wait_s=0.05) as other:
        registry.upgrade()
        registry.set_canary(Vault(bytes(32)).canary(), **WHO)
        with registry.together(), pytest.raises(DatabaseDown, match=r"locked.*Nothing was changed"):
            add(other, Vault(bytes(32)), "a001")
        assert registry.accounts() == []


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_a_url_of_another_kind_is_refused_at_once(url: str) -> None:
    with pytest.raises(RegistryError):
        Registry(url)
