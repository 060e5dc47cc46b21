"""Does. What every command shares: the config file, `--json`, clear errors, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from engine import config as configuration
from engine.cli.exits import Exit
from engine.venues import venues

if TYPE_CHECKING:
    import sqlalchemy as sa

    from accounts.registry import Registry

_WIDE = None if sys.stdout.isatty() else 160  # a pipe or a file has no width: tables are not cut there
console = Console(width=_WIDE, highlight=False)
errors = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="UNISONO_CONFIG", help="The configuration file.", show_default=True),
]


def instant(text: str) -> datetime:
    """A time as people write it, in UTC."""
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise typer.BadParameter(f"{text} is no time: write it in UTC as 2026-11-22T03:15, or only the hour or the day")


SinceOption = Annotated[
    datetime | None, typer.Option("--since", parser=instant, metavar="TIME", help="In UTC, as 2026-11-22T03:15.")
]
AccountOption = Annotated[str, typer.Option("--account", "-a", help="Only this account.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table for people.")]

CONFIG_DEFAULT = Path("unisono.toml")


def fail(message: str, code: Exit = Exit.ERROR) -> NoReturn:
    """Say what happened, what was not done and what to do next; then leave with `code`."""
    errors.print(f"[red]✗[/red] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(int(code))


def read_config(path: Path) -> configuration.Config:
    """The configuration, or exit 78 with every error at once."""
    try:
        text_config = configuration.load(path, known_venues=frozenset(venues()))
    except configuration.ConfigError as error:
        for line in error.errors:
            errors.print(f"[red]✗[/red] {escape(line)}", highlight=False, soft_wrap=True)
        errors.print("Nothing was started or changed. Every setting is explained in config.example.toml.")
        raise typer.Exit(int(Exit.CONFIG)) from None
    return text_config


def print_json(value: Any) -> None:
    """One JSON document on standard output; money as text, Struct values as objects."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def show(value: Any, as_json: bool, render: Callable[[], Any]) -> None:
    """JSON for machines, or what `render` returns for people."""
    if as_json:
        print_json(value)
    else:
        console.print(render())


def who() -> str:
    """The person behind this command, as recorded with every change."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid{os.getuid()}"


@contextmanager
def plain_errors(*expected: type[Exception], code: Exit = Exit.ERROR) -> Iterator[None]:
    """Errors that a person can act on become one sentence instead of a trace."""
    try:
        yield
    except expected as error:
        fail(str(error), code)


@contextmanager
def ledger_of(settings: configuration.Config) -> Iterator[sa.Connection]:
    """The ledger to read from, with or without an engine; a database that has none becomes one sentence."""
    import sqlalchemy as sa  # here: who asks a running engine need not wait for half a second of imports

    from engine.ledger import books, reader

    file = settings.database.url.removeprefix("sqlite:///")
    if file != settings.database.url and not Path(file).exists():
        fail(f"there is no database at {file}. Make one with: unisono init")
    try:
        with reader(settings.database.url, busy_timeout_s=settings.ledger.busy_timeout_s) as connection:
            yield connection
    except books.UnreadableBook as error:
        fail(str(error))
    except sa.exc.SQLAlchemyError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        fail(f"the ledger cannot be read ({reason}). Make one with: unisono init, and start: unisono run")


@contextmanager
def registry_of(settings: configuration.Config) -> Iterator[Registry]:
    """The registry to read from; what it refuses becomes one sentence."""
    from accounts.registry import Registry, RegistryError

    with plain_errors(RegistryError), Registry(settings.database.url) as registry:
        registry.check()
        yield registry
