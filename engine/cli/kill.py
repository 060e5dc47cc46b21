"""Does. `unisono kill`: stop sends at once, cancel what is at work, and show that it is gone."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.table import Table

from engine.cli.context import (
    CONFIG_DEFAULT,
    ConfigOption,
    JsonOption,
    console,
    fail,
    ledger_of,
    plain_errors,
    print_json,
    read_config,
    who,
)
from engine.cli.exits import Exit
from engine.control.client import Control, ControlError, NoEngine
from engine.ledger import kills

app = typer.Typer(
    name="kill",
    help="The kill switch: stops new orders at once, cancels resting ones, and is done only when that is shown.",
    no_args_is_help=True,
)

Scope = Annotated[str, typer.Argument(help="all, venue:<name> or account:<id>.")]
Why = Annotated[str, typer.Option("--why", help="The reason; it is recorded.")]


@app.command()
def on(
    scope: Scope = "all",
    why: Why = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait until every account is shown clear.")] = 30.0,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Throw the switch. Survives a restart. Exit 0: every account in scope is shown without working orders; 2: not yet.

    [bold]Examples[/bold]

      unisono kill on --why "wrong price in plan"
      unisono kill on account:okx-007 --why "client asked"
    """
    settings = read_config(config)
    if not why:
        fail("say why: --why TEXT. Nothing was changed.")
    with Control(settings.control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.post("/kill/on", {"scope": scope, "by": who(), "why": why})
        deadline = time.monotonic() + wait
        while not _shown(told) and time.monotonic() < deadline:
            time.sleep(0.3)
            told = control.get("/kill")
    _print(told, as_json)
    raise typer.Exit(int(Exit.OK if _shown(told) else Exit.UNKNOWN))


@app.command()
def off(
    scope: Scope = "all",
    why: Why = "",
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Let orders out again.

    [bold]Example[/bold]

      unisono kill off --why "price corrected"
    """
    settings = read_config(config)
    if not why:
        fail("say why: --why TEXT. Nothing was changed.")
    with Control(settings.control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.post("/kill/off", {"scope": scope, "by": who(), "why": why})
    _print(told, as_json)


@app.command()
def status(config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """Which switches are on, and whether each account is shown clear. Works without an engine (switches only).

    Exit 0: none is on; 1: at least one is on.
    """
    settings = read_config(config)
    try:
        with Control(settings.control.socket) as control:
            told = control.get("/kill")
    except NoEngine:
        with ledger_of(settings) as conn:
            told = {"switches": [_plain(k) for k in kills.switched_on(conn)], "accounts": []}
    _print(told, as_json)
    raise typer.Exit(int(Exit.FINDINGS if told["switches"] else Exit.OK))


def _plain(kill: kills.Kill) -> dict[str, Any]:
    return {"scope": kill.scope, "by": kill.by, "why": kill.why, "at_ms": kill.at_ms}


def _shown(told: Any) -> bool:
    return all(account["shown"] for account in told["accounts"])


def _print(told: Any, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    if not told["switches"]:
        console.print("[green]●[/green] no kill switch is on")
        return
    for switch in told["switches"]:
        console.print(f"[red]■[/red] kill {switch['scope']} is on: {switch['why']} (by {switch['by']})")
    table = Table(title="Accounts under a kill switch")
    for heading in ("Account", "Switch", "Shown clear", "Working", "Note"):
        table.add_column(heading)
    for account in told["accounts"]:
        shown = "[green]yes[/green]" if account["shown"] else "[red]no[/red]"
        table.add_row(account["account_id"], account["scope"], shown, str(account["working"]), account["note"])
    console.print(table)
