"""Does. What is listed where, as it was last told: an engine starts with it, whether the venue answers or not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from engine.core.instruments import Instrument
from engine.ledger.tables import instrument, instrument_change

_decode = msgspec.json.Decoder(Instrument, strict=False).decode


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument that is not any more what it was."""

    venue: str
    environment: str
    name: str
    at_ms: int
    before: Instrument
    after: Instrument

    @property
    def told(self) -> str:
        """What differs, in one line."""
        fields = [f for f in self.before.__struct_fields__ if getattr(self.before, f) != getattr(self.after, f)]
        return ", ".join(f"{f} {getattr(self.before, f)} → {getattr(self.after, f)}" for f in fields)


def load(connection: sa.Connection) -> dict[tuple[str, str], list[Instrument]]:
    """By venue and environment. One that a later version cannot read any more is left out: the venue tells it again."""
    found: dict[tuple[str, str], list[Instrument]] = {}
    for row in connection.execute(sa.select(instrument)):
        try:
            known = _decode(row.body)
        except (msgspec.ValidationError, msgspec.DecodeError):
            continue
        found.setdefault((row.venue, row.environment), []).append(known)
    return found


def save(
    connection: sa.Connection,
    place: tuple[str, str],
    new: Sequence[Instrument],
    changes: Sequence[tuple[Instrument, Instrument]],
    at_ms: int,
) -> None:
    """What was not known before, and what changed, with the change itself."""
    venue, environment = place
    rows = [
        {"venue": venue, "environment": environment, "name": one.name, "changed_at_ms": at_ms, "body": _text(one)}
        for one in (*new, *(after for _, after in changes))
    ]
    if rows:
        here = sa.and_(instrument.c.venue == venue, instrument.c.environment == environment)
        for row in rows:
            connection.execute(sa.delete(instrument).where(here, instrument.c.name == row["name"]))
        connection.execute(sa.insert(instrument), rows)
    if changes:
        connection.execute(
            sa.insert(instrument_change),
            [
                {
                    "venue": venue,
                    "environment": environment,
                    "name": after.name,
                    "at_ms": at_ms,
                    "before": _text(before),
                    "after": _text(after),
                }
                for before, after in changes
            ],
        )


def changes(connection: sa.Connection, *, since_ms: int = 0, limit: int = 200) -> list[Change]:
    """The latest first."""
    query = (
        sa.select(instrument_change)
        .where(instrument_change.c.at_ms >= since_ms)
        .order_by(instrument_change.c.id.desc())
        .limit(limit)
    )
    return [
        Change(
            venue=row.venue,
            environment=row.environment,
            name=row.name,
            at_ms=row.at_ms,
            before=_decode(row.before),
            after=_decode(row.after),
        )
        for row in connection.execute(query)
    ]


def _text(one: Instrument) -> str:
    return msgspec.json.encode(one).decode()
