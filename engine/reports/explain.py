"""Decides. An explained number for people: its lines with how each came to us, and what they add up to."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.core.explain import Explained, Line
from engine.core.foreign import acted
from engine.reports.summary import figure, when


def explained_tables(explained: Explained) -> RenderableType:
    is_position = bool(explained.position_side)
    table = Table(
        title=Text(f"{explained.account_id} · {explained.name}: {figure(explained.shown)} {explained.unit}"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("when (UTC)", no_wrap=True)
    table.add_column("what", no_wrap=True)
    for name in ("change", "after", "price", *(("average", "realised", "fee") if is_position else ())):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("whose", overflow="fold")
    table.add_column("heard", overflow="fold")
    table.add_column("id", overflow="fold")
    for line in explained.lines:
        more = tuple[str, ...]()
        if is_position:
            fee = "" if line.fee is None else f"{figure(line.fee)} {line.fee_currency}"
            realised = "not known" if line.unpriced else "" if line.realised is None else figure(line.realised)
            average = "not known" if line.avg_after is None and line.after else ""
            more = (average if line.avg_after is None else figure(line.avg_after), realised, fee)
        table.add_row(
            "" if line.at_ms is None else when(line.at_ms),
            line.what if is_position or not line.instrument else Text(f"{line.what} {line.instrument}"),
            figure(line.change),
            figure(line.after),
            "" if line.price is None else figure(line.price),
            *more,
            _whose(line),
            Text(" ".join(filter(None, (line.origin.source, line.origin.connection_key))), "dim"),
            Text(line.id, "dim"),
        )
    return Group(table, *_sums(explained))


def _whose(line: Line) -> Text:
    if line.origin.plan_id:
        return Text(line.origin.plan_id)
    if line.origin.external:
        return Text(f"EXTERNAL {line.venue_action}".rstrip(), "bold magenta" if acted(line.venue_action) else "magenta")
    return Text("")


def _sums(explained: Explained) -> list[Text]:
    found = []
    if explained.realised is not None:
        unpriced = f"; {figure(explained.unpriced)} was closed at a gain not known" if explained.unpriced else ""
        found.append(Text(f"realised since the opening {figure(explained.realised)} {explained.realised_in}{unpriced}"))
    for charge in explained.charges:
        found.append(Text(f"{charge.kind} {figure(charge.amount)} {charge.currency}"))
    if explained.unexplained:
        what = f"✗ {figure(explained.unexplained)} {explained.unit} are explained by no fact: unisono reconcile run"
        found.append(Text(what, "bold red"))
    else:
        found.append(Text(f"✓ {len(explained.lines)} lines add up to {figure(explained.shown)}", "green"))
    return found
