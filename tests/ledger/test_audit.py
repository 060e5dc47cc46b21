"""Deeds are one chain, whoever writes them at the same time, and whatever is done to them past the guards shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.ledger import audit, reader, upgrade
from engine.ledger.engines import writing
from engine.ledger.tables import audit as table
from tests.ledger.conftest import BOTH
from tests.postgres import bare_database, drop_database, empty_database, new_database


@pytest.fixture(params=BOTH)
def own_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of this test's own, whose guards may be taken down."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    made = new_database(request.getfixturevalue("postgres_url"))
    empty_database(made)
    yield made
    drop_database(made)


@pytest.fixture(params=BOTH)
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'bare.sqlite'}"
        return
    made = bare_database(request.getfixturevalue("postgres_url"))
    yield made
    drop_database(made)


def write(url: str, *whos: str) -> None:
    engine = writing(url, busy_timeout_s=20.0)
    for at_ms, who in enumerate(whos):
        with engine.begin() as connection:
            audit.add(connection, at_ms, who, "kill", "all", after="\u2713 'quoted'")
    engine.dispose()


def past_the_guards(url: str, *statements: str) -> None:
    engine = writing(url, busy_timeout_s=5.0)
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            for change in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER audit_no_{change}")
        else:
            connection.exec_driver_sql("DROP TRIGGER audit_append_only ON audit")
        connection.exec_driver_sql("DROP INDEX audit_follows")
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def look(url: str) -> tuple[int | None, int, str]:
    with reader(url) as connection:
        found = audit.verify(connection)
    return found.unfit, found.rows, found.why


def test_deeds_follow_each_other(own_url: str) -> None:
    write(own_url, "ann", "bob", "cid")
    assert look(own_url) == (None, 3, "")
    with reader(own_url) as connection:
        head = audit.verify(connection).head
        assert audit.has_seal(connection, head)
        assert not audit.has_seal(connection, head[::-1])


def test_writers_at_the_same_time_make_one_chain(own_url: str) -> None:
    writers = [threading.Thread(target=write, args=(own_url, *[f"w{n}"] * 15)) for n in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join(60)
    assert look(own_url) == (None, 60, "")


SPOILT = {
    "a changed row": (("UPDATE audit SET subject = 'other' WHERE id = 2",), 2, "changed after"),
    "a removed row": (("DELETE FROM audit WHERE id = 2",), 3, "removed"),
    "the first is removed": (("DELETE FROM audit WHERE id = 1",), 2, "removed"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_was_done_past_the_guards_shows(own_url: str, spoilt: str) -> None:
    write(own_url, "ann", "bob", "cid", "dan")
    numbers = dict(zip(range(1, 5), ids(own_url), strict=True))
    statements, unfit, why = SPOILT[spoilt]
    past_the_guards(own_url, *(_with_ids(one, numbers) for one in statements))
    found, fit, said = look(own_url)
    assert found == numbers[unfit]
    assert why in said
    assert fit < 3


def test_a_row_put_in_between_shows(own_url: str) -> None:
    write(own_url, "ann", "bob", "cid")
    _, second, third = ids(own_url)
    past_the_guards(own_url, f"UPDATE audit SET id = id + 1 WHERE id = {third}")  # noqa: S608
    engine = writing(own_url, busy_timeout_s=5.0)
    with engine.begin() as connection:
        row = connection.execute(sa.select(table).where(table.c.id == second)).one()
        forged = (7, "eve", "kill", "all", "", "")
        values = dict(zip(audit.SEALED, forged, strict=True))
        seal = audit.chain.seal(row.seal, forged)
        connection.execute(sa.insert(table).values(id=third, previous=row.seal, seal=seal, **values))
    engine.dispose()
    unfit, fit, why = look(own_url)
    assert (unfit, fit) == (third + 1, 3)
    assert f"after row {second}" in why


def test_the_guards_are_back_after_an_upgrade_and_rows_of_before_are_sealed(bare_url: str) -> None:
    """As a release without seals left it."""
    upgrade(bare_url, to="ledger_0006")
    engine = writing(bare_url, busy_timeout_s=5.0)
    with engine.begin() as connection:
        columns = "at_ms, by, action, subject, before, after"
        for _ in range(2):
            connection.exec_driver_sql(f"INSERT INTO audit ({columns}) VALUES (1, 'ann', 'a', 's', '', '')")  # noqa: S608
    upgrade(bare_url)
    assert look(bare_url) == (None, 2, "")
    write(bare_url, "cid")
    assert look(bare_url) == (None, 3, "")
    with engine.connect() as connection, pytest.raises(sa.exc.IntegrityError, match="append-only"):
        connection.exec_driver_sql("UPDATE audit SET by = 'eve'")
    engine.dispose()


def test_deeds_are_found_by_person_subject_and_time(connection: sa.Connection) -> None:
    for at_ms, by, subject in ((1, "ann", "p1"), (2, "bob", "p1"), (3, "ann", "p2")):
        audit.add(connection, at_ms, by, "plan approve", subject)

    def found(**wanted: object) -> list[int]:
        return [deed.at_ms for deed in audit.newest(connection, **wanted)]  # type: ignore[arg-type]

    assert found() == [3, 2, 1]
    assert found(by="ann") == [3, 1]
    assert found(subject="p1") == [2, 1]
    assert found(since_ms=2) == [3, 2]
    assert found(limit=1) == [3]


def ids(url: str) -> list[int]:
    with reader(url) as connection:
        return list(connection.scalars(sa.select(table.c.id).order_by(table.c.id)))


def _with_ids(statement: str, numbers: dict[int, int]) -> str:
    head, _, number = statement.rpartition(" ")
    return f"{head} {numbers[int(number)]}"
