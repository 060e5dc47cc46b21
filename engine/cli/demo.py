"""Does. `unisono demo`: the whole main job on loopback, with simulated venues, in about a minute.

Simulator and engine are processes of their own, as in real life; this one is their operator.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
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
from engine.core.valuation import AccountWorth, Price, Worth
from engine.ledger import gaps, questions, reader, runs
from engine.reports.plans import preview_table, read_plan
from engine.reports.tables import connections_table, gaps_table, orders_table
from engine.reports.terminal import terminal
from engine.reports.worth import nav_table, prices_table
from engine.sim.server import playable
from engine.venues import venues


def _near(path: Path) -> str:
    """A path as a person in this folder would type it."""
    near = os.path.relpath(path)
    return near if not near.startswith("..") else str(path)


_COMMAND = _near(Path(sys.executable).with_name("unisono"))
_CUT_S = 8.0


def demo(
    accounts: Annotated[int, typer.Option(min=6, max=200, help="How many demo accounts, over all brokers.")] = 30,
    seed: Annotated[int, typer.Option(help="The simulator's seed: the same seed gives the same market.")] = 7,
    stay: Annotated[bool, typer.Option("--stay", help="Stay up at the end, until Ctrl-C.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its state; made anew.")] = Path("demo-state"),
) -> None:
    """Show the main job: simulated brokers and feeds, 30 accounts, one plan for all, gaps proven, a reconciliation.

    Everything runs on this machine's loopback. Ends by itself with exit 0; with --stay it stays up to play with.

    [bold]Examples[/bold]

      unisono demo
      unisono demo --stay --accounts 60
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
    count = sum(1 for name in playable() if venues()[name].capabilities.trades)
    with demo_office.simulators(folder, accounts // count, seed) as found:
        brokers = [venue for venue in found.values() if venues()[venue.name].capabilities.trades]
        feeds = [venue for venue in found.values() if venue not in brokers]
        console.print(f"[green]●[/green] simulated: {_told(brokers)} with accounts; {_told(feeds)} with prices")
        config = demo_office.register(folder, {name: venue.doors for name, venue in found.items()})
        held = sum(len(venue.names) for venue in brokers)
        console.print(f"[green]●[/green] {held} accounts registered in a new registry, their keys sealed")
        with demo_office.engine(folder, config) as (control, running):
            console.print(f"[green]●[/green] the engine is up (process {running.pid})")
            _links_come_alive(control, held)
            _prices(control, brokers)
            _plan(control, "Buy for everybody, at every broker", _legs(brokers, "market", "4"))
            _worth(control)
            _gaps(control, brokers, config)
            clean = _reconcile(control, config)
            console.print(
                f"\n[green]●[/green] done in {time.monotonic() - began:.0f} s. Everything that happened is in "
                f"{_near(folder)}; look around with, for example:\n"
                f"    {_COMMAND} --help\n    {_COMMAND} positions --config {_near(config)}"
            )
            if stay:
                _stay(brokers[0], config)
    return clean


def _told(some: Sequence[SimulatedVenue]) -> str:
    return ", ".join(venues()[venue.name].title for venue in some) or "none"


# ---- the acts


def _links_come_alive(control: Control, accounts: int) -> None:
    console.rule("Links come alive")
    console.print("Venues let a few connections a second open; each is read back before it counts as proven.")

    def whole() -> bool:
        return bool(control.get("/status")["proven"] >= accounts)

    _watch(whole, lambda: connections_table(control.get("/connections")), 60.0, "not every account came alive")


def _prices(control: Control, brokers: Sequence[SimulatedVenue]) -> None:
    console.rule("Prices, from brokers and feeds")
    names = {venue.stage.instrument for venue in brokers}
    found: list[Price] = []

    def everywhere() -> bool:
        found[:] = [p for p in msgspec.convert(control.get("/prices"), list[Price], strict=False) if _shown(p, names)]
        return names <= {p.instrument for p in found}

    _watch(everywhere, lambda: prices_table(found), 30.0, "an instrument has no price")


def _shown(price: Price, names: Collection[str]) -> bool:
    return price.instrument in names or not venues()[price.source].capabilities.trades


def _legs(brokers: Sequence[SimulatedVenue], order_type: str, each: str, discount: Decimal | None = None) -> list[Any]:
    """One leg for each instrument, for the accounts of the brokers that show it."""
    legs = []
    for instrument in dict.fromkeys(venue.stage.instrument for venue in brokers):
        sharing = [venue for venue in brokers if venue.stage.instrument == instrument]
        count = sum(len(venue.names) for venue in sharing)
        price = None if discount is None else sharing[0].price * discount
        legs.append(
            {
                "instrument": instrument,
                "groups": [venue.name for venue in sharing],
                "method": "equal",
                "side": "buy",
                "quantity": str(Decimal(each) * count),
                "order_type": order_type,
                "price": None if price is None else str(price.quantize(Decimal(1))),
            }
        )
    return legs


def _plan(control: Control, title: str, legs: Sequence[Any]) -> str:
    console.rule(title)
    plan = _asked(control, "/plans", {"title": title, "legs": list(legs), "by": "planner"})
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
        f"filled {filled:f} of {wanted:f} contracts and lots, {last['unknown']} unknown"
    )
    if last["acknowledged"] != last["total"]:
        fail(f"not every order of plan {plan_id} was acknowledged; look with: unisono plan show {plan_id}")
    return plan_id


def _worth(control: Control) -> None:
    console.rule("What everybody is worth, in roubles")
    told = control.get("/nav?currency=RUB")
    worths = msgspec.convert(told["accounts"], list[AccountWorth], strict=False)
    console.print(nav_table(worths, msgspec.convert(told["together"], Worth, strict=False)))


def _gaps(control: Control, brokers: Sequence[SimulatedVenue], config: Path) -> None:
    _plan(control, "Resting orders", _legs(brokers, "limit", "1", discount=Decimal("0.99")))
    console.rule("Accounts at every broker lose their network")
    cut: list[str] = []
    for venue in brokers:
        lost = venue.names[: 5 if venue is brokers[0] else 2]
        venue.post("/faults", {"kind": "cut", "accounts": lost, "seconds": _CUT_S})
        cut += lost
    for venue in brokers:
        low = (venue.price * Decimal("0.98")).quantize(Decimal(1))
        venue.post("/market", {"instrument": venue.stage.instrument, "price": str(low)})
    elsewhere = {
        "account": cut[0], "instrument": brokers[0].stage.instrument, "side": "buy", "type": "market", "quantity": "2",
    }  # fmt: skip
    brokers[0].post("/orders", elsewhere)
    console.print(
        f"{', '.join(cut)} are cut off. Meanwhile the price falls through every resting order, and the owner of "
        f"{cut[0]} buys a little in the venue's own page."
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
        found = [o for o in questions.orders(conn, cut[0]) if o.external]
    console.print(f"What {cut[0]} did elsewhere was read back as well, and is marked as not ours:")
    console.print(orders_table(found))
    if not found:
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
