"""Does. Puts many rows in with one statement that Core compiled once: the only way past Core's cost per row.

A row is a plain tuple in the order of `columns(table)`: the table's columns without a key that the database numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Row = tuple[Any, ...]

# How many rows share a statement. sqlite3 lets go of Python's lock for each statement, and where the event loop is busy
# getting it back takes longer than the insert; psycopg's executemany sends one prepared statement down a pipeline.
_TOGETHER = {"sqlite": (256, 64, 16, 4), "postgresql": ()}

_COMPILERS: dict[str, tuple[Any, Any]] = {  # both with positional parameters, so that rows stay tuples
    "sqlite": (sqlite.insert, sqlite.dialect(paramstyle="qmark")),
    "postgresql": (postgresql.insert, postgresql.psycopg.dialect(paramstyle="format")),  # type: ignore[no-untyped-call]
}


@cache
def columns(table: sa.Table) -> tuple[str, ...]:
    """The columns that a row gives, in order."""
    return tuple(c.name for c in table.columns if c is not table.autoincrement_column)


def put(connection: sa.Connection, table: sa.Table, rows: Sequence[Row], *, once: bool = False) -> int:
    """Insert all rows; with `once`, rows whose key is already there are passed over. Returns how many are new."""
    dialect, new, done = connection.dialect.name, 0, 0
    for together in _TOGETHER[dialect]:
        while len(rows) - done >= together:
            values = tuple(chain.from_iterable(rows[done : done + together]))
            new += connection.exec_driver_sql(_insert(dialect, table, once, together), values).rowcount
            done += together
    if rest := list(rows[done:]):
        new += connection.exec_driver_sql(_insert(dialect, table, once, 1), rest).rowcount
    return new


def change(connection: sa.Connection, update: sa.Update, rows: Sequence[Mapping[str, Any]]) -> int:
    """Run an update (written once, as a constant) for each row of its bound values; returns how many rows it hit.

    Values go to the driver as they are: text for Decimal and enumerations.
    """
    if not rows:
        return 0
    sql, names, constants = _update(connection.dialect.name, update)
    tuples = [tuple([row[n] if n in row else constants[n] for n in names]) for row in rows]
    return connection.exec_driver_sql(sql, tuples).rowcount


def upsert(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert one row, or overwrite the one with the same primary key."""
    insert = _COMPILERS[connection.dialect.name][0](table).values(values)
    key = [c.name for c in table.primary_key]
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=key, set_={name: insert.excluded[name] for name in values if name not in key}
        )
    )


@cache
def _insert(dialect_name: str, table: sa.Table, once: bool, together: int) -> str:
    insert, dialect = _COMPILERS[dialect_name]
    statement = insert(table).inline()  # nobody asks which number a row got
    if once:
        statement = statement.on_conflict_do_nothing()
    one = str(statement.compile(dialect=dialect, column_keys=list(columns(table))))
    head, values, row_and_tail = one.partition(" VALUES ")
    row, end, tail = row_and_tail.partition(")")
    return head + values + ", ".join([row + end] * together) + tail


@cache
def _update(dialect_name: str, update: sa.Update) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
    compiled = update.compile(dialect=_COMPILERS[dialect_name][1])
    return str(compiled), tuple(compiled.positiontup or ()), compiled.params


def named(row: Any) -> dict[str, Any]:
    """A row as a plain mapping. The keys of the library's own mapping are no plain str, which msgspec wants."""
    return {str(name): value for name, value in row._mapping.items()}
