"""Does. The command `unisono`: one module per command group."""

from __future__ import annotations

import sys

import typer

from engine.cli import accounts, groups, kill, reconcile
from engine.cli.demo import demo
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

app.command()(init)
app.command()(run)
app.command()(sim)
app.command()(demo)
app.add_typer(accounts.app)
app.add_typer(groups.app)
app.add_typer(kill.app, name="kill")
app.add_typer(reconcile.app)


def main() -> None:
    sys.exit(app())
