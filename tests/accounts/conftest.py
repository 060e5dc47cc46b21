"""A registry on each database; PostgreSQL's are skipped, with the reason, where it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from accounts.registry import Registry
from accounts.tables import Row
from accounts.vault import Vault
from tests.accounts.world import KEY, NOW_MS
from tests.postgres import drop_database, new_database, postgres_url

__all__ = ["postgres_url"]


def _prepare(url: str) -> None:
    with Registry(url) as registry:
        registry.upgrade()
        registry.set_canary(Vault(KEY).canary(), by="init", why="test")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    _prepare(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_database(postgres_url: str) -> Iterator[str]:
    fresh = new_database(postgres_url)
    url = fresh.replace("postgresql://", "postgresql+psycopg://")
    _prepare(url)
    yield url
    drop_database(fresh)


@pytest.fixture
def vault() -> Vault:
    return Vault(KEY)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'registry.sqlite')}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    url = request.getfixturevalue("postgres_database")
    yield url
    tables = ", ".join(table for table in Row.metadata.tables if table != "vault_canary")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # past the guard of what is recorded
        connection.exec_driver_sql(f"TRUNCATE {tables}")  # tens of times faster than a new database
    engine.dispose()


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    numbers = count(0xA000)
    with Registry(database_url, now_ms=lambda: NOW_MS, suffix=lambda: f"{next(numbers):04x}") as made:
        yield made
