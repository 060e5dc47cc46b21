"""Does. `unisono doctor`: is everything as it should be, and if not, what to do next."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa
import typer
from rich.table import Table

from accounts.registry import Registry, RegistryError
from accounts.vault import Vault, VaultError
from engine.cli.audit import ADVICE, ENGINE, REGISTRY, sentence, verified
from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, read_config, show
from engine.cli.exits import Exit
from engine.config import Config
from engine.control.client import Control, ControlError, NoEngine
from engine.control.office import Finding
from engine.ledger import audit, books, gaps, quarantine, reader, restorations

_SIGNS = {"ok": "[green]●[/green]", "warning": "[yellow]▲[/yellow]", "error": "[red]✗[/red]"}


def doctor(config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """Look over configuration, key, database, connections and accounts. Works without an engine, too.

    Exit 0: nothing to see to; 1: warnings or errors are listed, each with what to do next.

    [bold]Examples[/bold]

      unisono doctor
      unisono doctor --json
    """
    settings = read_config(config)
    found = [
        Finding(level="ok", subject="configuration", what=f"{config} is right", next=""),
        *_vault(settings),
        *_database(settings),
        *_engine(settings),
    ]
    show(found, as_json, lambda: _table(found))
    if any(f.level != "ok" for f in found):
        raise typer.Exit(int(Exit.FINDINGS))


def _vault(settings: Config) -> list[Finding]:
    try:
        vault = Vault.from_file(settings.vault.key_file)
    except VaultError as error:
        return [Finding(level="error", subject="vault", what=str(error), next="unisono init makes a new key")]
    try:
        with Registry(settings.database.url) as registry:
            canary = registry.canary()
            if canary is not None:
                vault.check(canary)
    except VaultError as error:
        return [
            Finding(level="error", subject="vault", what=str(error), next="bring back the key that sealed the keys")
        ]
    except (sa.exc.SQLAlchemyError, RegistryError):
        return []  # told with the database
    return [Finding(level="ok", subject="vault", what="the key is private and opens what it sealed", next="")]


def _database(settings: Config) -> list[Finding]:
    found: list[Finding] = []
    try:
        with Registry(settings.database.url) as registry:
            registry.check()
            accounts, registry_chain = registry.accounts(), registry.verify_changes()
        with reader(settings.database.url) as conn:
            unproven = gaps.unproven(conn)
            unread = quarantine.count(conn)
            restored = restorations.pending(conn)
            unreadable = list(_unreadable(conn, [a.account_id for a in accounts]))
            records = [verified(ENGINE, audit.verify(conn)), verified(REGISTRY, registry_chain)]
    except Exception as error:  # whatever the database says, a person must read it
        what = f"the database cannot be used: {type(error).__name__}: {error}"
        return [
            Finding(level="error", subject="database", what=what, next="check database.url; unisono init makes one")
        ]
    found.append(Finding(level="ok", subject="database", what=f"{len(accounts)} accounts registered", next=""))
    for one in records:
        level, then = ("error", ADVICE) if one.why else ("ok", "")
        found.append(Finding(level=level, subject="audit", what=sentence(one), next=then))
    found += unreadable
    for gap in unproven:
        if gap.state is gaps.GapState.UNPROVABLE:
            found.append(
                Finding(
                    level="error", subject=gap.account_id, what=f"a gap cannot be proven: {gap.note}", next=gap.reason
                )
            )
    if restored is not None:
        what = f"it was restored ({restored.source}, by {restored.by}) and is read-only until the venues are swept"
        found.append(
            Finding(level="error", subject="database", what=what, next="unisono run sweeps them; see docs/how-to")
        )
    if unread:
        found.append(
            Finding(
                level="warning",
                subject="quarantine",
                what=f"{unread} frames could not be read; they are kept with the reason",
                next="a new form of the venue's messages? tell the developers, with the frames",
            )
        )
    return found


def _unreadable(conn: sa.Connection, account_ids: Iterable[str]) -> Iterator[Finding]:
    for account_id in account_ids:
        try:
            books.load(conn, account_id, lambda name: None)
        except books.UnreadableBook as error:
            then = "which backups are whole: unisono restore FILE --verify"
            yield Finding(level="error", subject=account_id, what=str(error), next=then)


def _engine(settings: Config) -> list[Finding]:
    socket = Path(settings.control.socket)
    try:
        with Control(socket) as control:
            status, told = control.get("/status"), control.get("/findings")
    except NoEngine:
        return [Finding(level="warning", subject="engine", what="no engine is running", next="unisono run")]
    except ControlError as error:
        return [Finding(level="error", subject="engine", what=str(error), next="look into its log")]
    found = [
        Finding(
            level="ok",
            subject="engine",
            what=f"up for {status['uptime_s']} s; {status['proven']} of {status['accounts']} accounts proven; "
            f"{status['ledger']['queued']} of {status['ledger']['limit']} wait for the database; connections were held "
            f"back {status['held_back']['times']} times, {status['held_back']['total_s']:.0f} s together",
            next="",
        )
    ]
    if stat.S_IMODE(os.stat(socket).st_mode) != 0o600:
        found.append(
            Finding(level="error", subject="control", what=f"others may open {socket}", next=f"chmod 600 {socket}")
        )
    return found + [Finding(**finding) for finding in told]


def _table(found: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in found:
        table.add_row(_SIGNS[finding.level], finding.subject, finding.what)
        if finding.next and finding.level != "ok":
            table.add_row("", "", f"[dim]→ {finding.next}[/dim]")
    return table
