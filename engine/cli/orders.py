"""Does. `unisono orders`: what the ledger knows of them, and a person's word where the venue's own is not to be had."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.books import HoursOption, LimitOption, known_ledger, since_ms
from engine.cli.context import (
    CONFIG_DEFAULT,
    AccountOption,
    ConfigOption,
    JsonOption,
    fail,
    plain_errors,
    read_config,
    show,
    who,
)
from engine.control.client import Control, ControlError, NoEngine
from engine.ledger import questions
from engine.reports.tables import orders_table

app = typer.Typer(rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def orders_of(
    context: typer.Context,
    account: AccountOption = "",
    hours: HoursOption = 24.0,
    limit: LimitOption = 200,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Orders, ours and those placed elsewhere, the latest first.

    [bold]Examples[/bold]

      unisono orders --account okx-007
      unisono orders --hours 1 --json
    """
    if context.invoked_subcommand is not None:
        return
    with known_ledger(config, account) as conn:
        found = questions.orders(conn, account or None, since_ms=since_ms(hours), limit=limit)
    show(found, as_json, lambda: orders_table(found, limit=limit))


@app.command()
def settle(
    order: Annotated[str, typer.Argument(metavar="ORDER", help="Its client order id or child id, as doctor names it.")],
    word: Annotated[
        str, typer.Option("--as", help="not-placed, placed=VENUE_ORDER_ID, or accepted (of one that turned up late).")
    ],
    why: Annotated[str, typer.Option("--why", help="What was seen, and where; it is recorded.")] = "",
    unasked: Annotated[
        bool, typer.Option("--unasked", help="Also where the venue cannot be asked, and that is known.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the venue and say what would be done.")] = False,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Say what became of an order whose fate is unknown, after a look at the broker's own page.

    The venue is asked once more first; what it shows counts, and nothing is settled against it. Settling sends
    nothing, and no further attempt follows: what is short is made up by: unisono plan complete.

    [bold]Examples[/bold]

      unisono orders settle 5f0c… --as not-placed --why "not in the terminal's list, leo and mia looked"
      unisono orders settle 5f0c… --as placed=1234567 --why "the broker confirmed by telephone" --dry-run
      unisono orders settle 5f0c… --as accepted --why "position checked, surplus sold"
    """
    settings = read_config(config)
    if not why:
        fail("say why: --why TEXT. Nothing was settled.")
    said, _, venue_order_id = word.partition("=")
    if (said == "placed") is not bool(venue_order_id):
        fail("say --as not-placed, --as placed=VENUE_ORDER_ID or --as accepted. Nothing was settled.")
    asked = {
        "order_id": order,
        "word": said,
        "venue_order_id": venue_order_id,
        "by": who(),
        "why": why,
        "unasked": unasked,
        "rehearse": dry_run,
    }
    with Control(settings.control.socket) as control, plain_errors(ControlError, NoEngine):
        told = control.post("/orders/settle", asked)
    if dry_run:
        sentence = (
            f"[yellow]○[/yellow] {told['client_order_id']} of {told['account_id']} would be settled: {told['what']}"
        )
    else:
        sentence = f"[green]●[/green] {told['client_order_id']} of {told['account_id']}: {told['was']} → {told['now']}"
    show(told, as_json, lambda: sentence)
