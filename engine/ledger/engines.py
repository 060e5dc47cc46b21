"""Does. Opens the database: one connection that writes, and short ones that only read.

SQLite runs in WAL mode with synchronous=FULL, PostgreSQL with synchronous_commit on: what was committed is on the
disk. Transactions are begun by us, because sqlite3 would begin them late and not at all for some statements.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

READERS = 4  # read connections that are kept open


def database_url(url: str) -> sa.URL:
    """The URL with its driver named; raises ValueError for a database that the engine does not run on."""
    parsed = sa.make_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("the ledger needs a SQLite file: memory is not durable")
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"{other} is no database of ours: use sqlite:///… or postgresql+psycopg://…")


def writing(url: str, *, busy_timeout_s: float) -> sa.Engine:
    """For the one writer (and for migrations). Its transactions take the write lock when they begin."""
    return _engine(url, busy_timeout_s=busy_timeout_s, begin="BEGIN IMMEDIATE", read_only=False)


def reading(url: str, *, busy_timeout_s: float) -> sa.Engine:
    """For questions: each transaction sees one consistent state and can change nothing."""
    return _engine(url, busy_timeout_s=busy_timeout_s, begin="BEGIN", read_only=True)


def _engine(url: str, *, busy_timeout_s: float, begin: str, read_only: bool) -> sa.Engine:
    parsed = database_url(url)
    pool: dict[str, Any] = (
        {"poolclass": QueuePool, "pool_size": READERS, "max_overflow": 2 * READERS, "pool_timeout": 10.0}
        if read_only
        else {"poolclass": NullPool}
    )
    wait_ms = round(busy_timeout_s * 1000)
    if parsed.get_backend_name() == "postgresql":
        mode = "-c default_transaction_read_only=on" if read_only else "-c synchronous_commit=on"
        options = f"-c lock_timeout={wait_ms} -c statement_timeout=60000 {mode}"
        return sa.create_engine(
            parsed,
            **pool,
            hide_parameters=True,  # an error's text goes into logs
            pool_pre_ping=read_only,
            isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
            connect_args={"connect_timeout": 5, "tcp_user_timeout": 10_000, "options": options},
        )
    assert parsed.database is not None
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    if not read_only:
        Path(parsed.database).touch(mode=0o600)  # its owner's only; SQLite gives its side files the same mode
    arguments = {"timeout": busy_timeout_s, "check_same_thread": False}
    engine = sa.create_engine(parsed, **pool, hide_parameters=True, connect_args=arguments)

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # no BEGIN of its own
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        else:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine
