"""Does. Replaces the vault key so that a crash at any moment leaves a key file that opens everything.

New key beside the old one, everything resealed in one transaction, then the files change places. Whatever was
interrupted, running it again finds out from the canary which of the two keys counts, and finishes or starts anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from accounts.registry import NotFound, Registry
from accounts.vault import SealedValue, Vault, VaultError, create_key_file, credentials_directory_key, key_id_of


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    old_key_id: str
    new_key_id: str
    accounts: int
    old_key_file: str
    finished_earlier: bool  # an interrupted rotation was finished, nothing was sealed anew


def rotate(registry: Registry, path: Path, *, by: str, why: str) -> Rotated:
    """Seal everything under a new key in `path`; the old key stays beside it as `.old`. Raises VaultError."""
    if (handed_over := credentials_directory_key()) is not None:
        raise VaultError(
            f"The key comes from systemd ({handed_over}). Rotate where its file is made; nothing was done."
        )
    if (canary := registry.canary()) is None:
        raise NotFound("This registry has no vault key yet. Make one with: unisono init")
    old = Vault.from_file(path, environ={})
    new_path, old_path = path.with_name(path.name + ".new"), path.with_name(path.name + ".old")
    if new_path.exists():
        new = Vault.from_file(new_path, environ={})
        if _opens(new, canary):
            _change_places(path, new_path, old_path)
            return _rotated(registry, old, new, old_path, finished_earlier=True)
        new_path.unlink()  # nothing was committed with it
    old.check(canary)
    new = create_key_file(new_path)
    registry.reseal(old, new, by=by, why=why)
    _change_places(path, new_path, old_path)
    return _rotated(registry, old, new, old_path, finished_earlier=False)


def _opens(vault: Vault, canary: SealedValue) -> bool:
    return vault.key_id == key_id_of(canary)


def _change_places(path: Path, new_path: Path, old_path: Path) -> None:
    """At every moment `path` is a whole key file."""
    old_path.unlink(missing_ok=True)
    os.link(path, old_path)
    new_path.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _rotated(registry: Registry, old: Vault, new: Vault, old_path: Path, *, finished_earlier: bool) -> Rotated:
    return Rotated(
        old_key_id=old.key_id,
        new_key_id=new.key_id,
        accounts=len(registry.credential_fields()),
        old_key_file=str(old_path),
        finished_earlier=finished_earlier,
    )
