"""Does. `unisono instruments`: what is listed where, as it was last told, and what changed of it."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, ledger_of, print_json, read_config, show
from engine.cli.exits import Exit
from engine.ledger import instruments as listings
from engine.reports.listings import changes_table, listings_table


def instruments(
    text: Annotated[str, typer.Argument(help="Only names with this text in them.", show_default=False)] = "",
    venue: Annotated[str, typer.Option("--venue", help="Only this venue's.", show_default=False)] = "",
    changes: Annotated[bool, typer.Option("--changes", help="What changed, the latest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 200,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """What is listed at each venue, in our spelling, with its units; and what changed of it.

    Exit 1 when nothing is found.

    [bold]Examples[/bold]

      unisono instruments SBER
      unisono instruments --venue okx BTC/USDT --json
      unisono instruments --changes
    """
    with ledger_of(read_config(config)) as conn:
        if changes:
            changed = [c for c in listings.changes(conn, limit=limit) if text in c.name and venue in ("", c.venue)]
            show(changed, as_json, lambda: changes_table(changed))
            return
        found = [
            (environment, one)
            for (place, environment), known in sorted(listings.load(conn).items())
            for one in sorted(known, key=lambda i: i.name)
            if venue in ("", place) and text in one.name
        ]
    if as_json:
        print_json([{"environment": environment, "instrument": one} for environment, one in found])
    else:
        show(found, False, lambda: listings_table(found, limit))
    if not found:
        raise typer.Exit(int(Exit.FINDINGS))
