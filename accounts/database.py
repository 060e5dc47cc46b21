"""Does. Opens the registry's database: SQLite or PostgreSQL, its schema, and one edit at a time.

Edits are serialised (SQLite by its write lock, PostgreSQL by an advisory lock): what an edit read is still so when it
is committed, and change ids become visible in their order, so that whoever polls the highest id misses none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import Session

VERSION_TABLE = "registry_version"
_EDITS_LOCK = 0x756E69736F6E  # "unison": any number, the same in every process
_EDITS = "edits"


class RegistryError(Exception):
    """The registry refused; its message says why and what was not done."""


class DatabaseDown(RegistryError):
    """The database did not answer, is locked, or has no room."""


class SchemaMissing(RegistryError):
    """The registry's tables are not there, or older than this version needs."""


class SchemaOld(RegistryError):
    """An older version of unisono has written this database; starting the engine upgrades it."""


class SchemaTooNew(RegistryError):
    """A newer version of unisono has written this database."""


class Database:
    """A small pool on one URL. Sync: the engine calls it from a thread of its own."""

    def __init__(self, url: str, *, wait_s: float = 5.0) -> None:
        self.url = _url(url)
        self._engine = _engine(self.url, wait_s)

    def close(self) -> None:
        self._engine.dispose()

    def upgrade(self) -> None:
        """Bring the schema to this version's. Raises SchemaTooNew when it is ahead of us."""
        _make_private(self.url)
        with self.edits() as session:
            config, connection = _alembic(), session.connection()
            self._refuse_newer(config, connection)
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def check(self) -> None:
        """Raises SchemaMissing, SchemaOld or SchemaTooNew unless the schema is exactly this version's."""
        if (path := _sqlite_file(self.url)) is not None and not path.exists():
            raise SchemaMissing(f"There is no registry at {path}. Make one with: unisono init")
        with self.reads() as session:
            config, connection = _alembic(), session.connection()
            found = self._refuse_newer(config, connection)
            if found is None:
                raise SchemaMissing("The database holds no registry. Make one with: unisono init")
            if found != ScriptDirectory.from_config(config).get_current_head():
                raise SchemaOld(
                    f"The registry has schema {found}, older than this version of unisono. Nothing was changed. "
                    "Stop the engine and start this version of it: it upgrades the database."
                )

    @contextmanager
    def reads(self) -> Iterator[Session]:
        """One consistent view, given back at the end."""
        with _answering("Nothing was read."), Session(self._engine) as session:
            yield session

    @contextmanager
    def edits(self) -> Iterator[Session]:
        """One transaction, alone among edits: committed at the end, or not at all."""
        with (
            _answering("Nothing was changed."),
            self._engine.connect().execution_options(**{_EDITS: True}) as connection,
            connection.begin(),
            Session(connection) as session,
        ):
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_EDITS_LOCK)))
            yield session
            session.flush()

    def _refuse_newer(self, config: Config, connection: sa.Connection) -> str | None:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = context.get_current_revision()
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise SchemaTooNew(
                f"The registry has schema {found}, which this version of unisono does not know. "
                "Nothing was changed. Install the version that wrote it, or a later one."
            )
        return found


def _url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise RegistryError(
            "The database's URL is not readable. Write sqlite:///file or postgresql+psycopg://…"
        ) from None
    match url.get_backend_name():
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case "sqlite" if url.database and url.database != ":memory:":
            return url.set(drivername="sqlite+pysqlite")
        case other:
            raise RegistryError(f"The registry lives in a SQLite file or in PostgreSQL, not in {other}.")


def _engine(url: sa.URL, wait_s: float) -> sa.Engine:
    options: dict[str, Any] = {"pool_size": 2, "max_overflow": 2, "pool_timeout": wait_s, "hide_parameters": True}
    if url.get_backend_name() == "postgresql":
        wait_ms = round(wait_s * 1000)
        limits = f"-c lock_timeout={wait_ms} -c statement_timeout={wait_ms * 6}"
        try:
            return sa.create_engine(url, **options, connect_args={"connect_timeout": round(wait_s), "options": limits})
        except ModuleNotFoundError:
            raise RegistryError("PostgreSQL needs its driver: install unisono[postgres].") from None
    engine = sa.create_engine(url, **options, poolclass=sa.QueuePool, connect_args={"timeout": wait_s})

    @sa.event.listens_for(engine, "connect")
    def _settle(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: the driver's own guess is too late for a lock
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        edits = connection.get_execution_options().get(_EDITS, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if edits else "BEGIN")

    return engine


@contextmanager
def _answering(consequence: str) -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        raise DatabaseDown(f"The database did not answer: {str(cause).strip()}. {consequence}") from error


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", "accounts:migrations")
    return config


def _sqlite_file(url: sa.URL) -> Path | None:
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _make_private(url: sa.URL) -> None:
    """A new SQLite file is its owner's only; SQLite gives its side files the same mode."""
    if (path := _sqlite_file(url)) is not None and not path.exists():
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise DatabaseDown(f"{path} cannot be made: {error.strerror}. Nothing was changed.") from None
