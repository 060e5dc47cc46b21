"""Does. Kill switches: they survive a restart because they are here, and each throw is audited with it."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from engine.ledger import audit, rows
from engine.ledger.tables import kill


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """A switch that is on. `scope`: "all", "venue:<name>" or "account:<id>"."""

    scope: str
    by: str
    why: str
    at_ms: int
    flat: bool = False  # done only when nothing is held any more


def switched_on(connection: sa.Connection) -> list[Kill]:
    found = connection.execute(sa.select(kill).where(kill.c.on).order_by(kill.c.at_ms))
    return [Kill(scope=row.scope, by=row.by, why=row.why, at_ms=row.at_ms, flat=row.flat) for row in found]


def switch_on(connection: sa.Connection, one: Kill) -> None:
    _set(connection, one, on=True)


def switch_off(connection: sa.Connection, scope: str, by: str, why: str, now_ms: int) -> None:
    _set(connection, Kill(scope=scope, by=by, why=why, at_ms=now_ms), on=False)


def _set(connection: sa.Connection, one: Kill, *, on: bool) -> None:
    was = connection.scalar(sa.select(kill.c.on).where(kill.c.scope == one.scope))
    rows.upsert(connection, kill, {**msgspec.to_builtins(one), "on": on})
    before, after = ("on" if was else "off"), ("on, to be flat" if one.flat else "on" if on else "off")
    audit.add(connection, one.at_ms, one.by, "kill", one.scope, before, f"{after}: {one.why}")
