"""Does. The command `unisono`: one module per command group."""

from __future__ import annotations

import sys

import typer

app = typer.Typer(
    name="unisono",
    help="Keeps every managed brokerage account in step: one plan, all accounts, nothing lost.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def main() -> None:
    sys.exit(app())
