"""Does. `unisono prices | nav`: what things cost and what accounts are worth, as the running engine knows it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer
from rich.console import Group as Together

from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, plain_errors, print_json, read_config, show
from engine.cli.exits import Exit
from engine.control.client import Control, ControlError, NoEngine
from engine.core.valuation import AccountWorth, Price, Worth
from engine.reports.worth import nav_table, parts_table, prices_table


def prices(
    instrument: Annotated[str, typer.Argument(help="Only this one, for example SBER/RUB.", show_default=False)] = "",
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """The latest price of everything the engine hears of, with its source and its age.

    A price older than plans.max_price_age_s is shown as stale; no order is checked or sized with it.

    [bold]Examples[/bold]

      unisono prices
      unisono prices SBER/RUB --json
    """
    with Control(read_config(config).control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.get(f"/prices?{urlencode({'instrument': instrument})}")
    show(told, as_json, lambda: prices_table(msgspec.convert(told, list[Price], strict=False)))
    if instrument and not told:
        raise typer.Exit(int(Exit.FINDINGS))


def nav(
    accounts: Annotated[list[str] | None, typer.Argument(help="These accounts.", show_default=False)] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", help="The accounts of this group; may be repeated.")
    ] = None,
    currency: Annotated[str, typer.Option("--currency", help="In this currency.")] = "USD",
    parts: Annotated[bool, typer.Option("--parts", help="Also what each number is made of.")] = False,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """What accounts are worth now in one currency, by live prices, and what that rests on.

    Our own valuation stands beside what the venue says. What has no price is named and makes the account's number
    incomplete; it is then not in the sum. Exit 1 when an account is left out.

    [bold]Examples[/bold]

      unisono nav --currency RUB
      unisono nav --group balanced --currency USD --json
      unisono nav a007 --parts
    """
    asked = [("account", a) for a in accounts or ()] + [("group", g) for g in group or ()] + [("currency", currency)]
    with Control(read_config(config).control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.get(f"/nav?{urlencode(asked)}")
    worths = msgspec.convert(told["accounts"], list[AccountWorth], strict=False)
    together = msgspec.convert(told["together"], Worth, strict=False)
    if as_json:
        print_json(told)
    else:
        show(told, False, lambda: _tables(worths, together, parts))
    if together.left_out:
        raise typer.Exit(int(Exit.FINDINGS))


def _tables(worths: list[AccountWorth], together: Worth, parts: bool) -> Any:
    tables = [nav_table(worths, together)]
    if parts:
        tables += [parts_table(w.valuation) for w in worths]
    return Together(*tables)
