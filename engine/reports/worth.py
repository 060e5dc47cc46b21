"""Decides. Rows in, terminal tables out: prices with their age, accounts with their worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from rich import box
from rich.table import Table
from rich.text import Text

from engine.core.marks import Mark
from engine.core.valuation import AccountWorth, Part, Price, Valuation, Worth
from engine.reports.summary import figure, lasting, when


def prices_table(prices: Sequence[Price]) -> Table:
    stale = sum(p.stale for p in prices)
    table = Table(title=f"Prices · {len(prices)}, {stale} stale", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("instrument", "market", "source", "basis"):
        table.add_column(name, no_wrap=True)
    table.add_column("price", justify="right", no_wrap=True)
    table.add_column("as of (UTC)", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for price in prices:
        table.add_row(
            Text(price.instrument),
            Text(price.market, "dim"),
            Text(f"{price.source} {price.environment}", "dim"),
            price.basis,
            figure(price.price),
            when(price.as_of_ms),
            lasting(round(price.age_s * 1000)),
            Text("stale", "bold yellow") if price.stale else "",
        )
    return table


def nav_table(worths: Sequence[AccountWorth], together: Worth) -> Table:
    currency = together.currency
    table = Table(
        title=f"Worth in {currency} · {len(together.counted)} accounts, together {_money(together.total)}",
        caption=_rates(worths),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("account", no_wrap=True)
    table.add_column(f"worth, {currency}", justify="right", no_wrap=True)
    table.add_column("oldest price (UTC)", no_wrap=True)
    table.add_column("the venue says", justify="right", no_wrap=True)
    table.add_column("what is missing or old", ratio=1)
    for worth in worths:
        valuation, stated = worth.valuation, worth.stated
        said = "" if stated is None else f"{_money(stated.total)} {stated.currency}"
        wrong = [f"{name}: {why}" for name, why in (*valuation.missing.items(), *valuation.stale.items())]
        table.add_row(
            Text(valuation.account_id),
            Text(_money(valuation.total), "" if valuation.whole else "dim strike"),
            "" if valuation.as_of_ms is None else when(valuation.as_of_ms),
            Text(said, "dim"),
            Text("; ".join(wrong), "red" if valuation.missing else "yellow"),
        )
    return table


def parts_table(valuation: Valuation) -> Table:
    """What one account's worth is made of, and the price that each part was turned into the base currency with."""
    table = Table(title=f"{valuation.account_id}, in {valuation.currency}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("holding", no_wrap=True)
    table.add_column("quantity", justify="right", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("by", ratio=1)
    for part in valuation.parts:
        table.add_row(Text(part.name), figure(part.quantity), _money(part.value), _by(part))
    return table


def _by(part: Part) -> str:
    marks: list[Mark] = [*((part.mark,) if part.mark else ()), *part.rate.marks]
    if not marks:
        return "counted one to one" if part.rate.factor == 1 else ""
    return ", ".join(map(_told, marks))


def _rates(worths: Iterable[AccountWorth]) -> str | None:
    """What currencies were turned into the base with, each price once."""
    used = {_told(m): None for worth in worths for part in worth.valuation.parts for m in part.rate.marks}
    return f"by {', '.join(used)}" if used else None


def _told(mark: Mark) -> str:
    return f"{mark.instrument} {figure(mark.price)} ({mark.basis} from {mark.source}, {when(mark.as_of_ms)})"


def _money(value: Decimal) -> str:
    """For people; programs read every digit in the JSON."""
    return figure(f"{value:.2f}")
