"""A backup is one consistent, checked state; nothing unsound takes a database's place, and what does is read-only."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from accounts.registry import Registry
from engine.config import Ledger as Settings
from engine.ledger import Ledger, backup, plans, reader, restorations
from engine.ledger.restorations import Orphan
from tests.fakes import FakeClock
from tests.ledger.samples import child, fill_rows, plan

NOW_MS = 1_767_225_600_000


@pytest.fixture
def database(sqlite_url: str) -> Path:
    """A small database of both rooms."""
    with Registry(sqlite_url) as registry:
        registry.upgrade()
    return Path(sqlite_url.removeprefix("sqlite:///"))


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as conn:
        for statement in statements:
            conn.execute(statement)
        conn.commit()


@pytest.mark.anyio
async def test_a_copy_made_while_the_engine_writes_holds_what_was_durable_before(
    database: Path, tmp_path: Path, clock: FakeClock
) -> None:
    ledger = Ledger.open(f"sqlite:///{database}", Settings(), clock)
    ledger.append(fill_rows(range(50)))
    await ledger.write(lambda conn: plans.save_plan(conn, plan(), None, NOW_MS))
    copy = tmp_path / "copy.sqlite"
    backup.copy(database, copy)
    ledger.append(fill_rows(range(50, 60)))
    await ledger.stop()
    judged = backup.judge(copy, thorough=True)
    assert judged.complaints == ()
    assert (judged.rows["fact"], judged.rows["plan"]) == (50, 1)
    assert copy.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        backup.copy(database, copy)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8192])


def somebody_elses(file: Path) -> None:
    file.unlink()
    change(file, "CREATE TABLE x (y)")


UNSOUND: dict[str, tuple[Callable[[Path], object], str]] = {
    "no database": (lambda f: f.write_bytes(b"hello" * 500), "cannot be read|not a database"),
    "somebody else's": (somebody_elses, "no database of unisono"),
    "cut short": (cut_short, "SQLite|cannot be read"),
    "too new": (lambda f: change(f, "UPDATE ledger_version SET version_num = 'ledger_9999'"), "ledger_9999"),
    "a guard is gone": (lambda f: change(f, "DROP TRIGGER fact_no_delete"), "fact_no_delete"),
    "a fact is gone": (lambda f: change(f, "DROP TRIGGER fact_no_delete", "DELETE FROM fact WHERE id = 3"), "missing"),
    "a fact is no fact": (
        lambda f: change(f, "DROP TRIGGER fact_no_update", "UPDATE fact SET body = '{' WHERE id = 3"),
        "fact 3 cannot be read",
    ),
    "sent without a claim": (lambda f: change(f, "UPDATE child SET state = 'working'"), "without a claim"),
    "claimed without an order": (
        lambda f: change(f, "INSERT INTO intent VALUES ('i', 'nobody', 'a', 'place', 't', 1, 1, '{}')"),
        "without an order",
    ),
}


@pytest.mark.parametrize("unsound", UNSOUND)
@pytest.mark.anyio
async def test_what_is_wrong_with_a_copy_is_said(
    database: Path, tmp_path: Path, clock: FakeClock, unsound: str
) -> None:
    ledger = Ledger.open(f"sqlite:///{database}", Settings(), clock)
    ledger.append(fill_rows(range(50)))

    def keep(conn: sa.Connection) -> None:
        plans.save_plan(conn, plan(), None, NOW_MS)
        plans.insert_children(conn, [child(1)])

    await ledger.write(keep)
    await ledger.stop()
    copy = tmp_path / "copy.sqlite"
    backup.copy(database, copy)
    spoil, said = UNSOUND[unsound]
    spoil(copy)
    complaints = " ".join(backup.judge(copy, thorough=True).complaints)
    assert re.search(said, complaints), complaints


@pytest.mark.anyio
async def test_a_rehearsal_restores_reads_everything_back_and_leaves_the_copy_alone(
    database: Path, tmp_path: Path, clock: FakeClock
) -> None:
    ledger = Ledger.open(f"sqlite:///{database}", Settings(), clock)
    ledger.append(fill_rows(range(50)))
    await ledger.stop()
    copy, folder = tmp_path / "copy.sqlite", tmp_path / "rehearsal"
    folder.mkdir()
    backup.copy(database, copy)
    before = copy.read_bytes()
    judged, restored = backup.rehearse(copy, folder, prepare=lambda url: None, who="me", now_ms=NOW_MS)
    assert (judged.complaints, judged.rows["fact"]) == ((), 50)
    assert restored is not None
    with reader(f"sqlite:///{restored}") as conn:
        assert restorations.pending(conn) is not None
    assert copy.read_bytes() == before


UNREADABLE: dict[str, tuple[list[str], str]] = {
    "plan": (
        ["INSERT INTO plan VALUES ('p', 'draft', 't', 1, 'me', 1, 1, '{')"],
        "plans",
    ),
    "book": (["INSERT INTO checkpoint VALUES ('ann', 1, '{')"], "book of ann"),
    "run": (["INSERT INTO run VALUES ('r1', 'adhoc', 'clean', 1, 1, 'h', '{}')"], "reconciliation r1"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.anyio
async def test_a_rehearsal_finds_what_the_engine_could_not_read(
    database: Path, tmp_path: Path, clock: FakeClock, kind: str
) -> None:
    ledger = Ledger.open(f"sqlite:///{database}", Settings(), clock)
    ledger.append(fill_rows(range(5)))
    await ledger.stop()
    statements, said = UNREADABLE[kind]
    change(database, *statements)
    copy = tmp_path / "copy.sqlite"
    backup.copy(database, copy)
    assert backup.judge(copy, thorough=True).complaints == ()
    judged, _ = backup.rehearse(copy, tmp_path, prepare=lambda url: None, who="me", now_ms=NOW_MS)
    assert said in " ".join(judged.complaints)


def test_a_restored_database_is_marked_and_the_old_one_is_kept(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    backup.copy(database, copy)
    before = copy.read_bytes()
    change(database, "INSERT INTO kill (scope, \"on\", by, why, at_ms) VALUES ('all', 1, 'me', 'later', 1)")
    old = backup.replace(database, copy, prepare=lambda url: None, who="me", source="a test", now_ms=NOW_MS)
    with reader(f"sqlite:///{database}") as conn:
        marked = restorations.pending(conn)
    assert marked is not None
    assert (marked.by, marked.source, marked.restored_at_ms) == ("me", "a test", NOW_MS)
    with closing(sqlite3.connect(old)) as conn:
        assert conn.execute("SELECT count(*) FROM kill").fetchone() == (1,)
    with closing(sqlite3.connect(database)) as conn:
        assert conn.execute("SELECT count(*) FROM kill").fetchone() == (0,)
    assert copy.read_bytes() == before, "the backup itself is only read"


def test_what_fails_on_the_way_leaves_the_database_where_it_was(database: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(database, tmp_path / "copy.sqlite"))
    change(database, "INSERT INTO kill (scope, \"on\", by, why, at_ms) VALUES ('all', 1, 'me', 'later', 1)")

    def refuse(url: str) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        backup.replace(database, copy, prepare=refuse, who="me", source="a test", now_ms=NOW_MS)
    with closing(sqlite3.connect(database)) as conn:
        assert conn.execute("SELECT count(*) FROM kill").fetchone() == (1,)


def test_a_restore_is_pending_until_it_is_released(connection: sa.Connection) -> None:
    assert restorations.pending(connection) is None
    restorations.begin(connection, "a test", "me", 1)
    assert restorations.pending(connection) is not None
    restorations.release(connection, "me", 2, "swept")
    assert restorations.pending(connection) is None


def test_an_orphan_that_was_accepted_stays_accepted(connection: sa.Connection) -> None:
    orphan = Orphan(account_id="a", venue_order_id="v", client_order_id="c", instrument="i", found_at_ms=1)
    restorations.note_orphans(connection, [orphan])
    assert restorations.unaccepted(connection) == [orphan]
    assert restorations.accept(connection, "me", "closed by hand", 2) == 1
    restorations.note_orphans(connection, [orphan])
    assert restorations.unaccepted(connection) == []
