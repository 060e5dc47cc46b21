"""Does. `unisono plan …`: draft, preview, approve, execute, look, change, give up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.cli.context import (
    CONFIG_DEFAULT,
    ConfigOption,
    JsonOption,
    console,
    errors,
    fail,
    ledger_of,
    print_json,
    read_config,
    who,
)
from engine.cli.exits import Exit
from engine.config import Config
from engine.control.client import Control, ControlError, NoEngine
from engine.core.completion import completion
from engine.core.drafts import Draft, PlanRefused, read_draft, read_plan_file
from engine.core.facts import Side
from engine.core.fairness import fairness
from engine.core.limits import plain
from engine.core.orders import OrderType
from engine.core.plans import BelowMinimum, Cannot, Child, Leg, Method, Offline, Plan, Residual
from engine.ledger import plans as stored
from engine.ledger import questions
from engine.reports.page import plan_page
from engine.reports.plans import (
    fairness_table,
    leg_sentence,
    money,
    orders_table,
    plans_table,
    preview_table,
    read_plan,
)

app = typer.Typer(
    name="plan",
    help="Plans: what is wanted for many accounts at once. new → preview → approve → execute.",
    no_args_is_help=True,
)


def _number(text: str) -> Decimal:
    """A decimal number, exactly as it was typed."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is no number") from None
    if not number.is_finite():
        raise typer.BadParameter(f"{text!r} is no number")
    return number


def _units(text: str) -> dict[str, Decimal]:
    """account=quantity, by commas."""
    units = dict[str, Decimal]()
    for pair in filter(None, (piece.strip() for piece in text.split(","))):
        account_id, equals, quantity = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not ACCOUNT=QUANTITY")
        if account_id in units:
            raise typer.BadParameter(f"{account_id} is given twice")
        units[account_id] = _number(quantity)
    return units


PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's id, as in P20261121-7KQ3F.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def new(
    group: Annotated[list[str] | None, typer.Option("--group", "-g", help="A group; may be repeated.")] = None,
    account: Annotated[list[str] | None, typer.Option("--account", "-a", help="An account; may be repeated.")] = None,
    instrument: Annotated[str, typer.Option("--instrument", "-i", help="As in BTC/USDT or BTC/USDT:USDT.")] = "",
    method: Annotated[Method | None, typer.Option("--method", "-m", help="How each account's share is found.")] = None,
    side: Annotated[Side | None, typer.Option("--side", "-s", help="Not for method change.")] = None,
    quantity: Annotated[
        Decimal | None,
        typer.Option("--quantity", "-q", parser=_number, metavar="NUMBER", help="In the venue's own unit, for all."),
    ] = None,
    percent: Annotated[
        Decimal | None,
        typer.Option("--percent", "-p", parser=_number, metavar="NUMBER", help="For nav_percent and change."),
    ] = None,
    units: Annotated[
        Any,
        typer.Option("--units", parser=_units, metavar="ACCOUNT=NUMBER,…", help="For units: each account's quantity."),
    ] = None,
    amount: Annotated[
        Decimal | None,
        typer.Option("--amount", parser=_number, metavar="NUMBER", help="For money: of each account."),
    ] = None,
    amounts: Annotated[
        Any,
        typer.Option("--amounts", parser=_units, metavar="ACCOUNT=NUMBER,…", help="For money: where they differ."),
    ] = None,
    band: Annotated[
        Decimal | None,
        typer.Option("--band", parser=_number, metavar="NUMBER", help="For target: percentage points left alone."),
    ] = None,
    stop_price: Annotated[
        Decimal | None,
        typer.Option("--stop-price", parser=_number, metavar="NUMBER", help="For risk: where the loss is taken."),
    ] = None,
    order_type: Annotated[OrderType, typer.Option("--type", "-t", help="The order's type.")] = OrderType.LIMIT,
    price: Annotated[
        Decimal | None, typer.Option("--price", parser=_number, metavar="NUMBER", help="Not for market orders.")
    ] = None,
    trigger: Annotated[
        Decimal | None,
        typer.Option("--trigger", parser=_number, metavar="NUMBER", help="For stop and stop_limit: the trigger price."),
    ] = None,
    visible: Annotated[
        Decimal | None,
        typer.Option("--visible", parser=_number, metavar="NUMBER", help="An iceberg: what each order shows."),
    ] = None,
    residual: Annotated[
        Residual, typer.Option("--residual", help="What becomes of steps that rounding leaves over.")
    ] = Residual.LARGEST_REMAINDER,
    reduce_only: Annotated[bool, typer.Option("--reduce-only", help="Only make positions smaller.")] = False,
    below_minimum: Annotated[
        BelowMinimum, typer.Option("--below-minimum", help="What becomes of a share below the smallest order.")
    ] = BelowMinimum.SKIP,
    cannot: Annotated[
        Cannot, typer.Option("--cannot", help="What becomes of the share of an account that cannot take it.")
    ] = Cannot.DROP,
    cap: Annotated[
        Decimal | None,
        typer.Option("--cap", parser=_number, metavar="NUMBER", help="The plan's largest notional: all scaled alike."),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option("--queue", metavar="MINUTES", help="Orders of offline accounts wait so long; else: skipped."),
    ] = None,
    abort_refused: Annotated[
        Decimal | None,
        typer.Option(
            "--abort-refused", parser=_number, metavar="PERCENT", help="More refused: what still waits is not sent."
        ),
    ] = None,
    abort_unknown: Annotated[
        int | None, typer.Option("--abort-unknown", metavar="ORDERS", help="Likewise: more outcomes unknown.")
    ] = None,
    abort_slippage: Annotated[
        Decimal | None,
        typer.Option("--abort-slippage", parser=_number, metavar="PERCENT", help="Likewise: a worse average."),
    ] = None,
    abort_dispersion: Annotated[
        Decimal | None,
        typer.Option("--abort-dispersion", parser=_number, metavar="PERCENT", help="Likewise: prices further apart."),
    ] = None,
    abort_after: Annotated[
        int | None, typer.Option("--abort-after", metavar="SECONDS", help="Likewise: after so long.")
    ] = None,
    abort_cancels: Annotated[
        bool | None, typer.Option("--abort-cancels", help="An abort cancels what is at work, too.")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="For people.")] = "",
    expires: Annotated[
        int | None, typer.Option("--expires", metavar="MINUTES", help="Else the office's limit.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The whole plan as TOML; - reads it.")] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Draft a plan. Nothing is sized or sent yet.

    [bold]Examples[/bold]

      unisono plan new -g everybody -i BTC/USDT:USDT -m equal -s buy -q 100 -t market

      unisono plan new -g growth -i BTC/USDT -m nav_percent -s buy -p 1 --price 50000

      unisono plan new -i BTC/USDT:USDT -m units -s sell --units okx-01=5,okx-02=12 -t market

      unisono plan new -g everybody -i BTC/USDT:USDT -m change -p -100 -t market     (closes)

      unisono plan new -g everybody -i BTC/USDT -m risk -s buy -p 1 --price 50000 --stop-price 48000

      unisono plan new -g everybody -i BTC/USDT -m target -p 20 --band 1 -t market

      unisono plan new --file basket.toml
    """
    settings = read_config(config)
    try:
        if file is not None:
            if instrument or method is not None or group or account:
                fail("a plan comes from --file or from options, not from both. Nothing was drafted.")
            draft = read_draft({**read_plan_file(_text_of(file)), "by": who()})
        elif method is None or not instrument:
            fail("a plan needs --instrument and --method, or --file. Nothing was drafted. See: unisono plan new --help")
        else:
            leg = Leg(
                instrument=instrument,
                method=method,
                side=side,
                quantity=quantity,
                percent=percent,
                units=units or {},
                amount=amount,
                amounts=amounts or {},
                band=band,
                stop_price=stop_price,
                order_type=order_type,
                price=price,
                trigger_price=trigger,
                visible_quantity=visible,
                residual=residual,
                reduce_only=reduce_only,
            )
            named = tuple(account or ()) if group or account else tuple(leg.units or leg.amounts)
            draft = Draft(
                title=title,
                groups=tuple(group or ()),
                accounts=named,
                legs=(leg,),
                expires_minutes=expires,
                below_minimum=below_minimum,
                cannot=cannot,
                cap_notional=cap,
                offline=Offline.QUEUE if queue is not None else Offline.SKIP,
                queue_minutes=queue,
                abort_refused_percent=abort_refused,
                abort_unknown=abort_unknown,
                abort_slippage_percent=abort_slippage,
                abort_dispersion_percent=abort_dispersion,
                abort_after_s=abort_after,
                abort_cancels=abort_cancels,
                by=who(),
            )
    except PlanRefused as refused:
        for complaint in refused.complaints[:-1]:
            errors.print(f"✗ {complaint}", markup=False, highlight=False)
        fail(f"{refused.complaints[-1]}. Nothing was drafted.")
    with _engine(settings) as control:
        plan = read_plan(control.post("/plans", msgspec.to_builtins(draft)))
    if as_json:
        print_json(plan)
        return
    console.print(preview_table(plan))


@app.command()
def preview(plan_id: PlanArgument, config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """Size the plan as of now and show every account's part. Changes nothing outside.

    Exit 0: every account takes part; 1: some are skipped, with the reason and its numbers.

    [bold]Example[/bold]

      unisono plan preview P20261121-7KQ3F
    """
    with _engine(read_config(config)) as control:
        plan = read_plan(control.post(f"/plans/{plan_id}/preview"))
    if as_json:
        print_json(plan)
    else:
        console.print(preview_table(plan))
        if plan.preview is not None and any(row.takes_part for row in plan.preview.rows):
            console.print(f"Nothing was sent. If it is right: unisono plan approve {plan_id}", highlight=False)
    assert plan.preview is not None, "a previewed plan has a preview"
    raise typer.Exit(int(Exit.OK if all(row.takes_part for row in plan.preview.rows) else Exit.FINDINGS))


@app.command()
def approve(
    plan_id: PlanArgument, yes: YesOption = False, config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False
) -> None:
    """Freeze the plan as it was previewed. Nothing is sent yet, and nothing is computed anew after this.

    Exit 1: refused (expired, drifted, changed, nobody takes part, or another person must approve).

    [bold]Example[/bold]

      unisono plan approve P20261121-7KQ3F --yes
    """
    settings = read_config(config)
    _confirmed(settings, plan_id, "Approve", yes, "nothing was approved")
    with _engine(settings) as control:
        plan = read_plan(control.post(f"/plans/{plan_id}/approve", {"by": who()}))
    if as_json:
        print_json(plan)
        return
    assert plan.approval is not None, "an approved plan has its approval"
    console.print(f"[green]✓[/green] {plan_id} approved by {plan.approval.by}", highlight=False)
    console.print(f"  statement {plan.approval.statement_hash}", highlight=False)
    console.print(f"  next: unisono plan execute {plan_id}", highlight=False)


@app.command()
def execute(
    plan_id: PlanArgument, yes: YesOption = False, config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False
) -> None:
    """Send the approved plan to every account at once, and watch until nothing is on its way any more.

    Exit 0: every order was acknowledged; 1: some were refused or skipped; 2: the outcome of some is unknown (they are
    asked about, never sent again).

    [bold]Example[/bold]

      unisono plan execute P20261121-7KQ3F --yes
    """
    settings = read_config(config)
    _confirmed(settings, plan_id, "Execute", yes, "nothing was sent")
    with _engine(settings) as control:
        last = control.post(f"/plans/{plan_id}/execute", {"by": who()})
        bar = Progress(
            TextColumn(plan_id),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=errors,
            disable=as_json,
        )
        with bar:
            task = bar.add_task(_counts(last), total=last["total"])
            for last in control.stream(f"/plans/{plan_id}/progress"):
                answered = last["acknowledged"] + last["skipped"]
                bar.update(task, completed=answered, total=last["total"], description=_counts(last))
    if as_json:
        print_json(last)
    else:
        _tell_outcome(plan_id, last)
    raise typer.Exit(int(_exit_of(last)))


@app.command()
def show(
    plan_id: PlanArgument,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also as a page that stands alone.")
    ] = None,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """A plan with its preview, what became of each order, and how fair it was. Works without an engine.

    [bold]Example[/bold]

      unisono plan show P20261121-7KQ3F --json
    """
    settings = read_config(config)
    plan, children = _load(settings, plan_id)
    measured = fairness(plan, children)
    elsewhere = _moved_elsewhere(settings, plan)
    if html is not None:
        _write(html, plan_page(plan, measured))
    if as_json:
        told = [
            {"account_id": account_id, "instrument": name, "moved": by_whom}
            for (account_id, name), by_whom in elsewhere.items()
        ]
        print_json({"plan": plan, "children": children, "fairness": measured, "elsewhere": told})
        return
    console.print(preview_table(plan))
    if children:
        console.print(orders_table(children))
    if measured:
        console.print(fairness_table(measured))
    for (account_id, name), by_whom in elsewhere.items():
        moved = ", ".join(f"{who} {plain(quantity)}" for who, quantity in by_whom.items())
        console.print(f"[magenta]EXTERNAL[/magenta] {account_id} {name} since the plan: {moved}", highlight=False)


def _moved_elsewhere(settings: Config, plan: Plan) -> dict[tuple[str, str], dict[str, Decimal]]:
    """What others traded of the plan's instruments in its accounts since it was drafted."""
    rows = () if plan.preview is None else plan.preview.rows
    with ledger_of(settings) as conn:
        found = questions.moved_elsewhere(conn, sorted({row.account_id for row in rows}), plan.created_at_ms)
    names = {leg.instrument for leg in plan.legs}
    return {key: by_whom for key, by_whom in found.items() if key[1] in names}


@app.command("list")
def list_plans(
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Plans that have not ended, the latest first. Works without an engine.

    [bold]Examples[/bold]

      unisono plan list

      unisono plan list --all --json
    """
    settings = read_config(config)
    with ledger_of(settings) as conn:
        plans = stored.load_plans(conn, ended=None if every else False)
    plans = sorted(plans, key=lambda plan: (plan.created_at_ms, plan.plan_id), reverse=True)
    if as_json:
        print_json([msgspec.structs.replace(plan, preview=None) for plan in plans])
    elif plans:
        console.print(plans_table(plans))
    else:
        console.print("no plans" if every else "no plans at work; those that have ended: unisono plan list --all")


@app.command()
def cancel(
    plan_id: PlanArgument, yes: YesOption = False, config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False
) -> None:
    """Cancel every order of the plan that is at work, also those that turn up late.

    [bold]Example[/bold]

      unisono plan cancel P20261121-7KQ3F --yes
    """
    settings = read_config(config)
    _confirmed(settings, plan_id, "Cancel every order of", yes, "nothing was cancelled")
    with _engine(settings) as control:
        told = control.post(f"/plans/{plan_id}/cancel", {"by": who()})
    _tell_asked(plan_id, told, "cancel", as_json)


@app.command()
def amend(
    plan_id: PlanArgument,
    price: Annotated[
        Decimal | None, typer.Option("--price", parser=_number, metavar="NUMBER", help="The new price of every order.")
    ] = None,
    factor: Annotated[
        Decimal | None,
        typer.Option(
            "--factor", parser=_number, metavar="NUMBER", help="Every quantity times this, floored to the lot."
        ),
    ] = None,
    yes: YesOption = False,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Change the price, or scale the quantity, of every order of the plan that is at work.

    [bold]Examples[/bold]

      unisono plan amend P20261121-7KQ3F --price 49900

      unisono plan amend P20261121-7KQ3F --factor 0.5
    """
    settings = read_config(config)
    if price is None and factor is None:
        fail("an amendment needs --price or --factor. Nothing was changed.")
    _confirmed(settings, plan_id, "Amend every order of", yes, "nothing was changed")
    with _engine(settings) as control:
        body = {"price": price, "factor": factor, "by": who()}
        told = control.post(f"/plans/{plan_id}/amend", msgspec.to_builtins(body))
    _tell_asked(plan_id, told, "amend", as_json)


@app.command()
def override(
    plan_id: PlanArgument,
    code: Annotated[str, typer.Argument(metavar="DENIAL", help="Its code, as the preview shows it.")],
    account: Annotated[str, typer.Option("--account", "-a", help="Only for this account; else for all.")] = "",
    why: Annotated[str, typer.Option("--why", help="The reason, recorded with it.")] = "",
    minutes: Annotated[int, typer.Option("--minutes", help="How long it holds; until it is sent, at the latest.")] = 30,
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Set a denial of the preview aside, by your name, with a reason and until a time. Previews again.

    Only judgements of the office can be set aside, not what a venue would refuse: docs/reference/denials.md marks them.

    [bold]Example[/bold]

      unisono plan override P20261121-7KQ3F price_collar --why "thin market, agreed by phone" --minutes 10
    """
    if not why.strip():
        fail("an override says why. Nothing was changed. Repeat it with: --why TEXT")
    body = {"code": code, "account_id": account, "by": who(), "why": why.strip(), "minutes": minutes}
    with _engine(read_config(config)) as control:
        plan = read_plan(control.post(f"/plans/{plan_id}/override", body))
    if as_json:
        print_json(plan)
    else:
        console.print(preview_table(plan))


@app.command()
def complete(plan_id: PlanArgument, config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """Draft a plan for what an ended plan left undone: for each account what its approved share is short of.

    [bold]Example[/bold]

      unisono plan complete P20261121-7KQ3F
    """
    settings = read_config(config)
    plan, children = _load(settings, plan_id)
    try:
        draft = completion(plan, children, who())
    except PlanRefused as refused:
        fail(f"{refused}. Nothing was drafted.", Exit.FINDINGS)
    with _engine(settings) as control:
        made = read_plan(control.post("/plans", msgspec.to_builtins(draft)))
    if as_json:
        print_json(made)
    else:
        console.print(preview_table(made))


@app.command()
def discard(plan_id: PlanArgument, config: ConfigOption = CONFIG_DEFAULT, as_json: JsonOption = False) -> None:
    """Give a plan up before anything of it was sent.

    [bold]Example[/bold]

      unisono plan discard P20261121-7KQ3F
    """
    with _engine(read_config(config)) as control:
        plan = read_plan(control.post(f"/plans/{plan_id}/discard", {"by": who()}))
    if as_json:
        print_json(plan)
    else:
        console.print(f"[green]✓[/green] {plan_id} discarded; nothing of it was sent", highlight=False)


# ---- What the commands share


@contextmanager
def _engine(settings: Config) -> Iterator[Control]:
    """The running engine; what it refuses ends with 1, what could not be asked with 3."""
    try:
        with Control(settings.control.socket) as control:
            yield control
    except NoEngine as error:
        fail(str(error))
    except ControlError as error:
        fail(str(error), Exit.FINDINGS if error.code in ("refused", "rejected") else Exit.ERROR)


def _load(settings: Config, plan_id: str) -> tuple[Plan, list[Child]]:
    with ledger_of(settings) as conn:
        plan = stored.load_plan(conn, plan_id)
        if plan is None:
            fail(f"there is no plan {plan_id}. List them with: unisono plan list --all")
        return plan, list(stored.load_children(conn, [plan_id]))


def _text_of(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {error}. Nothing was drafted.")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{file} cannot be written: {error}")


def _confirmed(settings: Config, plan_id: str, verb: str, yes: bool, otherwise: str) -> None:
    """At a terminal, a person says yes to what is meant; elsewhere `--yes` does."""
    if yes:
        return
    if sys.stdin.isatty():
        plan, _ = _load(settings, plan_id)
        part = [row for row in plan.preview.rows if row.takes_part] if plan.preview is not None else []
        notional = money(sum((row.notional for row in part), Decimal(0)))
        what = "; ".join(leg_sentence(leg) for leg in plan.legs)
        accounts = len({row.account_id for row in part})
        question = f"{verb} {plan_id} ({what}; {accounts} accounts, notional {notional})?"
        if typer.confirm(question, err=True):
            return
    fail(f"{otherwise}. Say yes with: --yes")


def _counts(told: Any) -> str:
    named = ("working", "filled", "refused", "skipped", "unknown")
    return ", ".join(f"{told[name]} {name}" for name in named if told[name]) or "on their way"


def _tell_outcome(plan_id: str, told: Any) -> None:
    mark = {Exit.OK: "[green]✓[/green]", Exit.FINDINGS: "[yellow]![/yellow]", Exit.UNKNOWN: "[red]?[/red]"}
    filled = f"filled {plain(Decimal(told['filled_quantity']))} of {plain(Decimal(told['quantity']))}"
    total, code = told["total"], _exit_of(told)
    console.print(f"{mark[code]} {plan_id}: {total} orders: {_counts(told)}; {filled}", highlight=False)
    if told["first_sent_ms"] is not None:
        console.print(f"  first to last sent in {told['last_sent_ms'] - told['first_sent_ms']} ms", highlight=False)
    if code is not Exit.OK:
        console.print(f"  why, for each account: unisono plan show {plan_id}", highlight=False)


def _exit_of(told: Any) -> Exit:
    if told["unknown"]:
        return Exit.UNKNOWN
    return Exit.FINDINGS if told["refused"] or told["skipped"] else Exit.OK


def _tell_asked(plan_id: str, told: Any, verb: str, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        asked = f"{told['asked']} orders were asked to {verb}"
        console.print(f"{asked}; the venue's answers: unisono plan show {plan_id}", highlight=False)
