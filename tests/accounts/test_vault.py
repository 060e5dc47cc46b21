"""What is sealed for one account and field opens there and nowhere else, and only with its key."""

from __future__ import annotations

import base64
import os
import pickle
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.model import Secret
from accounts.vault import SealedValue, Vault, VaultError, create_key_file, key_id_of
from tests.accounts.world import KEY

keys = st.binary(min_size=32, max_size=32)
ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
fields = st.from_regex(r"[a-z_]{1,20}", fullmatch=True)
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(key=keys, account_id=ids, field=fields, value=values)
def test_what_was_sealed_opens_again(key: bytes, account_id: str, field: str, value: str) -> None:
    vault = Vault(key)
    assert vault.open(account_id, vault.seal(account_id, {field: Secret(value)})) == {field: Secret(value)}


@given(account_id=ids, other=ids, field=fields)
def test_a_value_moved_to_another_account_does_not_open(account_id: str, other: str, field: str) -> None:
    sealed = Vault(KEY).seal(account_id, {field: Secret("x")})
    if other != account_id:
        with pytest.raises(VaultError, match="does not open"):
            Vault(KEY).open(other, sealed)


@given(account_id=ids, field=fields, other=fields)
def test_a_value_moved_to_another_field_does_not_open(account_id: str, field: str, other: str) -> None:
    sealed = Vault(KEY).seal(account_id, {field: Secret("x")})
    if other != field:
        with pytest.raises(VaultError, match="does not open"):
            Vault(KEY).open(account_id, {other: sealed[field]})


@given(key=keys, account_id=ids)
def test_another_key_does_not_open_and_is_named(key: bytes, account_id: str) -> None:
    sealed = Vault(KEY).seal(account_id, {"secret": Secret("x")})
    if key != KEY:
        with pytest.raises(VaultError, match=f"sealed by vault key {Vault(KEY).key_id}, this key is"):
            Vault(key).open(account_id, sealed)


@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_no_bit_of_a_record_can_be_altered(position: int, flip: int) -> None:
    record = bytearray(base64.b64decode(Vault(KEY).seal("a001", {"secret": Secret("value")})["secret"]))
    record[position % len(record)] ^= flip
    with pytest.raises(VaultError):
        Vault(KEY).open("a001", {"secret": SealedValue(base64.b64encode(record).decode())})


@pytest.mark.parametrize("rubbish", ["", "####", "AQ==", "ÄÖ", base64.b64encode(bytes(200)).decode()])
def test_rubbish_is_a_vault_error(rubbish: str) -> None:
    with pytest.raises(VaultError):
        Vault(KEY).open("a001", {"secret": SealedValue(rubbish)})


def test_sealing_twice_gives_two_records() -> None:
    vault = Vault(KEY)
    assert vault.seal("a001", {"f": Secret("x")}) != vault.seal("a001", {"f": Secret("x")})


def test_the_canary_knows_its_key() -> None:
    Vault(KEY).check(Vault(KEY).canary())
    with pytest.raises(VaultError, match="sealed by vault key"):
        Vault(bytes(32)).check(Vault(KEY).canary())


def test_a_field_sealed_for_an_account_is_no_canary() -> None:
    with pytest.raises(VaultError):
        Vault(KEY).check(Vault(KEY).seal("a001", {"canary": Secret("x")})["canary"])


def test_a_new_key_file_is_its_owners_only_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    before = os.umask(0o000)
    try:
        made = create_key_file(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    assert Vault.from_file(path, environ={}).key_id == made.key_id
    with pytest.raises(VaultError, match="exists already"):
        create_key_file(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o777])
def test_a_key_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "vault.key"
    create_key_file(path)
    path.chmod(mode)
    with pytest.raises(VaultError, match=f"chmod 600 {path}"):
        Vault.from_file(path, environ={})


@pytest.mark.parametrize("content", [b"", b"not base64!", base64.b64encode(bytes(31)), bytes(32)])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vault.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(VaultError):
        Vault.from_file(path, environ={})


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.key", tmp_path):
        with pytest.raises(VaultError):
            Vault.from_file(path, environ={})


def test_systemds_credentials_directory_goes_first(tmp_path: Path) -> None:
    handed_over = create_key_file(tmp_path / "vault.key")
    (tmp_path / "vault.key").chmod(0o440)  # systemd shows its access list as group bits
    own = create_key_file(tmp_path / "own.key")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert Vault.from_file(tmp_path / "own.key", environ=environ).key_id == handed_over.key_id
    assert Vault.from_file(tmp_path / "own.key", environ={"CREDENTIALS_DIRECTORY": "/nowhere"}).key_id == own.key_id


def test_neither_vault_nor_secret_shows_what_it_holds() -> None:
    vault, secret = Vault(KEY), Secret("hidden-value")
    assert repr(vault) == f"Vault(key_id='{vault.key_id}')"
    assert "hidden-value" not in f"{secret} {secret!r} { {'f': secret} }"
    with pytest.raises(TypeError):
        msgspec.json.encode({"f": secret})
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_record_tells_which_key_sealed_it() -> None:
    assert key_id_of(Vault(KEY).canary()) == Vault(KEY).key_id
