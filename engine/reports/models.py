"""Decides. A rebalance for people: the drift of all accounts together, and of each line that is off."""

from __future__ import annotations

from decimal import Decimal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.core.limits import plain
from engine.core.models import Rebalance, Why


def rebalance_tables(found: Rebalance) -> RenderableType:
    """All accounts together, line by line; then who is off, and what is done about it or why not."""
    parts: list[RenderableType] = [_together(found)]
    off = [drift for drift in found.drifts if drift.quantity or drift.why not in (None, Why.WITHIN_BAND)]
    if not off:
        parts.append(Text("every line of every account is within its band", style="green"))
        return Group(*parts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Account", overflow="fold")
    table.add_column("Instrument", overflow="fold")
    for heading in ("Weight", "Target", "Order", "After"):
        table.add_column(heading, justify="right")
    table.add_column("Why")
    for drift in off:
        order = Text("–", style="dim")
        if drift.quantity:
            side = "buy" if drift.quantity > 0 else "sell"
            order = Text(f"{side} {plain(abs(drift.quantity))}", style="green" if drift.quantity > 0 else "red")
        word = "" if drift.why is None else drift.why.value.replace("_", " ")
        why = ": ".join(filter(None, (word, drift.detail)))
        target = f"{plain(drift.target)} ± {plain(drift.band)}"
        table.add_row(
            drift.account_id, drift.instrument, _part(drift.weight), target, order, _part(drift.weight_after), Text(why)
        )
    return Group(*parts, table)


def _together(found: Rebalance) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    accounts = len({drift.account_id for drift in found.drifts})
    table.title = Text(f"{found.model.name}: {accounts} accounts together, in {found.currency}", style="bold")
    table.add_column("Instrument", overflow="fold")
    for heading in ("Weight", "Target", "After", "Orders"):
        table.add_column(heading, justify="right")
    for line in found.together:
        orders = str(line.orders) if line.orders else "–"
        table.add_row(line.instrument, _part(line.weight), _part(line.target), _part(line.weight_after), orders)
    return table


def _part(weight: Decimal | None) -> str:
    return "–" if weight is None else f"{weight:.2f} %"
