"""Does. `unisono deviations`: who of a group is apart after trades elsewhere, and one plan that brings him back."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, console, fail, print_json, read_config, who
from engine.cli.exits import Exit
from engine.control.client import Control, ControlError, NoEngine
from engine.core.deviations import Against, Deviations
from engine.reports.deviations import deviations_table


def deviations(
    group: Annotated[str, typer.Option("--group", "-g", help="The group whose accounts ought to be alike.")],
    against: Annotated[
        Against,
        typer.Option(
            "--against",
            help="median: the group's median weight of each instrument; plans: what our orders alone would have left.",
        ),
    ] = Against.MEDIAN,
    band: Annotated[str, typer.Option("--band", help="median: so many percentage points apart are left alone.")] = "1",
    hours: Annotated[str, typer.Option("--hours", help="plans: how far back others' trades are looked for.")] = "24",
    currency: Annotated[str, typer.Option("--currency", help="What weights are reckoned in.")] = "USDT",
    propose: Annotated[bool, typer.Option("--propose", help="Draft the plan that brings them back.")] = False,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Who of a group is apart from the others, and one plan that brings them back in line.

    Accounts come apart when their owners trade elsewhere, or when a venue liquidates. The plan has units for each
    account; it is previewed, checked against mandates and approved as every plan. Sends nothing.

    Exit 0: nobody is apart, or the plan is drafted; 1: some are apart.

    [bold]Examples[/bold]

      unisono deviations -g growth
      unisono deviations -g growth --against plans --hours 2 --propose
    """
    asked = {
        "group": group,
        "against": against.value,
        "band": band,
        "hours": hours,
        "currency": currency,
        "by": who() if propose else "",
    }
    try:
        with Control(read_config(config).control.socket) as control:
            found = msgspec.convert(control.post("/deviations", asked), Deviations, strict=False)
    except NoEngine as error:
        fail(str(error))
    except ControlError as error:
        fail(str(error), Exit.FINDINGS if error.code in ("refused", "rejected") else Exit.ERROR)
    if as_json:
        print_json(found)
    else:
        console.print(deviations_table(found))
        if found.plan_id:
            console.print(f"[green]✓[/green] {found.plan_id} drafted", highlight=False)
            console.print(f"  next: unisono plan preview {found.plan_id}", highlight=False)
    if any(row.apart for row in found.rows):
        raise typer.Exit(int(Exit.OK if propose else Exit.FINDINGS))
