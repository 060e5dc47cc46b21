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

TOGETHER = 25  # rows in one statement

_COMPILERS: dict[str, tuple[Any, Any]] = {  # both with positional parameters, so that rows stay tuples
    "sqlite": (sqlite.insert, sqlite.dialect(paramstyle="qmark")),
    "postgresql": (postgresql.insert, postgresql.psycopg.dialect(paramstyle="format")),  # type: ignore[no-untyped-call]
}


@cache
def columns(table: sa.Table) -> tuple[str, ...]:
    """The columns that a row gives, in order."""
    return tuple(c.name for c in table.columns if c is not table.autoincrement_column)


def put(connection: sa.Connection, table: sa.Table, rows: Sequence[Row], *, once: bool = False) -> int:
    """Insert all rows; with `once`, rows whose key is already there are passed over. Returns how many are new.

    Many rows share a statement: sqlite3 lets go of Python's lock once per statement, and on a busy event loop the
    handing over costs more than the insert.
    """
    dialect, new = connection.dialect.name, 0
    whole = len(rows) // TOGETHER * TOGETHER
    for start in range(0, whole, TOGETHER):
        values = tuple(chain.from_iterable(rows[start : start + TOGETHER]))
        new += connection.exec_driver_sql(_insert(dialect, table, once, TOGETHER), values).rowcount
    if rest := list(rows[whole:]):
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
    names = columns(table)
    values: list[dict[str, Any]] = [
        {name: sa.bindparam(f"{name}_{number}") for name in names} for number in range(together)
    ]
    statement = insert(table).values(values).inline()  # nobody asks which number a row got
    if once:
        statement = statement.on_conflict_do_nothing()
    compiled = statement.compile(dialect=dialect)
    assert list(compiled.positiontup) == [key for row in values for key in (b.key for b in row.values())], "row by row"
    return str(compiled)


@cache
def _update(dialect_name: str, update: sa.Update) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
    compiled = update.compile(dialect=_COMPILERS[dialect_name][1])
    return str(compiled), tuple(compiled.positiontup or ()), compiled.params


def named(row: Any) -> dict[str, Any]:
    """A row as a plain mapping. The keys of the library's own mapping are no plain str, which msgspec wants."""
    return {str(name): value for name, value in row._mapping.items()}
