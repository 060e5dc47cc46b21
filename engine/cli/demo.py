"""Does. `unisono demo`: the whole main job on loopback, with a simulated venue, in about a minute.

Simulator and engine are processes of their own, as in real life; this one is their operator.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from engine.cli import demo_office
from engine.cli.context import console, fail, read_config
from engine.cli.demo_office import SimulatedVenue
from engine.cli.exits import Exit
from engine.cli.reconcile import write_report
from engine.control.client import Control, ControlError, NoEngine
from engine.core.runs import Verdict
from engine.ledger import gaps, questions, reader, runs
from engine.reports.plans import preview_table, read_plan
from engine.reports.tables import connections_table, gaps_table, orders_table
from engine.reports.terminal import terminal


def _near(path: Path) -> str:
    """A path as a person in this folder would type it."""
    near = os.path.relpath(path)
    return near if not near.startswith("..") else str(path)


_COMMAND = _near(Path(sys.executable).with_name("unisono"))
_INSTRUMENT = "BTC/USDT:USDT"
_SYMBOL = "BTC-USDT-SWAP"
_CUT_S = 8.0


def demo(
    accounts: Annotated[int, typer.Option(min=6, max=200, help="How many demo accounts.")] = 20,
    seed: Annotated[int, typer.Option(help="The simulator's seed: the same seed gives the same market.")] = 7,
    stay: Annotated[bool, typer.Option("--stay", help="Stay up at the end, until Ctrl-C.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its state; made anew.")] = Path("demo-state"),
) -> None:
    """Show the main job: a simulated OKX, 20 accounts, one plan over all of them, gaps proven, a reconciliation.

    Everything runs on this machine's loopback. Ends by itself with exit 0; with --stay it stays up to play with.

    [bold]Examples[/bold]

      unisono demo
      unisono demo --stay --accounts 40
    """
    began = time.monotonic()
    folder = folder.absolute()
    try:
        clean = _show(folder, accounts, seed, stay, began)
    except (FileExistsError, demo_office.NotStarted) as error:
        fail(str(error))
    raise typer.Exit(int(Exit.OK if clean else Exit.FINDINGS))


def _show(folder: Path, accounts: int, seed: int, stay: bool, began: float) -> bool:
    demo_office.fresh_folder(folder)
    with demo_office.simulator(folder, accounts, seed, venue="okx") as venue:
        console.print(f"[green]●[/green] a simulated OKX is up at {venue.doors['rest']}")
        config = demo_office.register(folder, {venue.name: venue.doors})
        console.print(f"[green]●[/green] {accounts} accounts registered in a new registry, their keys sealed")
        with demo_office.engine(folder, config) as (control, running):
            console.print(f"[green]●[/green] the engine is up (process {running.pid})")
            _links_come_alive(control, accounts)
            _plan(control, "Buy for everybody", method="equal", quantity=Decimal(4 * accounts), order_type="market")
            _gaps(control, venue, config, accounts)
            clean = _reconcile(control, config)
            console.print(
                f"\n[green]●[/green] done in {time.monotonic() - began:.0f} s. Everything that happened is in "
                f"{_near(folder)}; look around with, for example:\n"
                f"    {_COMMAND} --help\n    {_COMMAND} positions --config {_near(config)}"
            )
            if stay:
                _stay(venue, config)
    return clean


# ---- the acts


def _links_come_alive(control: Control, accounts: int) -> None:
    console.rule("Links come alive")
    console.print("The venue lets three connections a second open, so twenty accounts take about seven seconds.")

    def whole() -> bool:
        return bool(control.get("/status")["proven"] >= accounts)

    _watch(whole, lambda: connections_table(control.get("/connections")), 60.0, "not every account came alive")


def _plan(
    control: Control, title: str, *, method: str, quantity: Decimal, order_type: str, price: Decimal | None = None
) -> str:
    console.rule(title)
    leg = {
        "instrument": _INSTRUMENT,
        "method": method,
        "side": "buy",
        "quantity": str(quantity),
        "order_type": order_type,
        "price": None if price is None else str(price),
    }
    plan = _asked(control, "/plans", {"title": title, "groups": ["everybody"], "legs": [leg], "by": "planner"})
    plan_id = str(plan["plan_id"])
    plan = _asked(control, f"/plans/{plan_id}/preview", {})
    console.print(preview_table(read_plan(plan)))
    _asked(control, f"/plans/{plan_id}/approve", {"by": "approver"})
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    began = time.monotonic()
    _asked(control, f"/plans/{plan_id}/execute", {"by": "approver"})
    with bar:
        task = bar.add_task("acknowledged", total=None)
        last: dict[str, Any] = {}
        for last in control.stream(f"/plans/{plan_id}/progress"):
            bar.update(task, completed=last["acknowledged"], total=last["total"])
    filled, wanted = (Decimal(last[name]).normalize() for name in ("filled_quantity", "quantity"))
    console.print(
        f"{last['acknowledged']} of {last['total']} orders acknowledged in {(time.monotonic() - began) * 1000:.0f} ms; "
        f"filled {filled:f} of {wanted:f} contracts, {last['unknown']} unknown"
    )
    if last["acknowledged"] != last["total"]:
        fail(f"not every order of plan {plan_id} was acknowledged; look with: unisono plan show {plan_id}")
    return plan_id


def _gaps(control: Control, venue: SimulatedVenue, config: Path, accounts: int) -> None:
    price = Decimal(str(venue.post("/market", {})[_SYMBOL]))
    resting = (price * Decimal("0.99")).quantize(Decimal(1))
    _plan(control, "Resting orders", method="equal", quantity=Decimal(accounts), order_type="limit", price=resting)
    console.rule("Five accounts lose their network")
    cut = venue.names[:5]
    venue.post("/faults", {"kind": "cut", "accounts": cut, "seconds": _CUT_S})
    venue.post("/market", {"instrument": _SYMBOL, "price": str((price * Decimal("0.98")).quantize(Decimal(1)))})
    venue.post(
        "/orders",
        {"account": cut[0], "instrument": _SYMBOL, "side": "buy", "type": "market", "quantity": "2"},
    )
    console.print(
        f"{', '.join(cut)} are cut off. Meanwhile the price falls through every resting order, and the owner of "
        f"{cut[0]} buys two contracts in the venue's own page."
    )
    url = read_config(config).database.url
    began_ms = time.time_ns() // 1_000_000 - 1000
    seen: list[gaps.Gap] = []

    def proven() -> bool:
        with reader(url) as conn:
            seen[:] = [g for g in gaps.find(conn) if g.account_id in cut and g.opened_at_ms >= began_ms]
        return len({g.account_id for g in seen if g.state is gaps.GapState.PROVEN}) == len(cut)

    _watch(proven, lambda: gaps_table(seen), 60.0, "the gaps were not proven")
    with reader(url) as conn:
        elsewhere = [o for o in questions.orders(conn, cut[0]) if o.external]
    console.print(f"What {cut[0]} did elsewhere was read back as well, and is marked as not ours:")
    console.print(orders_table(elsewhere))
    if not elsewhere:
        fail(f"the order that {cut[0]} placed elsewhere was not found", Exit.FINDINGS)


def _reconcile(control: Control, config: Path) -> bool:
    console.rule("Reconciliation: the venue against our ledger")
    last: dict[str, Any] = {}
    with Progress(TextColumn("accounts compared"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
        task = bar.add_task("", total=None)
        for last in control.stream("/reconcile", {"accounts": [], "kind": "adhoc"}):
            if "done" in last:
                bar.update(task, completed=last["done"], total=last["total"])
    with reader(read_config(config).database.url) as conn:
        run = runs.load(conn, str(last["run_id"]))
    assert run is not None, "a run is kept before it is told"
    console.print(terminal(run))
    report = write_report(run, Path(read_config(config).reports.folder))
    console.print(Panel(_near(report), title="the HTML report", expand=False))
    return run.verdict is Verdict.CLEAN


def _stay(venue: SimulatedVenue, config: Path) -> None:
    table = Table(title="Still up; end it with Ctrl-C", show_header=False)
    at = f"--config {_near(config)}"
    table.add_row("links", f"{_COMMAND} connections {at}")
    table.add_row("what is held", f"{_COMMAND} positions {at}")
    table.add_row("a health check", f"{_COMMAND} doctor {at}")
    table.add_row(
        "cut an account", f'curl -XPOST {venue.doors["control"]}/faults -d \'{{"kind": "cut", "seconds": 10}}\''
    )
    console.print(table)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("ending")


# ---- small tools


def _watch(done: Callable[[], bool], render: Callable[[], Any], limit_s: float, complaint: str) -> None:
    """A live table until `done`, or exit 1 with `complaint`."""
    deadline = time.monotonic() + limit_s
    finished = done()
    with Live(render(), console=console, refresh_per_second=8, transient=False) as live:
        while not finished and time.monotonic() < deadline:
            time.sleep(0.15)
            finished = done()
            live.update(render())
    if not finished:
        fail(complaint, Exit.FINDINGS)


def _asked(control: Control, path: str, body: Any) -> Any:
    try:
        return control.post(path, body)
    except (ControlError, NoEngine) as error:
        fail(str(error))
