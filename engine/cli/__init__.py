"""Does. The command `unisono`: one module per command group, imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer._click import Command, Context
from typer._click.exceptions import UsageError
from typer.core import TyperCommand, TyperGroup

from engine.cli.exits import Exit

# Name -> its module and what the list of commands says of it: the list is shown without importing any of them.
COMMANDS = {
    "init": (
        "init",
        "Set unisono up in a folder: unisono.toml, vault.key (mode 0600) and the database. Overwrites nothing.",
    ),
    "run": (
        "run",
        "Start the engine: connect every account, follow plans, keep the ledger. Stops on SIGTERM or Ctrl-C.",
    ),
    "demo": (
        "demo",
        "Show the main job: simulated brokers and feeds, 30 accounts, one plan for all, gaps proven, a reconciliation.",
    ),
    "sim": (
        "sim",
        "Play venues on 127.0.0.1: accounts with keys, real matching, a price path from the seed, faults on command.",
    ),
    "doctor": (
        "doctor",
        "Look over configuration, key, database, connections and accounts. Works without an engine, too.",
    ),
    "connections": (
        "links",
        "Every connection and its phase: live, opening, down, mute, halted. Without an engine: as it last was.",
    ),
    "gaps": (
        "links",
        "Stretches of time in which something may have been missed. Exit 1 while any of those shown is not proven.",
    ),
    "backfill": (
        "links",
        "Read history back now although nothing is known to be missing. The engine does this by itself after each gap.",
    ),
    "backup": (
        "backup",
        "Copy the database, also while the engine runs: one consistent state, checked. The vault key is not in it.",
    ),
    "restore": (
        "backup",
        "Put a backup in the place of the database; the old one is kept beside it. No engine may run.",
    ),
    "orders": ("orders", "Orders, ours and those placed elsewhere, the latest first."),
    "fills": ("books", "Executions, the latest first, each once however often it was heard."),
    "positions": ("books", "What each account holds: quantity, average cost, price, unrealised and realised result."),
    "balances": (
        "books",
        "Cash of each account by currency, folded from its opening, fills, fees, funding and transfers.",
    ),
    "explain": ("explain", "Where a number comes from: its opening and every fact after it, adding up to it."),
    "instruments": (
        "listings",
        "What is listed at each venue, in our spelling, with its units; and what changed of it.",
    ),
    "prices": ("worth", "The latest price of everything the engine hears of, with its source and its age."),
    "nav": ("worth", "What accounts are worth now in one currency, by live prices, and what that rests on."),
    "accounts": (
        "accounts",
        "Accounts under management: list, add, edit, pause, resume, close, import, export.",
    ),
    "groups": ("groups", "Groups of accounts and their weights."),
    "plan": (
        "plan",
        "Plans: what is wanted for many accounts at once. new → preview → approve → execute.",
    ),
    "model": (
        "model",
        "Model portfolios: target weights with bands and a cash line. Brought about by: unisono rebalance",
    ),
    "rebalance": (
        "rebalance",
        "Model portfolios: drift of accounts and groups, and one basket plan with the fewest orders.",
    ),
    "deviations": (
        "deviations",
        "Who of a group is apart from the others, and one plan that brings them back in line.",
    ),
    "reconcile": (
        "reconcile",
        "Compare the venues' statements with our ledger. Exits 0 clean, 1 breaks, 2 unknown, 3 error.",
    ),
    "raw": ("raw", "Frames and HTTP exchanges as they were heard and said, secrets masked: list, show, pin."),
    "audit": ("audit", "Who did what, when and why; and whether anybody has changed these records since."),
    "kill": (
        "kill",
        "The kill switch: stops new orders at once, cancels resting ones, and is done only when that is shown.",
    ),
}


def command(name: str) -> Command:
    """The whole command, or group of commands."""
    module = import_module(f"engine.cli.{COMMANDS[name][0]}")
    found = getattr(module, name, None)
    if found is None:
        return typer.main.get_group(module.app)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_show_locals=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)


class _Commands(TyperGroup):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = {name: TyperCommand(name, help=says) for name, (_, says) in COMMANDS.items()}

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        return name, command(name) if name and known else None, rest


app = typer.Typer(
    name="unisono",
    cls=_Commands,
    help="Keeps every managed brokerage account in step: one plan, all accounts, nothing lost.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
app.callback()(lambda: None)

UsageError.exit_code = int(Exit.ERROR)  # the library's 2 means "unknown" here: see engine/cli/exits.py


def main() -> None:
    try:
        app()
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(int(Exit.ERROR))  # Python's 1 means "findings" here
