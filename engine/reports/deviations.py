"""Decides. For people: who of a group is apart, by how much, and what would bring him back."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from engine.core.deviations import Against, Deviations
from engine.core.limits import plain


def deviations_table(found: Deviations) -> RenderableType:
    apart = [row for row in found.rows if row.apart]
    accounts = len({row.account_id for row in found.rows})
    if not apart:
        return Text(f"{found.group_id}: nobody is apart", style="green")
    by_plans = found.against is Against.PLANS
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    told = "what others traded" if by_plans else f"the group's median weights, {accounts} accounts"
    table.title = Text(f"{found.group_id}: apart by {told}, in {found.currency}", style="bold")
    table.add_column("Account", overflow="fold")
    table.add_column("Instrument", overflow="fold")
    for heading in ("Held", "Weight", "Ought to be", "Order"):
        table.add_column(heading, justify="right")
    table.add_column("Why", overflow="fold")
    for row in apart:
        order = Text("–", style="dim")
        if row.quantity:
            side = "buy" if row.quantity > 0 else "sell"
            order = Text(f"{side} {plain(abs(row.quantity))}", style="green" if row.quantity > 0 else "red")
        unit = "" if by_plans else " %"
        wanted = "–" if row.wanted is None else f"{plain(round(row.wanted, 8 if by_plans else 2))}{unit}"
        moved = ", ".join(f"{who} {plain(n)}" for who, n in row.moved.items())
        why = "" if row.why is None else f"{row.why.value.replace('_', ' ')}: {row.detail}".rstrip(": ")
        table.add_row(
            row.account_id,
            row.instrument,
            plain(row.held),
            "–" if row.weight is None else f"{row.weight:.2f} %",
            wanted,
            order,
            Text("; ".join(filter(None, (moved, why)))),
        )
    return table
