"""Words that are planted as credentials are found nowhere: not in the database's bytes, nor in anything shown."""

from __future__ import annotations

from pathlib import Path

import msgspec

from accounts.model import Account
from accounts.registry import Registry
from accounts.transfer import sheet, to_csv, to_toml
from accounts.vault import Vault
from tests.accounts.world import CANARIES, WHO, add, login


def test_no_planted_word_is_found_anywhere(vault: Vault, tmp_path: Path) -> None:
    with Registry(f"sqlite:///{tmp_path / 'r.sqlite'}") as registry:
        registry.upgrade()
        registry.set_canary(vault.canary(), **WHO)
        add(registry, vault, "a001", "a002")
        registry.set_credentials("a001", vault.seal("a001", login(secret="CANARY-second")), **WHO)
        registry.reseal(vault, Vault(bytes(32)), **WHO)
        registry.close("a002", drop_credentials=True, **WHO)
        shown = [
            msgspec.json.encode(registry.changes(limit=10_000)).decode(),
            repr(registry.changes(limit=10_000)),
            repr(registry.accounts()) + repr(registry.connections()) + repr(registry.sealed("a001")),
            to_toml(sheet(registry)) + to_csv(sheet(registry)),
            repr(login()) + str(login()) + repr(vault),
        ]
        files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    files |= {f"{file.name}, closed": file.read_bytes() for file in tmp_path.iterdir()}
    assert any(name.endswith("-wal") for name in files), "looked into the log of writes too"
    planted = [*CANARIES.values(), "CANARY"]
    assert [(name, word) for name, content in files.items() for word in planted if word.encode() in content] == []
    assert [word for text in shown for word in planted if word in text] == []


def test_the_search_finds_what_is_not_sealed(vault: Vault, tmp_path: Path) -> None:
    """That the search above can fail."""
    path = tmp_path / "r.sqlite"
    with Registry(f"sqlite:///{path}") as registry:
        registry.upgrade()
        careless = Account(account_id="a001", name=CANARIES["secret"], venue="v", site="s", environment="demo")
        registry.add_account(careless, (), {}, **WHO)
    assert CANARIES["secret"].encode() in path.read_bytes()
