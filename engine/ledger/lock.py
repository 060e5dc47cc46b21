"""Does. One engine per database: whoever comes second is told who has it.

SQLite: a lock on a file beside the database, which the system lets go when its owner dies, however it dies.
PostgreSQL: an advisory lock on a connection of its own.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from engine.ledger.engines import database_url

_LOCK_NUMBER = 0x756E69736F6E6F  # "unisono"


class AlreadyOwned(Exception):
    """Another engine runs on this database."""


class Ownership(Protocol):
    """Held until it is released or the process dies."""

    def still_mine(self) -> bool:
        """False once it was lost (a database server may drop the connection): then stop writing and sending."""

    def release(self) -> None: ...


def own(url: str) -> Ownership:
    """Take the database for this process; raises AlreadyOwned, naming the owner. Never waits."""
    parsed = database_url(url)
    return _OwnedServer(parsed) if parsed.get_backend_name() == "postgresql" else _OwnedFile(parsed)


class _OwnedFile:
    def __init__(self, url: sa.URL) -> None:
        self._path = f"{url.database}.lock"
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._file, 200).decode(errors="replace").strip()
            since = datetime.fromtimestamp(os.fstat(self._file).st_mtime, UTC)  # its owner wrote it once, at its start
            os.close(self._file)
            told = f"{owner or 'unknown'} since {since:%Y-%m-%d %H:%M:%S} UTC"
            raise AlreadyOwned(f"{url.database} belongs to another engine: {told}") from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"pid {os.getpid()}".encode())

    def still_mine(self) -> bool:
        return True

    def release(self) -> None:
        os.close(self._file)  # the file stays: removing it would let two owners lock two files of one name


class _OwnedServer:
    def __init__(self, url: sa.URL) -> None:
        name = f"unisono pid {os.getpid()} on {socket.gethostname()}"
        arguments = {"connect_timeout": 5, "application_name": name[:63], "options": "-c statement_timeout=5000"}
        self._engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)
        self._connection = self._engine.connect()
        if not self._connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK_NUMBER))):
            owner = self._connection.execute(_OWNER, {"low": _LOCK_NUMBER & 0xFFFFFFFF}).first()
            self.release()
            told = "unknown" if owner is None else f"{owner[0]} since {owner[1]:%Y-%m-%d %H:%M:%S} UTC"
            raise AlreadyOwned(f"{url.database} belongs to another engine: {told}")

    def still_mine(self) -> bool:
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except sa.exc.SQLAlchemyError:
            return False
        return True

    def release(self) -> None:
        with suppress(sa.exc.SQLAlchemyError):
            self._connection.close()
        self._engine.dispose()


_OWNER = sa.text(
    "SELECT a.application_name, a.backend_start AT TIME ZONE 'UTC' FROM pg_locks l "
    "JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objid = :low AND a.datname = current_database()"
)
