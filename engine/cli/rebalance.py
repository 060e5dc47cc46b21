"""Does. `unisono rebalance …`: how far accounts are from a model portfolio, and one plan that brings them back."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, console, fail, print_json, who
from engine.cli.edits import opened
from engine.cli.exits import Exit
from engine.control.client import Control, ControlError, NoEngine
from engine.core.models import Rebalance
from engine.reports.models import rebalance_tables

app = typer.Typer(
    name="rebalance",
    help="Model portfolios: drift of accounts and groups, and one basket plan with the fewest orders.",
    no_args_is_help=True,
)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id: unisono model list")]
GroupOption = Annotated[list[str] | None, typer.Option("--group", "-g", help="A group; may be repeated.")]
AccountOption = Annotated[list[str] | None, typer.Option("--account", "-a", help="An account; may be repeated.")]
CurrencyOption = Annotated[str, typer.Option("--currency", help="What the model is reckoned in.")]


@app.command()
def preview(
    model: ModelArgument,
    group: GroupOption = None,
    account: AccountOption = None,
    currency: CurrencyOption = "USDT",
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """How far each account is from the model, and what would bring it back. Drafts and sends nothing.

    Exit 0: every line is within its band; 1: some are off.

    Example: unisono rebalance preview balanced -g growth
    """
    found = _asked(model, group, account, currency, config, by="")
    if as_json:
        print_json(found)
    else:
        console.print(rebalance_tables(found))
    off = [drift for drift in found.drifts if drift.quantity or drift.why not in (None, "within_band")]
    raise typer.Exit(int(Exit.FINDINGS if off else Exit.OK))


@app.command()
def propose(
    model: ModelArgument,
    group: GroupOption = None,
    account: AccountOption = None,
    currency: CurrencyOption = "USDT",
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Draft one basket plan that brings the accounts back: sells first, an order only where a line is off.

    Nothing is sent: the plan goes the way of every plan.

    Example: unisono rebalance propose balanced -g growth
    """
    found = _asked(model, group, account, currency, config, by=who())
    if as_json:
        print_json(found)
        return
    console.print(rebalance_tables(found))
    console.print(f"[green]✓[/green] {found.plan_id} drafted", highlight=False)
    console.print(f"  next: unisono plan preview {found.plan_id}", highlight=False)


def _asked(
    model: str, group: list[str] | None, account: list[str] | None, currency: str, config: Any, by: str
) -> Rebalance:
    with opened(config) as (settings, registry):
        wanted = registry.model(model)
    if not group and not account:
        fail("name accounts with --group or --account. Nothing was drafted.")
    asked = {
        "model": msgspec.to_builtins(wanted),
        "groups": group or [],
        "accounts": account or [],
        "currency": currency,
        "by": by,
    }
    try:
        with Control(settings.control.socket) as control:
            return msgspec.convert(control.post("/rebalance", asked), Rebalance, strict=False)
    except NoEngine as error:
        fail(str(error))
    except ControlError as error:
        fail(str(error), Exit.FINDINGS if error.code in ("refused", "rejected") else Exit.ERROR)
