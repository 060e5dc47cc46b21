"""`unisono audit`: who did what, and whether anybody has changed it since."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from accounts.model import Group
from accounts.registry import Registry
from engine.cli import app
from engine.ledger import audit, backup, upgrade
from engine.ledger.engines import writing


class Desk:
    def __init__(self, folder: Path) -> None:
        self.file, self.config = folder / "unisono.sqlite", folder / "unisono.toml"
        self.url = f"sqlite:///{self.file}"
        self.config.write_text(f'[database]\nurl = "{self.url}"\n[control]\nsocket = "{folder}/door"\n', "utf-8")

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, list(words), env={"UNISONO_CONFIG": str(self.config), "COLUMNS": "250"})

    def by_hand(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.file)) as conn:
            for statement in statements:
                conn.execute(statement)
            conn.commit()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    upgrade(desk.url)
    engine = writing(desk.url, busy_timeout_s=1.0)
    with engine.begin() as connection:
        audit.add(connection, 1_767_225_600_000, "mia", "plan approve", "p1", after="hash")
        audit.add(connection, 1_767_225_700_000, "leo", "kill", "all", "off", "on: drill")
    engine.dispose()
    with Registry(desk.url, now_ms=lambda: 1_767_225_650_000) as registry:
        registry.upgrade()
        registry.add_group(Group(group_id="g1", name="Ones", weights=()), by="ida", why="new desk")
    return desk


def test_what_the_engine_did_and_what_was_edited_stand_in_one_list(desk: Desk) -> None:
    lines = desk.run("audit", "list").stdout.splitlines()
    assert [next(who for who in ("mia", "leo", "ida") if who in line) for line in lines[1:]] == ["leo", "ida", "mia"]
    assert "off → on: drill" in lines[1]
    assert "new desk" in lines[2]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--by", "leo"), ["leo"]),
        (("--subject", "g1"), ["ida"]),
        (("--since", "2026-01-01T00:01"), ["leo"]),
        (("--limit", "1"), ["leo"]),
        (("--by", "nobody"), []),
    ],
)
def test_it_is_searched_by_person_subject_and_time(desk: Desk, words: tuple[str, ...], found: list[str]) -> None:
    told = desk.run("audit", "list", "--json", *words).stdout
    assert [who for who in ("leo", "ida", "mia") if f'"by":"{who}"' in told] == found


def test_an_untouched_database_verifies_and_tells_its_seals(desk: Desk) -> None:
    said = desk.run("audit", "verify")
    assert said.exit_code == 0
    assert "engine: 2 records, each as it was written" in said.stdout
    assert "registry: 1 records" in said.stdout
    seal = said.stdout.split("the last seal: ")[1].split()[0]
    assert desk.run("audit", "verify", "--noted", seal).exit_code == 0


def test_the_first_record_that_does_not_fit_is_named_everywhere(desk: Desk, tmp_path: Path) -> None:
    desk.by_hand("DROP TRIGGER audit_no_update", "UPDATE audit SET by = 'eve' WHERE id = 2")
    said = desk.run("audit", "verify")
    assert said.exit_code == 1
    assert "record 2 does not fit: it was changed after" in said.stdout
    assert "restore FILE --verify" in said.stderr
    assert "record 2 does not fit" in desk.run("doctor", "--json").stdout
    copy = tmp_path / "copy.sqlite"
    backup.copy(desk.file, copy)
    assert "row 2 of audit does not fit" in " ".join(backup.judge(copy, thorough=True).complaints)


def test_a_change_of_the_registry_that_was_taken_back_by_hand_shows(desk: Desk, tmp_path: Path) -> None:
    with Registry(desk.url) as registry:
        registry.rename_group("g1", "Twos", by="ida", why="typo")
    desk.by_hand("DROP TRIGGER registry_change_no_delete", "DELETE FROM registry_change WHERE change_id = 1")
    assert "registry: record 2 does not fit: rows between 0 and it were removed" in desk.run("audit", "verify").stdout
    copy = tmp_path / "copy.sqlite"
    backup.copy(desk.file, copy)
    complaints = " ".join(backup.judge(copy, thorough=True).complaints)
    assert "row 2 of registry_change does not fit" in complaints
    assert "registry_change_no_delete are missing" in complaints


def test_records_cut_off_at_the_end_show_to_whoever_noted_a_seal(desk: Desk) -> None:
    seal = desk.run("audit", "verify").stdout.split("the last seal: ")[1].split()[0]
    desk.by_hand("DROP TRIGGER audit_no_delete", "DELETE FROM audit WHERE id = 2")
    assert desk.run("audit", "verify").exit_code == 0
    said = desk.run("audit", "verify", "--noted", seal)
    assert said.exit_code == 1
    assert seal in said.stderr.replace("\n", "")
