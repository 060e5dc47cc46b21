"""A registry on each database, and a small world of venues that needs no dialect."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from accounts.registry import Registry
from accounts.vault import Vault
from tests.accounts.world import KEY, NOW_MS


@pytest.fixture
def vault() -> Vault:
    return Vault(KEY)


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.sqlite'}"


@pytest.fixture
def registry(database_url: str, vault: Vault) -> Iterator[Registry]:
    numbers = count(0xA000)
    with Registry(database_url, now_ms=lambda: NOW_MS, suffix=lambda: f"{next(numbers):04x}") as made:
        made.upgrade()
        made.set_canary(vault.canary(), by="init", why="test")
        yield made
