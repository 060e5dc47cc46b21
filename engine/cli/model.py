"""Does. `unisono model …`: model portfolios, what accounts ought to hold."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from accounts.model import Model, ModelLine
from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, fail, show, who
from engine.cli.edits import DryRunOption, LimitOption, WhyOption, editing, opened, reason, tell_history

app = typer.Typer(
    name="model",
    help="Model portfolios: target weights with bands and a cash line. Brought about by: unisono rebalance",
    no_args_is_help=True,
)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")]


@app.command("list")
def list_models(config: ConfigOption = CONFIG_DEFAULT, json: JsonOption = False) -> None:
    """Every model portfolio.

    Example: unisono model list --json
    """
    with opened(config) as (_, registry):
        models = registry.models()
    show(models, json, lambda: _models_table(models))


@app.command("show")
def show_model(model: ModelArgument, config: ConfigOption = CONFIG_DEFAULT, json: JsonOption = False) -> None:
    """The lines of a model: weights and bands, in per cent of an account's net asset value.

    Example: unisono model show balanced
    """
    with opened(config) as (_, registry):
        found = registry.model(model)
    show(found, json, lambda: _lines_table(found))


@app.command("set")
def set_model(
    model: ModelArgument,
    lines: Annotated[
        list[str] | None,
        typer.Argument(metavar="INSTRUMENT=WEIGHT[:BAND]…", help="Per cent of NAV, and how far off is left alone."),
    ] = None,
    cash: Annotated[str, typer.Option("--cash", metavar="PERCENT", help="The cash line.")] = "0",
    band: Annotated[str, typer.Option("--band", metavar="PERCENT", help="Of lines that say none.")] = "1",
    name: Annotated[str, typer.Option("--name", help="For people; the id when left out.", show_default=False)] = "",
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """The whole model from now on; a new one where there is none. Lines and cash must come to exactly 100.

    Example: unisono model set balanced BTC/USDT=40:5 ETH/USDT=30 SOL/USDT=20:2 --cash 10 --why "May"
    """
    because = reason(why)
    told = tuple(_line(text, band) for text in lines or ())
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        known = {one.model_id: one.name for one in registry.models()}
        wanted = Model(model_id=model, name=name or known.get(model, model), cash=_number("--cash", cash), lines=told)
        registry.set_model(wanted, by=who(), why=because)


@app.command()
def remove(
    model: ModelArgument,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Remove a model; what accounts hold stays as it is.

    Example: unisono model remove balanced --why "replaced by balanced-2"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        registry.remove_model(model, by=who(), why=because)


@app.command()
def history(
    model: ModelArgument, limit: LimitOption = 100, config: ConfigOption = CONFIG_DEFAULT, json: JsonOption = False
) -> None:
    """Who changed the model, when and why; the latest first. Also of a removed model.

    Example: unisono model history balanced
    """
    with opened(config) as (_, registry):
        changes = registry.changes(subjects=[("model", model)], limit=limit)
    tell_history(changes, json)


def _line(text: str, band: str) -> ModelLine:
    instrument, equals, rest = text.rpartition("=")  # instruments may hold a colon, none holds an equals sign
    if not equals:
        fail(f"{text}: write it as INSTRUMENT=WEIGHT or INSTRUMENT=WEIGHT:BAND. Nothing was changed.")
    weight, _, own = rest.partition(":")
    return ModelLine(instrument=instrument, weight=_number(text, weight), band=_number(text, own or band))


def _number(where: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        fail(f"{where}: {text!r} is no number. Nothing was changed.")


def _models_table(models: Sequence[Model]) -> Table:
    table = Table(box=None, pad_edge=False, caption=f"{len(models)} models", caption_justify="left")
    for column in ("model", "name"):
        table.add_column(column)
    for column in ("lines", "cash"):
        table.add_column(column, justify="right")
    for one in models:
        table.add_row(Text(one.model_id), Text(one.name), str(len(one.lines)), f"{one.cash:f} %")
    return table


def _lines_table(model: Model) -> Table:
    table = Table(box=None, pad_edge=False, title=Text(f"{model.model_id} · {model.name}"), title_justify="left")
    table.add_column("instrument")
    for column in ("weight", "band"):
        table.add_column(column, justify="right")
    for line in model.lines:
        table.add_row(Text(line.instrument), f"{line.weight:f} %", f"± {line.band:f}")
    table.add_row(Text("cash", style="dim"), f"{model.cash:f} %", "")
    return table
