"""What was recorded of the registry cannot be changed, and shows when somebody did it all the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from accounts.model import Group
from accounts.registry import Registry
from accounts.vault import Vault
from tests.accounts.world import WHO, add


@pytest.fixture
def engine(registry: Registry, database_url: str) -> Iterator[sa.Engine]:
    opened = sa.create_engine(database_url)
    yield opened
    opened.dispose()


def test_changes_follow_each_other_also_several_in_one_edit(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    registry.pause("a001", **WHO)
    with registry.together():
        registry.resume("a001", **WHO)
        registry.add_group(Group(group_id="g", name="G", weights=()), **WHO)
    found = registry.verify_changes()
    assert (found.rows, found.why) == (len(registry.changes()), "")
    assert registry.has_seal(found.head)
    assert not registry.has_seal(found.head[::-1])


def test_what_was_only_rehearsed_leaves_no_link(registry: Registry, vault: Vault) -> None:
    add(registry, vault, "a001")
    with registry.together(keep=False):
        registry.pause("a001", **WHO)
    registry.pause("a001", **WHO)
    assert registry.verify_changes().why == ""


def test_processes_that_edit_at_the_same_time_make_one_chain(registry: Registry, database_url: str) -> None:
    def edit(number: int) -> None:
        with Registry(database_url, wait_s=30) as other:
            for turn in range(8):
                other.add_group(Group(group_id=f"g{number}-{turn}", name="G", weights=()), **WHO)

    editors = [threading.Thread(target=edit, args=(number,)) for number in range(4)]
    before = registry.verify_changes().rows
    for one in editors:
        one.start()
    for one in editors:
        one.join(60)
    found = registry.verify_changes()
    assert (found.rows - before, found.why) == (32, "")


@pytest.mark.parametrize("change", ["UPDATE registry_change SET why = 'x'", "DELETE FROM registry_change"])
def test_the_database_refuses_to_change_what_was_recorded(
    registry: Registry, vault: Vault, engine: sa.Engine, change: str
) -> None:
    add(registry, vault, "a001")
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"):
        connection.exec_driver_sql(change)


def test_a_row_by_hand_does_not_fit_in(registry: Registry, vault: Vault, engine: sa.Engine) -> None:
    add(registry, vault, "a001")
    copied = "at_ms, by_whom, why, kind, subject_id, action, before, after, previous, seal"
    with engine.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.exec_driver_sql(
            f"INSERT INTO registry_change ({copied}) SELECT {copied} FROM registry_change"  # noqa: S608
        )


def test_a_change_that_was_tampered_with_is_named(sqlite_url: str, vault: Vault) -> None:
    with Registry(sqlite_url) as registry:
        add(registry, vault, "a001")
        registry.pause("a001", **WHO)
        paused = registry.changes()[0].change_id
        registry.resume("a001", **WHO)
        engine = sa.create_engine(sqlite_url)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER registry_change_no_update")
            connection.exec_driver_sql("UPDATE registry_change SET by_whom = 'eve' WHERE action = 'pause'")
        engine.dispose()
        found = registry.verify_changes()
    assert (found.unfit, found.rows) == (paused, paused - 1)
    assert "changed after" in found.why


def test_changes_of_before_are_sealed_by_the_upgrade(tmp_path: Path, sqlite_url: str, vault: Vault) -> None:
    """As a release without seals left it."""
    with Registry(sqlite_url) as registry:
        add(registry, vault, "a001")
        engine = sa.create_engine(sqlite_url)
        with engine.begin() as connection:
            for change in ("update", "delete"):
                connection.exec_driver_sql(f"DROP TRIGGER registry_change_no_{change}")
            connection.exec_driver_sql("DROP INDEX ix_registry_change_previous")
            for name in ("previous", "seal"):
                connection.exec_driver_sql(f"ALTER TABLE registry_change DROP COLUMN {name}")
            connection.exec_driver_sql("UPDATE registry_version SET version_num = 'r0002'")
        engine.dispose()
        registry.upgrade()
        registry.pause("a001", **WHO)
        found = registry.verify_changes()
    assert found.why == ""
    assert found.rows > 2
