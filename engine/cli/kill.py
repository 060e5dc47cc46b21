"""Does. `unisono kill`: stop sends at once, cancel what is at work, and show that it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from engine.cli.context import (
    CONFIG_DEFAULT,
    ConfigOption,
    JsonOption,
    console,
    errors,
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
    flat: Annotated[bool, typer.Option("--flat", help="Close what is held, too, by market orders.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait until every account is done.")] = 30.0,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Throw the switch. Survives a restart. It goes on cancelling, and closing, when this command has ended.

    Thrown again it takes the new reason, and --flat as it is told then.

    Exit 0: every account in scope is shown without working orders (with --flat: and holding nothing but money); 2: not
    yet.

    [bold]Examples[/bold]

      unisono kill on --why "wrong price in plan"
      unisono kill on account:okx-007 --why "client asked"
      unisono kill on venue:alor --flat --why "leaving this broker"
    """
    settings = read_config(config)
    if not why:
        fail("say why: --why TEXT. Nothing was changed.")
    with Control(settings.control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.post("/kill/on", {"scope": scope, "by": who(), "why": why, "flat": flat})
        told = _wait(control, told, wait, _all_done, "done")
    _print(told, as_json)
    raise typer.Exit(int(Exit.OK if _all_done(told) else Exit.UNKNOWN))


@app.command()
def off(
    scope: Scope = "all",
    why: Why = "",
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="ACCOUNT", help="Take this account as it is (all: each); recorded."),
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until every account is reconciled.")] = 60.0,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Let orders out again, once every account that would resume is done and was reconciled clean since.

    Exit 3: it stays on; who is not proven, and why, is told.

    [bold]Examples[/bold]

      unisono kill off --why "price corrected"
      unisono kill off --why "broker confirmed by phone" --accept alor-003
    """
    settings = read_config(config)
    if not why:
        fail("say why: --why TEXT. Nothing was changed.")
    with Control(settings.control.socket) as control, plain_errors(ControlError, NoEngine):
        taken = set(accept or ())

        def proven(told: Any) -> bool:
            return "all" in taken or told["unproven"].get(scope, {}).keys() <= taken

        _wait(control, control.get("/kill"), wait, proven, "reconciled")
        told = control.post("/kill/off", {"scope": scope, "by": who(), "why": why, "accept": sorted(taken)})
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
            told = {"switches": [_plain(k) for k in kills.switched_on(conn)], "accounts": [], "unproven": {}}
    _print(told, as_json)
    raise typer.Exit(int(Exit.FINDINGS if told["switches"] else Exit.OK))


def _plain(kill: kills.Kill) -> dict[str, Any]:
    return {"scope": kill.scope, "by": kill.by, "why": kill.why, "at_ms": kill.at_ms, "flat": kill.flat}


def _wait(control: Control, told: Any, wait_s: float, enough: Callable[[Any], bool], word: str) -> Any:
    """Ask until it is enough, or the time is over; how far it has come goes to the error stream."""
    deadline, before = time.monotonic() + wait_s, ""
    while not enough(told) and time.monotonic() < deadline:
        accounts = told["accounts"]
        shown = sum(account["shown"] for account in accounts)
        line = f"{shown} of {len(accounts)} without working orders"
        if any(account["flat"] is not None for account in accounts):
            line += f", {sum(account['flat'] is True for account in accounts)} flat"
        line += f", {sum(bool(account['reconciled']) for account in accounts)} reconciled"
        if line != before:
            errors.print(f"waiting until all are {word}: {line}", style="dim")
            before = line
        time.sleep(0.3)
        told = control.get("/kill")
    return told


def _all_done(told: Any) -> bool:
    return all(account["shown"] and account["flat"] is not False for account in told["accounts"])


def _print(told: Any, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    if not told["switches"]:
        console.print("[green]●[/green] no kill switch is on")
        return
    for switch in told["switches"]:
        to_be = ", to be flat" if switch["flat"] else ""
        console.print(f"[red]■[/red] kill {switch['scope']} is on{to_be}: {switch['why']} (by {switch['by']})")
    table = Table(title="Accounts under a kill switch")
    for heading in ("Account", "Switch", "Shown clear", "Working", "Flat", "Reconciled", "Note"):
        table.add_column(heading)
    for account in told["accounts"]:
        flat = "–" if account["flat"] is None else _yes(account["flat"])
        reconciled = account["reconciled"] or "not yet"
        words = (_yes(account["shown"]), str(account["working"]), flat, reconciled, account["note"])
        table.add_row(account["account_id"], account["scope"], *words)
    console.print(table)


def _yes(is_so: bool) -> str:
    return "[green]yes[/green]" if is_so else "[red]no[/red]"
