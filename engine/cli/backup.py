"""Does. `unisono backup` and `unisono restore`: a copy of the database, and back from it without a second order."""

from __future__ import annotations

import shlex
import sqlite3
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import sqlalchemy as sa
import typer
from rich.markup import escape

from accounts.registry import Registry, RegistryError
from accounts.vault import Vault, VaultError
from engine import ledger
from engine.cli.context import (
    CONFIG_DEFAULT,
    ConfigOption,
    JsonOption,
    console,
    fail,
    plain_errors,
    print_json,
    read_config,
    who,
)
from engine.cli.exits import Exit
from engine.config import Config
from engine.control.client import Control, ControlError, NoEngine
from engine.core.limits import stamp
from engine.ledger import AlreadyOwned, SchemaTooNew
from engine.ledger import backup as copies
from engine.ledger.upgrade import upgrade


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints of a copy."""

    file: str
    bytes: int
    sound: bool
    rows: Mapping[str, int]
    newest_fact_at_ms: int | None
    complaints: Sequence[str]
    credentials: str = ""  # of a rehearsal: does the key of the vault open them?
    took_s: float = 0.0


def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; must not exist.")],
    as_json: JsonOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
) -> None:
    """Copy the database, also while the engine runs: one consistent state, checked. The vault key is not in it.

    With PostgreSQL it says which pg_dump does it.

    Exit 1: it was written, and what was copied is not sound.

    [bold]Examples[/bold]

      unisono backup /backup/unisono-2026-11-21.sqlite
      unisono restore /backup/unisono-2026-11-21.sqlite --verify
    """
    settings = read_config(config)
    database = _sqlite_file(settings)
    if database is None:
        fail(f"PostgreSQL has its own: {_pg_command(settings, 'pg_dump --format=custom --file', file)}")
    if not database.exists():
        fail(f"there is no database at {database}. Make one with: unisono init")
    with plain_errors(OSError, sqlite3.Error):
        copies.copy(database, file)
    report = _report(file, copies.judge(file, thorough=True))
    if as_json:
        print_json(report)
    else:
        _say(report, f"{file}: {report.bytes} bytes, checked")
    if not report.sound:
        fail(f"{file} was written, and it is not sound: so is the database it was made of", Exit.FINDINGS)
    if not as_json:
        console.print(f"  The key of the vault is not in it: keep {settings.vault.key_file} safe apart from it.")


def restore(
    file: Annotated[Path | None, typer.Argument(help="A copy made by unisono backup.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only rehearse it, in a temporary folder: nothing is changed.")
    ] = False,
    accept_orphans: Annotated[
        bool, typer.Option("--accept-orphans", help="Orders found at the venues that the copy knows nothing of.")
    ] = False,
    why: Annotated[str, typer.Option("--why", help="The reason; it is recorded.")] = "",
    as_json: JsonOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
) -> None:
    """Put a backup in the place of the database; the old one is kept beside it. No engine may run.

    The copy is rehearsed before anything is touched: restored into a temporary folder, brought to this version's
    schema, every page and fact read, books, plans and reconciliations made of it, the vault's key tried on it.
    --verify does only that, also beside a running engine.

    Afterwards the engine starts read-only: it sends no orders until it has looked at every account for orders that it
    must have sent after the backup was made. Where there are such, a person looks at them and accepts them.

    With PostgreSQL restore by pg_restore, then run this without FILE: it notes that the database was restored.

    Exit 1: the copy is not sound, nothing was changed; 64: the vault's key does not open its credentials, nothing was
    changed; 75: an engine owns the database.

    [bold]Examples[/bold]

      unisono restore /backup/unisono-2026-11-21.sqlite --verify
      unisono restore /backup/unisono-2026-11-21.sqlite
      unisono restore --accept-orphans --why "closed at the broker by hand"
    """
    settings = read_config(config)
    if accept_orphans:
        _accept(settings, why)
        return
    database = _sqlite_file(settings)
    if database is None:
        _restored_elsewhere(settings, file)
        return
    if file is None:
        fail("name the FILE to restore. Nothing was changed.")
    if not file.exists():
        fail(f"there is no {file}. Nothing was changed.")
    report = _rehearse(settings, file)
    if as_json:
        print_json(report)
    else:
        _say(report, f"{file} was restored into a temporary folder and read through in {report.took_s:.1f} s")
    if not report.sound:
        fail(f"{file} was not restored; nothing was changed.", Exit.FINDINGS)
    if report.credentials:
        fail(f"{report.credentials} {file} was not restored; nothing was changed.", Exit.VAULT)
    if verify:
        return
    old = _put(settings, database, file)
    if not as_json:
        console.print(f"[green]●[/green] {database} is now {file}; the old one is {old}")
        _say_read_only()


def _rehearse(settings: Config, file: Path) -> BackupReport:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="unisono-rehearsal-") as folder:
        judged, restored = copies.rehearse(file, Path(folder), prepare=_prepare, who=who(), now_ms=_now_ms())
        trouble = _credentials_trouble(settings, restored) if restored is not None else ""
    took_s = round(time.monotonic() - began_s, 3)
    return msgspec.structs.replace(_report(file, judged), credentials=trouble, took_s=took_s)


def _credentials_trouble(settings: Config, database: Path) -> str:
    """Why the vault's key does not open what is sealed in it; "" when it opens all of it."""
    try:
        vault = Vault.from_file(settings.vault.key_file)
        with Registry(f"sqlite:///{database}") as registry:
            canary = registry.canary()
            if canary is not None:
                vault.check(canary)
            for account in registry.accounts():
                vault.open(account.account_id, registry.sealed(account.account_id))
    except (VaultError, RegistryError, OSError) as error:
        return str(error)
    return ""


def _report(file: Path, judged: copies.Judged) -> BackupReport:
    return BackupReport(
        file=str(file),
        bytes=file.stat().st_size,
        sound=not judged.complaints,
        rows=judged.rows,
        newest_fact_at_ms=judged.newest_ms,
        complaints=judged.complaints,
    )


def _say(report: BackupReport, done: str) -> None:
    if not report.sound:
        for complaint in report.complaints:
            console.print(f"[red]✗[/red] {escape(complaint)}")
        return
    kept = ", ".join(f"{count} in {table}" for table, count in report.rows.items())
    console.print(f"[green]●[/green] {done}; rows: {kept}; the last fact of {stamp(report.newest_fact_at_ms)}")


def _put(settings: Config, database: Path, file: Path) -> Path:
    try:
        ownership = ledger.own(settings.database.url)
    except AlreadyOwned as error:
        fail(f"{error} Stop it first. Nothing was changed.", Exit.LOCKED)
    try:
        with plain_errors(OSError, sqlite3.Error, sa.exc.SQLAlchemyError, RegistryError, SchemaTooNew):
            return copies.replace(
                database, file, prepare=_prepare, who=who(), source=f"from {file.name}", now_ms=_now_ms()
            )
    finally:
        ownership.release()


def _restored_elsewhere(settings: Config, file: Path | None) -> None:
    if file is not None:
        command = _pg_command(settings, "pg_restore --clean --if-exists --dbname", None)
        fail(f"PostgreSQL has its own: {command} {shlex.quote(str(file))}, then: unisono restore, without a FILE")
    try:
        ownership = ledger.own(settings.database.url)
    except AlreadyOwned as error:
        fail(f"{error} Stop it first. Nothing was changed.", Exit.LOCKED)
    try:
        with plain_errors(sa.exc.SQLAlchemyError, RegistryError, SchemaTooNew):
            _prepare(settings.database.url)
            copies.mark(settings.database.url, who(), "by pg_restore", _now_ms())
    finally:
        ownership.release()
    console.print("[green]●[/green] it is noted that this database was restored")
    _say_read_only()


def _say_read_only() -> None:
    console.print("  Start the engine: unisono run. It sends no orders until its sweep of the venues has ended;")
    console.print("  unisono doctor tells how far it is, and which orders the backup knows nothing of.")


def _accept(settings: Config, why: str) -> None:
    if not why:
        fail("say why: --why TEXT. Nothing was changed.")
    with Control(settings.control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.post("/orphans/accept", {"by": who(), "why": why})
    console.print(f"[green]●[/green] {told['accepted']} orders accepted; orders may be sent again")


def _prepare(url: str) -> None:
    """Both schemas as this version wants them."""
    upgrade(url)
    with Registry(url) as registry:
        registry.upgrade()


def _sqlite_file(settings: Config) -> Path | None:
    url = settings.database.url
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _pg_command(settings: Config, command: str, file: Path | None) -> str:
    url = sa.make_url(settings.database.url).set(drivername="postgresql", password=None)
    words = [command, *([shlex.quote(str(file))] if file else []), shlex.quote(url.render_as_string())]
    return " ".join(words)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
