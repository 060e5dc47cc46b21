"""Every store test runs on both databases; PostgreSQL's are skipped, with the reason, where it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.config import Ledger as Settings
from engine.ledger import Ledger, upgrade
from engine.ledger.engines import writing
from tests.fakes import FakeClock
from tests.postgres import drop_database, empty_database, new_database, postgres_url

__all__ = ["postgres_url"]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'ledger.sqlite')}"


@pytest.fixture(scope="module")
def module_database(postgres_url: str) -> Iterator[str]:
    made = new_database(postgres_url)
    yield made
    drop_database(made)


@pytest.fixture
def postgres_database(module_database: str) -> str:
    """An empty database on the server; its tests share it, because making one takes a quarter of a second."""
    empty_database(module_database)
    return module_database


BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    """A database at the newest schema, without a row."""
    found: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_database")
    return found


@pytest.fixture
async def ledger(url: str, clock: FakeClock) -> AsyncIterator[Ledger]:
    opened = Ledger.open(url, Settings(busy_timeout_s=0.05), clock, retry_s=0.01)
    yield opened
    await opened.stop()


@pytest.fixture
def connection(url: str) -> Iterator[sa.Connection]:
    """A writing connection without a writer, for statements by themselves."""
    engine = writing(url, busy_timeout_s=1.0)
    with engine.connect() as opened:
        yield opened
