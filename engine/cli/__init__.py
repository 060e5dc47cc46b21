"""Does. The command `unisono`: one module per command group."""

from __future__ import annotations

import sys

import typer
from typer._click.exceptions import UsageError

from engine.cli import accounts, backup, books, groups, kill, links, plan, reconcile
from engine.cli.demo import demo
from engine.cli.doctor import doctor
from engine.cli.exits import Exit
from engine.cli.init import init
from engine.cli.run import run
from engine.cli.sim import sim

app = typer.Typer(
    name="unisono",
    help="Keeps every managed brokerage account in step: one plan, all accounts, nothing lost.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

for command in (init, run, demo, sim, doctor, links.connections, links.gaps, links.backfill):
    app.command()(command)
for copying in (backup.backup, backup.restore):
    app.command()(copying)
for look in (books.orders, books.fills, books.positions, books.balances):
    app.command()(look)
for group in (accounts.app, groups.app, plan.app, reconcile.app, kill.app):
    app.add_typer(group)

UsageError.exit_code = int(Exit.ERROR)  # the library's 2 means "unknown" here: see engine/cli/exits.py


def main() -> None:
    try:
        app()
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(int(Exit.ERROR))  # Python's 1 means "findings" here
