"""Decides. Whether an error is the database's trouble (disk, lock, server) or the fault of what was asked."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

_SQLITE_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOTADB,
    }
)

# SQLSTATE classes and codes: connection, resources, intervention, system, internal; serialization, lock, read-only
_POSTGRES_TROUBLE = ("08", "53", "57", "58", "XX", "40", "55P03", "25006")


def is_outage(error: BaseException) -> bool:
    """True when the same statements may succeed later, once the trouble is over."""
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        code = getattr(origin, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _SQLITE_TROUBLE  # the low byte; above it is the detail
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.InternalError):
        state = getattr(origin, "sqlstate", None)
        return state is None or state.startswith(_POSTGRES_TROUBLE)
    return False
