"""A rotation that is cut off anywhere leaves a registry that opens, and running it again finishes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from accounts.registry import NotFound, Registry
from accounts.rotation import rotate
from accounts.vault import Vault, VaultError, create_key_file
from tests.accounts.world import WHO, add, login


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "vault.key"


@pytest.fixture
def office(tmp_path: Path, key_file: Path) -> Iterator[Registry]:
    old = create_key_file(key_file)
    made = Registry(f"sqlite:///{tmp_path / 'office.sqlite'}")
    made.upgrade()
    made.set_canary(old.canary(), **WHO)
    add(made, old, "a001", "a002")
    yield made
    made.dispose()


def opens(office: Registry, key_file: Path) -> bool:
    vault, canary = Vault.from_file(key_file, environ={}), office.canary()
    assert canary is not None
    vault.check(canary)
    return all(vault.open(a, office.sealed(a)) == login() for a in ("a001", "a002"))


def test_everything_opens_with_the_new_key_and_the_old_one_is_kept(office: Registry, key_file: Path) -> None:
    old = Vault.from_file(key_file, environ={})
    rotated = rotate(office, key_file, **WHO)
    assert opens(office, key_file)
    assert (rotated.accounts, rotated.old_key_id) == (2, old.key_id)
    assert Vault.from_file(Path(rotated.old_key_file), environ={}).key_id == old.key_id
    assert sorted(f.name for f in key_file.parent.glob("vault.key*")) == ["vault.key", "vault.key.old"]
    assert office.changes(limit=1)[0].after == {"key_id": rotated.new_key_id, "accounts": 2}


def test_it_can_be_done_again(office: Registry, key_file: Path) -> None:
    first = rotate(office, key_file, **WHO)
    second = rotate(office, key_file, **WHO)
    assert opens(office, key_file)
    assert second.old_key_id == first.new_key_id != second.new_key_id


def test_cut_off_before_the_commit_it_starts_anew(office: Registry, key_file: Path) -> None:
    left_over = create_key_file(key_file.with_name("vault.key.new"))
    assert opens(office, key_file)
    rotated = rotate(office, key_file, **WHO)
    assert rotated.new_key_id != left_over.key_id
    assert opens(office, key_file)


def test_cut_off_after_the_commit_it_is_finished(office: Registry, key_file: Path) -> None:
    old = Vault.from_file(key_file, environ={})
    new = create_key_file(key_file.with_name("vault.key.new"))
    office.reseal(old, new, **WHO)
    with pytest.raises(VaultError, match="rotate-key"):
        opens(office, key_file)
    counter = office.change_counter()
    rotated = rotate(office, key_file, **WHO)
    assert (rotated.finished_earlier, rotated.new_key_id) == (True, new.key_id)
    assert opens(office, key_file)
    assert office.change_counter() == counter


def test_the_wrong_key_rotates_nothing(office: Registry, key_file: Path) -> None:
    key_file.unlink()
    create_key_file(key_file)
    before = {a: office.sealed(a) for a in ("a001", "a002")}
    with pytest.raises(VaultError, match="sealed by vault key"):
        rotate(office, key_file, **WHO)
    assert {a: office.sealed(a) for a in ("a001", "a002")} == before


def test_one_value_that_does_not_open_stops_all(office: Registry, key_file: Path) -> None:
    old = Vault.from_file(key_file, environ={})
    office.set_credentials("a002", office.sealed("a001"), **WHO)  # sealed for another account
    with pytest.raises(VaultError, match="a002 does not open"):
        office.reseal(old, Vault(bytes(32)), **WHO)
    assert old.open("a001", office.sealed("a001")) == login()


def test_a_registry_without_a_vault_has_nothing_to_rotate(tmp_path: Path) -> None:
    with Registry(f"sqlite:///{tmp_path / 'bare.sqlite'}") as bare:
        bare.upgrade()
        with pytest.raises(NotFound, match="unisono init"):
            rotate(bare, tmp_path / "vault.key", **WHO)
