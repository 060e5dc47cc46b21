"""Does. Reconciliation runs: kept whole, byte for byte, with their breaks beside them for questions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from engine import crash
from engine.core.runs import Run, RunKind, Verdict, from_json, to_json
from engine.ledger import rows
from engine.ledger.tables import break_, run, run_account

_CHUNK = 500


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list of runs."""

    run_id: str
    kind: RunKind
    verdict: Verdict
    began_at_ms: int
    ended_at_ms: int
    result_hash: str
    accounts: int
    breaks: int


class Seen(msgspec.Struct, frozen=True):
    """What earlier runs say of a break that its account's latest run still showed."""

    first_seen_ms: int
    runs_seen: int


def save(connection: sa.Connection, one: Run) -> None:
    """Keep a run. The same run again changes nothing."""
    body = to_json(one).decode()
    head = (one.run_id, one.kind.value, one.verdict.value, one.began_at_ms, one.ended_at_ms, one.result_hash, body)
    if not rows.put(connection, run, [head], once=True):
        return
    crash.point("reconcile-run-written")
    rows.put(
        connection,
        run_account,
        [(one.run_id, account.account_id, account.verdict.value, one.began_at_ms) for account in one.accounts],
    )
    rows.put(
        connection,
        break_,
        [
            (
                one.run_id,
                b.break_id,
                b.account_id,
                b.code.value,
                b.severity.value,
                b.cause.value,
                b.instrument,
                b.field,
                b.venue,
                b.ledger,
                None if b.difference is None else str(b.difference),
                b.first_seen_ms,
                b.last_seen_ms,
                b.runs_seen,
            )
            for b in one.breaks
        ],
    )


def load(connection: sa.Connection, run_id: str) -> Run | None:
    """The run as it was saved; raises msgspec.ValidationError when its stored bytes are not a run any more."""
    body = document(connection, run_id)
    return None if body is None else from_json(body)


def document(connection: sa.Connection, run_id: str) -> bytes | None:
    """The run's own bytes, as they are kept."""
    body = connection.scalar(sa.select(run.c.body).where(run.c.run_id == run_id))
    return None if body is None else body.encode()


def latest_id(connection: sa.Connection) -> str | None:
    return connection.scalar(sa.select(run.c.run_id).order_by(run.c.began_at_ms.desc(), run.c.run_id.desc()).limit(1))


def newest(connection: sa.Connection, limit: int = 50) -> list[RunLine]:
    """The latest runs, the newest first."""
    counted = [
        sa.select(sa.func.count()).select_from(table).where(table.c.run_id == run.c.run_id).scalar_subquery()
        for table in (run_account, break_)
    ]
    query = (
        sa.select(*(c for c in run.c if c is not run.c.body), counted[0].label("accounts"), counted[1].label("breaks"))
        .order_by(run.c.began_at_ms.desc(), run.c.run_id.desc())
        .limit(limit)
    )
    return [msgspec.convert(rows.named(row), RunLine) for row in connection.execute(query)]


def seen(connection: sa.Connection, break_ids: Sequence[str]) -> dict[str, Seen]:
    """Those of these breaks that the latest run over their account still showed."""
    found = dict[str, Seen]()
    later = run_account.alias()
    latest = (
        sa.select(sa.func.max(later.c.began_at_ms)).where(later.c.account_id == break_.c.account_id).scalar_subquery()
    )
    for start in range(0, len(break_ids), _CHUNK):
        query = (
            sa.select(break_.c.break_id, break_.c.first_seen_ms, break_.c.runs_seen)
            .join(run, run.c.run_id == break_.c.run_id)
            .where(break_.c.break_id.in_(break_ids[start : start + _CHUNK]), run.c.began_at_ms == latest)
        )
        found |= {row.break_id: Seen(row.first_seen_ms, row.runs_seen) for row in connection.execute(query)}
    return found
