"""Does. Keeps credentials sealed at rest: AES-256-GCM under one key from a file that only its owner can read.

A sealed value is base64 of: format version (1 byte), key id (8 bytes), nonce (12 bytes), ciphertext with its tag.
Account id and field name are authenticated with it, so a value moved to another account or field does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from accounts.model import Credentials, Secret

SealedValue = NewType("SealedValue", str)

KEY_FILE_NAME = "vault.key"  # as systemd's LoadCredential= must name it
_VERSION = 1
_KEY_BYTES, _ID_BYTES, _NONCE_BYTES, _TAG_BYTES = 32, 8, 12, 16
_CANARY = Secret("this vault opens with the right key")


class VaultError(Exception):
    """The key is missing, readable by others, malformed, or not the one that sealed the value."""


class Vault:
    """Seals and opens with one key. Only the engine and the commands that set credentials hold one."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise VaultError(f"A vault key has {_KEY_BYTES} bytes, this one has {len(key)}.")
        self._cipher = AESGCM(key)
        self.key_id = hashlib.sha256(b"unisono vault key id\0" + key).digest()[:_ID_BYTES].hex()

    def __repr__(self) -> str:
        return f"Vault(key_id={self.key_id!r})"

    @classmethod
    def from_file(cls, path: Path | str, *, environ: Mapping[str, str] = os.environ) -> Vault:
        """The key from systemd's credentials directory when it holds one, else from `path`."""
        handed_over = credentials_directory_key(environ)
        # systemd guards its directory itself, and shows access lists as group bits: the mode says nothing there.
        return cls(_read_key(handed_over, guarded=True) if handed_over else _read_key(Path(path), guarded=False))

    def seal(self, account_id: str, credentials: Credentials) -> dict[str, SealedValue]:
        """Every field sealed on its own, for this account only."""
        return {field: self._seal(account_id, field, value) for field, value in credentials.items()}

    def open(self, account_id: str, sealed: Mapping[str, SealedValue]) -> Credentials:
        """The fields of one account. Raises VaultError when even one does not open."""
        return {field: self._open(account_id, field, value) for field, value in sealed.items()}

    def canary(self) -> SealedValue:
        """A known sentence, sealed: stored at init so that a wrong key is found at the start."""
        return self._seal("", "canary", _CANARY)

    def check(self, canary: SealedValue) -> None:
        """Raises VaultError when this is not the key that sealed the canary."""
        if self._open("", "canary", canary) != _CANARY:
            raise VaultError("The vault's canary opens but says something else: the registry was tampered with.")

    def _seal(self, account_id: str, field: str, value: Secret) -> SealedValue:
        head, nonce = bytes([_VERSION]) + bytes.fromhex(self.key_id), os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, value.reveal().encode(), _bound_to(head, account_id, field))
        return SealedValue(base64.b64encode(head + nonce + sealed).decode("ascii"))

    def _open(self, account_id: str, field: str, sealed: SealedValue) -> Secret:
        head, nonce, ciphertext = _parts(sealed)
        if (sealed_by := head[1:].hex()) != self.key_id:
            raise VaultError(
                f"The credentials were sealed by vault key {sealed_by}, this key is {self.key_id}. Nothing was opened. "
                "Put the right key file in place; after an interrupted rotation run: unisono accounts rotate-key"
            )
        try:
            return Secret(self._cipher.decrypt(nonce, ciphertext, _bound_to(head, account_id, field)).decode())
        except InvalidTag:
            raise VaultError(
                f"The sealed {field} of {account_id or 'the vault'} does not open: it was altered, or belongs to "
                "another account or field."
            ) from None


def key_id_of(sealed: SealedValue) -> str:
    """Which key sealed this value."""
    return _parts(sealed)[0][1:].hex()


def credentials_directory_key(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The key file that systemd handed over, if it did."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder) / KEY_FILE_NAME
    return path if folder and path.is_file() else None


def create_key_file(path: Path) -> Vault:
    """A new random key in a new file with mode 0600; an existing file is never touched."""
    key = AESGCM.generate_key(bit_length=_KEY_BYTES * 8)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise VaultError(f"{path} exists already and was left as it is.") from None
    except OSError as error:
        raise VaultError(f"{path} cannot be made: {error.strerror}.") from None
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask says
        file.write(base64.b64encode(key) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return Vault(key)


def _read_key(path: Path, *, guarded: bool) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise VaultError(f"{path} is not a file.")
            if not guarded and stat.S_IMODE(status.st_mode) & 0o077:
                raise VaultError(
                    f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}). "
                    f"It must have mode 0600: chmod 600 {path}"
                )
            text = file.read(1024)
    except OSError as error:
        raise VaultError(f"The vault key {path} cannot be read: {error.strerror}.") from None
    try:
        return base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise VaultError(f"{path} holds no vault key (one line of base64).") from None


def _parts(sealed: SealedValue) -> tuple[bytes, bytes, bytes]:
    try:
        record = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError):
        raise VaultError("A sealed value is not base64: it was altered.") from None
    head_ends, nonce_ends = 1 + _ID_BYTES, 1 + _ID_BYTES + _NONCE_BYTES
    if len(record) < nonce_ends + _TAG_BYTES:
        raise VaultError("A sealed value is too short: it was altered.")
    if record[0] != _VERSION:
        raise VaultError(f"A sealed value has format {record[0]}; this version reads format {_VERSION}.")
    return record[:head_ends], record[head_ends:nonce_ends], record[nonce_ends:]


def _bound_to(head: bytes, account_id: str, field: str) -> bytes:
    return b"\0".join((head, account_id.encode(), field.encode()))
