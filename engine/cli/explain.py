"""Does. `unisono explain …`: where a number of the book comes from, out of the ledger, with or without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.context import CONFIG_DEFAULT, ConfigOption, JsonOption, fail, ledger_of, read_config, registry_of, show
from engine.cli.exits import Exit
from engine.core.explain import Explained, explain_cash, explain_position
from engine.core.instruments import Instrument, InstrumentKind
from engine.ledger import instruments as listings
from engine.ledger.traces import Trace, trace
from engine.reports.explain import explained_tables

app = typer.Typer(
    name="explain",
    help="Where a number comes from: its opening and every fact after it, adding up to it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT")]
SideOption = Annotated[str, typer.Option("--side", help="net, long or short: where a venue keeps both sides.")]


@app.command()
def position(
    account: AccountArgument,
    instrument: Annotated[str, typer.Argument(metavar="INSTRUMENT", help="For example BTC/USDT:USDT or SBER/RUB.")],
    side: SideOption = "net",
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """A position, or papers and coins: its opening and each fill, with average cost, result and fee after it.

    What is owned outright is counted in pieces; fees taken in it, transfers and interest are lines of their own. Each
    line names the venue's id, whose order it was, and how it was heard. Exit 1 where lines are missing.

    Example: unisono explain position okx-007 BTC/USDT:USDT --json
    """
    with _traced(config, account) as (found, listed):
        known = found.shown.instrument(instrument) or listed.get(instrument)
        if known is None:
            fail(f"{account}'s venue lists no {instrument}. List what it does: unisono instruments")
        if known.kind is InstrumentKind.SPOT:
            shown = found.shown.cash.get(known.base, Decimal(0))
        else:
            shown = found.shown.quantities().get((instrument, side), Decimal(0))
        explained = explain_position(found.whole, shown, known, side, found.origin)
    _show(explained, as_json)


@app.command()
def cash(
    account: AccountArgument,
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="For example USDT or RUB.")],
    config: ConfigOption = CONFIG_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Cash of one currency: its opening and everything that moved it, each with its cause.

    Exit 1 where lines are missing.

    Example: unisono explain cash okx-007 USDT
    """
    with _traced(config, account) as (found, _):
        shown = found.shown.cash.get(currency, Decimal(0))
        explained = explain_cash(found.whole, shown, currency, found.origin)
    _show(explained, as_json)


@contextmanager
def _traced(config: Path, account: str) -> Iterator[tuple[Trace, dict[str, Instrument]]]:
    settings = read_config(config)
    with registry_of(settings) as registry:
        known = next((a for a in registry.accounts() if a.account_id == account), None)
    if known is None:
        fail(f"there is no account {account}. List them with: unisono accounts list")
    with ledger_of(settings) as conn:
        listed = {i.name: i for i in listings.load(conn).get((known.venue, known.environment), [])}
        yield trace(conn, account, listed.get), listed


def _show(explained: Explained, as_json: bool) -> None:
    show(explained, as_json, lambda: explained_tables(explained))
    if explained.unexplained:
        raise typer.Exit(int(Exit.FINDINGS))
