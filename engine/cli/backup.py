"""Does. `unisono backup` and `unisono restore`: a copy of the database, and back from it without a second order."""

from __future__ import annotations

import shlex
import sqlite3
import time
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer

from accounts.registry import Registry, RegistryError
from engine import ledger
from engine.cli.context import CONFIG_DEFAULT, ConfigOption, console, fail, plain_errors, read_config, who
from engine.cli.exits import Exit
from engine.config import Config
from engine.control.client import Control, ControlError, NoEngine
from engine.ledger import AlreadyOwned, SchemaTooNew
from engine.ledger import backup as copies
from engine.ledger.upgrade import upgrade


def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; must not exist.")],
    config: ConfigOption = CONFIG_DEFAULT,
) -> None:
    """Copy the database, also while the engine runs: one consistent state, checked. The vault key is not in it.

    With PostgreSQL it says which pg_dump does it.

    [bold]Example[/bold]

      unisono backup /backup/unisono-2026-11-21.sqlite
    """
    settings = read_config(config)
    database = _sqlite_file(settings)
    if database is None:
        fail(f"PostgreSQL has its own: {_pg_command(settings, 'pg_dump --format=custom --file', file)}")
    if not database.exists():
        fail(f"there is no database at {database}. Make one with: unisono init")
    with plain_errors(OSError, sqlite3.Error):
        copies.copy(database, file)
    judged = copies.judge(file, thorough=True)
    if judged.complaints:
        for complaint in judged.complaints:
            console.print(f"[red]✗[/red] {complaint}")
        fail(f"{file} was written, and it is not sound: so is the database it was made of", Exit.FINDINGS)
    kept = ", ".join(f"{count} in {table}" for table, count in judged.rows.items())
    console.print(f"[green]●[/green] {file}: {file.stat().st_size} bytes, checked; rows: {kept}")
    console.print(f"  The key of the vault is not in it: keep {settings.vault.key_file} safe apart from it.")


def restore(
    file: Annotated[Path | None, typer.Argument(help="A copy made by unisono backup.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every page and fact of the copy first.")] = False,
    accept_orphans: Annotated[
        bool, typer.Option("--accept-orphans", help="Orders found at the venues that the copy knows nothing of.")
    ] = False,
    why: Annotated[str, typer.Option("--why", help="The reason; it is recorded.")] = "",
    config: ConfigOption = CONFIG_DEFAULT,
) -> None:
    """Put a backup in the place of the database; the old one is kept beside it. No engine may run.

    The copy is checked before anything is touched. Afterwards the engine starts read-only: it sends no orders until it
    has looked at every account for orders that it must have sent after the backup was made. Where there are such, a
    person looks at them and accepts them.

    With PostgreSQL restore by pg_restore, then run this without FILE: it notes that the database was restored.

    Exit 1: the copy is not sound, nothing was changed; 75: an engine owns the database.

    [bold]Examples[/bold]

      unisono restore /backup/unisono-2026-11-21.sqlite --verify
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
    judged = copies.judge(file, thorough=verify)
    if judged.complaints:
        for complaint in judged.complaints:
            console.print(f"[red]✗[/red] {complaint}")
        fail(f"{file} was not restored; nothing was changed.", Exit.FINDINGS)
    old = _put(settings, database, file)
    console.print(f"[green]●[/green] {database} is now {file}; the old one is {old}")
    _say_read_only()


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
