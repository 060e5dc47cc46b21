"""Does. Copies a SQLite database while the engine writes to it, judges a copy, and puts one in the place of another."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import sqlalchemy as sa

from accounts import chain
from accounts.tables import SEALED as CHANGE_SEALED
from engine.core.runs import complaints as run_complaints
from engine.ledger import audit, books, facts, plans, tables
from engine.ledger.engines import writing
from engine.ledger.ledger import reader
from engine.ledger.restorations import begin
from engine.ledger.upgrade import VERSION_TABLE, SchemaTooNew, revisions

APPEND_ONLY = ("fact", "child_event", "audit")
_SEALED = (("audit", "id", audit.SEALED), ("registry_change", "change_id", CHANGE_SEALED))
_SIDE_FILES = ("", "-wal", "-shm")
_PRIVATE = 0o600


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy holds, and everything that is wrong with it."""

    rows: dict[str, int] = {}
    newest_ms: int | None = None  # when its last fact was received
    complaints: tuple[str, ...] = ()


def copy(database: Path, to: Path) -> None:
    """One consistent state, whatever is written meanwhile; at `to` only once it is whole and on the disk.

    Raises FileExistsError, OSError, sqlite3.Error; then nothing is at `to`.
    """
    if to.exists():
        raise FileExistsError(f"{to} exists already; nothing was written")
    part = to.with_name(to.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(part)) as target:
            source.execute("PRAGMA query_only = ON")
            source.backup(target)
        _sync(part)
        part.rename(to)
        _sync(to.parent)
    finally:
        part.unlink(missing_ok=True)


def judge(file: Path, *, thorough: bool) -> Judged:
    """Is it a database of ours, whole, its schema known, its records unbroken? Thorough: every page and fact read."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as conn:
            broken = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(20)" if thorough else _QUICK)]
            if broken != ["ok"]:
                return Judged(complaints=tuple(f"SQLite: {line}" for line in broken))
            return _judge_rows(conn, thorough)
    except sqlite3.Error as error:
        return Judged(complaints=(f"it cannot be read as a database: {error}",))


def rehearse(
    file: Path, folder: Path, *, prepare: Callable[[str], None], who: str, now_ms: int
) -> tuple[Judged, Path | None]:
    """A restore as it would be, into an empty folder of the caller's; what it holds then, and where it is.

    Everything is read back as an engine would read it: books, plans, orders, reconciliations.
    """
    judged = judge(file, thorough=True)
    if judged.complaints:
        return judged, None
    restored = folder / "rehearsed.sqlite"
    try:
        replace(restored, file, prepare=prepare, who=who, source=f"from {file.name}", now_ms=now_ms)
        after = judge(restored, thorough=True)
        with reader(f"sqlite:///{restored}") as connection:
            complaints = [*after.complaints, *_read_back(connection)]
    except (OSError, sqlite3.Error, sa.exc.SQLAlchemyError, SchemaTooNew) as error:
        return msgspec.structs.replace(judged, complaints=(f"it cannot be restored: {error}",)), None
    # The restore itself adds a row that tells of it: what counts are the rows of the copy.
    lost = [name for name, count in judged.rows.items() if after.rows.get(name, 0) < count]
    complaints += [f"rows of {name} are lost on the way" for name in lost]
    return msgspec.structs.replace(judged, complaints=tuple(complaints)), restored


def replace(database: Path, by: Path, *, prepare: Callable[[str], None], who: str, source: str, now_ms: int) -> Path:
    """Put a judged copy in the place of the database, read-only from its first moment on. Returns where the old one is.

    Nobody may have the database open. `prepare` brings the schema of a URL up to date. What fails leaves the old one
    in its place.
    """
    new = database.with_name(database.name + ".restoring")
    for side in _SIDE_FILES:
        Path(f"{new}{side}").unlink(missing_ok=True)
    database.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(by, new)
    new.chmod(_PRIVATE)
    prepare(f"sqlite:///{new}")
    _mark(new, who, source, now_ms)
    old = database.with_name(f"{database.name}.before-{now_ms}")
    _sync(new)
    for side in _SIDE_FILES:
        if Path(f"{database}{side}").exists():
            Path(f"{database}{side}").rename(f"{old}{side}")
    new.rename(database)
    _sync(database.parent)
    return old


def mark(url: str, who: str, source: str, now_ms: int) -> None:
    """Note in a database at the newest schema that it was restored."""
    engine = writing(url, busy_timeout_s=5.0)
    try:
        with engine.begin() as connection:
            begin(connection, source, who, now_ms)
    finally:
        engine.dispose()


def _mark(file: Path, who: str, source: str, now_ms: int) -> None:
    """And nothing stays in side files: the one file is what is renamed."""
    mark(f"sqlite:///{file}", who, source, now_ms)
    with closing(sqlite3.connect(file)) as conn:
        busy, _, _ = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError(f"{file} is used by somebody")


def _read_back(connection: sa.Connection) -> Iterator[str]:
    for account_id in connection.scalars(sa.select(tables.fact.c.account_id).distinct()).all():
        try:
            books.load(connection, account_id, lambda name: None)
        except (msgspec.MsgspecError, ValueError) as error:
            yield f"the book of {account_id} cannot be made of it: {error}"
    try:
        kept = plans.load_plans(connection)
        plans.load_children(connection, [plan.plan_id for plan in kept])
    except (msgspec.MsgspecError, ValueError) as error:
        yield f"its plans and orders cannot be read: {error}"
    for run_id, body in connection.execute(sa.select(tables.run.c.run_id, tables.run.c.body)):
        yield from (f"reconciliation {run_id}: {complaint}" for complaint in run_complaints(body.encode()))


_QUICK = "PRAGMA quick_check(20)"


def _judge_rows(conn: sqlite3.Connection, thorough: bool) -> Judged:
    tables = {str(row[0]) for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing := {VERSION_TABLE, "registry_version", "plan", "child", "intent", "cursor", *APPEND_ONLY} - tables:
        return Judged(complaints=(f"it is no database of unisono: it lacks {', '.join(sorted(missing))}",))
    complaints = list(_schema(conn))
    counts = {table: int(_one(conn, f"SELECT count(*) FROM {table}")) for table in (*APPEND_ONLY, "plan", "child")}  # noqa: S608  names of ours
    for table in APPEND_ONLY:
        first, last = conn.execute(f"SELECT min(id), max(id) FROM {table}").fetchone()  # noqa: S608
        if last is not None and (first, last) != (1, counts[table]):
            complaints.append(f"rows are missing from {table}: {counts[table]} there, the last is number {last}")
    for sentence, query in _AGREE.items():
        if count := _one(conn, query):
            complaints.append(f"{count} {sentence}")
    complaints += [f"a row of {row[0]} points at nothing" for row in conn.execute("PRAGMA foreign_key_check")][:20]
    if thorough:
        complaints += [*_unreadable(conn), *chains(conn)]
    newest_ms = _one(conn, "SELECT max(received_at_ms) FROM fact")
    return Judged(rows=counts, newest_ms=newest_ms, complaints=tuple(complaints))


_AGREE = {
    "placements were claimed without an order to show for it": (
        "SELECT count(*) FROM intent WHERE kind = 'place' AND child_id NOT IN (SELECT child_id FROM child)"
    ),
    "orders were sent without a claim": (
        "SELECT count(*) FROM child WHERE state NOT IN ('planned', 'skipped') "
        "AND client_order_id NOT IN (SELECT intent_id FROM intent WHERE kind = 'place')"
    ),
}


def _schema(conn: sqlite3.Connection) -> Iterator[str]:
    found = {str(row[0]) for row in conn.execute(f"SELECT version_num FROM {VERSION_TABLE}")}  # noqa: S608
    if newer := found - revisions():
        yield f"its schema {', '.join(sorted(newer))} is newer than this version of unisono"
    triggers = {str(row[0]) for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    guarded = (*APPEND_ONLY, *(table for table, _, _ in _SEALED if _has_seals(conn, table)))
    wanted = {f"{table}_no_{change}" for table in guarded for change in ("update", "delete")}
    if missing := wanted - triggers:
        yield f"its append-only tables are not guarded: {', '.join(sorted(missing))} are missing"


def _unreadable(conn: sqlite3.Connection) -> list[str]:
    complaints = list[str]()
    for number, body in conn.execute("SELECT id, body FROM fact ORDER BY id"):
        try:
            facts.read(body)
        except msgspec.MsgspecError as error:
            complaints.append(f"fact {number} cannot be read: {error}")
            if len(complaints) == 20:
                break
    return complaints


def chains(conn: sqlite3.Connection) -> Iterator[str]:
    """What does not fit in the chains of deeds and of changes.

    A copy of an earlier schema has no seals yet: they are made when it is restored.
    """
    for table, key, sealed in _SEALED:
        if not _has_seals(conn, table):
            continue
        wanted = ", ".join(f'"{name}"' for name in (key, "previous", "seal", *sealed))
        found = conn.execute(f"SELECT {wanted} FROM {table} ORDER BY {key}")  # noqa: S608  names of ours
        looked = chain.check(chain.Sealed(number, before, seal, row) for number, before, seal, *row in found)
        if looked.why:
            yield f"row {looked.unfit} of {table} does not fit the ones before it: {looked.why}"


def _has_seals(conn: sqlite3.Connection, table: str) -> bool:
    return any(row[1] == "seal" for row in conn.execute(f"PRAGMA table_info({table})"))


def _one(conn: sqlite3.Connection, query: str) -> int:
    return conn.execute(query).fetchone()[0]  # type: ignore[no-any-return]


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
