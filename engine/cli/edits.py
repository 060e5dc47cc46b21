"""Does. What every command that edits the registry shares: opening it, reasons, rehearsals, credentials, diffs."""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from accounts.model import Change, Credentials, Secret
from accounts.registry import Recorded, Registry, RegistryError
from accounts.vault import Vault, VaultError
from engine.cli.context import console, errors, fail, plain_errors, print_json, read_config
from engine.cli.exits import Exit
from engine.config import Config, VenueSettings
from engine.core.register import Composer, Profile, RegisterError
from engine.venues import venues

WhyOption = Annotated[
    str,
    typer.Option("--why", help="The reason, recorded with the change. Asked for on a terminal.", show_default=False),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")]
CredentialsOption = Annotated[
    Path | None,
    typer.Option(
        "--credentials-file",
        help="TOML with the venue's credential fields, mode 0600; - reads standard input.",
        show_default=False,
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many changes at most.")]

_TOLD_WHEN_NEW = {"account": ("name", "venue", "site", "environment", "state"), "connection": ("url", "channels")}
_MOST_ROWS = 100  # of a diff on the screen; `--json` and `history` have them all

FOLLOWS = "The running engine follows within a second."


@contextmanager
def opened(path: Path) -> Iterator[tuple[Config, Registry]]:
    """The configuration and its registry; what they refuse becomes a sentence and an exit code."""
    config = read_config(path)
    with (
        plain_errors(RegistryError, RegisterError),
        plain_errors(VaultError, code=Exit.VAULT),
        Registry(config.database.url) as registry,
    ):
        registry.check()
        yield config, registry


def vault_of(config: Config, registry: Registry) -> Vault:
    """The key that this registry's credentials are sealed with, proven by the canary."""
    if (canary := registry.canary()) is None:
        raise VaultError("This registry has no vault key yet. Make both with: unisono init")
    vault = Vault.from_file(config.vault.key_file)
    vault.check(canary)
    return vault


def composer_of(config: Config) -> Composer:
    def profile(name: str) -> Profile:
        settings = config.venues.get(name, VenueSettings())
        return Profile(venues()[name], settings.endpoints, tuple(settings.allow_hosts))

    return Composer({name: profile(name) for name in venues()})


def reason(why: str) -> str:
    """What `--why` said, or what a person at a terminal answers."""
    if why.strip():
        return why.strip()
    if not sys.stdin.isatty():
        fail("Every edit says why. Nothing was changed. Repeat it with: --why TEXT")
    answer: str = typer.prompt("Why", err=True)
    return answer.strip()


def confirmed(question: str, yes: bool) -> None:
    """At a terminal, a person says yes; elsewhere `--yes` does."""
    if not yes and not (sys.stdin.isatty() and typer.confirm(question, err=True)):
        fail("Nothing was changed. Say yes with: --yes")


@contextmanager
def editing(registry: Registry, dry_run: bool, as_json: bool) -> Iterator[Recorded]:
    """Everything inside is one edit; tells afterwards what it changed."""
    with registry.together(keep=not dry_run) as recorded:
        yield recorded
    tell(recorded.changes, dry_run, as_json)


def tell(changes: Sequence[Change], dry_run: bool, as_json: bool, notes: Sequence[str] = ()) -> None:
    """What was changed, or would be."""
    if as_json:
        print_json({"dry_run": dry_run, "changes": changes, "notes": notes})
        return
    if changes:
        console.print(changes_table(changes[:_MOST_ROWS], history=False))
    if len(changes) > _MOST_ROWS:
        console.print(f"… and {len(changes) - _MOST_ROWS} more.")
    for note in notes:
        errors.print(Text(f"! {note}", style="yellow"))
    if not changes:
        console.print("Nothing to change.")
    elif dry_run:
        console.print(f"Dry run: nothing was changed. It would be {_count(changes)}.")
    else:
        console.print(f"[green]✓[/green] {_count(changes)} recorded. {FOLLOWS}")


def tell_history(changes: Sequence[Change], as_json: bool) -> None:
    """Recorded changes, the latest first."""
    if as_json:
        print_json(changes)
    else:
        console.print(changes_table(changes, history=True))


def changes_table(changes: Sequence[Change], *, history: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("when", "who", "why") if history else ():
        table.add_column(column)
    for column in ("subject", "action", "before → after"):
        table.add_column(column, overflow="fold")
    for change in changes:
        known = (moment(change.at_ms), change.by, change.why) if history else ()
        subject = f"{change.kind} {change.subject_id}".strip()
        table.add_row(*(Text(cell) for cell in (*known, subject, change.action, "\n".join(differences(change)))))
    return table


def differences(change: Change) -> list[str]:
    """One line for each field that changed; one line in all for what is new."""
    before, after = _flat(change.before or {}), _flat(change.after or {})
    if change.before is None:
        told = _TOLD_WHEN_NEW.get(change.kind, after.keys())
        return [" · ".join(f"{field} {_shown(after[field])}" for field in told if after.get(field))]
    return [
        f"{field}: {_shown(before.get(field))} → {_shown(after.get(field))}"
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field) and field != "version"
    ]


def moment(at_ms: int | None) -> str:
    """A UTC time for people."""
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def read_private(path: Path, what: str) -> str:
    """A file with secrets in it: only its owner may read it. `-` is standard input."""
    if str(path) == "-":
        return sys.stdin.read()
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                fail(f"{path} holds {what} and can be read by others (mode {mode:04o}). Do first: chmod 600 {path}")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}.")


def read_credentials(path: Path | None, fields: Sequence[str]) -> Credentials:
    """From a private TOML file, or typed unseen at a terminal; never from arguments."""
    if path is not None:
        try:
            raw: dict[str, Any] = tomllib.loads(read_private(path, "credentials"))
        except tomllib.TOMLDecodeError as error:
            fail(f"The credentials file is not TOML: {error}.")
        if wrong := [key for key, value in raw.items() if not isinstance(value, str)]:
            fail(f"The credentials file: {', '.join(wrong)} must be a text in quotes.")
        return {key: Secret(value) for key, value in raw.items()}
    if not sys.stdin.isatty():
        fail(f"Credentials ({', '.join(fields)}) come from --credentials-file FILE, or are asked for on a terminal.")
    return {field: Secret(typer.prompt(field, hide_input=True, err=True)) for field in fields}


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    """Weights by account, so that a diff names the account."""
    weights = value.get("weights")
    if not isinstance(weights, list):
        return value
    return {k: v for k, v in value.items() if k != "weights"} | {
        f"weight {w['account_id']}": w["weight"] for w in weights
    }


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value) or "-"
    return "-" if value is None or value == "" else str(value)


def _count(changes: Sequence[Change]) -> str:
    return "1 change" if len(changes) == 1 else f"{len(changes)} changes"
