"""Does. `unisono init`: a configuration, a vault key and an empty database, in a folder that has none of them."""

from __future__ import annotations

import json as texts
import os
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer

from accounts.registry import Registry, RegistryError
from accounts.vault import KEY_FILE_NAME, VaultError, create_key_file
from engine import ledger
from engine.cli.context import CONFIG_DEFAULT, JsonOption, console, fail, print_json, read_config, who
from engine.cli.exits import Exit

_SQLITE = "unisono.sqlite"

_CONFIG = """\
# unisono's configuration. config.example.toml explains every setting; what is not here has its default.
# Relative paths are taken from this file's folder.

[database]
url = {url}  # registry and ledger

[vault]
key_file = "{key_file}"  # opens the sealed credentials: back it up, apart from the database

# [plans]
# four_eyes_notional = 100000.0  # above this value another person has to approve a plan

# [venues.okx]
# endpoints = {{ "global.demo.rest" = "http://127.0.0.1:8080" }}  # addresses by site.environment.kind
"""


def init(
    folder: Annotated[Path, typer.Option("--dir", help="Where to; made when it is not there.")] = Path("."),
    database: Annotated[
        str, typer.Option("--database", metavar="URL", help="For example postgresql+psycopg://user@host/name.")
    ] = f"sqlite:///{_SQLITE}",
    json: JsonOption = False,
) -> None:
    """Set unisono up in a folder: unisono.toml, vault.key (mode 0600) and the database. Overwrites nothing.

    Example: unisono init --dir office
    """
    config_file, key_file = folder / CONFIG_DEFAULT, folder / KEY_FILE_NAME
    files = [config_file, key_file]
    if database == f"sqlite:///{_SQLITE}":
        files.append(folder / _SQLITE)
    if there := [str(file) for file in files if file.exists()]:
        fail(f"There already: {', '.join(there)}. Nothing was made or changed. Choose another folder with: --dir DIR")
    made = list[Path]()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        vault = create_key_file(key_file)
        made.append(key_file)
        _write_new(config_file, _CONFIG.format(url=texts.dumps(database), key_file=KEY_FILE_NAME))
        made.append(config_file)
        config = read_config(config_file)
        made += [] if database.startswith("postgres") else files[2:]
        with Registry(config.database.url) as registry:
            registry.upgrade()
            ledger.upgrade(config.database.url)
            registry.set_canary(vault.canary(), by=who(), why="unisono init")
    except (RegistryError, VaultError, OSError, ledger.SchemaTooNew, sa.exc.OperationalError, ValueError) as error:
        _take_back(made)
        fail(f"{error} What was begun in {folder} was taken back.", Exit.ERROR)
    except typer.Exit:
        _take_back(made)
        raise
    shown = sa.make_url(config.database.url).render_as_string(hide_password=True)
    if json:
        print_json({"config": str(config_file), "key_file": str(key_file), "database": shown, "key_id": vault.key_id})
        return
    console.print(
        f"[green]✓[/green] {config_file}\n[green]✓[/green] {key_file}\n[green]✓[/green] {shown}", soft_wrap=True
    )
    here = "" if folder.resolve() == Path.cwd() else f"  export UNISONO_CONFIG={config_file.resolve()}\n"
    console.print(
        f"\nNext:\n{here}"
        '  unisono accounts add a001 --venue okx --site global -e demo --name "First client" --why "first account"\n'
        '  unisono groups add everyone --all --why "first group"\n'
        "  unisono run\n"
        f"\nWithout {KEY_FILE_NAME} the credentials cannot be opened: keep a copy apart from the database.",
        soft_wrap=True,
        highlight=False,
    )


def _write_new(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _take_back(made: list[Path]) -> None:
    for path in made:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
