"""Decides. Rows in, terminal tables out: instruments with their units, and what changed of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich import box
from rich.table import Table
from rich.text import Text

from engine.core.instruments import Instrument
from engine.reports.summary import figure, when


class Changed(Protocol):
    @property
    def venue(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def told(self) -> str: ...


def listings_table(found: Sequence[tuple[str, Instrument]], limit: int) -> Table:
    """Environment and instrument; `one unit is` says what an order of quantity 1 buys."""
    table = Table(title=f"Instruments · {len(found)}", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("instrument", "venue", "market", "kind"):
        table.add_column(name, no_wrap=True)
    for name in ("one unit is", "step", "least", "price tick"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for environment, one in found[:limit]:
        table.add_row(
            Text(one.name),
            Text(f"{one.venue} {environment}", "dim"),
            Text(one.market, "dim"),
            one.kind.value,
            f"1 {one.unit} = {figure(one.multiplier)} {one.quote if one.inverse else one.base}",
            figure(one.quantity_step),
            figure(one.min_quantity),
            figure(one.price_tick),
            Text(one.status, "" if one.tradable else "yellow"),
        )
    if len(found) > limit:
        table.caption = f"{len(found) - limit} more; --limit shows them"
    return table


def changes_table(changes: Sequence[Changed]) -> Table:
    table = Table(title=f"Changes of instruments · {len(changes)}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("at (UTC)", no_wrap=True)
    table.add_column("instrument", no_wrap=True)
    table.add_column("venue", no_wrap=True)
    table.add_column("what", ratio=1)
    for change in changes:
        table.add_row(
            when(change.at_ms),
            Text(change.name),
            Text(f"{change.venue} {change.environment}", "dim"),
            Text(change.told),
        )
    return table
