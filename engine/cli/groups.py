"""Does. `unisono groups …`: accounts that trade together, and with what weights."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from accounts.model import AccountState, Group, Weight
from accounts.registry import Registry
from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, fail, show, who
from engine.cli.edits import DryRunOption, LimitOption, WhyOption, editing, opened, reason, tell_history
from engine.cli.exits import Exit
from engine.cli.mandates import (
    AllowOption,
    DenyOption,
    MaxDayOption,
    MaxInstrumentOption,
    MaxLossOption,
    MaxOrderOption,
    MaxPlanOption,
    mandate_after,
)
from engine.core.limits import Code, deny
from engine.venues import venues

app = typer.Typer(name="groups", help="Groups of accounts and their weights.", no_args_is_help=True)

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.")]
WeightsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="ACCOUNT=WEIGHT…", help="Accounts with their weights; ACCOUNT alone weighs 1."),
]
PercentOption = Annotated[
    bool, typer.Option("--percent", help="The weights are per cent: refuse unless they sum to 100.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every account that is not closed, with weight 1.")]


@app.command("list")
def list_groups(config: ConfigOption = CONFIG_DEFAULT, json: JsonOption = False) -> None:
    """Every group with the number of its accounts and the sum of their weights.

    Example: unisono groups list --json
    """
    with opened(config) as (_, registry):
        groups = registry.groups()
    show(groups, json, lambda: _groups_table(groups))


@app.command("show")
def show_group(group: GroupArgument, config: ConfigOption = CONFIG_DEFAULT, json: JsonOption = False) -> None:
    """The members of a group with their weights.

    Example: unisono groups show balanced
    """
    with opened(config) as (_, registry), registry.view():
        found = registry.group(group)
        names = {a.account_id: a for a in registry.accounts()}

    def table() -> Table:
        whole = total(found.weights)
        title = f"{found.group_id} · {found.name} · {len(found.weights)} accounts · weights sum to {whole}"
        shown = Table(box=None, pad_edge=False, title=Text(title), title_justify="left")
        for column in ("account", "name", "state"):
            shown.add_column(column)
        shown.add_column("weight", justify="right")
        shown.add_column("share", justify="right")
        for w in found.weights:
            account = names[w.account_id]
            share = f"{w.weight / whole:.2%}" if whole else "-"
            cells = (w.account_id, account.name, account.state.value, format(w.weight, "f"), share)
            shown.add_row(*(Text(cell) for cell in cells))
        return shown

    show(found, json, table)


@app.command("add")
def add_group(
    group: GroupArgument,
    weights: WeightsArgument = None,
    name: Annotated[str, typer.Option("--name", help="For people; the id when left out.", show_default=False)] = "",
    everyone: AllOption = False,
    percent: PercentOption = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """A new group.

    Examples:

    unisono groups add everyone --all --why "first group"

    unisono groups add balanced a001=60 a002=40 --percent --name "Balanced" --why "model of May"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        members = _members(registry, weights, everyone)
        if percent:
            _refuse_unless_100(members)
        new = Group(group_id=group, name=name or group, weights=tuple(members))
        registry.add_group(new, by=who(), why=because)


@app.command("weights")
def set_weights(
    group: GroupArgument,
    weights: WeightsArgument = None,
    merge: Annotated[bool, typer.Option("--merge", help="Keep the members that are not named.")] = False,
    everyone: AllOption = False,
    percent: PercentOption = False,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Who is in the group and with what weight: the whole list, or with --merge the named accounts only.

    Example: unisono groups weights balanced a001=55 a002=45 --percent --why "model of June"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        members = _members(registry, weights, everyone)
        if merge:
            named = {w.account_id for w in members}
            members += [w for w in registry.group(group).weights if w.account_id not in named]
        if percent:
            _refuse_unless_100(members)
        registry.set_weights(group, members, by=who(), why=because)


@app.command("mandate")
def set_mandate(
    group: GroupArgument,
    max_order: MaxOrderOption = None,
    max_plan: MaxPlanOption = None,
    max_day: MaxDayOption = None,
    max_instrument: MaxInstrumentOption = None,
    max_loss: MaxLossOption = None,
    allow: AllowOption = None,
    deny: DenyOption = None,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """What each account of the group may do, beside its own mandate: the tighter limit holds. With --deny it is the
    group's restricted list.

    Example: unisono groups mandate everyone --deny DOGE/USDT --why "restricted list of May"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        limits = {
            "--max-order": max_order,
            "--max-plan": max_plan,
            "--max-day": max_day,
            "--max-instrument": max_instrument,
            "--max-daily-loss": max_loss,
        }
        registry.set_group_mandate(
            mandate_after(registry.group_mandate(group), limits, allow, deny), by=who(), why=because
        )


@app.command()
def rename(
    group: GroupArgument,
    name: Annotated[str, typer.Argument(help="The new name.")],
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Give a group another name; its id stays.

    Example: unisono groups rename balanced "Balanced, old model" --why "two models now"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        registry.rename_group(group, name, by=who(), why=because)


@app.command()
def remove(
    group: GroupArgument,
    why: WhyOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Remove a group; its accounts and its history stay.

    Example: unisono groups remove balanced --why "model ended"
    """
    because = reason(why)
    with opened(config) as (_, registry), editing(registry, dry_run, json):
        registry.remove_group(group, by=who(), why=because)


@app.command()
def history(
    group: GroupArgument, limit: LimitOption = 100, config: ConfigOption = CONFIG_DEFAULT, json: JsonOption = False
) -> None:
    """Who changed the group, when and why; the latest first. Also of a removed group.

    Example: unisono groups history balanced
    """
    with opened(config) as (_, registry):
        changes = registry.changes(subjects=[("group", group)], limit=limit)
    tell_history(changes, json)


def total(weights: Sequence[Weight]) -> Decimal:
    return sum((w.weight for w in weights), Decimal(0))


def _members(registry: Registry, texts: Sequence[str] | None, everyone: bool) -> list[Weight]:
    if everyone and texts:
        fail("Name accounts or say --all, not both. Nothing was changed.")
    feeds = {a.account_id for a in registry.accounts() if not venues()[a.venue].capabilities.trades}
    if everyone:
        accounts = [a for a in registry.accounts() if a.state is not AccountState.CLOSED]
        return [Weight(a.account_id, Decimal(1)) for a in accounts if a.account_id not in feeds]
    members = [_weight(text) for text in texts or ()]
    if wrong := sorted(feeds & {m.account_id for m in members}):
        fail(f"{', '.join(wrong)}: a login at a feed of prices takes no orders. Nothing was changed.")
    return members


def _weight(text: str) -> Weight:
    account, equals, number = text.partition("=")
    try:
        return Weight(account, Decimal(number) if equals else Decimal(1))
    except InvalidOperation:
        fail(f"{text}: write it as ACCOUNT=WEIGHT, for example a001=12.5. Nothing was changed.")


def _refuse_unless_100(weights: Sequence[Weight]) -> None:
    if (whole := total(weights)) != 100:
        denial = deny(Code.WEIGHT_SUM, sum=whole)
        off = f"{100 - whole} too little" if whole < 100 else f"{whole - 100} too much"
        fail(f"{denial.code}: {denial.text}: {off}. Nothing was changed.", Exit.FINDINGS)


def _groups_table(groups: Sequence[Group]) -> Table:
    table = Table(box=None, pad_edge=False, caption=f"{len(groups)} groups", caption_justify="left")
    for column in ("group", "name"):
        table.add_column(column)
    for column in ("accounts", "sum of weights"):
        table.add_column(column, justify="right")
    for group in groups:
        cells = (group.group_id, group.name, str(len(group.weights)), format(total(group.weights), "f"))
        table.add_row(*(Text(cell) for cell in cells))
    return table
